//! How many connections the server holds: the limit it is given, and the limits of the system.
//!
//! At either limit the server stops accepting, until a connection ends. New ones are not refused
//! meanwhile: the kernel has completed their handshake, and they wait in the listen queue with
//! whatever they send. Only when that queue is full too do clients see their connect take longer.
//!
//! When the process or the system is out of descriptors or memory, accept fails and the connection
//! stays in the queue, so the listener stays readable: who simply tried again would spin. Here it
//! is tried when a connection has ended, which may have freed what was lacking, and at the latest
//! after a pause, as it may also have been lacking elsewhere.
//!
//! Man pages: accept(2) (ERRORS, "Error handling"). Deliberately not here: the connections
//! themselves (`service`).

use log::{debug, info, warn};
use runtime::thread::{self, Thread};
use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// How long accepting pauses at most when the system lacks something.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Shortages closer together than this are one, and logged once.
const EPISODE_GAP: Duration = Duration::from_secs(1);

/// The peer gave up while it was queued, or its network did; Linux reports either in accept. These
/// use the connection up, so that the next accept meets another. Whatever is neither in this list
/// nor in the next is taken for a shortage, so that no error can make the server spin.
const OF_THE_PEER: [i32; 10] = [
    libc::ECONNABORTED,
    libc::ECONNRESET,
    libc::EPROTO,
    libc::ENOPROTOOPT,
    libc::ENETDOWN,
    libc::ENETUNREACH,
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::EPERM,
];

/// The listener itself is broken, and no accept will succeed any more.
const OF_THE_LISTENER: [i32; 5] = [
    libc::EBADF,
    libc::EFAULT,
    libc::EINVAL,
    libc::ENOTSOCK,
    libc::ENOSYS,
];

/// Decides when the next connection may be accepted.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: Option<NonZeroUsize>,
    open: Cell<usize>,
    /// The acceptor, while it waits for a connection to end.
    waiting: RefCell<Option<Thread>>,
    shortage: Cell<Option<Instant>>,
}

impl Admission {
    pub(crate) fn new(limit: Option<NonZeroUsize>) -> Admission {
        let (open, waiting, shortage) = (Cell::new(0), RefCell::new(None), Cell::new(None));
        Admission {
            limit,
            open,
            waiting,
            shortage,
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
        match error.raw_os_error() {
            Some(code) if OF_THE_PEER.contains(&code) => {
                debug!("a connection was gone before it was accepted: {error}");
                Ok(())
            }
            Some(code) if !OF_THE_LISTENER.contains(&code) => {
                self.pause(&error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Waits until a connection ends, but not long.
    pub(crate) fn pause(&self, error: &io::Error) {
        let now = Instant::now();
        let last = self.shortage.replace(Some(now));
        if last.is_none_or(|last| now.duration_since(last) > EPISODE_GAP) {
            let open = self.open.get();
            warn!(
                "cannot take more than {open} connections: {error}. The next wait until one ends; \
                 `ulimit -n` tells how many descriptors a process may have"
            );
        }
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

    #[test]
    fn errors_of_accept_are_told_apart() {
        // Goal: a peer's fault goes by, a broken listener ends the loop. Method: feeds both.
        let admission = Admission::new(None);
        for code in [
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
        ] {
            assert!(
                admission
                    .recover_from(io::Error::from_raw_os_error(code))
                    .is_ok()
            );
        }
        for code in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
            assert!(
                admission
                    .recover_from(io::Error::from_raw_os_error(code))
                    .is_err()
            );
        }
    }
}
