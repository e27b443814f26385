//! What is sent: the messages, and how to tell from any piece of one whose it is.
//!
//! Application, above L4; knows no network. A message is one line, `<connection> <n>`, padded with
//! a filler to the size that was asked for:
//!
//! ```text
//!   17 42 icfeflibeambgmkn...\n
//!   |  |  |
//!   |  |  letters, 16 for each block; the last block is cut off by the end of the line
//!   |  the message's number on its connection, from 0
//!   the connection's number, from 0
//! ```
//!
//! A message that is sent in parts says so in words between the numbers and the filler.
//!
//! A block's 16 letters are the 64 bits of (connection, n, block), scrambled so that neighbours
//! look unlike. The scrambling can be undone: any 16 letters of a long message, cut out anywhere,
//! name their sender. So bytes that were swapped, repeated or sent to the wrong connection are not
//! merely found wrong but traced. Letters only, because a server that answers in upper case must
//! have something to change.
//!
//! Deliberately not here: comparing (that is `verify`).

use std::cmp::Reverse;

/// Bits of the connection's number in a block; the rest of the 64 are `n` and the block's number.
const CONNECTION_BITS: u32 = 20;
/// Bits of the message's number in a block: it wraps after 268 million messages of one connection.
const NUMBER_BITS: u32 = 28;
/// Bits of the block's number in a block: it wraps after a megabyte.
const BLOCK_BITS: u32 = 16;

/// Letters in a block: each carries four bits.
pub(crate) const BLOCK_BYTES: usize = 16;

/// The digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

/// The longest line without words and filler: two numbers, the space between them, and the end.
pub(crate) const HEADER_BYTES_MAX: usize = 7 + 1 + DIGITS_MAX + 1;

/// Whose bytes these are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) connection: u32,
    pub(crate) n: u64,
}

/// Which letters the filler is made of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Letters {
    Lower,
    Upper,
}

/// What a message says between its number and the filler.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wording {
    Nothing,
    /// Three parts, each for a call of its own.
    InParts,
}

/// The parts; the first one follows the numbers, the last one goes on with the filler.
const PARTS: [&str; 3] = ["This is the message. ", "It will be sent ", "in parts."];

/// One connection's message, written over for each number: sending allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    connection: u32,
    first_letter: u8,
    /// What it says in words, in its letters.
    words: Vec<u8>,
    size_bytes: usize,
    /// The connection's digits and the space after them, which never change, end here.
    number_at: usize,
    /// The current message, and room for the last block to run over its end.
    buffer: Vec<u8>,
    len: usize,
    /// The words begin here.
    words_at: usize,
}

impl Message {
    /// The message number 0 of `connection`, without words, padded to `size_bytes`.
    pub(crate) fn new(connection: u32, size_bytes: usize, letters: Letters) -> Message {
        Message::worded(connection, size_bytes, letters, Wording::Nothing)
    }

    /// As `new`, with words.
    pub(crate) fn worded(
        connection: u32,
        size_bytes: usize,
        letters: Letters,
        wording: Wording,
    ) -> Message {
        assert!(
            connection < 1 << CONNECTION_BITS,
            "a connection's number has {CONNECTION_BITS} bits"
        );
        let mut buffer = connection.to_string().into_bytes();
        buffer.push(b' ');
        let number_at = buffer.len();
        let words = match (wording, letters) {
            (Wording::Nothing, _) => String::new(),
            (Wording::InParts, Letters::Lower) => PARTS.concat(),
            (Wording::InParts, Letters::Upper) => PARTS.concat().to_ascii_uppercase(),
        };
        // A space before the words, and the end of the line.
        let natural_max = number_at + DIGITS_MAX + 1 + words.len() + 1;
        buffer.resize(size_bytes.max(natural_max) + BLOCK_BYTES, 0);
        let first_letter = match letters {
            Letters::Lower => b'a',
            Letters::Upper => b'A',
        };
        let mut message = Message {
            connection,
            first_letter,
            words: words.into_bytes(),
            size_bytes,
            number_at,
            buffer,
            len: 0,
            words_at: 0,
        };
        message.set(0);
        message
    }

