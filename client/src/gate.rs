//! Who waits for whom: the connections for one another before they send, the run for all of them.
//! (The gates of `--fail-if` are something else, and in `fail_if`.)
//!
//! Application on L4. The counts are atomics and the parked are woken through the runtime's
//! handles, so that green and OS threads may wait together.
//!
//! Deliberately not here: what happens at the start and at the end of the window (`load`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::load::Load;
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
    fn arrive(&self) -> bool {
        leave(&self.coming)
    }

    /// One sends no more; whether it was the last one.
    fn finish_exchange(&self) -> bool {
        leave(&self.exchanging)
    }

    /// The thread of one ends.
    fn end(&self) {
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

/// A connection's presence in the counts by which the others wait for it. It is given up even when
/// the thread panics: the run then ends, and tells the panic, instead of waiting for ever.
pub(crate) struct Presence<'a> {
    load: &'a Load,
    gate: &'a Gate,
    coming: bool,
    exchanging: bool,
}

impl<'a> Presence<'a> {
    /// Of a connection that has not been made yet, which `gate` knows of.
    pub(crate) fn new(load: &'a Load, gate: &'a Gate) -> Presence<'a> {
        Presence {
            load,
            gate,
            coming: true,
            exchanging: true,
        }
    }

    /// The connection is up or has failed; the last one starts the measured window.
    pub(crate) fn arrive(&mut self) {
        if std::mem::take(&mut self.coming) && self.gate.arrive() {
            self.load.start();
        }
    }

    /// The connection sends no more; the last one ends the measured window, if time has not.
    ///
    /// Where a schedule ends at an instant the first one does: until thousands have ended and the
    /// supervisor has its turn time passes in which nothing was to be sent.
    pub(crate) fn finish_exchange(&mut self) {
        if std::mem::take(&mut self.exchanging) {
            let is_last = self.gate.finish_exchange();
            if is_last || self.load.clock.now_ns() >= self.load.end_ns() {
                self.load.end_window();
            }
        }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.arrive();
        self.finish_exchange();
        self.gate.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        load: arguments::Load,
    }

    /// Whether time is over when the first of three connections has ended.
    fn is_over_after_one(duration: &str) -> bool {
        let words = ["client", "--connections", "3", "--duration", duration];
        let load = Load::new(Alone::parse_from(words).load);
        let mut all = [load.presence(), load.presence(), load.presence()];
        for presence in &mut all {
            presence.arrive();
        }
        all[0].finish_exchange();
        load.is_enough(0)
    }

    #[test]
    fn the_first_to_end_in_time_ends_the_window() {
        // Goal: the window is not longer because thousands take their time to end; who ends before
        // its time does not end it. Method: the first of three ends when time is over, and when it
        // is not.
        assert!(is_over_after_one("1ns"));
        assert!(!is_over_after_one("1h"));
    }
}
