//! The ways to serve many connections, one file each.
//!
//! A model is a function `serve(listener, options, stop)` that echoes until `stop` says so and
//! gives back the books. Models that are alike share a directory of support modules beside this
//! one, and what all have in common lies there, too, so that a file here holds only what makes its
//! model what it is: how it waits, accepts, reads and writes. Files have the same shape, so that
//! comparing two of them shows how their models differ (server/README.md tells which two).
//!
//! Deliberately not here: anything that runs while a server serves.

#[cfg(target_os = "linux")]
mod aio;
mod blocking;
#[cfg(target_os = "linux")]
mod epoll;
mod fork;
pub(crate) mod green;
mod green_workers;
#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
mod kqueue;
mod nonblocking;
mod poll;
mod prefork;
mod prefork_green;
mod select;
mod selector;
#[cfg(target_os = "linux")]
mod signal;
mod thread_pool;
mod threads;

use crate::options::Options;
#[cfg(target_os = "linux")]
use crate::ring::Ring;
use crate::stop::Stop;
use crate::summary::Summary;
use clap::ValueEnum;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::num::NonZeroUsize;

/// Enough for most people, and few enough for most machines.
const POOL_THREADS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// Processes are dearer than threads.
const PREFORKED_PROCESSES: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");

/// A way to serve many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// One client at a time; all others wait for it to leave
    Blocking,
    /// An OS thread for each connection
    Threads,
    /// A fixed number of OS threads; when each has a client, the next wait
    ThreadPool,
    /// A process for each connection
    Fork,
    /// A fixed number of processes; when each has a client, the next wait
    Prefork,
    /// A fixed number of processes, with green threads in each
    PreforkGreen,
    /// One OS thread asks each socket in turn; it never sleeps, so it always costs a processor
    Nonblocking,
    /// One OS thread, select(2): at most 1,000 connections
    Select,
    /// One OS thread, poll(2)
    Poll,
    /// One OS thread, epoll(7); Linux only
    Epoll,
    /// One OS thread, kqueue(2); BSD and macOS only
    Kqueue,
    /// One OS thread, a callback for each socket, over the system's best poller
    Selector,
    /// One OS thread, told of ready sockets by real-time signals; Linux only
    Signal,
    /// One OS thread, asynchronous operations by io_uring; Linux only, where it is allowed
    Aio,
    /// A green thread for each connection, all on one OS thread
    Green,
    /// Green threads on several OS threads
    GreenWorkers,
}

/// What every model is.
type Serve = fn(TcpListener, &Options, &Stop) -> io::Result<Summary>;

impl Model {
    /// Serves in this way until `stop` says so, and gives back the books.
    ///
    /// # Errors
    ///
    /// If this system does not have the model, or cannot start it.
    pub(crate) fn serve(
        self,
        listener: TcpListener,
        options: &Options,
        stop: &Stop,
    ) -> io::Result<Summary> {
        let serve = self.function().ok_or_else(|| self.missing())?;
        serve(listener, options, stop)
    }

    /// Finds out whether this system has the model and what it is to stand on, before anything is
    /// opened for it.
    ///
    /// # Errors
    ///
    /// If it has not. The message names those it has, or tells what can be done about it.
    pub(crate) fn check(self, options: &Options) -> io::Result<()> {
        if self.function().is_none() {
            return Err(self.missing());
        }
        if self.has_poller() {
            options.poller()?;
        }
        // A kernel may have an io_uring and be told not to give it to us: only an attempt tells.
        #[cfg(target_os = "linux")]
        if self == Model::Aio {
            drop(Ring::new()?);
        }
        Ok(())
    }

    fn missing(self) -> io::Error {
        let able = Model::names(|model| model.function().is_some());
        let message = format!("this system does not have --model {self}, but {able}");
        io::Error::new(ErrorKind::Unsupported, message)
    }

    /// Where the model is, if this system has it.
    fn function(self) -> Option<Serve> {
        Some(match self {
            Model::Blocking => blocking::serve,
            Model::Threads => threads::serve,
            Model::ThreadPool => thread_pool::serve,
            Model::Fork => fork::serve,
            Model::Prefork => prefork::serve,
            Model::PreforkGreen => prefork_green::serve,
            Model::Nonblocking => nonblocking::serve,
            Model::Select => select::serve,
            Model::Poll => poll::serve,
            #[cfg(target_os = "linux")]
            Model::Epoll => epoll::serve,
            #[cfg(any(
                target_vendor = "apple",
                target_os = "freebsd",
                target_os = "netbsd",
                target_os = "openbsd",
                target_os = "dragonfly"
            ))]
            Model::Kqueue => kqueue::serve,
            Model::Selector => selector::serve,
            #[cfg(target_os = "linux")]
            Model::Signal => signal::serve,
            #[cfg(target_os = "linux")]
            Model::Aio => aio::serve,
            Model::Green => green::serve,
            Model::GreenWorkers => green_workers::serve,
            _ => return None,
        })
    }

    /// How many workers the model has if nobody says so; `None` if it does not have a number of
    /// them.
    pub(crate) fn workers(self) -> Option<NonZeroUsize> {
        match self {
            Model::ThreadPool => Some(POOL_THREADS),
            Model::Prefork => Some(PREFORKED_PROCESSES),
            Model::PreforkGreen | Model::GreenWorkers => {
                Some(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
            }
            _ => None,
        }
    }

    /// Whether it stands on a poller of the runtime, which can be chosen.
    pub(crate) fn has_poller(self) -> bool {
        matches!(
            self,
            Model::Selector | Model::Green | Model::GreenWorkers | Model::PreforkGreen
        )
    }

    /// Whether it listens with several sockets on one port.
    pub(crate) fn shares_port(self) -> bool {
        cfg!(target_os = "linux") && matches!(self, Model::Prefork | Model::PreforkGreen)
    }

    /// The names of those who are `able`, for people.
    pub(crate) fn names(able: impl Fn(Model) -> bool) -> String {
        let able = Model::value_variants().iter().filter(|model| able(**model));
        let names: Vec<String> = able.map(Model::to_string).collect();
        names.join(", ")
    }
}

impl fmt::Display for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no model is hidden");
        formatter.write_str(value.get_name())
    }
}
