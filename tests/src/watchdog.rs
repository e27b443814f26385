//! A hard deadline for a test: one that hangs must fail, and say which it was.

use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Ends the whole test process unless it is dropped in time.
pub struct Watchdog {
    /// Dropping this is what tells the watching thread that all is well.
    _alive: Sender<()>,
}

impl Watchdog {
    /// A watchdog for the running test, which is named by its thread.
    #[must_use]
    pub fn new(deadline: Duration) -> Watchdog {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let (alive, watched) = mpsc::channel();
        thread::spawn(move || {
            if watched.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} has not ended within {deadline:?}");
                process::abort();
            }
        });
        Watchdog { _alive: alive }
    }
}
