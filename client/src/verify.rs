//! Whether a reply is right and, if not, what is wrong with it.
//!
//! Application, above L4; knows no network. The common case is one comparison. Only when it fails
//! are the bytes looked into: the report then says whether they were changed, left out, added, sent
//! again, or belong to somebody else, and to whom.
//!
//! The replies are a stream: the server may cut and join them anywhere. What arrived is therefore
//! compared as far as it goes, so that a wrong byte is found when it comes and not when a time-out
//! ends the wait.
//!
//! Deliberately not here: what a message says (`message`), and which replies are still to come
//! (`flight`).

use std::cmp::Ordering;
use std::fmt;

use crate::message::{Letters, Message, Origin, Wording, origin_of_filler, origin_of_header};

/// How many wrong bytes are searched for their owner.
const SEARCH_BYTES_MAX: usize = 4096;

/// What is wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Bytes were changed in place.
    Corrupt { bytes: usize },
    /// Bytes were left out.
    Missing { bytes: usize },
    /// Bytes that nobody sent were put in, or follow the last reply.
    Extra { bytes: usize },
    /// Bytes of an earlier message of this connection came again.
    Repeated { n: u64 },
    /// A later message of this connection came first.
    Early { n: u64 },
    /// Bytes of another connection's message.
    Foreign(Origin),
    /// The right letters in the wrong case.
    Case { upper_expected: bool },
}

impl Fault {
    /// The words under which faults of this kind are counted.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Fault::Corrupt { .. } => "corrupt bytes",
            Fault::Missing { .. } => "missing bytes",
            Fault::Extra { .. } => "extra bytes",
            Fault::Repeated { .. } => "repeated bytes",
            Fault::Early { .. } => "replies out of order",
            Fault::Foreign(_) => "bytes of another connection",
            Fault::Case { .. } => "wrong case",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Corrupt { bytes: 1 } => write!(formatter, "1 byte was changed"),
            Fault::Corrupt { bytes } => write!(formatter, "{bytes} bytes were changed"),
            Fault::Missing { bytes } => write!(formatter, "{bytes} left out"),
            Fault::Extra { bytes } => write!(formatter, "{bytes} that nobody sent"),
            Fault::Repeated { n } => write!(formatter, "message {n} came again"),
            Fault::Early { n } => write!(formatter, "message {n} came before its turn"),
            Fault::Foreign(Origin { connection, n }) => {
                write!(
                    formatter,
                    "bytes that belong to connection {connection}, message {n}"
                )
            }
            Fault::Case {
                upper_expected: true,
            } => {
                write!(
                    formatter,
                    "upper case was expected: does the server run with --upper?"
                )
            }
            Fault::Case {
                upper_expected: false,
            } => {
                write!(
                    formatter,
                    "came in upper case: the client wants --upper, too"
                )
            }
        }
    }
}

/// How far a reply is right.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All there and right, and nothing after it.
    Complete,
    /// Right as far as it goes.
    Partial,
    /// The byte at this position is wrong, or should not be there at all.
    Wrong { at: usize },
}

/// Compares what arrived with what is still to come of a reply.
#[inline]
pub(crate) fn compare(expected: &[u8], received: &[u8]) -> Progress {
    let len = received.len().min(expected.len());
    if expected[..len] != received[..len] {
        return first_difference(expected, received);
    }
    match received.len().cmp(&expected.len()) {
        Ordering::Less => Progress::Partial,
        Ordering::Equal => Progress::Complete,
        Ordering::Greater => Progress::Wrong { at: len },
    }
}

#[cold]
fn first_difference(expected: &[u8], received: &[u8]) -> Progress {
    let mut pairs = expected.iter().zip(received);
    let at = pairs.position(|(wanted, got)| wanted != got);
    Progress::Wrong {
        at: at.expect("they were found to differ"),
    }
}

/// What is known about the reply that went wrong.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Context {
    pub(crate) own: Origin,
    /// Messages of this connection that were sent: those from `own` on are in flight.
    pub(crate) sent: u64,
    pub(crate) size_bytes: usize,
    pub(crate) letters: Letters,
    pub(crate) wording: Wording,
    /// Senders that exist: connections below this ...
    pub(crate) connections: u32,
    /// ... and messages up to this.
    pub(crate) n_max: u64,
}