    /// Makes it the message number `n`.
    // Written by hand, because it runs once for every message: the formatting machinery would cost
    // more than all else that the client does between two system calls.
    #[inline]
    pub(crate) fn set(&mut self, n: u64) {
        let mut header_end = self.number_at + write_number(&mut self.buffer[self.number_at..], n);
        if !self.words.is_empty() {
            self.buffer[header_end] = b' ';
            self.words_at = header_end + 1;
            header_end = self.words_at + self.words.len();
            self.buffer[self.words_at..header_end].copy_from_slice(&self.words);
        }
        self.len = self.size_bytes.max(header_end + 1);
        if self.len > header_end + 1 {
            self.buffer[header_end] = b' ';
            let filler_at = header_end + 1;
            let blocks = (self.len - filler_at).div_ceil(BLOCK_BYTES);
            let filler = &mut self.buffer[filler_at..filler_at + blocks * BLOCK_BYTES];
            let (chunks, _) = filler.as_chunks_mut::<BLOCK_BYTES>();
            for (block, chunk) in chunks.iter_mut().enumerate() {
                *chunk = block_letters(pack(self.connection, n, block), self.first_letter);
            }
        }
        self.buffer[self.len - 1] = b'\n';
    }

    /// The whole line.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Where the parts of a message in parts end.
    pub(crate) fn part_ends(&self) -> [usize; PARTS.len()] {
        let first = self.words_at + PARTS[0].len();
        [first, first + PARTS[1].len(), self.len]
    }

    /// The length of the longest message that this one can become.
    pub(crate) fn len_max(&self) -> usize {
        self.buffer.len() - BLOCK_BYTES
    }
}

/// Writes the decimal digits of `number`; answers how many.
#[inline]
fn write_number(to: &mut [u8], mut number: u64) -> usize {
    let mut digits = [0; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let count = DIGITS_MAX - at;
    to[..count].copy_from_slice(&digits[at..]);
    count
}

fn pack(connection: u32, n: u64, block: usize) -> u64 {
    let n = n & ((1 << NUMBER_BITS) - 1);
    let block = block as u64 & ((1 << BLOCK_BITS) - 1);
    (u64::from(connection) << (NUMBER_BITS + BLOCK_BITS)) | (n << BLOCK_BITS) | block
}

fn unpack(word: u64) -> Origin {
    Origin {
        connection: (word >> (NUMBER_BITS + BLOCK_BITS)) as u32,
        n: (word >> BLOCK_BITS) & ((1 << NUMBER_BITS) - 1),
    }
}

// Any odd factors would do; these are the fractional parts of the square roots of 2 and 3, made
// odd.
const FACTOR_1: u64 = 0x6a09_e667_f3bc_c909;
const FACTOR_2: u64 = 0xbb67_ae85_84ca_a73b;

/// Multiplying by an odd number and folding the high half into the low one can both be undone.
#[inline]
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_mul(FACTOR_1);
    (word ^ (word >> 32)).wrapping_mul(FACTOR_2)
}

fn unscramble(word: u64) -> u64 {
    let word = word.wrapping_mul(const { inverse(FACTOR_2) });
    (word ^ (word >> 32)).wrapping_mul(const { inverse(FACTOR_1) })
}

/// The number that undoes a multiplication by `odd`, by Newton's iteration: each step doubles the
/// bits that are right, and an odd number is its own inverse in the lowest three.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// The 16 letters of a packed block: four bits each, the lowest first.
#[inline]
fn block_letters(packed: u64, first_letter: u8) -> [u8; BLOCK_BYTES] {
    let word = scramble(packed);
    let base = u64::from(first_letter) * 0x0101_0101_0101_0101;
    let mut letters = [0; BLOCK_BYTES];
    letters[..8].copy_from_slice(&(spread(word as u32) + base).to_le_bytes());
    letters[8..].copy_from_slice(&(spread((word >> 32) as u32) + base).to_le_bytes());
    letters
}

