//! L1. Pollers: they ask the kernel which descriptors are ready.
//!
//! One contract, [`Poller`], and a file for each kernel interface that fulfils it: `epoll`,
//! `kqueue`, `poll` and `select`. Which of them is used is decided at run time, so that one build
//! can be tested on all. Read this file first, then the oldest interface, `select`, then `poll`,
//! and then what the two that keep their registry in the kernel make better.
//!
//! Man pages: select(2), poll(2), epoll(7), kqueue(2). Not here: whom a readiness concerns (see
//! `selector`), callbacks (see `reactor`), green threads.

#[cfg(target_os = "linux")]
mod epoll;
mod event;
#[cfg(not(target_os = "linux"))]
mod kqueue;
mod poll;
mod select;

pub use event::{Event, Events, Interest, Readiness, Token};

use std::os::fd::RawFd;
use std::str::FromStr;
use std::time::Duration;
use std::{env, fmt, io};

/// The environment variable that names the poller to use.
pub const ENVIRONMENT_VARIABLE: &str = "RUNTIME_POLLER";

/// When a readiness is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// In every wait, as long as it lasts. Forgiving: whoever leaves data behind is told again.
    Level,
    /// Once, when it begins (at registration too, if it has begun by then) or when more arrives.
    /// The receiver must go on until `EAGAIN`, and in return needs no system call to say that it
    /// has enough for now.
    Edge,
}

/// What a poller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether [`Trigger::Edge`] is possible.
    pub edge_triggered: bool,
    /// Descriptors from this number on are refused: select's `FD_SETSIZE`.
    pub descriptor_limit: Option<RawFd>,
    /// Whether [`Interest::PRIORITY`] is possible.
    pub priority: bool,
    /// Whether the end of the peer's sending is reported as [`Readiness::CLOSED`] while this
    /// side may still send. Every poller reports it as readable at least.
    pub half_close: bool,
}

/// The kernel interfaces there are.
///
/// ```
/// use runtime::poller::Kind;
///
/// assert_eq!("select".parse::<Kind>()?, Kind::Select);
/// assert!("slect".parse::<Kind>().is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Linux's registry in the kernel.
    Epoll,
    /// The registry in the kernel of the BSDs and of macOS.
    Kqueue,
    /// POSIX's list of descriptors, handed over in each wait.
    Poll,
    /// POSIX's bit sets of descriptors, handed over in each wait; small numbers only.
    Select,
}

/// This system's pollers, the best first.
#[cfg(target_os = "linux")]
const AVAILABLE: &[Kind] = &[Kind::Epoll, Kind::Poll, Kind::Select];
/// This system's pollers, the best first.
#[cfg(not(target_os = "linux"))]
const AVAILABLE: &[Kind] = &[Kind::Kqueue, Kind::Poll, Kind::Select];

impl Kind {
    /// The pollers that this system has, the best first.
    pub fn available() -> &'static [Kind] {
        AVAILABLE
    }

    /// The best poller that this system has.
    pub fn default_for_system() -> Kind {
        AVAILABLE[0]
    }

    /// The poller that the environment variable `RUNTIME_POLLER` names, or else the best.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is no such poller, or not on this system; the message lists those
    /// that there are. A mistyped name must not silently test something else.
    pub fn from_environment() -> io::Result<Kind> {
        let kind = match env::var_os(ENVIRONMENT_VARIABLE) {
            None => return Ok(Kind::default_for_system()),
            Some(name) => name.to_string_lossy().parse::<Kind>(),
        };
        kind.and_then(Kind::must_be_available).map_err(|error| {
            io::Error::new(error.kind(), format!("{ENVIRONMENT_VARIABLE}: {error}"))
        })
    }

    /// The name, as `RUNTIME_POLLER` and logs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Epoll => "epoll",
            Kind::Kqueue => "kqueue",
            Kind::Poll => "poll",
            Kind::Select => "select",
        }
    }

    fn must_be_available(self) -> io::Result<Kind> {
        if AVAILABLE.contains(&self) {
            return Ok(self);
        }
        let message = format!("this system has no {self}; it has {}", names(AVAILABLE));
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Kind> {
        let all = [Kind::Epoll, Kind::Kqueue, Kind::Poll, Kind::Select];
        all.into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                let message = format!(
                    "no poller is named {name:?}; this system has {}",
                    names(AVAILABLE)
                );
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })
    }
}

