//! The messages in flight on one connection: made, compared with what comes back, entered in the
//! books.
//!
//! Application, above L4; knows no network, so that every style can put its own calls around it.
//! All replies that are still to come stand in one row, as they must come, so what arrives is
//! compared with the front of the row in one go, however many messages it answers and wherever the
//! server has cut the stream. What is to be sent is the end of that row, in one piece. None of it
//! allocates, formats or asks the clock.
//!
//! Deliberately not here: when a message is sent (`pacing`), and sending it (`connection`).

use std::collections::VecDeque;
use std::io;

use crate::failure::{Failure, Phase};
use crate::load::Load;
use crate::message::{Letters, Message, Origin};
use crate::recorder::Departure;
use crate::slot::Slot;
use crate::verify::{Context, Progress, compare};

/// Room beyond the replies: it shows added bytes at once, and makes right replies a short read,
/// after which the runtime knows the socket to be empty without asking.
pub(crate) const ROOM_BYTES: usize = 64;

/// A message that has been sent, or is about to be.
#[derive(Copy, Clone, Debug)]
struct Launched {
    bytes: usize,
    departure: Departure,
}

/// See the file's head.
pub(crate) struct Flight<'a> {
    load: &'a Load,
    slot: &'a Slot,
    number: u32,
    depth: usize,
    /// The number of the oldest message in flight or, if there is none, of the next.
    n: u64,
    launched: VecDeque<Launched>,
    /// The replies to those, from the oldest on.
    expected: Row,
    /// So many bytes of the oldest one have come, all right.
    right: usize,
    /// Writes the replies that must come.
    reply: Message,
    /// What was not handed over yet, where it is not the end of `expected`.
    outgoing: Option<Outgoing>,
}

/// Messages that are sent in other letters than the replies come in.
struct Outgoing {
    message: Message,
    bytes: Vec<u8>,
}

/// What came is not what was sent: the flight ends with the message that it stands in place of.
pub(crate) struct Suspect {
    /// All that came in place of the replies that were still to come.
    pub(crate) received: Vec<u8>,
    /// The first wrong byte.
    at: usize,
    /// How many bytes should have come.
    expected_bytes: usize,
}

impl Suspect {
    /// Whether more bytes would help to tell what is wrong.
    pub(crate) fn wants_more(&self) -> bool {
        self.received.len() < self.expected_bytes + ROOM_BYTES
    }
}

impl<'a> Flight<'a> {
    /// Nothing in flight on connection `number` of `load`.
    pub(crate) fn new(load: &'a Load, number: u32) -> Flight<'a> {
        let settings = &load.settings;
        let size_bytes = settings.size_bytes as usize;
        let depth = settings.pace.depth as usize;
        let letters = if settings.upper {
            Letters::Upper
        } else {
            Letters::Lower
        };
        let wording = settings.style.style.wording();
        let reply = Message::worded(number, size_bytes, letters, wording);
        let row_bytes = depth * reply.len_max();
        let outgoing = settings.upper.then(|| Outgoing {
            message: Message::worded(number, size_bytes, Letters::Lower, wording),
            bytes: Vec::with_capacity(row_bytes),
        });
        Flight {
            load,
            slot: &load.slots[number as usize],
            number,
            depth,
            n: 0,
            launched: VecDeque::with_capacity(depth),
            // Twice the room, so that moving to the front is rare; one message is never moved.
            expected: Row::new(if depth == 1 { 1 } else { 2 } * row_bytes),
            right: 0,
            reply,
            outgoing,
        }
    }

    /// The most bytes that can be in flight.
    pub(crate) fn bytes_max(&self) -> usize {
        self.depth * self.reply.len_max()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.launched.is_empty()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.launched.len() < self.depth
    }

    /// How many messages have been launched so far: the number of the next.
    #[inline]
    pub(crate) fn sent(&self) -> u64 {
        self.n + self.launched.len() as u64
    }

    /// Makes the next message; it is part of the batch then.
    #[inline]
    pub(crate) fn launch(&mut self, departure: Departure) {
        let n = self.sent();
        self.reply.set(n);
        let bytes = self.reply.bytes().len();
        self.expected.push(self.reply.bytes());
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.message.set(n);
            outgoing.bytes.extend_from_slice(outgoing.message.bytes());
        }
        if self.launched.is_empty() {
            self.slot.wait_since(departure.sent_ns);
        }
        self.slot.count_sent(1);
        self.launched.push_back(Launched { bytes, departure });
    }

    /// What has been launched and not handed over.
    #[inline]
    pub(crate) fn batch(&self) -> &[u8] {
        match &self.outgoing {
            Some(outgoing) => &outgoing.bytes,
            None => self.expected.pushed(),
        }
    }

    /// Where the parts of the message end that was launched last, if it has parts.
    pub(crate) fn part_ends(&self) -> [usize; 3] {
        self.reply.part_ends()
    }

