//! L2. The reactor: a loop that waits, and calls back whoever is concerned.
//!
//! It is the selector with a callback for each descriptor's data, a timing wheel of callbacks, and
//! a queue of callbacks for the next round. Each round has the same four steps: find out who is
//! ready, call those, call the timers that are due, call what was queued before this step. All
//! four are bounded, so no descriptor, timer or task can keep the others waiting for ever.
//!
//! Callbacks are called in exactly one function, `Reactor::call`, and always with the reactor
//! itself as an argument: nothing is borrowed then, so a callback may register, unregister (also
//! itself), queue and cancel as it likes.
//!
//! Man pages: none of its own. Not here: green threads, which stand beside this loop and not on
//! it; reading and writing; several threads (a reactor stays on the thread that made it, and
//! others reach it through its [`RemoteHandle`]).

mod remote;

pub use remote::RemoteHandle;

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::poller::{Interest, Kind, Readiness, Trigger};
use crate::selector::{Key, Ready, Selector};
use crate::sys::clock::Moment;
use crate::timer::{TimerKey, Wheel};
use remote::Remote;

/// What is called when a descriptor is ready.
type Callback = Box<dyn FnMut(&mut Reactor, Readiness)>;

/// What is called once: when its time has come, or in the next round.
type Task = Box<dyn FnOnce(&mut Reactor)>;

/// What the registry holds for a descriptor.
enum Source {
    /// Somebody's descriptor and callback. The callback is away while it runs.
    Watched(Option<Callback>),
    /// The reactor's own waker.
    Waker,
}

/// The callback loop.
///
/// ```
/// use runtime::{poller::Interest, reactor::Reactor};
/// use std::{io::Read, io::Write, net, os::fd::AsRawFd, time::Duration};
///
/// let listener = net::TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let mut reactor = Reactor::new()?;
/// let fd = listener.as_raw_fd();
/// reactor.register(&fd, Interest::READABLE, move |reactor, _readiness| {
///     let (stream, _peer) = listener.accept().expect("a client is at the door");
///     (&stream).write_all(b"hello").expect("five bytes always fit");
///     reactor.unregister(&fd).expect("it is registered: this is its callback");
/// })?;
/// reactor.call_later(Duration::from_secs(60), |reactor| reactor.stop());
///
/// let client = std::thread::spawn(move || {
///     let mut greeting = String::new();
///     net::TcpStream::connect(address)?.read_to_string(&mut greeting)?;
///     std::io::Result::Ok(greeting)
/// });
/// while !reactor.is_empty() {
///     reactor.run_once(None)?;
/// }
/// assert_eq!(client.join().expect("the client does not panic")?, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Reactor {
    selector: Selector<Source>,
    /// Who was found ready. It is a member, with the position of the next one to call, so that
    /// those behind a callback that panics are called in the next round instead of never.
    ready: Ready,
    ready_next: usize,
    timers: Wheel<Task>,
    /// What is to be called in the next round.
    tasks: VecDeque<Task>,
    remote: Arc<Remote>,
    /// Whether a callback is running, which must not run the loop itself.
    is_calling: bool,
    is_stopping: bool,
}

impl Reactor {
    /// A reactor on the poller that `RUNTIME_POLLER` names, or else on the system's best.
    ///
    /// # Errors
    ///
    /// As [`Kind::from_environment`] and [`with_kind`](Reactor::with_kind).
    pub fn new() -> io::Result<Reactor> {
        Reactor::with_kind(Kind::from_environment()?)
    }

    /// A reactor on a poller of this kind.
    ///
    /// # Errors
    ///
    /// If the system lacks the poller, or a descriptor for it or for the waker.
    pub fn with_kind(kind: Kind) -> io::Result<Reactor> {
        let mut selector = Selector::with_kind(kind)?;
        let remote = Arc::new(Remote::new()?);
        selector.register(&*remote, Interest::READABLE, Source::Waker)?;
        Ok(Reactor {
            selector,
            ready: Ready::new(),
            ready_next: 0,
            timers: Wheel::new(Moment::now().0),
            tasks: VecDeque::new(),
            remote,
            is_calling: false,
            is_stopping: false,
        })
    }