/// Gives each of the eight half-bytes of `half` a byte of its own.
#[inline]
fn spread(half: u32) -> u64 {
    let word = u64::from(half);
    let word = (word | (word << 16)) & 0x0000_ffff_0000_ffff;
    let word = (word | (word << 8)) & 0x00ff_00ff_00ff_00ff;
    (word | (word << 4)) & 0x0f0f_0f0f_0f0f_0f0f
}

/// The word that these letters are, whichever their case.
fn read_block(letters: &[u8]) -> Option<u64> {
    let mut word = 0;
    for (position, letter) in letters[..BLOCK_BYTES].iter().enumerate() {
        let value = letter.to_ascii_lowercase().wrapping_sub(b'a');
        if value >= 16 {
            return None;
        }
        word |= u64::from(value) << (4 * position);
    }
    Some(unscramble(word))
}

/// Whose filler is in `bytes`, which may begin and end anywhere.
///
/// Any 16 letters name some sender, also those across the border of two blocks. Only senders that
/// exist are believed (`connections`, `n_max`), and of these the one whose neighbouring blocks
/// agree best.
pub(crate) fn origin_of_filler(bytes: &[u8], connections: u32, n_max: u64) -> Option<Origin> {
    let candidates = (0..(bytes.len() + 1).saturating_sub(BLOCK_BYTES)).filter_map(|at| {
        let packed = read_block(&bytes[at..at + BLOCK_BYTES])?;
        let origin = unpack(packed);
        let exists = origin.connection < connections && origin.n <= n_max;
        exists.then(|| (origin, agreement(bytes, at, packed)))
    });
    // The first of the best: `min_by_key` keeps the first where `max_by_key` would keep the last.
    candidates
        .min_by_key(|(_, agreement)| Reverse(*agreement))
        .map(|(origin, _)| origin)
}

/// How many of the bytes around the block at `at` are what that block's neighbours would be.
fn agreement(bytes: &[u8], at: usize, packed: u64) -> usize {
    let same = |(letter, byte): &(&u8, &u8)| letter.eq_ignore_ascii_case(byte);
    let next = block_letters(packed.wrapping_add(1), b'a');
    let previous = block_letters(packed.wrapping_sub(1), b'a');
    let after = next
        .iter()
        .zip(&bytes[at + BLOCK_BYTES..])
        .take_while(same)
        .count();
    let before = previous
        .iter()
        .rev()
        .zip(bytes[..at].iter().rev())
        .take_while(same)
        .count();
    after + before
}

