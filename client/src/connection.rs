//! The life of one connection: connect, wait for the others, exchange messages, end in order.
//!
//! Application on L4. Rests on connect(2), send(2), recv(2), shutdown(2), tcp(7). Written as if
//! each call blocked, and so right for any thread that a connection has for itself (`style`). What
//! is here runs once for every batch of messages, so it allocates nothing and reads the clock once:
//! the replies' arrival is the next messages' departure.
//!
//! Deliberately not here: what is sent and compared (`flight`), and time-outs of replies. A timer
//! for each read would be set and cancelled a hundred thousand times a second for nothing; instead
//! the supervisor (`load`) looks for connections that wait too long, and shuts them down, which
//! ends their read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Phase};
use crate::flight::{Flight, ROOM_BYTES, Suspect};
use crate::load::Load;
use crate::message::{Letters, Message};
use crate::net::Shutdown;
use crate::pacing::{Due, Pacer, wait_ns};
use crate::recorder::Departure;
use crate::sender::Sender;
use crate::slot::Slot;
use crate::thread;
use crate::wire::Wire;

/// More is not read at once: beyond this the memory of many connections matters more than the
/// calls.
const READ_BYTES_MAX: usize = 64 * 1024;
/// More may not fit the socket buffers of both sides, and is sent by a thread of its own.
pub(crate) const SEND_ALONE_BYTES_MAX: usize = 16 * 1024;
/// How long the rest of a wrong reply is waited for, only to describe better what is wrong.
const GRACE: Duration = Duration::from_millis(100);

/// Runs connection `number` from beginning to end and enters everything in the books of `load`.
pub(crate) fn run<W: Wire>(load: &Load, number: u32) {
    let slot = &load.slots[number as usize];
    let mut presence = load.presence();
    let turn_ns = load.turn_ns(number);
    if turn_ns > 0 {
        thread::sleep(Duration::from_nanos(
            turn_ns.saturating_sub(load.clock.now_ns()),
        ));
    }
    let connected = connect::<W>(load, number);
    match &connected {
        Ok(stream) => slot.connected(stream.clone()),
        Err(failure) => load.fail(slot, failure.clone()),
    }
    presence.arrive();
    let Ok(stream) = connected else { return };
    let begun_ns = load.wait_for_start();
    let mut exchange = Exchange::new(load, slot, stream, number, begun_ns);
    let exchanged = exchange.run();
    presence.finish_exchange();
    match exchanged.and_then(|()| exchange.close()) {
        Ok(()) => slot.close(),
        Err(failure) => load.fail(slot, failure),
    }
}

/// Tries the addresses in turn, as std does, but each with the time-out.
pub(crate) fn connect<W: Wire>(load: &Load, number: u32) -> Result<Arc<W>, Failure> {
    let start_ns = load.clock.now_ns();
    let mut last = None;
    for address in load.addresses() {
        match W::connect(address, load.settings.connect_timeout) {
            Ok(stream) => {
                load.record_connect(load.clock.now_ns() - start_ns);
                log::debug!("connection {number}: connected to {address}");
                return Ok(Arc::new(stream));
            }
            Err(error) => last = Some((address, error)),
        }
    }
    let (address, error) = last.expect("a name that resolves has an address");
    let detail = format!("connection {number} to {address}");
    Err(Failure::system(Phase::Connect, &error, detail))
}

/// What a connection waits for when it has sent what it may.
enum Wait {
    /// For a reply.
    Reply,
    /// For a reply until this instant, when the next message is due.
    Until(u64),
    /// For nothing: all was sent and answered.
    Over,
}

/// The exchanging of messages on one connection.
struct Exchange<'a, W> {
    load: &'a Load,
    slot: &'a Slot,
    stream: Arc<W>,
    number: u32,
    flight: Flight<'a>,
    pacer: Pacer<'a>,
    incoming: Vec<u8>,
    /// Who sends, if that is not done between two reads.
    sender: Option<Sender>,
}