    /// Calls `callback` whenever the descriptor is ready for `interest`, until it is unregistered.
    /// It is told again as long as the readiness lasts (level-triggered).
    ///
    /// # Errors
    ///
    /// As [`Selector::register`].
    pub fn register(
        &mut self,
        fd: &impl AsRawFd,
        interest: Interest,
        callback: impl FnMut(&mut Reactor, Readiness) + 'static,
    ) -> io::Result<Key> {
        self.register_with(fd, interest, Trigger::Level, callback)
    }

    /// [`register`](Reactor::register) with a choice of the trigger.
    ///
    /// # Errors
    ///
    /// As [`Selector::register_with`].
    pub fn register_with(
        &mut self,
        fd: &impl AsRawFd,
        interest: Interest,
        trigger: Trigger,
        callback: impl FnMut(&mut Reactor, Readiness) + 'static,
    ) -> io::Result<Key> {
        let source = Source::Watched(Some(Box::new(callback)));
        self.selector.register_with(fd, interest, trigger, source)
    }

    /// Changes a descriptor's interest and callback.
    ///
    /// # Errors
    ///
    /// As [`Selector::modify`].
    pub fn modify(
        &mut self,
        fd: &impl AsRawFd,
        interest: Interest,
        callback: impl FnMut(&mut Reactor, Readiness) + 'static,
    ) -> io::Result<()> {
        let source = Source::Watched(Some(Box::new(callback)));
        self.selector.modify(fd, interest, source).map(drop)
    }

    /// Changes a registration's interest and keeps its callback. An empty one pauses it.
    ///
    /// # Errors
    ///
    /// As [`Selector::set_interest`].
    pub fn set_interest(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        self.selector.set_interest(key, interest)
    }

    /// Forgets a descriptor and drops its callback (if it is the one that runs: when it returns).
    /// It is not called any more, not even if its readiness has been found already.
    ///
    /// # Errors
    ///
    /// As [`Selector::unregister`].
    pub fn unregister(&mut self, fd: &impl AsRawFd) -> io::Result<()> {
        self.selector.unregister(fd).map(drop)
    }

    /// Calls `task` in the next round.
    pub fn call_soon(&mut self, task: impl FnOnce(&mut Reactor) + 'static) {
        self.tasks.push_back(Box::new(task));
    }

    /// Calls `task` when `delay` has passed, never before.
    pub fn call_later(
        &mut self,
        delay: Duration,
        task: impl FnOnce(&mut Reactor) + 'static,
    ) -> TimerKey {
        // What lies beyond the clock's range is put where no one will see it fail to come.
        const NEVER: u64 = u64::MAX >> 1;
        let deadline = Moment::after(delay).map_or(NEVER, |moment| moment.0.min(NEVER));
        self.timers.insert(deadline, Box::new(task))
    }

    /// Takes a timer back: whether it had still been waiting.
    pub fn cancel(&mut self, timer: TimerKey) -> bool {
        self.timers.cancel(timer).is_some()
    }

    /// How other threads reach this reactor.
    pub fn handle(&self) -> RemoteHandle {
        RemoteHandle::new(Arc::clone(&self.remote))
    }

    /// How many descriptors are registered.
    pub fn len(&self) -> usize {
        self.selector.len() - 1 // The waker is the reactor's own affair.
    }

    /// Whether no descriptor is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which poller this stands on.
    pub fn kind(&self) -> Kind {
        self.selector.kind()
    }

    /// Makes [`run`](Reactor::run) return after the present round, or after its first.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Goes round until [`stop`](Reactor::stop) is called, or until nothing can happen any more:
    /// no descriptor is registered, no timer or task waits, and no [`RemoteHandle`] is left.
    ///
    /// # Errors
    ///
    /// As [`run_once`](Reactor::run_once).
    ///
    /// # Panics
    ///
    /// As [`run_once`](Reactor::run_once).
    pub fn run(&mut self) -> io::Result<()> {
        while self.can_go_on() {
            self.run_once(None)?;
            if std::mem::take(&mut self.is_stopping) {
                log::trace!("reactor: stopped");
                return Ok(());
            }
        }
        log::trace!("reactor: nothing is left to wait for");
        self.is_stopping = false;
        Ok(())
    }

