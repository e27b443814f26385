//! How a parent learns what its children have served: they write it into a pipe, entry by entry.
//!
//! Every child has the same end of the same pipe. A write of at most `PIPE_BUF` bytes, and POSIX
//! promises 512 of them, is never torn nor mixed with another's, so entries have one size below
//! that and need no lock. A child that ends has written all it had to say, as a pipe outlives its
//! writers; one that is killed takes along only what it had not written yet. Therefore it reports
//! at the end of each connection and not at its own.
//!
//! A child waits in its write while the pipe is full, which is when its parent is some five hundred
//! connections behind.
//!
//! Man pages: pipe(7) (PIPE_BUF), fork(2). Deliberately not here: what is counted (see `summary`).

use crate::process::fork::Pid;
use crate::summary::Summary;
use crate::wait;
use log::debug;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

/// Numbers in an entry: who writes it, the counts of a summary, and how many errors.
const NUMBERS: usize = 10;
/// Room for the name of one sort of error.
const NAME_BYTES: usize = 48;
/// A power of two, which fills the pages of a pipe without a remainder.
const ENTRY_BYTES: usize = NUMBERS * size_of::<u64>() + NAME_BYTES;
/// What POSIX promises at least.
const PIPE_BUF_BYTES: usize = 512;
const _: () = assert!(ENTRY_BYTES.is_power_of_two() && ENTRY_BYTES <= PIPE_BUF_BYTES);

/// How many entries are read at once.
const ENTRIES_AT_ONCE: usize = 64;

/// Where this process reports, if it is somebody's child.
static PARENT: OnceLock<PipeWriter> = OnceLock::new();

/// Reports `entry`, which has been counted since the last one, to the parent, and the most
/// connections that there ever were at once. In a process that is no child there is nobody to tell.
pub(crate) fn report(entry: &Summary, peak: usize) {
    let Some(mut parent) = PARENT.get() else {
        return;
    };
    for bytes in encode(std::process::id(), entry, peak) {
        if let Err(error) = parent.write_all(&bytes) {
            // It has gone, and nobody will print the books.
            debug!("the parent cannot be told: {error}");
        }
    }
}

/// The parent's side.
#[derive(Debug)]
pub(crate) struct Books {
    reader: PipeReader,
    /// What children inherit.
    writer: PipeWriter,
}

impl Books {
    pub(crate) fn open() -> io::Result<Books> {
        let (reader, writer) = io::pipe()?;
        Ok(Books { reader, writer })
    }

    /// In a child: has [`report`] write to the parent from now on.
    ///
    /// # Errors
    ///
    /// If there is no descriptor to be had.
    pub(crate) fn report_from_here(&self) -> io::Result<()> {
        let writer = self.writer.try_clone()?;
        PARENT
            .set(writer)
            .map_err(|_| io::Error::other("a child is born once"))
    }

    /// Everything that has been reported and not been taken yet, with who reported it.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub(crate) fn take(&mut self) -> io::Result<Vec<(Pid, Summary)>> {
        let mut entries = Vec::new();
        let mut bytes = [0; ENTRIES_AT_ONCE * ENTRY_BYTES];
        // Asked before each read, which therefore never waits: nobody else reads.
        while let [true] = wait::wait_for_any([Some(self.as_fd())], Some(Duration::ZERO))? {
            let count = match self.reader.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            };
            let (whole, torn) = bytes[..count].as_chunks::<ENTRY_BYTES>();
            assert!(torn.is_empty(), "entries are written and read whole");
            entries.extend(whole.iter().map(decode));
        }
        Ok(entries)
    }
}

impl AsFd for Books {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Most have no error and are one entry; each sort of error beyond the first needs another.
fn encode(process: u32, summary: &Summary, peak: usize) -> Vec<[u8; ENTRY_BYTES]> {
    let counts = [
        summary.served,
        summary.refused,
        peak as u64,
        summary.idle,
        summary.cut_off,
        summary.unwound,
        summary.bytes_in,
        summary.bytes_out,
    ];
    let mut errors = summary
        .errors
        .iter()
        .map(|(name, count)| (name.as_str(), *count));
    let mut entries = vec![encode_one(
        process,
        counts,
        errors.next().unwrap_or_default(),
    )];
    entries.extend(errors.map(|error| encode_one(process, [0; _], error)));
    entries
}

fn encode_one(process: u32, counts: [u64; 8], error: (&str, u64)) -> [u8; ENTRY_BYTES] {
    let (name, error_count) = error;
    let mut entry = [0; ENTRY_BYTES];
    let (numbers, room) = entry.split_at_mut(ENTRY_BYTES - NAME_BYTES);
    let all = [u64::from(process)]
        .into_iter()
        .chain(counts)
        .chain([error_count]);
    for (place, number) in numbers.as_chunks_mut().0.iter_mut().zip(all) {
        *place = number.to_ne_bytes();
    }
    // Names are short and of ASCII letters; what is longer is cut.
    for (place, byte) in room.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    entry
}

fn decode(entry: &[u8; ENTRY_BYTES]) -> (Pid, Summary) {
    let (numbers, name) = entry.split_at(ENTRY_BYTES - NAME_BYTES);
    let mut numbers = numbers
        .as_chunks()
        .0
        .iter()
        .map(|bytes| u64::from_ne_bytes(*bytes));
    let mut next = || numbers.next().expect("an entry has ten numbers");
    let process = Pid::try_from(next()).expect("a process has written its own id");
    let mut summary = Summary {
        served: next(),
        refused: next(),
        peak: usize::try_from(next()).expect("it was one"),
        idle: next(),
        cut_off: next(),
        unwound: next(),
        bytes_in: next(),
        bytes_out: next(),
        ..Summary::default()
    };
    let error_count = next();
    if error_count > 0 {
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        summary.errors.insert(name, error_count);
    }
    (process, summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        // Goal: no count is lost or taken for another. Method: different numbers everywhere, two
        // sorts of errors, one with a name that is too long.
        let long = "x".repeat(NAME_BYTES + 1);
        let errors = [("connection reset".to_owned(), 9), (long.clone(), 10)];
        let (served, refused, peak, idle) = (1, 2, 3, 4);
        let (cut_off, unwound, bytes_in, bytes_out) = (5, 6, u64::MAX, 8);
        let summary = Summary {
            served,
            refused,
            peak,
            idle,
            cut_off,
            unwound,
            bytes_in,
            bytes_out,
            errors: errors.into(),
            failure: None,
        };
        let mut whole = Summary::default();
        for entry in encode(77, &summary, summary.peak) {
            let (process, entry) = decode(&entry);
            assert_eq!(process, 77);
            whole.add(entry);
        }
        assert_eq!(whole.errors.remove(&long[1..]), Some(10));
        whole.errors.insert(long, 10);
        assert_eq!(format!("{whole:?}"), format!("{summary:?}"));
    }

    #[test]
    fn entries_are_taken_whole_and_in_order() {
        // Goal: taking never waits and takes all there is. Method: nothing, then more entries than
        // are read at once, from a process that is a child of nobody.
        let mut books = Books::open().unwrap();
        assert!(books.take().unwrap().is_empty());
        let total = 3 * ENTRIES_AT_ONCE + 1;
        for number in 0..total as u64 {
            let summary = Summary {
                served: number,
                ..Summary::default()
            };
            for entry in encode(1, &summary, 0) {
                books.writer.write_all(&entry).unwrap();
            }
        }
        let taken = books.take().unwrap();
        assert!(
            taken
                .iter()
                .map(|(_, entry)| entry.served)
                .eq(0..total as u64)
        );
    }
}
