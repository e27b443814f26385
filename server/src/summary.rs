//! The books: what was served, what went wrong, and how the server says so at the end.
//!
//! Deliberately not here: who keeps them, which each family of models does in its own way.

use crate::ending::Ending;
use crate::process::books;
use log::info;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// What happened from the start to the end.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Connections that were accepted and served.
    pub(crate) served: u64,
    /// Connections that were accepted and closed again, for want of memory, a thread or a process.
    pub(crate) refused: u64,
    /// The most that were open at the same time.
    pub(crate) peak: usize,
    /// Those the idle time-out ended.
    pub(crate) idle: u64,
    /// Those that had not finished when the drain time-out passed.
    pub(crate) cut_off: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Those that panicked.
    pub(crate) unwound: u64,
    /// How many connections ended with which error.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What ended the server, if no signal did.
    pub(crate) failure: Option<io::Error>,
}

impl Summary {
    /// Adds the books of another worker.
    pub(crate) fn add(&mut self, other: Summary) {
        self.served += other.served;
        self.refused += other.refused;
        // Perhaps not at the same moment: what is known is that there were never more.
        self.peak += other.peak;
        self.idle += other.idle;
        self.cut_off += other.cut_off;
        self.unwound += other.unwound;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        for (name, count) in other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.failure = self.failure.take().or(other.failure);
    }

    /// Enters a connection that has ended, and logs it. A parent of this process is told as well.
    pub(crate) fn count(&mut self, number: u64, ending: &Ending, bytes_in: u64, bytes_out: u64) {
        info!("connection {number} ended: {ending}; {bytes_in} bytes in, {bytes_out} bytes out");
        let mut entry = Summary {
            served: u64::from(!matches!(ending, Ending::NeverStarted)),
            bytes_in,
            bytes_out,
            ..Summary::default()
        };
        match ending {
            Ending::NeverStarted => entry.refused = 1,
            Ending::Idle => entry.idle = 1,
            Ending::CutOff => entry.cut_off = 1,
            Ending::Unwound => entry.unwound = 1,
            Ending::Failed(error) => {
                entry.errors.insert(error.kind().to_string(), 1);
            }
            Ending::Finished | Ending::Drained => {}
        }
        books::report(&entry, self.peak);
        self.add(entry);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "connections: {} served, {} refused, {} at once at most, {} closed when idle, \
             {} cut off",
            self.served, self.refused, self.peak, self.idle, self.cut_off
        )?;
        writeln!(
            formatter,
            "bytes: {} in, {} out",
            self.bytes_in, self.bytes_out
        )?;
        let mut errors: Vec<String> = self
            .errors
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if self.unwound > 0 {
            errors.push(format!("{} panicked", self.unwound));
        }
        if errors.is_empty() {
            errors.push("none".into());
        }
        write!(formatter, "errors: {}", errors.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_is_counted_where_it_belongs() {
        // Goal: no connection is lost from the books. Method: one of each ending, and a look.
        let mut summary = Summary::default();
        for (number, ending) in (1..).zip([
            Ending::NeverStarted,
            Ending::Unwound,
            Ending::Finished,
            Ending::Drained,
            Ending::CutOff,
            Ending::Idle,
            Ending::Failed(io::ErrorKind::ConnectionReset.into()),
        ]) {
            summary.count(number, &ending, 3, 2);
        }
        assert_eq!((summary.served, summary.refused), (6, 1));
        assert_eq!((summary.unwound, summary.cut_off, summary.idle), (1, 1, 1));
        assert_eq!((summary.bytes_in, summary.bytes_out), (21, 14));
        assert_eq!(summary.errors["connection reset"], 1);
    }

    #[test]
    fn errors_are_listed_by_name() {
        // Goal: the summary is whole and readable. Method: prints one with and one without errors.
        let mut summary = Summary {
            served: 3,
            bytes_in: 7,
            bytes_out: 6,
            ..Summary::default()
        };
        assert!(
            summary
                .to_string()
                .ends_with("bytes: 7 in, 6 out\nerrors: none")
        );
        summary.errors.insert("connection reset".into(), 2);
        summary.errors.insert("broken pipe".into(), 1);
        assert!(
            summary
                .to_string()
                .ends_with("errors: 1 broken pipe, 2 connection reset")
        );
        assert!(
            summary
                .to_string()
                .starts_with("connections: 3 served, 0 refused")
        );
    }
}