impl Context {
    /// What is wrong with `received`, whose byte `at` is the first that differs from `expected`:
    /// the replies, in one piece, to all messages in flight.
    pub(crate) fn diagnose(&self, expected: &[u8], received: &[u8], at: usize) -> Fault {
        // Somebody's bytes first: they also look like changed, missing or extra ones.
        if let Some(origin) = self.stranger(expected, received, at) {
            if origin.connection != self.own.connection {
                return Fault::Foreign(origin);
            }
            if origin.n <= self.own.n {
                return Fault::Repeated { n: origin.n };
            }
            // With all that should follow it, this is a gap and no change of order.
            return gap(expected, received, at).unwrap_or(Fault::Early { n: origin.n });
        }
        let (wanted, got) = (&expected[at..], &received[at..]);
        let aligned = &expected[..received.len().min(expected.len())];
        if !aligned.is_empty()
            && received.len() <= expected.len()
            && received.eq_ignore_ascii_case(aligned)
        {
            return Fault::Case {
                upper_expected: self.letters == Letters::Upper,
            };
        }
        if let Some(gap) = gap(expected, received, at) {
            return gap;
        }
        if let Some(bytes) = received.len().checked_sub(expected.len())
            && bytes > 0
            && got.ends_with(wanted)
        {
            return Fault::Extra { bytes };
        }
        let changed = wanted
            .iter()
            .zip(got)
            .filter(|(wanted, got)| wanted != got)
            .count();
        Fault::Corrupt {
            bytes: changed + got.len().saturating_sub(wanted.len()),
        }
    }

    /// The sender of the wrong bytes, if it is not the message whose reply this is. After the whole
    /// reply even that one has no more to say.
    fn stranger(&self, expected: &[u8], received: &[u8], at: usize) -> Option<Origin> {
        let line_end = received[..at].iter().rposition(|byte| *byte == b'\n');
        let line = self.line_origin(&received[line_end.map_or(0, |end| end + 1)..]);
        // Where the reply should end, the next one begins, even if the byte between them is wrong.
        let end = expected.iter().position(|byte| *byte == b'\n');
        let end = end.map_or(received.len(), |end| received.len().min(end));
        let wrong = if at < expected.len() {
            &received[at.min(end)..end]
        } else {
            &received[at..]
        };
        let filler = self.filler_origin(wrong);
        let is_strange = |origin: &Origin| *origin != self.own || at >= expected.len();
        line.into_iter().chain(filler).find(is_strange)
    }

    /// A header alone could be a corrupted one of our own: the line that it announces must follow.
    fn line_origin(&self, line: &[u8]) -> Option<Origin> {
        let origin = origin_of_header(line).filter(|origin| self.exists(origin))?;
        let mut message = Message::worded(
            origin.connection,
            self.size_bytes,
            self.letters,
            self.wording,
        );
        message.set(origin.n);
        let announced = message.bytes();
        let len = announced.len().min(line.len());
        (announced[..len] == line[..len]).then_some(origin)
    }

    fn filler_origin(&self, bytes: &[u8]) -> Option<Origin> {
        // What follows the line's end is somebody else's. And a few blocks tell all; a reply may
        // have millions.
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
        let bytes = &line[..line.len().min(SEARCH_BYTES_MAX)];
        let origin = origin_of_filler(bytes, self.connections, self.n_max)?;
        self.exists(&origin).then_some(origin)
    }

    /// A message can only have come from a connection that exists, and not from our own future.
    fn exists(&self, origin: &Origin) -> bool {
        if origin.connection == self.own.connection {
            origin.n < self.sent
        } else {
            origin.connection < self.connections && origin.n <= self.n_max
        }
    }
}

