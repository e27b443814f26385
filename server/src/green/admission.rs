//! How many connections the server holds: the limit it is given, and the limits of the system.
//!
//! At either limit the server stops accepting, until a connection ends. New ones are not refused
//! meanwhile: the kernel has completed their handshake, and they wait in the listen queue with
//! whatever they send. Only when that queue is full too do clients see their connect take longer.
//!
//! What errors of accept mean is told in `accept_error`.
//!
//! Man pages: accept(2), listen(2). Deliberately not here: the connections themselves (`service`).

use crate::accept_error::{Fault, PAUSE_MAX, Shortages};
use log::info;
use runtime::thread::{self, Thread};
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;

/// Decides when the next connection may be accepted.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: Option<NonZeroUsize>,
    open: Cell<usize>,
    /// The acceptor, while it waits for a connection to end.
    waiting: RefCell<Option<Thread>>,
    shortages: Cell<Shortages>,
}

impl Admission {
    pub(crate) fn new(limit: Option<NonZeroUsize>) -> Admission {
        Admission {
            limit,
            open: Cell::default(),
            waiting: RefCell::default(),
            shortages: Cell::default(),
        }
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// Whether one more would be within the limit.
    pub(crate) fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.open.get() < limit.get())
    }

    /// Parks the acceptor as long as the limit is reached.
    pub(crate) fn wait_for_room(&self) {
        if self.has_room() {
            return;
        }
        info!(
            "{} connections, which is the limit: the next wait until one ends",
            self.open.get()
        );
        while !self.has_room() {
            self.wait_for_an_end(thread::park);
        }
    }

    /// One more.
    pub(crate) fn enter(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.open.set(self.open.get() - 1);
        if let Some(acceptor) = self.waiting.take() {
            acceptor.unpark();
        }
    }

    /// Decides whether accepting can go on after `error`, and waits before it does if it must.
    ///
    /// # Errors
    ///
    /// `error` itself, if no accept can succeed any more.
    pub(crate) fn recover_from(&self, error: io::Error) -> io::Result<()> {
        if error.kind() == ErrorKind::WouldBlock {
            // Another worker has been told of the stop before us. It takes in the queue of the
            // listener that we share, and does not wait there.
            self.wait_for_an_end(|| thread::park_timeout(PAUSE_MAX));
            return Ok(());
        }
        match Fault::of(&error) {
            Fault::Peer => Ok(()),
            Fault::Shortage => {
                self.pause(0, &error);
                Ok(())
            }
            Fault::Listener => Err(error),
        }
    }

    /// Waits until a connection ends, but not long. Of those there are, `unserved` lack a stack.
    pub(crate) fn pause(&self, unserved: usize, error: &io::Error) {
        let mut shortages = self.shortages.get();
        shortages.note(self.open.get() - unserved, error);
        self.shortages.set(shortages);
        self.wait_for_an_end(|| thread::park_timeout(PAUSE_MAX));
    }

    fn wait_for_an_end(&self, park: impl FnOnce()) {
        self.waiting.replace(Some(thread::current()));
        park();
        self.waiting.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_who_is_there() {
        // Goal: room is what the limit leaves. Method: fills it, and lets one go.
        let admission = Admission::new(NonZeroUsize::new(2));
        admission.enter();
        assert!(admission.has_room());
        admission.enter();
        assert!(!admission.has_room());
        admission.leave();
        assert!(admission.has_room());
        assert_eq!(admission.open(), 1);
    }
}
