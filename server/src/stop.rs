//! When to stop: the first SIGINT or SIGTERM asks for a graceful stop, the second ends the process.
//!
//! A signal handler may do next to nothing (signal-safety(7)). Ours, which are signal-hook's, note
//! the signal and write to a pipe (two connected sockets); the second one ends the process there
//! and then, even if nothing in it ever waits again. Nobody reads from the pipe, so once a stop was
//! requested it is readable for ever: everybody who watches it learns of the stop, however late and
//! in whichever way they wait. A green thread or an OS thread calls [`Stop::wait`], an event loop
//! watches the descriptor beside its sockets.
//!
//! No OS thread waits for the signals: a process with two of them shares its table of descriptors,
//! and then the kernel counts the users of a descriptor in every single call. That is 2 % of an
//! echo.
//!
//! A forked child must not go on with the parent's: its signals would be written to the parent's
//! pipe. It gets one of its own ([`Stop::renewed_in_child`]).
//!
//! Man pages: signal(7), signal-safety(7), socketpair(2), unix(7), fork(2). Deliberately not here:
//! what a stop consists of (see `drain`).

use crate::process::fork;
use log::error;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{SigId, flag, low_level};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What shells report for a program that a signal ended: 128 and the signal's number.
const EXIT_CODE_BASE: i32 = 128;

/// A request to stop, which comes once and stays.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requested: Arc<AtomicBool>,
    /// The signal that asked, or 0.
    signal: Arc<AtomicUsize>,
    /// Becomes readable with the request, and stays so.
    readable: UnixStream,
    /// Its other end, to which the handlers write as well.
    writable: UnixStream,
    handlers: Vec<SigId>,
}

impl Stop {
    /// How a parent asks a child of its own to stop. Ctrl-C sends SIGINT to parent and children
    /// alike, and if the parent passed that on, the child would take it for a second one; this one
    /// may come before, after and any number of times. Until the child has called
    /// [`Stop::renewed_in_child`] it would end it, so it is blocked around the fork.
    pub(crate) const ORDER: i32 = SIGUSR1;

    /// A stop that SIGINT and SIGTERM request.
    ///
    /// # Errors
    ///
    /// If there is no pipe to be had, or the handlers cannot be set up.
    pub(crate) fn on_signals() -> io::Result<Stop> {
        let mut stop = Shared::new()?;
        stop.handle_user_signals()?;
        fork::unblock_signals()?;
        Ok(Stop {
            shared: Arc::new(stop),
        })
    }

    /// What a child that was just forked goes on with. As in its parent, the user's first signal
    /// requests a stop and the second ends the process; so does the parent's
    /// [order](Stop::ORDER), once or often, without counting as the user's.
    ///
    /// # Errors
    ///
    /// As for [`Stop::on_signals`].
    pub(crate) fn renewed_in_child(&self) -> io::Result<Stop> {
        for handler in &self.shared.handlers {
            low_level::unregister(*handler);
        }
        let mut stop = Shared::new()?;
        stop.handle_user_signals()?;
        stop.handle(Stop::ORDER)?;
        Ok(Stop {
            shared: Arc::new(stop),
        })
    }

    /// Whether it has come.
    pub(crate) fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Relaxed)
    }

    /// Suspends the caller, a green thread or a plain OS thread, until a stop is requested.
    pub(crate) fn wait(&self) {
        if let Err(error) = runtime::io::wait_readable(self, None) {
            error!("signals cannot be waited for: {error}");
            self.request();
        }
    }

    /// Requests a stop that no signal asked for.
    pub(crate) fn request(&self) {
        self.shared.requested.store(true, Ordering::Relaxed);
        if let Err(error) = (&self.shared.writable).write(&[0])
            && error.kind() != ErrorKind::WouldBlock
        {
            // A full pipe is readable, which is all that is wanted of it.
            error!("a stop cannot be told: {error}");
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
}

/// The descriptor to watch: readable from the request on. Not to be read from.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.readable.as_fd()
    }
}

impl Shared {
    fn new() -> io::Result<Shared> {
        let (readable, writable) = UnixStream::pair()?;
        writable.set_nonblocking(true)?;
        Ok(Shared {
            requested: Arc::default(),
            signal: Arc::default(),
            readable,
            writable,
            handlers: Vec::new(),
        })
    }

    fn handle_user_signals(&mut self) -> io::Result<()> {
        let is_second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in the order of their registration, and the first must find the mark
            // only of an earlier signal. It ends the process without destructors or flushing:
            // either might wait for what hangs already.
            let exit_code = EXIT_CODE_BASE + signal;
            let (mark, number) = (Arc::clone(&is_second), Arc::clone(&self.signal));
            self.handlers.extend([
                flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&mark))?,
                flag::register(signal, mark)?,
                flag::register_usize(signal, number, signal as usize)?,
            ]);
            self.handle(signal)?;
        }
        Ok(())
    }

    /// Has `signal` request the stop: first the flag, so that who finds the pipe readable finds it
    /// set.
    fn handle(&mut self, signal: i32) -> io::Result<()> {
        self.handlers.extend([
            flag::register(signal, Arc::clone(&self.requested))?,
            low_level::pipe::register(signal, self.writable.try_clone()?)?,
        ]);
        Ok(())
    }
}

/// See [`Stop::when_dropped`].
#[derive(Debug)]
pub(crate) struct RequestOnDrop(Stop);

impl Drop for RequestOnDrop {
    fn drop(&mut self) {
        if !self.0.is_requested() {
            self.0.request();
        }
    }
}

#[cfg(test)]
impl Stop {
    /// One that nothing but [`Stop::request`] requests.
    pub(crate) fn without_signals() -> Stop {
        Stop {
            shared: Arc::new(Shared::new().expect("there is a pipe")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn is_readable(stop: &Stop) -> bool {
        runtime::io::wait_readable(stop, Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn a_request_stays() {
        // Goal: a stop is seen by whoever looks, however often and however late. Method: requests
        // one, and looks and waits several times, on a green thread as well.
        let stop = Stop::without_signals();
        assert!(!stop.is_requested() && !is_readable(&stop));
        stop.request();
        for _ in 0..2 {
            assert!(stop.is_requested() && is_readable(&stop));
            stop.wait();
            runtime::run(|| stop.wait());
        }
    }

    #[test]
    fn any_number_of_requests_is_one() {
        // Goal: requesting never waits. Method: more requests than a pipe can hold.
        let stop = Stop::without_signals();
        for _ in 0..1_000_000 {
            stop.request();
        }
        assert!(is_readable(&stop));
    }

    #[test]
    fn a_dropped_guard_requests() {
        // Goal: whoever ends takes the server with it. Method: drops a guard while another waits.
        let stop = Stop::without_signals();
        let guard = stop.when_dropped();
        std::thread::scope(|scope| {
            scope.spawn(|| stop.wait());
            drop(guard);
        });
        assert!(stop.is_requested());
        assert_eq!(stop.reason(), "a failure");
    }
}