    /// Goes round once: waits until there is something to call, but at most for `timeout` (`None`:
    /// for as long as it takes), and calls it. The result is how many callbacks were called; it
    /// may be none before the timeout, after [`RemoteHandle::wake`] above all.
    ///
    /// # Errors
    ///
    /// As [`Selector::select`]; nothing is lost then.
    ///
    /// # Panics
    ///
    /// If it is called by a callback. And if a callback panics, so does this, at once; a
    /// descriptor's callback is unregistered then. The reactor stays usable: whatever was still to
    /// be called in the round is called in the next one.
    pub fn run_once(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        assert!(
            !self.is_calling,
            "a callback must not run the loop that has called it"
        );
        self.find_ready(timeout)?;
        let mut called = 0;
        while self.ready_next < self.ready.len() {
            let (key, readiness) = self.ready.at(self.ready_next);
            self.ready_next += 1;
            called += self.call_ready(key, readiness);
        }
        // One reading of the clock for all: a timer that is set meanwhile is for a later round.
        let now = Moment::now();
        while let Some(task) = self.timers.pop_due(now.0) {
            log::trace!("reactor: a timer is due");
            self.call(task).unwrap_or_else(|panic| resume_unwind(panic));
            called += 1;
        }
        // Likewise: what a task queues is for the next round.
        for _ in 0..self.tasks.len() {
            let Some(task) = self.tasks.pop_front() else {
                break;
            };
            self.call(task).unwrap_or_else(|panic| resume_unwind(panic));
            called += 1;
        }
        Ok(called)
    }

    /// The first step of a round: who is ready? Those whom a panic has left over come first.
    fn find_ready(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.ready_next < self.ready.len() {
            return Ok(());
        }
        let timeout = if self.tasks.is_empty() {
            let until_timer = self.timers.next_deadline().map(|deadline| {
                let deadline = Moment(deadline);
                deadline.since(Moment::now())
            });
            // The sooner of the two; a timeout that is not there is never the sooner one.
            timeout.into_iter().chain(until_timer).min()
        } else {
            Some(Duration::ZERO)
        };
        match timeout {
            Some(timeout) => log::trace!("reactor: wait for at most {timeout:?}"),
            None => log::trace!("reactor: wait until a descriptor is ready"),
        }
        self.ready_next = self.ready.len();
        self.selector.select(&mut self.ready, timeout)?;
        self.ready_next = 0;
        Ok(())
    }

    /// Has a descriptor's callback called, unless it was unregistered meanwhile: how many were.
    fn call_ready(&mut self, key: Key, readiness: Readiness) -> usize {
        let mut callback = match self.selector.data_mut(key) {
            Some(Source::Watched(place)) => match place.take() {
                Some(callback) => callback,
                None => unreachable!("a callback must be in its place whenever none is running"),
            },
            Some(Source::Waker) => {
                log::trace!("reactor: woken from elsewhere");
                for task in self.remote.take() {
                    self.tasks.push_back(task);
                }
                return 0;
            }
            None => {
                log::trace!("reactor: {key:?} was ready, but is not registered any more");
                return 0;
            }
        };
        log::trace!("reactor: call the callback of {key:?}, which is {readiness:?}");
        let result = self.call(|reactor| callback(reactor, readiness));
        if let Err(panic) = result {
            // Nobody knows in what state the callback is now.
            if let Err(error) = self.selector.unregister_key(key) {
                log::trace!("reactor: {key:?} had unregistered itself before it panicked: {error}");
            }
            resume_unwind(panic);
        }
        // Back into its place, unless it has unregistered itself or named a successor.
        if let Some(Source::Watched(place @ None)) = self.selector.data_mut(key) {
            *place = Some(callback);
        }
        1
    }

    /// Calls a callback: the only place that does.
    fn call(&mut self, callback: impl FnOnce(&mut Reactor)) -> std::thread::Result<()> {
        self.is_calling = true;
        // Sound to look at the reactor after a panic: callbacks change it only by its own
        // methods, none of which calls anything of the user's while it makes a change.
        let result = catch_unwind(AssertUnwindSafe(|| callback(self)));
        self.is_calling = false;
        result
    }

    /// Whether anything can still happen.
    fn can_go_on(&self) -> bool {
        let is_watching = !self.is_empty() || self.ready_next < self.ready.len();
        let is_waiting = !self.timers.is_empty() || !self.tasks.is_empty();
        is_watching || is_waiting || self.remote.may_call()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        drop(self.remote.close());
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reactor")
            .field("kind", &self.kind())
            .field("descriptors", &self.len())
            .field("timers", &self.timers.len())
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}
