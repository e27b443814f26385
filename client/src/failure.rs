//! What can go wrong, by phase and cause, and the book in which it is counted.
//!
//! Application, above L4. Every connection fails at most once, because it is closed then and not
//! opened again; so the book counts connections, and beside them the messages that were under way
//! on them.
//!
//! Deliberately not here: what makes a reply wrong (`verify`) and how the book is printed
//! (`report`).

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What the connection was doing.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Before anything: the machine does not allow what was asked for.
    Prepare,
    Resolve,
    Connect,
    Send,
    Receive,
    Verify,
    Close,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`: the report aligns the phases in a column.
        formatter.pad(match self {
            Phase::Prepare => "prepare",
            Phase::Resolve => "resolve",
            Phase::Connect => "connect",
            Phase::Send => "send",
            Phase::Receive => "receive",
            Phase::Verify => "verify",
            Phase::Close => "close",
        })
    }
}

/// The end of one connection before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) phase: Phase,
    /// A few words that are the same for all failures of a kind.
    pub(crate) cause: String,
    /// What is particular about this one.
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(
        phase: Phase,
        cause: impl Into<String>,
        detail: impl Into<String>,
    ) -> Failure {
        Failure {
            phase,
            cause: cause.into(),
            detail: detail.into(),
        }
    }

    /// The system, or the runtime, said no. What the runtime says in its own words may be about one
    /// connection; the kind is the same for all.
    pub(crate) fn system(phase: Phase, error: &io::Error, detail: impl Into<String>) -> Failure {
        let detail = detail.into();
        match error.raw_os_error() {
            Some(_) => Failure::new(phase, words_of(error), detail),
            None => Failure::new(
                phase,
                error.kind().to_string(),
                format!("{detail}: {error}"),
            ),
        }
    }
}

/// How often one kind of failure happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) connections: u64,
    /// Messages that were under way on these connections, and so have failed, too.
    pub(crate) messages: u64,
    /// The first one in words.
    pub(crate) first: String,
}

/// All failures by phase and cause.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailureBook {
    counts: BTreeMap<(Phase, String), Count>,
}

impl FailureBook {
    /// Enters the failure of one connection with the messages that were under way on it.
    pub(crate) fn enter(&mut self, failure: Failure, messages: u64) {
        self.enter_many(failure, 1, messages);
    }

    /// Enters one failure that `connections` connections share.
    pub(crate) fn enter_many(&mut self, failure: Failure, connections: u64, messages: u64) {
        let count = self
            .counts
            .entry((failure.phase, failure.cause))
            .or_default();
        if count.connections == 0 {
            count.first = failure.detail;
        }
        count.connections += connections;
        count.messages += messages;
    }

    /// The kinds, in the order in which a connection goes through the phases.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Phase, &str, &Count)> {
        self.counts
            .iter()
            .map(|((phase, cause), count)| (*phase, cause.as_str(), count))
    }

    /// Messages that failed, of all kinds.
    pub(crate) fn messages(&self) -> u64 {
        self.counts.values().map(|count| count.messages).sum()
    }

    /// Connections that failed, of all kinds.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.values().map(|count| count.connections).sum()
    }

    /// Connections that failed before they were connected.
    pub(crate) fn never_connected(&self) -> u64 {
        let early = |(phase, _): &&(Phase, String)| *phase <= Phase::Connect;
        self.counts
            .iter()
            .filter(|(key, _)| early(key))
            .map(|(_, count)| count.connections)
            .sum()
    }
}

/// The error's words with the system's name for it: "connection refused (ECONNREFUSED)".
pub(crate) fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    // std ends the system's words with its number, for which we know the name.
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    let words: String = first.into_iter().chain(letters).collect();
    match error.raw_os_error() {
        None => words,
        Some(number) => match name_of(number) {
            Some(name) => format!("{words} ({name})"),
            None => format!("{words} (errno {number})"),
        },
    }
}

/// The names of the errors that a TCP client can meet.
fn name_of(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::EACCES => "EACCES",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::EAGAIN => "EAGAIN",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EBADF => "EBADF",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNRESET => "ECONNRESET",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETRESET => "ENETRESET",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ENFILE => "ENFILE",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENOMEM => "ENOMEM",
        libc::ENOTCONN => "ENOTCONN",
        libc::EPERM => "EPERM",
        libc::EPIPE => "EPIPE",
        libc::ETIMEDOUT => "ETIMEDOUT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named() {
        // Goal: words and name of a known, an unknown and an own error. Method: makes one of each.
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(words_of(&refused), "connection refused (ECONNREFUSED)");
        let rare = io::Error::from_raw_os_error(libc::EXDEV);
        assert!(
            words_of(&rare).ends_with(&format!("(errno {})", libc::EXDEV)),
            "{rare}"
        );
        let own = io::Error::new(io::ErrorKind::TimedOut, "It took too long");
        assert_eq!(words_of(&own), "it took too long");
        let failure = Failure::system(Phase::Receive, &own, "connection 1");
        assert_eq!(
            (failure.cause.as_str(), failure.detail.as_str()),
            ("timed out", "connection 1: It took too long")
        );
    }

    #[test]
    fn the_book_adds_up() {
        // Goal: sums by kind, by phase and over all. Method: enters known failures.
        let mut book = FailureBook::default();
        book.enter(Failure::new(Phase::Verify, "extra bytes", "first"), 1);
        book.enter(Failure::new(Phase::Connect, "refused", "only"), 0);
        book.enter(Failure::new(Phase::Verify, "extra bytes", "second"), 1);
        book.enter(Failure::new(Phase::Close, "timed out", "last"), 0);
        assert_eq!(
            (book.connections(), book.messages(), book.never_connected()),
            (4, 2, 1)
        );
        let kinds: Vec<_> = book
            .iter()
            .map(|(phase, cause, _)| (phase, cause))
            .collect();
        let expected = [
            (Phase::Connect, "refused"),
            (Phase::Verify, "extra bytes"),
            (Phase::Close, "timed out"),
        ];
        assert_eq!(kinds, expected);
        let extra = book
            .iter()
            .find(|(_, cause, _)| *cause == "extra bytes")
            .unwrap()
            .2;
        assert_eq!(
            (extra.connections, extra.messages, extra.first.as_str()),
            (2, 2, "first")
        );
    }
}
