//! The messages of a misbehaving connection, and whether what came back is what must come back.
//!
//! Application on L4. The same messages as everybody's, so that wrong bytes are traced to whoever
//! sent them; of those that are sent in a row, the answers are compared as one stream.
//!
//! Deliberately not here: the diagnosis of a wrong answer (`verify`).

use std::cell::Cell;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use super::peer::{End, Peer};
use crate::flight::ROOM_BYTES;
use crate::message::{Letters, Message, Origin, Wording};
use crate::net::TcpStream;
use crate::verify::{Context, Progress, compare};

/// How long the rest of a wrong answer is waited for.
const GRACE: Duration = Duration::from_millis(100);

/// What one connection sends, one message after the other.
pub(super) struct Script<'a> {
    peer: &'a Peer,
    /// The number of the next message.
    n: u64,
    outgoing: Message,
    /// What must come back where that is not what was sent.
    upper: Option<Message>,
    /// Something has come on the current connection.
    was_answered: Cell<bool>,
}

/// What reading once has brought.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Bytes, all of them right.
    Bytes,
    /// The end of the stream.
    End,
    /// Nothing within the stream's time-out.
    Nothing,
}

/// Some messages in a row.
pub(super) struct Burst {
    pub(super) sent: Vec<u8>,
    expected: Vec<u8>,
    /// Where each message begins, and its number.
    starts: Vec<(usize, u64)>,
    /// How much has come back, and was right.
    right: usize,
}

impl<'a> Script<'a> {
    pub(super) fn new(peer: &'a Peer) -> Script<'a> {
        let settings = &peer.load.settings;
        let message = |letters| Message::new(peer.number, settings.size_bytes as usize, letters);
        Script {
            peer,
            n: 0,
            outgoing: message(Letters::Lower),
            upper: settings.upper.then(|| message(Letters::Upper)),
            was_answered: Cell::new(false),
        }
    }

    /// A new connection carries what comes next.
    pub(super) fn begin(&self) {
        self.was_answered.set(false);
    }

    /// The next `count` messages.
    pub(super) fn next(&mut self, count: usize) -> Burst {
        let mut burst = Burst {
            sent: Vec::new(),
            expected: Vec::new(),
            starts: Vec::new(),
            right: 0,
        };
        for _ in 0..count {
            self.outgoing.set(self.n);
            let sent = self.outgoing.bytes();
            burst.starts.push((burst.sent.len(), self.n));
            burst.sent.extend_from_slice(sent);
            let expected = match &mut self.upper {
                None => sent,
                Some(upper) => {
                    upper.set(self.n);
                    upper.bytes()
                }
            };
            burst.expected.extend_from_slice(expected);
            self.n += 1;
        }
        burst
    }

    /// Reads once and checks what came.
    pub(super) fn read(&self, mut stream: &TcpStream, burst: &mut Burst) -> Result<Came, End> {
        let mut piece = [0; 4096];
        let count = loop {
            match stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_time_out(&error) => return Ok(Came::Nothing),
                other => break other?,
            }
        };
        self.peer
            .enter(|tally| tally.received_bytes += count as u64);
        if count == 0 {
            return Ok(Came::End);
        }
        self.was_answered.set(true);
        match compare(&burst.expected[burst.right..], &piece[..count]) {
            Progress::Wrong { at } => {
                let received = await_rest(stream, burst, &piece[..count]);
                return Err(End::Wrong(self.describe(burst, &received, at)));
            }
            Progress::Partial | Progress::Complete => burst.right += count,
        }
        Ok(Came::Bytes)
    }

    /// After what was right came `piece`, whose byte `at` is wrong.
    fn describe(&self, burst: &Burst, piece: &[u8], at: usize) -> String {
        let settings = &self.peer.load.settings;
        let at = burst.right + at;
        let received = [&burst.expected[..burst.right], piece].concat();
        let (start, n) = burst.message_at(at);
        let context = Context {
            own: Origin {
                connection: self.peer.number,
                n,
            },
            sent: self.n,
            size_bytes: settings.size_bytes as usize,
            letters: match self.upper {
                Some(_) => Letters::Upper,
                None => Letters::Lower,
            },
            wording: Wording::Nothing,
            connections: settings.connections,
            // Nobody has sent more messages than all together, or than this one.
            n_max: self.peer.load.totals().sent.max(self.n),
        };
        let received = &received[start..];
        let fault = context.diagnose(&burst.expected[start..], received, at - start);
        format!("{}, byte {}: {fault}", self.place(n), at - start)
    }

    fn place(&self, n: u64) -> String {
        format!("connection {}, message {n}", self.peer.number)
    }

    /// Fewer bytes came than had to.
    pub(super) fn cut_short(&self, burst: &Burst, how: &str) -> End {
        let (_, n) = burst.message_at(burst.right);
        let (right, len) = (burst.right, burst.expected.len());
        End::Wrong(format!(
            "{}: {how}, {right} of {len} bytes had come",
            self.place(n)
        ))
    }

    /// Nothing came for as long as a reply may take. A connection that was never answered may not
    /// have been accepted yet, which is no fault of a server that is at its limit.
    pub(super) fn timed_out(&self, burst: &Burst) -> End {
        if !self.was_answered.get() {
            return End::Server;
        }
        let timeout = humantime::format_duration(self.peer.load.settings.timeout);
        self.cut_short(burst, &format!("nothing for {timeout}"))
    }
}

/// What came, and what comes until all that must come could be there, or nothing does for a while:
/// it only tells better what is wrong.
fn await_rest(mut stream: &TcpStream, burst: &Burst, came: &[u8]) -> Vec<u8> {
    let bytes_max = burst.expected.len() - burst.right + ROOM_BYTES;
    let end = Instant::now() + GRACE;
    let mut received = came.to_vec();
    let mut piece = [0; 4096];
    while received.len() < bytes_max {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => received.extend_from_slice(&piece[..count]),
        }
    }
    received
}

/// Whether a time-out of the stream has passed.
pub(super) fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Burst {
    pub(super) fn is_answered(&self) -> bool {
        self.right == self.expected.len()
    }

    /// Where the message begins that the byte `at` is of, and its number; for a byte behind the
    /// last message, that one.
    fn message_at(&self, at: usize) -> (usize, u64) {
        let before = self.starts.iter().rev().find(|(start, _)| *start <= at);
        *before.expect("a burst has a message, which begins at its first byte")
    }
}
