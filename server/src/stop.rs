//! When to stop: the first SIGINT or SIGTERM asks for a graceful stop, the second ends the process.
//!
//! A signal handler may do next to nothing (signal-safety(7)), so it only writes to a pipe, which
//! is signal-hook's part. An OS thread of our own reads that pipe; there ordinary code may run, and
//! a green thread can be unparked from any OS thread.
//!
//! Man pages: signal(7), signal-safety(7), pipe(7). Deliberately not here: what a stop consists of
//! (see
//! `drain`).

use log::info;
use runtime::thread::{self, Thread};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What shells report for a program that a signal ended: 128 and the signal's number.
const EXIT_CODE_BASE: i32 = 128;

/// A request to stop, which comes once and stays.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requested: AtomicBool,
    /// The signal that asked, or 0.
    signal: AtomicI32,
    waiting: Mutex<Vec<Thread>>,
}

impl Stop {
    /// A stop that SIGINT and SIGTERM request.
    ///
    /// # Errors
    ///
    /// If the handlers or the OS thread that listens to them cannot be set up.
    pub(crate) fn on_signals() -> io::Result<Stop> {
        let stop = Stop {
            shared: Arc::default(),
        };
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let listener = stop.clone();
        // An OS thread, not a green one: it sleeps in a read that the runtime knows nothing of, and
        // it must get through even when no green thread ever yields.
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in &mut signals {
                    if listener.shared.requested.load(Ordering::Relaxed) {
                        // No destructors and no flushing: either might wait for what hangs already.
                        low_level::exit(EXIT_CODE_BASE + signal);
                    }
                    listener.shared.signal.store(signal, Ordering::Relaxed);
                    listener.request();
                }
            })?;
        Ok(stop)
    }

    /// Parks the calling green thread until a stop is requested.
    pub(crate) fn wait(&self) {
        self.waiting().push(thread::current());
        // The lock orders this load after a request that found nobody to unpark.
        while !self.shared.requested.load(Ordering::Relaxed) {
            thread::park();
        }
    }

    /// Requests a stop when the guard is dropped, in whichever way that comes to pass.
    pub(crate) fn when_dropped(&self) -> RequestOnDrop {
        RequestOnDrop(self.clone())
    }

    /// Who requested it, for the summary.
    pub(crate) fn reason(&self) -> &'static str {
        let signal = self.shared.signal.load(Ordering::Relaxed);
        low_level::signal_name(signal).unwrap_or("a failure")
    }

    fn request(&self) {
        let waiting = self.waiting();
        self.shared.requested.store(true, Ordering::Relaxed);
        info!("stopping: {}", self.reason());
        for thread in waiting.iter() {
            thread.unpark();
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Thread>> {
        // A list of threads is whole even if somebody panicked beside it.
        self.shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Stop::when_dropped`].
#[derive(Debug)]
pub(crate) struct RequestOnDrop(Stop);

impl Drop for RequestOnDrop {
    fn drop(&mut self) {
        if !self.0.shared.requested.load(Ordering::Relaxed) {
            self.0.request();
        }
    }
}
