//! L3. A source: where a socket's descriptor is registered.
//!
//! Sockets may be sent and shared between OS threads, as std's may, so this is atomic. The first
//! worker on which an operation has to wait becomes the socket's *home* and stays it until the
//! socket is closed or the worker ends. Only the home reads the key, on its own OS thread.
//!
//! Deliberately not here: the waiting itself (`registry`).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Direction;
use crate::sched::inbox::Inbox;
use crate::sched::worker::Worker;
use crate::selector::Key;

/// Embedded in each socket.
#[derive(Debug)]
pub(crate) struct Source {
    /// The number of the home's worker; 0 before there is one.
    worker: AtomicU32,
    /// The key there, as a word; 0 before there is one.
    key: AtomicU64,
}

/// Where a socket's home is, seen from a worker.
pub(super) enum Home {
    /// On this worker: the key, and whether a call is worth trying.
    Here(Key, bool),
    /// It has none yet, or had one that has ended.
    Nowhere,
    /// On another worker.
    Elsewhere,
}

impl Source {
    /// A socket that has never had to wait.
    pub(crate) const fn new() -> Source {
        Source {
            worker: AtomicU32::new(0),
            key: AtomicU64::new(0),
        }
    }

    /// Where the home is, and what is known there about this direction.
    #[inline]
    pub(super) fn home(&self, worker: &Worker, direction: Direction) -> Home {
        let number = self.worker.load(Ordering::Relaxed);
        if number == worker.inbox.number() {
            // Relaxed: this OS thread stored it.
            let key = Key::from_word(self.key.load(Ordering::Relaxed));
            let known = key.and_then(|key| {
                let is_ready = worker.registry.is_ready(key, direction)?;
                Some(Home::Here(key, is_ready))
            });
            return known.unwrap_or(Home::Nowhere);
        }
        if number == 0 || Inbox::of_worker(number).is_none() {
            return Home::Nowhere;
        }
        Home::Elsewhere
    }

    /// Makes `worker` the home and registers the descriptor there; `None` where another OS thread
    /// has become it in the same moment.
    ///
    /// # Errors
    ///
    /// What registering reports; the socket then has no home.
    #[cold]
    pub(super) fn settle(
        &self,
        worker: &Worker,
        fd: BorrowedFd<'_>,
        direction: Direction,
    ) -> io::Result<Option<Key>> {
        let own = worker.inbox.number();
        let before = self.worker.load(Ordering::Relaxed);
        let is_free = before == 0 || before == own || Inbox::of_worker(before).is_none();
        // Relaxed: nothing but the number itself is handed over.
        let order = Ordering::Relaxed;
        if !is_free
            || self
                .worker
                .compare_exchange(before, own, order, order)
                .is_err()
        {
            return Ok(None);
        }
        match worker.registry.register(worker, fd, direction) {
            Ok(key) => {
                self.key.store(key.to_word(), Ordering::Relaxed);
                Ok(Some(key))
            }
            Err(error) => {
                self.worker.store(0, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Ends the home: its worker's number and the key there.
    pub(super) fn unsettle(&self) -> Option<(u32, Key)> {
        let number = self.worker.swap(0, Ordering::Relaxed);
        let key = Key::from_word(self.key.swap(0, Ordering::Relaxed))?;
        (number != 0).then_some((number, key))
    }
}
