//! The books: what was served, what went wrong, and how the server says so at the end.
//!
//! Deliberately not here: who writes into them (`service`).

use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// What happened from the start to the end.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Connections that were accepted and given a green thread.
    pub(crate) served: u64,
    /// Connections that were accepted and closed again at once, for want of memory.
    pub(crate) refused: u64,
    /// The most that were open at the same time.
    pub(crate) peak: usize,
    /// Those the idle time-out ended.
    pub(crate) idle: u64,
    /// Those that had not finished when the drain time-out passed.
    pub(crate) cut_off: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Those whose green thread panicked.
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

    /// Counts a connection that ended with `error`.
    pub(crate) fn count_error(&mut self, error: &io::Error) {
        *self.errors.entry(error.kind().to_string()).or_default() += 1;
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
