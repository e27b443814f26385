//! All connections on one OS thread, in one loop around select(2): the textbook's other client.
//!
//! Application, above L4, on the runtime's `Selector` and nothing else of it. Rests on select(2),
//! FD_SETSIZE: no descriptor may be greater than that has room for. Each message goes out in three
//! parts, a call for each, and the answers are collected and compared as a whole. A socket that
//! takes no more is asked for room only while something waits to be sent.
//!
//! Right when there are few connections and no other poller. Wrong for many: each call of select
//! hands over all descriptors and looks through all of them, however few are ready. What green
//! threads write as a loop with calls that seem to block is here a state for each connection and a
//! function for each event.
//!
//! Deliberately not here: what is sent and compared (`flight`), and when (`pacing`).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use runtime::poller::{Interest, Kind};
use runtime::selector::{Key, Ready, Selector};

use super::{Join, threads};
use crate::connection;
use crate::failure::{Failure, Phase};
use crate::flight::{Flight, Suspect};
use crate::gate::Presence;
use crate::load::Load;
use crate::net::Shutdown;
use crate::pacing::{Due, Pacer, wait_ns};
use crate::recorder::Departure;
use crate::slot::Slot;

/// As much is read at once, of whichever connection.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Stands for "no message is waiting for its time".
const NEVER_NS: u64 = u64::MAX;

/// Starts the loop on an OS thread of its own: the supervisor has another one.
pub(crate) fn start(load: &Arc<Load>) -> Join {
    let theirs = Arc::clone(load);
    let spawned = Builder::new().name("select".to_owned()).spawn(move || {
        if theirs.resolve() {
            run(&theirs);
        }
    });
    match spawned {
        Ok(handle) => Box::new(move || handle.join()),
        Err(error) => {
            load.fail_all(threads::no_thread(&error, "the loop"));
            Box::new(|| Ok(()))
        }
    }
}

fn run(load: &Load) {
    let selector = match Selector::with_kind(Kind::Select) {
        Ok(selector) => selector,
        Err(error) => {
            return load.fail_all(Failure::system(Phase::Prepare, &error, "the selector"));
        }
    };
    let mut driver = Driver {
        load,
        selector,
        connections: Vec::new(),
        open: 0,
        incoming: vec![0; READ_BYTES_MAX],
    };
    let streams = connect_all(load);
    let begun_ns = load.wait_for_start();
    for (number, stream, presence) in streams {
        driver.add(number, stream, presence, begun_ns);
    }
    driver.run();
}

/// The connections come up one after the other: a client that does not block there, either, has
/// one more state for each.
fn connect_all(load: &Load) -> Vec<(u32, Arc<TcpStream>, Presence<'_>)> {
    let mut streams = Vec::new();
    for number in 0..load.slots.len() as u32 {
        let slot = &load.slots[number as usize];
        let mut presence = load.presence();
        let turn_ns = load.turn_ns(number).saturating_sub(load.clock.now_ns());
        std::thread::sleep(Duration::from_nanos(turn_ns));
        match connection::connect::<TcpStream>(load, number) {
            Ok(stream) => {
                slot.connected(stream.clone());
                presence.arrive();
                streams.push((number, stream, presence));
            }
            Err(failure) => load.fail(slot, failure),
        }
    }
    streams
}

/// The loop and what it watches.
struct Driver<'a> {
    load: &'a Load,
    /// Each registration knows its connection's place.
    selector: Selector<usize>,
    connections: Vec<Option<Connection<'a>>>,
    open: usize,
    incoming: Vec<u8>,
}

impl<'a> Driver<'a> {
    /// Takes charge of a connection that is up.
    fn add(
        &mut self,
        number: u32,
        stream: Arc<TcpStream>,
        mut presence: Presence<'a>,
        begun_ns: u64,
    ) {
        let slot = &self.load.slots[number as usize];
        let flight = Flight::new(self.load, number);
        let place = self.connections.len();
        let registered = stream
            .set_nonblocking(true)
            .and_then(|()| self.selector.register(&*stream, Interest::READABLE, place));
        match registered {
            Ok(key) => {
                let pacer = Pacer::new(self.load, number, begun_ns);
                let output = Output::default();
                self.connections.push(Some(Connection {
                    slot,
                    stream,
                    key,
                    presence,
                    flight,
                    pacer,
                    output,
                    interest: Interest::READABLE,
                    wake_ns: NEVER_NS,
                    is_closing: false,
                }));
                self.open += 1;
            }
            Err(error) => {
                presence.finish_exchange();
                self.load
                    .fail(slot, flight.system_failure(Phase::Send, &error));
            }
        }
    }

