//! When to stop: the first SIGINT or SIGTERM asks for a graceful stop, the second ends the process.
//!
//! A signal handler may do next to nothing (signal-safety(7)). Ours, which are signal-hook's, note
//! the signal and write to a pipe; the second one ends the process there and then, even if no green
//! thread ever yields again. A green thread waits for the pipe.
//!
//! Not an OS thread: a process with two of them shares its table of descriptors, and then the
//! kernel counts the users of a descriptor in every single call. That is 2 % of an echo.
//!
//! Man pages: signal(7), signal-safety(7), pipe(7). Deliberately not here: what a stop consists of
//! (see `drain`).

use log::{error, info};
use runtime::thread::{self, Thread};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What shells report for a program that a signal ended: 128 and the signal's number.
const EXIT_CODE_BASE: i32 = 128;

/// A request to stop, which comes once and stays.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requested: AtomicBool,
    /// The signal that asked, or 0.
    signal: Arc<AtomicUsize>,
    /// Becomes readable when a signal comes.
    signalled: UnixStream,
    waiting: Mutex<Vec<Thread>>,
}

impl Stop {
    /// A stop that SIGINT and SIGTERM request, once somebody listens.
    ///
    /// # Errors
    ///
    /// If the handlers cannot be set up.
    pub(crate) fn on_signals() -> io::Result<Stop> {
        let is_second = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicUsize::new(0));
        let (signalled, handler) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in the order of their registration, and the first must find the mark
            // only of an earlier signal. It ends the process without destructors or flushing:
            // either might wait for what hangs already.
            let exit_code = EXIT_CODE_BASE + signal;
            flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&is_second))?;
            flag::register(signal, Arc::clone(&is_second))?;
            flag::register_usize(signal, Arc::clone(&number), signal as usize)?;
            low_level::pipe::register(signal, handler.try_clone()?)?;
        }
        let shared = Shared {
            requested: AtomicBool::new(false),
            signal: number,
            signalled,
            waiting: Mutex::default(),
        };
        Ok(Stop {
            shared: Arc::new(shared),
        })
    }

    /// Starts the green thread that listens for signals. It ends with the run.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let stop = self.clone();
        let builder = thread::Builder::new().name("signals".into());
        builder.spawn(move || {
            if let Err(error) = runtime::io::wait_readable(&stop.shared.signalled, None) {
                error!("signals cannot be waited for: {error}");
            }
            stop.request();
        })?;
        Ok(())
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
        low_level::signal_name(signal as i32).unwrap_or("a failure")
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