    /// The batch has been handed over, to the system or to somebody who will.
    #[inline]
    pub(crate) fn end_batch(&mut self) {
        self.expected.end_push();
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.bytes.clear();
        }
    }

    /// Takes what came at `now_ns`, and books the messages that it completes: how many.
    ///
    /// # Errors
    ///
    /// If a byte is not what it must be.
    #[inline]
    pub(crate) fn receive(&mut self, received: &[u8], now_ns: u64) -> Result<u64, Suspect> {
        match compare(&self.expected.bytes()[self.right..], received) {
            Progress::Complete | Progress::Partial => self.right += received.len(),
            Progress::Wrong { at } => return Err(self.suspect(received, at, now_ns)),
        }
        Ok(self.book(now_ns))
    }

    /// Books the messages that are answered as far as it has come.
    #[inline]
    fn book(&mut self, now_ns: u64) -> u64 {
        let (mut messages, mut bytes) = (0, 0);
        for launched in &self.launched {
            if bytes + launched.bytes > self.right {
                break;
            }
            bytes += launched.bytes;
            messages += 1;
        }
        if messages == 0 {
            return 0;
        }
        self.n += messages as u64;
        self.right -= bytes;
        self.expected.consume(bytes);
        self.slot.count_answered(messages as u64, bytes as u64);
        let answered = self.launched.drain(..messages);
        self.load
            .recorder
            .record(now_ns, answered.map(|launched| launched.departure));
        let oldest = self.launched.front();
        self.slot
            .wait_since(oldest.map_or(0, |oldest| oldest.departure.sent_ns));
        messages as u64
    }

    /// Books what is right before the wrong byte, and keeps the rest.
    #[cold]
    fn suspect(&mut self, received: &[u8], at: usize, now_ns: u64) -> Suspect {
        let expected = self.expected.bytes();
        let mut all = [&expected[..self.right], received].concat();
        let wrong_at = self.right + at;
        // What follows the last reply makes that one wrong: nothing else is left to blame.
        let follows_all = wrong_at == expected.len();
        self.right = wrong_at - usize::from(follows_all && wrong_at > 0);
        let in_flight = expected.len();
        self.book(now_ns);
        let booked = in_flight - self.expected.bytes().len();
        Suspect {
            received: all.split_off(booked),
            at: wrong_at - booked,
            expected_bytes: in_flight - booked,
        }
    }
}

/// The cause of an end that the server made.
const CLOSED: &str = "closed by the server";

/// What went wrong, in words. None of this runs while all goes well.
impl Flight<'_> {
    fn place(&self) -> String {
        format!("connection {}, message {}", self.number, self.n)
    }

    /// A call has failed, perhaps because the supervisor had shut the connection down.
    #[cold]
    pub(crate) fn system_failure(&self, phase: Phase, error: &io::Error) -> Failure {
        if self.slot.timed_out() {
            return self.timed_out(phase);
        }
        Failure::system(phase, error, self.place())
    }

    pub(crate) fn timed_out(&self, phase: Phase) -> Failure {
        let timeout = humantime::format_duration(self.load.settings.timeout);
        let detail = format!("{}: nothing for {timeout}", self.place());
        Failure::new(phase, "timed out", detail)
    }

    /// The stream ended, and that was too early.
    #[cold]
    pub(crate) fn early_end(&self) -> Failure {
        if self.right == 0 && self.slot.timed_out() {
            return self.timed_out(Phase::Receive);
        }
        let end = if self.slot.timed_out() {
            "timed out"
        } else {
            CLOSED
        };
        let cause = if self.right == 0 {
            end.to_owned()
        } else {
            format!("{end} in mid-reply")
        };
        let detail = match self.launched.front() {
            Some(oldest) => format!(
                "{}: {} of {} bytes had come, all right",
                self.place(),
                self.right,
                oldest.bytes
            ),
            None => format!("{}: before it was sent", self.place()),
        };
        Failure::new(Phase::Receive, cause, detail)
    }

    /// What is wrong with bytes that are not what they must be.
    #[cold]
    pub(crate) fn describe(&self, suspect: &Suspect) -> Failure {
        let Suspect { received, at, .. } = suspect;
        let expected = self.expected.bytes();
        let context = Context {
            own: Origin {
                connection: self.number,
                n: self.n,
            },
            sent: self.sent(),
            size_bytes: self.load.settings.size_bytes as usize,
            letters: if self.load.settings.upper {
                Letters::Upper
            } else {
                Letters::Lower
            },
            wording: self.load.settings.style.style.wording(),
            connections: self.load.settings.connections,
            // Nobody has sent more messages than all together.
            n_max: self.load.totals().sent,
        };
        let fault = context.diagnose(expected, received, *at);
        let place = if expected.is_empty() {
            format!("connection {}, after the last reply", self.number)
        } else {
            format!("{}, byte {at}", self.place())
        };
        let detail = format!(
            "{place}: {fault}; wanted {}, got {}",
            excerpt(expected, *at),
            excerpt(received, *at)
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

/// Bytes that are put in at the end and taken out at the front, always in one piece.
struct Row {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// What follows this was put in since `end_push`.
    pushed_at: usize,
}

impl Row {
    fn new(capacity: usize) -> Row {
        Row {
            buffer: vec![0; capacity],
            start: 0,
            end: 0,
            pushed_at: 0,
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if self.buffer.len() - self.end < bytes.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.pushed_at -= self.start;
            self.start = 0;
        }
        self.buffer[self.end..][..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    #[inline]
    fn pushed(&self) -> &[u8] {
        &self.buffer[self.pushed_at..self.end]
    }

    #[inline]
    fn end_push(&mut self) {
        self.pushed_at = self.end;
    }

    /// Takes out what was handed over before.
    #[inline]
    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.end, self.pushed_at) = (0, 0, 0);
        }
    }
}