    fn run(&mut self) {
        for place in 0..self.connections.len() {
            self.step(place, Connection::advance_now);
        }
        let mut ready = Ready::new();
        while self.open > 0 {
            let timeout = self.timeout();
            if let Err(error) = self.selector.select(&mut ready, timeout) {
                return self.fail_all(&error);
            }
            for position in 0..ready.len() {
                let (key, readiness) = ready.at(position);
                let Some(place) = self.selector.data(key).copied() else {
                    continue;
                };
                if readiness.is_readable() {
                    self.step(place, Connection::receive);
                }
                if readiness.is_writable() {
                    self.step(place, |connection, _, _| connection.flush());
                }
            }
            self.wake_due();
        }
    }

    /// Until the next message is due on any connection, or it is time to look again.
    fn timeout(&self) -> Option<Duration> {
        let open = self.connections.iter().flatten();
        let next_ns = open.map(|connection| connection.wake_ns).min()?;
        let left_ns = next_ns.saturating_sub(self.load.clock.now_ns());
        (next_ns != NEVER_NS).then_some(Duration::from_nanos(wait_ns(left_ns)))
    }

    fn wake_due(&mut self) {
        let now_ns = self.load.clock.now_ns();
        for place in 0..self.connections.len() {
            let connection = self.connections[place].as_ref();
            if connection.is_some_and(|connection| connection.wake_ns <= now_ns) {
                self.step(place, Connection::advance_now);
            }
        }
    }

    /// Lets one connection do something, and sees to what it wants next.
    fn step(
        &mut self,
        place: usize,
        action: impl FnOnce(&mut Connection<'a>, &'a Load, &mut [u8]) -> Result<After, Failure>,
    ) {
        // An earlier event of the same round may have ended it.
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let after = action(connection, self.load, &mut self.incoming).and_then(|after| {
            let interest = connection.output.interest();
            if after == After::Open && interest != connection.interest {
                let set = self.selector.set_interest(connection.key, interest);
                set.map_err(|error| connection.flight.system_failure(Phase::Send, &error))?;
                connection.interest = interest;
            }
            Ok(after)
        });
        match after {
            Ok(After::Open) => {}
            Ok(After::Ended) => self.remove(place, None),
            Err(failure) => self.remove(place, Some(failure)),
        }
    }

    fn remove(&mut self, place: usize, failure: Option<Failure>) {
        let Some(mut connection) = self.connections[place].take() else {
            return;
        };
        self.open -= 1;
        if let Err(error) = self.selector.unregister_key(connection.key) {
            log::debug!("a socket cannot be unregistered: {error}");
        }
        connection.presence.finish_exchange();
        match failure {
            None => connection.slot.close(),
            Some(failure) => self.load.fail(connection.slot, failure),
        }
    }

    fn fail_all(&mut self, error: &io::Error) {
        for place in 0..self.connections.len() {
            let connection = self.connections[place].as_ref();
            let failure = connection
                .map(|connection| connection.flight.system_failure(Phase::Receive, error));
            self.remove(place, failure);
        }
    }
}

/// What has become of a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum After {
    Open,
    /// In order.
    Ended,
}

/// What the loop keeps for each connection: what is a position in the code elsewhere.
struct Connection<'a> {
    slot: &'a Slot,
    stream: Arc<TcpStream>,
    key: Key,
    presence: Presence<'a>,
    flight: Flight<'a>,
    pacer: Pacer<'a>,
    output: Output,
    interest: Interest,
    /// When the next message is due.
    wake_ns: u64,
    /// All was answered: the end of the stream must come, and nothing before it.
    is_closing: bool,
}

impl<'a> Connection<'a> {
    fn advance_now(&mut self, load: &'a Load, _: &mut [u8]) -> Result<After, Failure> {
        self.advance(load.clock.now_ns())
    }

    /// Sends all messages that may go now.
    fn advance(&mut self, now_ns: u64) -> Result<After, Failure> {
        self.wake_ns = NEVER_NS;
        while self.flight.has_room() {
            match self.pacer.due(self.flight.sent(), now_ns) {
                Due::Never if self.flight.is_empty() => return self.half_close(now_ns),
                Due::Never => break,
                Due::At(due_ns) if due_ns > now_ns => {
                    self.wake_ns = due_ns;
                    break;
                }
                Due::At(due_ns) => {
                    self.flight.launch(Departure {
                        intended_ns: self.pacer.launch(due_ns, now_ns),
                        sent_ns: now_ns,
                    });
                    self.output
                        .put(self.flight.batch(), self.flight.part_ends());
                    self.flight.end_batch();
                }
            }
        }
        self.flush()
    }