fn names(kinds: &[Kind]) -> String {
    kinds
        .iter()
        .map(|kind| kind.name())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The contract of every poller. One conformance suite holds all of them to it.
///
/// - A descriptor is known from [`add`](Poller::add) to [`remove`](Poller::remove), and while it
///   is known it has one token, one interest and one trigger.
/// - Remove a descriptor when you close it: before, or else right after, and in any case before
///   its number is added again. In between, some pollers (epoll, kqueue) have forgotten it and
///   report nothing; others (poll, select) report a failure in every wait.
/// - Remove it *before* closing it if duplicates of it live on (`dup`, `fork`): epoll watches the
///   open file behind the descriptor, which then lives on too, and nobody can name it any more.
/// - A hang-up or a failure makes the directions that were asked for ready, so that whoever waits
///   wakes. epoll and poll report them asked or not, and both directions with them, so a
///   direction may be reported that nobody has asked for; not while the interest is empty.
/// - One wait may report one descriptor in several events (kqueue does, one for a direction).
/// - A descriptor that is always ready keeps no other from being reported.
/// - A poller must not be used on both sides of a `fork`: epoll's would share one registry, and
///   kqueue's is not inherited.
///
/// ```
/// use runtime::poller::{self, Events, Interest, Kind, Token, Trigger};
/// use std::{io::Write, net, os::fd::AsRawFd};
///
/// let listener = net::TcpListener::bind("127.0.0.1:0")?;
/// let mut poller = poller::open(Kind::default_for_system())?;
/// poller.add(listener.as_raw_fd(), Token(7), Interest::READABLE, Trigger::Level)?;
///
/// let _client = net::TcpStream::connect(listener.local_addr()?)?;
/// let mut events = Events::new();
/// poller.wait(&mut events, None)?;
/// let event = events.iter().next().expect("a wait without a timeout ends with an event");
/// assert!(event.token == Token(7) && event.readiness.is_readable());
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Poller: fmt::Debug + Send {
    /// Which kernel interface this is.
    fn kind(&self) -> Kind;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Begins to watch `fd` for `interest`, and reports it as `token`. Readiness that is there
    /// already is reported by the next wait, with either trigger.
    ///
    /// # Errors
    ///
    /// After an error the descriptor is as unknown as before.
    ///
    /// - `AlreadyExists`: it is known already.
    /// - `InvalidInput`: the interest is empty; or the poller lacks a capability, in which case
    ///   the message names it.
    /// - `PermissionDenied` (`EPERM`): epoll does not watch such files, regular ones above all.
    /// - `EBADF`: it is not open (from poll and select as from the others).
    /// - `ENOSPC`, `ENOMEM`: a limit of the system is reached.
    fn add(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()>;

    /// Changes a known descriptor's token, interest and trigger. Readiness that is there is
    /// reported anew, with either trigger. An empty interest keeps the descriptor known but
    /// silent, hang-ups and failures included, until the next change.
    ///
    /// # Errors
    ///
    /// `NotFound` if the descriptor is unknown; otherwise as for [`add`](Poller::add). After an
    /// error everything is as before.
    fn modify(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()>;

    /// Stops watching `fd` and forgets it. It may be unknown, or closed meanwhile: the aim is
    /// reached then.
    ///
    /// # Errors
    ///
    /// Whatever else the kernel reports.
    fn remove(&mut self, fd: RawFd) -> io::Result<()>;

    /// Waits until a descriptor is ready or `timeout` has passed (`None`: never; zero: only
    /// look), and replaces `events` by what there is, at most as many as fit. No events mean that
    /// the timeout has passed: it is never early, and signals neither end nor lengthen it.
    ///
    /// # Errors
    ///
    /// Whatever the kernel reports, except `EINTR`.
    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()>;
}

/// Opens a poller of the given kind.
///
/// # Errors
///
/// `InvalidInput` if this system has no such poller; `EMFILE` and `ENFILE` if no descriptor is
/// left for it.
pub fn open(kind: Kind) -> io::Result<Box<dyn Poller>> {
    match kind {
        #[cfg(target_os = "linux")]
        Kind::Epoll => Ok(Box::new(epoll::EpollPoller::new()?)),
        #[cfg(not(target_os = "linux"))]
        Kind::Kqueue => Ok(Box::new(kqueue::KqueuePoller::new()?)),
        Kind::Poll => Ok(Box::new(poll::PollPoller::new())),
        Kind::Select => Ok(Box::new(select::SelectPoller::new())),
        missing => Err(match missing.must_be_available() {
            Err(error) => error,
            Ok(kind) => unreachable!("{kind} is listed as available and must be openable"),
        }),
    }
}

/// The refusals that all pollers share, made before the kernel or a table is touched.
fn check(poller: &dyn Poller, interest: Interest, trigger: Trigger) -> io::Result<()> {
    let capabilities = poller.capabilities();
    let lacking = if trigger == Trigger::Edge && !capabilities.edge_triggered {
        "edge-triggered events (Capabilities::edge_triggered)"
    } else if interest.contains(Interest::PRIORITY) && !capabilities.priority {
        "priority data (Capabilities::priority)"
    } else {
        return Ok(());
    };
    let message = format!("{} cannot report {lacking}", poller.kind());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The refusal of an addition without interest: nothing could ever come of it.
fn check_not_empty(interest: Interest) -> io::Result<()> {
    if interest.is_empty() {
        let message = "a descriptor must be added with an interest that is not empty";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// What a change of an unknown descriptor answers: the error that epoll's registry has for it.
fn unknown() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}
