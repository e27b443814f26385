//! Who waits for whom: the connections for one another before they send, the run for all of them.
//! (The gates of `--fail-if` are something else, and in `fail_if`.)
//!
//! Application on L4. The counts are atomics and the parked are woken through the runtime's
//! handles, so that green and OS threads may wait together.
//!
//! Deliberately not here: what happens at the start and at the end of the window (`load`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::slot::lock;
use crate::thread::{self, Thread};

/// The counts by which all wait.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Connections that are not yet up and have not failed.
    coming: AtomicU32,
    /// Connections that may still send.
    exchanging: AtomicU32,
    /// Connections whose thread has not ended.
    running: AtomicU32,
    is_open: AtomicBool,
    /// Connections that are up and wait for the others.
    waiting: Mutex<Vec<Thread>>,
}

impl Gate {
    pub(crate) fn new(connections: u32) -> Gate {
        Gate {
            coming: AtomicU32::new(connections),
            exchanging: AtomicU32::new(connections),
            running: AtomicU32::new(connections),
            is_open: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// One more is up or has failed; whether it was the last one.
    pub(crate) fn arrive(&self) -> bool {
        leave(&self.coming)
    }

    /// One sends no more; whether it was the last one.
    pub(crate) fn finish_exchange(&self) -> bool {
        leave(&self.exchanging)
    }

    /// The thread of one ends.
    pub(crate) fn end(&self) {
        leave(&self.running);
    }

    /// There never were any.
    pub(crate) fn end_all(&self) {
        self.running.store(0, Ordering::Relaxed);
    }

    /// Whether the thread of any connection has not ended.
    pub(crate) fn is_anybody_running(&self) -> bool {
        // Acquire: pairs with `leave`; who sees that nobody runs sees what they have written.
        self.running.load(Ordering::Acquire) > 0
    }

    /// Lets all go on who wait, now and later.
    pub(crate) fn open(&self) {
        let waiting = {
            let mut waiting = lock(&self.waiting);
            // Release: pairs with the acquire in `is_open`.
            self.is_open.store(true, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        for thread in waiting {
            thread.unpark();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        // Acquire: pairs with the release in `open`: who goes on sees the window begun.
        self.is_open.load(Ordering::Acquire)
    }

    /// Parks until it is open.
    pub(crate) fn wait(&self) {
        {
            let mut waiting = lock(&self.waiting);
            if self.is_open() {
                return;
            }
            waiting.push(thread::current());
        }
        while !self.is_open() {
            thread::park();
        }
    }
}

/// Counts one off; whether it was the last.
fn leave(count: &AtomicU32) -> bool {
    // Acquire and release: the last one acts for all, and so must see what all have written.
    count.fetch_sub(1, Ordering::AcqRel) == 1
}