    /// Sends part by part until all are gone or the socket takes no more.
    fn flush(&mut self) -> Result<After, Failure> {
        let flushed = self.output.flush(&*self.stream);
        flushed.map_err(|error| self.flight.system_failure(Phase::Send, &error))?;
        Ok(After::Open)
    }

    /// Tells the server that no more will come.
    fn half_close(&mut self, now_ns: u64) -> Result<After, Failure> {
        self.is_closing = true;
        self.presence.finish_exchange();
        self.slot.wait_since(now_ns);
        let ended = self.stream.shutdown(Shutdown::Write);
        ended.map_err(|error| self.flight.system_failure(Phase::Close, &error))?;
        Ok(After::Open)
    }

    /// Takes what is there; more of it comes with the next round.
    fn receive(&mut self, load: &'a Load, incoming: &mut [u8]) -> Result<After, Failure> {
        let phase = if self.is_closing {
            Phase::Close
        } else {
            Phase::Receive
        };
        let count = match (&*self.stream).read(incoming) {
            Ok(count) => count,
            Err(error) if is_not_now(&error) => return Ok(After::Open),
            Err(error) => return Err(self.flight.system_failure(phase, &error)),
        };
        match count {
            0 if !self.is_closing => return Err(self.flight.early_end()),
            0 if self.slot.timed_out() => return Err(self.flight.timed_out(phase)),
            0 => return Ok(After::Ended),
            _ => {}
        }
        let now_ns = load.clock.now_ns();
        let replies = self.flight.receive(&incoming[..count], now_ns);
        let replies = replies.map_err(|suspect| self.describe(suspect))?;
        if self.is_closing {
            return Ok(After::Open);
        }
        self.pacer.replied(replies, now_ns);
        self.advance(now_ns)
    }

    /// What is wrong, told better with all that has come. The others wait meanwhile, so for what
    /// comes later nobody waits.
    #[cold]
    fn describe(&self, mut suspect: Suspect) -> Failure {
        let mut piece = [0; 4096];
        while suspect.wants_more() {
            match (&*self.stream).read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => suspect.received.extend_from_slice(&piece[..count]),
            }
        }
        self.flight.describe(&suspect)
    }
}

/// Whether a call is to be made again, later.
fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    /// So many bytes have gone.
    sent: usize,
    /// Where the parts end that have not gone.
    part_ends: VecDeque<usize>,
}

impl Output {
    /// Adds a message, which has parts that end there.
    fn put(&mut self, message: &[u8], part_ends: [usize; 3]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.part_ends.extend(part_ends.map(|end| start + end));
    }

    /// Sends as much as the socket takes, a part a call.
    fn flush(&mut self, mut stream: impl Write) -> io::Result<()> {
        while let Some(end) = self.part_ends.front() {
            match stream.write(&self.bytes[self.sent..*end]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.sent == *end {
                self.part_ends.pop_front();
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }

    /// Room is asked for only while something waits for it: an empty socket always has some.
    fn interest(&self) -> Interest {
        if self.part_ends.is_empty() {
            Interest::READABLE
        } else {
            Interest::BOTH
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes a call, and every other call nothing; notes each call's bytes.
    struct Narrow {
        width: usize,
        calls: Vec<Vec<u8>>,
        is_full: bool,
    }

    impl Write for &mut Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_full = !self.is_full;
            if self.is_full {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(self.width);
            self.calls.push(bytes[..count].to_vec());
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn parts_go_one_by_one_however_little_is_taken() {
        // Goal: each part has calls of its own, in order, nothing is lost, and room is asked for
        // only meanwhile. Method: two messages through sockets of every width.
        for width in 1..12 {
            let mut socket = Narrow {
                width,
                calls: Vec::new(),
                is_full: false,
            };
            let mut output = Output::default();
            output.put(b"one two three\n", [4, 8, 14]);
            output.put(b"1 2 3\n", [2, 4, 6]);
            let mut rounds = 0;
            while output.interest() == Interest::BOTH {
                output.flush(&mut socket).unwrap();
                rounds += 1;
                assert!(rounds < 100, "{output:?}");
            }
            assert_eq!(socket.calls.concat(), b"one two three\n1 2 3\n");
            let mut end = 0;
            let call_ends: Vec<usize> = socket
                .calls
                .iter()
                .map(|call| {
                    end += call.len();
                    end
                })
                .collect();
            let parts = [4, 8, 14, 16, 18, 20];
            assert!(
                parts.iter().all(|end| call_ends.contains(end)),
                "{call_ends:?}"
            );
            assert!(output.bytes.is_empty() && output.sent == 0);
        }
    }
}