/// The sender that the line at the start of `bytes` claims to come from.
pub(crate) fn origin_of_header(bytes: &[u8]) -> Option<Origin> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let connection = words.next()?.parse().ok()?;
    let n = words.next()?.parse().ok()?;
    Some(Origin { connection, n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_header_padded_to_the_size() {
        // Goal: form and length at every size around the natural one. Method: compares with the
        // definition.
        for n in [0, 9, 10, 42, 99_999, u64::MAX] {
            let header = format!("17 {n}");
            for size_bytes in 1..100 {
                let mut message = Message::new(17, size_bytes, Letters::Lower);
                message.set(n);
                let line = std::str::from_utf8(message.bytes()).unwrap();
                assert_eq!(line.len(), size_bytes.max(header.len() + 1));
                assert!(line.len() <= message.len_max());
                let rest = line
                    .strip_prefix(&header)
                    .unwrap()
                    .strip_suffix('\n')
                    .unwrap();
                if let Some(filler) = rest.strip_prefix(' ') {
                    assert!(filler.bytes().all(|letter| letter.is_ascii_lowercase()));
                } else {
                    assert_eq!(rest, "");
                }
                assert_eq!(
                    origin_of_header(message.bytes()),
                    Some(Origin { connection: 17, n })
                );
            }
        }
    }

    #[test]
    fn a_message_in_parts_says_so() {
        // Goal: numbers, words, filler and the ends of the parts, at every size around the natural
        // one, in both cases. Method: compares with the definition.
        for n in [0, 42, u64::MAX] {
            for size_bytes in 1..150 {
                let header = format!("17 {n} ");
                let worded = |letters| {
                    let mut message = Message::worded(17, size_bytes, letters, Wording::InParts);
                    message.set(n);
                    message
                };
                let message = worded(Letters::Lower);
                let line = std::str::from_utf8(message.bytes()).unwrap();
                assert_eq!(line.len(), size_bytes.max(header.len() + 46 + 1));
                assert!(line.len() <= message.len_max());
                let [first, second, third] = message.part_ends();
                assert_eq!(line[..first], format!("{header}This is the message. "));
                assert_eq!(&line[first..second], "It will be sent ");
                assert!(line[second..third].starts_with("in parts."), "{line}");
                assert!(line[..third].ends_with('\n') && third == line.len());
                assert_eq!(line.find('\n'), Some(line.len() - 1));
                let origin = Origin { connection: 17, n };
                assert_eq!(origin_of_header(message.bytes()), Some(origin));
                let upper = worded(Letters::Upper);
                assert_eq!(line.to_ascii_uppercase().as_bytes(), upper.bytes());
            }
        }
    }

    #[test]
    fn writing_over_leaves_nothing_behind() {
        // Goal: a message is the same whatever stood there before. Method: compares with a fresh
        // one.
        let mut used = Message::new(3, 50, Letters::Lower);
        for n in [u64::MAX, 0, 123_456, 7] {
            used.set(n);
            let mut fresh = Message::new(3, 50, Letters::Lower);
            fresh.set(n);
            assert_eq!(used.bytes(), fresh.bytes());
        }
    }

    #[test]
    fn upper_case_differs_in_the_letters_alone() {
        // Goal: what --upper expects is what a server makes of the message. Method: std's
        // conversion.
        for n in 0..50 {
            let mut lower = Message::new(399, 200, Letters::Lower);
            let mut upper = Message::new(399, 200, Letters::Upper);
            lower.set(n);
            upper.set(n);
            assert_eq!(lower.bytes().to_ascii_uppercase(), upper.bytes());
            assert_ne!(lower.bytes(), upper.bytes());
        }
    }

    #[test]
    fn scrambling_can_be_undone() {
        // Goal: unscramble is scramble's inverse. Method: both ways over words of every magnitude.
        for shift in 0..64 {
            for word in [
                1u64 << shift,
                u64::MAX >> shift,
                FACTOR_1.rotate_left(shift),
            ] {
                assert_eq!(unscramble(scramble(word)), word);
            }
        }
    }

    #[test]
    fn any_whole_block_names_its_sender() {
        // Goal: pieces cut out anywhere are traced, in both cases, also across two messages.
        // Method: every piece of twice a block's length from some messages' fillers.
        for (connection, n) in [(0, 0), (17, 42), (399, 99_999), (999_999, 1 << 27)] {
            let mut message = Message::new(connection, 400, Letters::Lower);
            message.set(n);
            let line = message.bytes();
            let filler_at = line.iter().rposition(|byte| *byte == b' ').unwrap() + 1;
            let expected = Some(Origin { connection, n });
            for piece in line[filler_at..].windows(2 * BLOCK_BYTES) {
                if piece.contains(&b'\n') {
                    continue;
                }
                assert_eq!(origin_of_filler(piece, 1_000_000, 1 << 27), expected);
                let upper = piece.to_ascii_uppercase();
                assert_eq!(origin_of_filler(&upper, 1_000_000, 1 << 27), expected);
            }
        }
    }

    #[test]
    fn no_two_blocks_are_alike() {
        // Goal: swapped pieces cannot look right. Method: all blocks of many messages into one set.
        let mut seen = std::collections::HashSet::new();
        for connection in 0..20 {
            for n in 0..20 {
                for block in 0..20 {
                    assert!(seen.insert(block_letters(pack(connection, n, block), b'a')));
                }
            }
        }
    }
}