impl<'a, W: Wire> Exchange<'a, W> {
    fn new(
        load: &'a Load,
        slot: &'a Slot,
        stream: Arc<W>,
        number: u32,
        begun_ns: u64,
    ) -> Exchange<'a, W> {
        let flight = Flight::new(load, number);
        let incoming = vec![0; (flight.bytes_max() + ROOM_BYTES).min(READ_BYTES_MAX)];
        Exchange {
            load,
            slot,
            stream,
            number,
            flight,
            pacer: Pacer::new(load, number, begun_ns),
            incoming,
            sender: None,
        }
    }

    /// Sends and receives until all is sent and answered.
    fn run(&mut self) -> Result<(), Failure> {
        if self.flight.bytes_max() <= SEND_ALONE_BYTES_MAX {
            return self.exchange();
        }
        let size_bytes = self.load.settings.size_bytes as usize;
        let wording = self.load.settings.style.style.wording();
        let message = Message::worded(self.number, size_bytes, Letters::Lower, wording);
        let sender = Sender::start(Arc::clone(&self.stream), message);
        let sender = sender.map_err(|error| self.flight.system_failure(Phase::Send, &error))?;
        self.sender = Some(sender);
        let received = self.exchange();
        if received.is_err() {
            // The sender would wait for room that nobody makes.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        let sent = self.sender.take().map_or(Ok(()), Sender::end);
        match (received, sent) {
            (received, Ok(())) => received,
            (Err(failure), Err(_)) if failure.phase == Phase::Verify => Err(failure),
            // What has not been sent cannot have been answered: the reader's end is only a
            // consequence.
            (_, Err(error)) => Err(self.flight.system_failure(Phase::Send, &error)),
        }
    }

    fn exchange(&mut self) -> Result<(), Failure> {
        let mut now_ns = self.load.clock.now_ns();
        loop {
            let wait = self.launch(now_ns);
            self.send()?;
            match wait {
                Wait::Over => return Ok(()),
                Wait::Until(due_ns) if !self.wait_readable(due_ns)? => {
                    now_ns = self.load.clock.now_ns();
                }
                Wait::Reply | Wait::Until(_) => now_ns = self.receive()?,
            }
        }
    }

    /// Makes all messages that may go now.
    #[inline]
    fn launch(&mut self, now_ns: u64) -> Wait {
        while self.flight.has_room() {
            match self.pacer.due(self.flight.sent(), now_ns) {
                Due::Never if self.flight.is_empty() => return Wait::Over,
                Due::Never => break,
                Due::At(due_ns) if due_ns > now_ns => return Wait::Until(due_ns),
                Due::At(due_ns) => self.flight.launch(Departure {
                    intended_ns: self.pacer.launch(due_ns, now_ns),
                    sent_ns: now_ns,
                }),
            }
        }
        Wait::Reply
    }

    #[inline]
    fn send(&mut self) -> Result<(), Failure> {
        match &self.sender {
            Some(sender) => sender.grant(self.flight.sent()),
            None if self.flight.batch().is_empty() => {}
            None => {
                let sent = self.stream.write_all(self.flight.batch());
                sent.map_err(|error| self.flight.system_failure(Phase::Send, &error))?;
            }
        }
        self.flight.end_batch();
        Ok(())
    }

    /// Whether something comes before `until_ns`, or before it is time to look again.
    fn wait_readable(&self, until_ns: u64) -> Result<bool, Failure> {
        let left_ns = wait_ns(until_ns.saturating_sub(self.load.clock.now_ns()));
        runtime::io::wait_readable(&*self.stream, Some(Duration::from_nanos(left_ns)))
            .map_err(|error| self.flight.system_failure(Phase::Receive, &error))
    }

    /// Takes what is there, or comes next; when that was.
    #[inline]
    fn receive(&mut self) -> Result<u64, Failure> {
        let count = loop {
            match self.stream.read(&mut self.incoming) {
                Ok(0) => return Err(self.flight.early_end()),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(self.flight.system_failure(Phase::Receive, &error));
                }
            }
        };
        let now_ns = self.load.clock.now_ns();
        let replies = self.flight.receive(&self.incoming[..count], now_ns);
        let replies = replies.map_err(|suspect| self.describe(suspect))?;
        self.pacer.replied(replies, now_ns);
        Ok(now_ns)
    }

    /// Tells the server that no more will come and reads to the end: nothing may follow the last
    /// reply.
    fn close(&mut self) -> Result<(), Failure> {
        self.slot.wait_since(self.load.clock.now_ns());
        let ended = self.stream.shutdown(Shutdown::Write);
        ended.map_err(|error| self.flight.system_failure(Phase::Close, &error))?;
        loop {
            match self.stream.read(&mut self.incoming) {
                Ok(0) if self.slot.timed_out() => {
                    return Err(self.flight.timed_out(Phase::Close));
                }
                Ok(0) => return Ok(()),
                Ok(count) => {
                    let now_ns = self.load.clock.now_ns();
                    if let Err(suspect) = self.flight.receive(&self.incoming[..count], now_ns) {
                        return Err(self.describe(suspect));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.flight.system_failure(Phase::Close, &error)),
            }
        }
    }

    /// What is wrong, told better when the rest has come or no more comes for a while.
    #[cold]
    fn describe(&self, mut suspect: Suspect) -> Failure {
        let end = Instant::now() + GRACE;
        let mut piece = [0; 4096];
        while suspect.wants_more() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(left).is_err() {
                break;
            }
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => suspect.received.extend_from_slice(&piece[..count]),
            }
        }
        self.flight.describe(&suspect)
    }
}
