//! The life of one connection: connect, wait for the others, exchange messages, end in order.
//!
//! Application on L4. Rests on connect(2), send(2), recv(2), shutdown(2), tcp(7). Written as if
//! each call blocked, and so right for any thread that a connection has for itself (`style`). What
//! is here runs once for every message, so it allocates nothing, formats nothing and reads the
//! clock once: the end of one exchange is the start of the next.
//!
//! Deliberately not here: time-outs of replies. A timer for each read would be set and cancelled a
//! hundred thousand times a second for nothing; instead the supervisor (`load`) looks for
//! connections that wait too long, and shuts them down, which ends their read.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Phase};
use crate::load::Load;
use crate::message::{Letters, Message, Origin};
use crate::net::{Shutdown, TcpStream};
use crate::recorder::Departure;
use crate::slot::Slot;
use crate::thread;
use crate::verify::{Context, Progress, compare};

/// Room beyond the reply: it shows added bytes at once, and makes a right reply a short read, after
/// which the runtime knows the socket to be empty without asking.
const ROOM_BYTES: usize = 64;
/// More is not read at once: beyond this the memory of many connections matters more than the
/// calls.
const READ_BYTES_MAX: usize = 64 * 1024;
/// A longer message may not fit the socket buffers of both sides; a server that answers while it
/// reads would then wait for us to read while we wait for it, so sending and reading go on side by
/// side.
const SEND_ALONE_BYTES_MAX: usize = 16 * 1024;
/// How long the rest of a wrong reply is waited for, only to describe better what is wrong.
const GRACE: Duration = Duration::from_millis(100);

/// Runs connection `number` from beginning to end and enters everything in the books of `load`.
pub(crate) fn run(load: &Load, number: u32) {
    let slot = &load.slots[number as usize];
    let mut presence = load.presence();
    let connected = connect(load, number);
    match &connected {
        Ok(stream) => slot.connected(stream),
        Err(failure) => load.fail(slot, failure.clone()),
    }
    presence.arrive();
    let Ok(stream) = connected else { return };
    load.wait_for_start();
    let mut exchange = Exchange::new(load, slot, stream, number);
    let exchanged = exchange.run();
    presence.finish_exchange();
    match exchanged.and_then(|()| exchange.close()) {
        Ok(()) => slot.close(),
        Err(failure) => load.fail(slot, failure),
    }
}

/// Tries the addresses in turn, as std does, but each with the time-out.
fn connect(load: &Load, number: u32) -> Result<Arc<TcpStream>, Failure> {
    let start_ns = load.clock.now_ns();
    let mut last = None;
    for address in load.addresses() {
        let stream = TcpStream::connect_timeout(address, load.settings.connect_timeout)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
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

/// The exchanging of messages on one connection.
struct Exchange<'a> {
    load: &'a Load,
    slot: &'a Slot,
    stream: Arc<TcpStream>,
    number: u32,
    /// The number of the message under way or, between two, of the next.
    n: u64,
    /// Shared with the green thread that sends a long one, and with nobody between two messages.
    outgoing: Arc<Message>,
    /// What must come back where that is not what was sent.
    upper: Option<Message>,
    incoming: Vec<u8>,
}

impl<'a> Exchange<'a> {
    fn new(load: &'a Load, slot: &'a Slot, stream: Arc<TcpStream>, number: u32) -> Exchange<'a> {
        let size_bytes = load.settings.size_bytes as usize;
        let outgoing = Message::new(number, size_bytes, Letters::Lower);
        let upper = load
            .settings
            .upper
            .then(|| Message::new(number, size_bytes, Letters::Upper));
        let incoming = vec![0; (outgoing.len_max() + ROOM_BYTES).min(READ_BYTES_MAX)];
        Exchange {
            load,
            slot,
            stream,
            number,
            n: 0,
            outgoing: Arc::new(outgoing),
            upper,
            incoming,
        }
    }

    /// Message after message, each sent when the reply to the last one was found right.
    fn run(&mut self) -> Result<(), Failure> {
        let mut start_ns = self.load.clock.now_ns();
        loop {
            let outgoing = Arc::get_mut(&mut self.outgoing);
            outgoing
                .expect("who sent the last message has let go of it")
                .set(self.n);
            if let Some(upper) = &mut self.upper {
                upper.set(self.n);
            }
            self.slot.count_sent(1);
            self.slot.wait_since(start_ns);
            if self.outgoing.bytes().len() <= SEND_ALONE_BYTES_MAX {
                self.send()?;
                self.receive()?;
            } else {
                self.send_and_receive()?;
            }
            let end_ns = self.load.clock.now_ns();
            self.n += 1;
            let bytes = self.outgoing.bytes().len() as u64;
            self.slot.count_answered(1, bytes);
            let departure = Departure {
                intended_ns: start_ns,
                sent_ns: start_ns,
            };
            self.load.recorder.record(end_ns, [departure]);
            if self.load.is_enough(self.n) {
                return Ok(());
            }
            start_ns = end_ns;
        }
    }

    /// The reply to the message under way.
    #[inline]
    fn expected(&self) -> &[u8] {
        self.upper.as_ref().unwrap_or(&self.outgoing).bytes()
    }

    #[inline]
    fn send(&self) -> Result<(), Failure> {
        let sent = (&*self.stream).write_all(self.outgoing.bytes());
        sent.map_err(|error| self.system_failure(Phase::Send, &error))
    }

    /// Reads until the reply is complete, comparing what comes.
    #[inline]
    fn receive(&mut self) -> Result<(), Failure> {
        let mut right = 0;
        loop {
            let count = match (&*self.stream).read(&mut self.incoming) {
                Ok(0) => return Err(self.early_end(right)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.system_failure(Phase::Receive, &error)),
            };
            let expected = self.expected();
            match compare(&expected[right..], &self.incoming[..count]) {
                Progress::Complete => return Ok(()),
                Progress::Partial => right += count,
                Progress::Wrong { at } => return Err(self.wrong(right, at, count)),
            }
        }
    }

    /// Reads in this green thread while another one sends.
    fn send_and_receive(&mut self) -> Result<(), Failure> {
        let stream = Arc::clone(&self.stream);
        let message = Arc::clone(&self.outgoing);
        let sender = thread::spawn(move || {
            let sent = (&*stream).write_all(message.bytes());
            if sent.is_err() {
                // The reader would wait for a reply to what has not been sent.
                let _ = stream.shutdown(Shutdown::Both);
            }
            sent
        });
        let received = self.receive();
        if received.is_err() {
            // And the sender would wait for room that nobody makes.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        let sent = match sender.join() {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (received, sent) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(failure), Err(_)) if failure.phase == Phase::Verify => Err(failure),
            // What has not been sent cannot have been answered: the reader's end is only a
            // consequence.
            (_, Err(error)) => Err(self.system_failure(Phase::Send, &error)),
            (Err(failure), Ok(())) => Err(failure),
        }
    }

    /// Tells the server that no more will come and reads to the end: nothing may follow the last
    /// reply.
    fn close(&mut self) -> Result<(), Failure> {
        self.slot.wait_since(self.load.clock.now_ns());
        let ended = self.stream.shutdown(Shutdown::Write);
        ended.map_err(|error| self.system_failure(Phase::Close, &error))?;
        loop {
            match (&*self.stream).read(&mut self.incoming) {
                Ok(0) if self.slot.timed_out() => return Err(self.timed_out(Phase::Close)),
                Ok(0) => return Ok(()),
                Ok(count) => {
                    let tail = self.incoming[..count].to_vec();
                    let tail = self.await_rest(tail, READ_BYTES_MAX);
                    return Err(self.describe(&[], &tail, 0));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.system_failure(Phase::Close, &error)),
            }
        }
    }
}