/// Bytes left out at `at`, if that explains all that came.
fn gap(expected: &[u8], received: &[u8], at: usize) -> Option<Fault> {
    let bytes = expected.len().checked_sub(received.len())?;
    let is_gap = bytes > 0 && expected[at..].ends_with(&received[at..]);
    is_gap.then_some(Fault::Missing { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BLOCK_BYTES;

    const SIZES: [usize; 5] = [1, 8, 40, 64, 500];

    fn context(own: Origin, size_bytes: usize) -> Context {
        Context {
            own,
            sent: own.n + 1,
            size_bytes,
            letters: Letters::Lower,
            wording: Wording::Nothing,
            connections: 400,
            n_max: 1000,
        }
    }

    fn line(connection: u32, n: u64, size_bytes: usize) -> Vec<u8> {
        let mut message = Message::new(connection, size_bytes, Letters::Lower);
        message.set(n);
        message.bytes().to_vec()
    }

    fn fault(own: Origin, size_bytes: usize, received: &[u8]) -> Fault {
        let expected = line(own.connection, own.n, size_bytes);
        let Progress::Wrong { at } = compare(&expected, received) else {
            panic!("{:?} was taken for {:?}", received, expected);
        };
        context(own, size_bytes).diagnose(&expected, received, at)
    }

    const OWN: Origin = Origin {
        connection: 17,
        n: 42,
    };

    #[test]
    fn a_right_reply_is_right_at_every_cut() {
        // Goal: no false alarm, however the stream is cut. Method: every prefix of replies of all
        // sizes.
        for size_bytes in SIZES {
            let expected = line(17, 42, size_bytes);
            for end in 0..expected.len() {
                assert_eq!(compare(&expected, &expected[..end]), Progress::Partial);
            }
            assert_eq!(compare(&expected, &expected), Progress::Complete);
        }
    }

    #[test]
    fn each_changed_byte_is_found_where_it_is() {
        // Goal: position and kind of every possible one-byte change. Method: changes each byte in
        // turn.
        for size_bytes in SIZES {
            let expected = line(17, 42, size_bytes);
            for at in 0..expected.len() {
                let mut received = expected.clone();
                received[at] ^= 0x80;
                assert_eq!(compare(&expected, &received), Progress::Wrong { at });
                assert_eq!(
                    fault(OWN, size_bytes, &received),
                    Fault::Corrupt { bytes: 1 }
                );
            }
        }
    }

    #[test]
    fn each_gap_is_missing_bytes() {
        // Goal: bytes left out are told from changed ones. Method: leaves out every run that ends
        // before the end; one at the end makes a reply that merely has not come yet.
        for size_bytes in [40, 64] {
            let expected = line(17, 42, size_bytes);
            for from in 0..expected.len() {
                for to in from + 1..expected.len() {
                    let received = [&expected[..from], &expected[to..]].concat();
                    let bytes = to - from;
                    let found = fault(OWN, size_bytes, &received);
                    assert_eq!(found, Fault::Missing { bytes }, "{from}..{to}");
                }
            }
        }
    }

    #[test]
    fn each_insertion_is_extra_bytes() {
        // Goal: bytes put in anywhere, the end included, are told from changed ones. Method: puts
        // in runs of a byte that no message has.
        for size_bytes in SIZES {
            let expected = line(17, 42, size_bytes);
            for at in 0..=expected.len() {
                for bytes in 1..4 {
                    let added = vec![b'#'; bytes];
                    let received = [&expected[..at], &added, &expected[at..]].concat();
                    assert_eq!(fault(OWN, size_bytes, &received), Fault::Extra { bytes });
                }
            }
        }
    }

    #[test]
    fn whole_replies_of_others_are_traced() {
        // Goal: a swapped reply names its owner at every size. Method: other connections' lines.
        for size_bytes in SIZES {
            for (connection, n) in [(18, 42), (17 + 100, 41), (0, 0), (399, 1000)] {
                let received = line(connection, n, size_bytes);
                let expected = Fault::Foreign(Origin { connection, n });
                assert_eq!(
                    fault(OWN, size_bytes, &received),
                    expected,
                    "{size_bytes} {connection}"
                );
            }
        }
    }

    #[test]
    fn swaps_within_a_reply_are_traced() {
        // Goal: a piece of another's message in the middle of ours names its owner. Method:
        // exchanges every tail that is long enough to hold a whole block.
        let expected = line(17, 42, 500);
        let other = line(250, 900, 500);
        for at in 0..500 - 2 * BLOCK_BYTES {
            let received = [&expected[..at], &other[at..]].concat();
            let origin = Origin {
                connection: 250,
                n: 900,
            };
            assert_eq!(fault(OWN, 500, &received), Fault::Foreign(origin), "{at}");
        }
    }

    #[test]
    fn repeated_replies_are_traced() {
        // Goal: a reply that comes again is called that, glued to the next one or in its place.
        // Method: earlier lines before, after and instead of the expected one, and that one twice.
        for size_bytes in SIZES {
            let (expected, earlier) = (line(17, 42, size_bytes), line(17, 41, size_bytes));
            let instead = fault(OWN, size_bytes, &earlier);
            assert_eq!(instead, Fault::Repeated { n: 41 });
            let before = fault(OWN, size_bytes, &[&earlier[..], &expected].concat());
            assert_eq!(before, Fault::Repeated { n: 41 });
            let after = fault(OWN, size_bytes, &[&expected[..], &earlier].concat());
            assert_eq!(after, Fault::Repeated { n: 41 });
            let twice = fault(OWN, size_bytes, &[&expected[..], &expected].concat());
            assert_eq!(twice, Fault::Repeated { n: 42 });
        }
    }

    #[test]
    fn the_wrong_case_is_called_that() {
        // Goal: a forgotten --upper is not called corruption. Method: our line in upper case.
        let received = line(17, 42, 64).to_ascii_uppercase();
        assert_eq!(
            fault(OWN, 64, &received),
            Fault::Case {
                upper_expected: false
            }
        );
    }

    #[test]
    fn a_corrupted_header_accuses_nobody() {
        // Goal: a changed digit is corruption, not somebody's reply. Method: changes digits of our
        // own.
        let mut received = line(17, 42, 64);
        received[0] = b'2';
        assert_eq!(fault(OWN, 64, &received), Fault::Corrupt { bytes: 1 });
        let mut received = line(17, 42, 64);
        received[3] = b'3';
        assert_eq!(fault(OWN, 64, &received), Fault::Corrupt { bytes: 1 });
    }
}