/// The cause of an end that the server made.
const CLOSED: &str = "closed by the server";

/// What went wrong, in words. None of this runs while all goes well.
impl Exchange<'_> {
    fn place(&self) -> String {
        format!("connection {}, message {}", self.number, self.n)
    }

    #[cold]
    fn system_failure(&self, phase: Phase, error: &io::Error) -> Failure {
        if self.slot.timed_out() {
            return self.timed_out(phase);
        }
        Failure::system(phase, error, self.place())
    }

    fn timed_out(&self, phase: Phase) -> Failure {
        let timeout = humantime::format_duration(self.load.settings.timeout);
        Failure::new(
            phase,
            "timed out",
            format!("{}: nothing for {timeout}", self.place()),
        )
    }

    /// The stream ended when `right` bytes of the reply had come.
    #[cold]
    fn early_end(&self, right: usize) -> Failure {
        if right == 0 && self.slot.timed_out() {
            return self.timed_out(Phase::Receive);
        }
        let end = if self.slot.timed_out() {
            "timed out"
        } else {
            CLOSED
        };
        let cause = if right == 0 {
            end.to_owned()
        } else {
            format!("{end} in mid-reply")
        };
        let of = self.outgoing.bytes().len();
        let detail = format!(
            "{}: {right} of {of} bytes had come, all right",
            self.place()
        );
        Failure::new(Phase::Receive, cause, detail)
    }

    /// After `right` right bytes `count` have come of which the one at `at` is wrong.
    #[cold]
    fn wrong(&self, right: usize, at: usize, count: usize) -> Failure {
        let expected = self.expected();
        let received = [&expected[..right], &self.incoming[..count]].concat();
        let received = self.await_rest(received, expected.len());
        self.describe(expected, &received, right + at)
    }

    /// Reads on until `len` bytes are there or no more come for a while.
    fn await_rest(&self, mut received: Vec<u8>, len: usize) -> Vec<u8> {
        let end = Instant::now() + GRACE;
        let mut piece = [0; 4096];
        while received.len() < len {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                break;
            }
            match (&*self.stream).read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => received.extend_from_slice(&piece[..count]),
            }
        }
        received
    }

    fn describe(&self, expected: &[u8], received: &[u8], at: usize) -> Failure {
        let context = Context {
            own: Origin {
                connection: self.number,
                n: self.n,
            },
            size_bytes: self.load.settings.size_bytes as usize,
            letters: if self.upper.is_some() {
                Letters::Upper
            } else {
                Letters::Lower
            },
            connections: self.load.settings.connections,
            // Nobody has sent more messages than all together.
            n_max: self.load.totals().sent,
        };
        let fault = context.diagnose(expected, received, at);
        let place = if expected.is_empty() {
            format!("connection {}, after the last reply", self.number)
        } else {
            format!("{}, byte {at}", self.place())
        };
        let detail = format!(
            "{place}: {fault}; wanted {}, got {}",
            excerpt(expected, at),
            excerpt(received, at)
        );
        Failure::new(Phase::Verify, fault.cause(), detail)
    }
}

/// A few bytes from `at` on, as text.
fn excerpt(bytes: &[u8], at: usize) -> String {
    const BYTES_MAX: usize = 24;
    let rest = &bytes[at.min(bytes.len())..];
    if rest.is_empty() {
        return "the end".to_owned();
    }
    let shown = rest[..rest.len().min(BYTES_MAX)].escape_ascii();
    let more = if rest.len() > BYTES_MAX { "..." } else { "" };
    format!("\"{shown}{more}\"")
}
