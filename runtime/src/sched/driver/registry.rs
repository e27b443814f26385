//! L3. The registry of a worker: the selector, with the waiting green threads as its data.
//!
//! For each descriptor it holds, for reading and for writing, whether the kernel is believed to
//! be ready, and the list of the green threads that wait. The belief starts as "ready", so that
//! calls are tried; it ends when one would block or has drained the socket; an event brings it
//! back. On an edge-triggered poller that is all. A level-triggered one would report a descriptor
//! again and again while nobody reads it, so there the interest is what is waited for, no more.
//!
//! Once the peer has closed its side, no further event may come, although there may be an end of
//! file left to read: from then on reading is always believed to be ready. So it is after urgent
//! data, before which a read ends early although more has come.
//!
//! All waiters of a direction are woken by an event, since an edge is not repeated for the second.
//!
//! Man pages: epoll(7). Deliberately not here: making calls (`driver`), who runs (`worker`).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::Direction;
use crate::poller::{Interest, Kind, Readiness, Trigger};
use crate::sched::task::{Task, WaitsFor};
use crate::sched::worker::{Worker, log_step};
use crate::selector::{Key, Ready, Selector};
use crate::sys::clock::Moment;

/// So many events are fetched at a time: enough that the call costs little for each, few enough
/// that what the kernel touched to find a socket ready is still in the caches when it is read.
const EVENTS_MAX: usize = 256;

/// One direction of a descriptor.
struct Lane {
    /// Whether a call is worth trying.
    ready: bool,
    /// The first of the waiting green threads, linked through their control blocks.
    waiters: *const Task,
}

impl Lane {
    fn new(ready: bool) -> Lane {
        Lane {
            ready,
            waiters: ptr::null(),
        }
    }

    /// Takes a green thread out of the list.
    fn remove(&mut self, task: &Task) {
        let following = task.next_waiter.replace(ptr::null());
        if ptr::eq(self.waiters, task) {
            self.waiters = following;
            return;
        }
        let mut current = self.waiters;
        // SAFETY: whoever is in a list is parked or about to leave it, and alive.
        while let Some(waiter) = unsafe { current.as_ref() } {
            current = waiter.next_waiter.get();
            if ptr::eq(current, task) {
                waiter.next_waiter.set(following);
                return;
            }
        }
    }
}

/// What the selector keeps for a descriptor.
enum Registered {
    /// The worker's own waker.
    Waker,
    Descriptor(Lanes),
}

struct Lanes {
    fd: RawFd,
    read: Lane,
    write: Lane,
    /// A short read does not mean that nothing is left: the peer sends no more, and its end is
    /// there to be read; or it has sent urgent data, before which a read ends early (tcp(7)).
    never_drained: bool,
    /// Whether a source has it registered until it is closed; otherwise the last visitor ends it.
    settled: bool,
    visitors: u32,
}

impl Lanes {
    fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    /// What a level-triggered poller must look for.
    fn waited_for(&self) -> Interest {
        let mut interest = Interest::EMPTY;
        if !self.read.waiters.is_null() {
            interest = interest.union(Interest::READABLE);
        }
        if !self.write.waiters.is_null() {
            interest = interest.union(Interest::WRITABLE);
        }
        interest
    }
}

/// See the file's head.
pub(crate) struct Registry {
    selector: RefCell<Selector<Registered>>,
    ready: RefCell<Ready>,
    edge_triggered: bool,
    /// What a descriptor is registered for where that is edge-triggered.
    interest: Interest,
    /// How many green threads wait in some list.
    waiting: Cell<usize>,
}

/// The interest that goes with a direction.
fn interest_in(direction: Direction) -> Interest {
    match direction {
        Direction::Read => Interest::READABLE,
        Direction::Write => Interest::WRITABLE,
    }
}

impl Registry {
    /// A registry in which only the waker is registered.
    ///
    /// # Errors
    ///
    /// What opening the poller reports.
    pub(crate) fn new(kind: Kind, waker: RawFd) -> io::Result<Registry> {
        let mut selector = Selector::with_kind(kind)?;
        selector.register(&waker, Interest::READABLE, Registered::Waker)?;
        let capabilities = selector.capabilities();
        let interest = match capabilities.priority {
            true => Interest::BOTH.union(Interest::PRIORITY),
            false => Interest::BOTH,
        };
        Ok(Registry {
            edge_triggered: capabilities.edge_triggered,
            interest,
            selector: RefCell::new(selector),
            ready: RefCell::new(Ready::with_capacity(EVENTS_MAX)),
            waiting: Cell::new(0),
        })
    }

    /// Whether an event could make anybody ready.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.get() != 0
    }

    /// Calls `action` with the lanes of a registration; `None` once that is gone.
    #[inline]
    fn with<T>(&self, key: Key, action: impl FnOnce(&mut Lanes) -> T) -> Option<T> {
        match self.selector.borrow_mut().data_mut(key) {
            Some(Registered::Descriptor(lanes)) => Some(action(lanes)),
            _ => None,
        }
    }

    /// Whether a call in this direction is worth trying; `None` once the registration is gone.
    #[inline]
    pub(super) fn is_ready(&self, key: Key, direction: Direction) -> Option<bool> {
        self.with(key, |lanes| lanes.lane(direction).ready)
    }

    /// A call took or filled all there was.
    #[inline]
    pub(super) fn note_drained(&self, key: Key, direction: Direction) {
        self.with(key, |lanes| {
            if direction == Direction::Write || !lanes.never_drained {
                lanes.lane(direction).ready = false;
            }
        });
    }

    /// A call would have blocked.
    pub(super) fn note_refused(&self, key: Key, direction: Direction) {
        self.with(key, |lanes| lanes.lane(direction).ready = false);
    }

    /// Registers a descriptor that has just refused a call, until its source is closed.
    ///
    /// # Errors
    ///
    /// As [`Selector::register_with`].
    #[cold]
    pub(super) fn register(
        &self,
        worker: &Worker,
        fd: BorrowedFd<'_>,
        direction: Direction,
    ) -> io::Result<Key> {
        let key = self.key_of(worker, fd, direction)?;
        self.with(key, |lanes| {
            lanes.settled = true;
            lanes.lane(direction).ready = false;
        });
        Ok(key)
    }

    /// Registers a descriptor for the time of a visit, unless it is registered anyway.
    ///
    /// # Errors
    ///
    /// As [`Selector::register_with`].
    #[cold]
    pub(super) fn visit<'a>(
        &'a self,
        worker: &'a Worker,
        fd: BorrowedFd<'_>,
        direction: Direction,
    ) -> io::Result<Visit<'a>> {
        let key = self.key_of(worker, fd, direction)?;
        self.with(key, |lanes| lanes.visitors += 1);
        Ok(Visit { worker, key })
    }

    /// The key of a descriptor, which is registered if it is not yet.
    fn key_of(&self, worker: &Worker, fd: BorrowedFd<'_>, direction: Direction) -> io::Result<Key> {
        // Another OS thread may have closed a predecessor of the same number. It told us before it
        // did, so once the mail is read, what stands here is alive.
        worker.read_mail();
        let fd = fd.as_raw_fd();
        let mut selector = self.selector.borrow_mut();
        if let Some(entry) = selector.get(&fd) {
            return Ok(entry.key);
        }
        let (trigger, interest) = match self.edge_triggered {
            true => (Trigger::Edge, self.interest),
            false => (Trigger::Level, interest_in(direction)),
        };
        let (read, write) = (Lane::new(true), Lane::new(true));
        let lanes = Lanes {
            fd,
            read,
            write,
            // Where urgent data cannot be told from other data, no short read is trusted.
            never_drained: self.edge_triggered && !self.interest.contains(Interest::PRIORITY),
            settled: false,
            visitors: 0,
        };
        log_step!(
            worker,
            "descriptor {fd} is registered with the {} poller",
            selector.kind()
        );
        worker
            .aside(|| selector.register_with(&fd, interest, trigger, Registered::Descriptor(lanes)))
    }

    /// Parks the running green thread until the descriptor is reported for this direction.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the deadline passes first, and `EBADF` when the descriptor is closed.
    pub(super) fn wait(
        &self,
        worker: &Worker,
        key: Key,
        direction: Direction,
        deadline: Option<Moment>,
    ) -> io::Result<()> {
        let task = worker.running();
        let queued = self.with(key, |lanes| {
            let lane = lanes.lane(direction);
            task.next_waiter.set(lane.waiters);
            task.is_listed.set(true);
            lane.waiters = task;
            (lanes.fd, lanes.waited_for())
        });
        let Some((fd, interest)) = queued else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        self.waiting.set(self.waiting.get() + 1);
        // Removes the green thread from the list also when a kill unwinds from the park.
        let waiting = Waiting {
            registry: self,
            key,
            direction,
            task,
        };
        if !self.edge_triggered {
            worker.aside(|| self.selector.borrow_mut().set_interest(key, interest))?;
        }
        let waits_for = match direction {
            Direction::Read => WaitsFor::Readable(fd),
            Direction::Write => WaitsFor::Writable(fd),
        };
        let rang = worker.suspend(deadline, waits_for);
        drop(waiting);
        let ready = self.with(key, |lanes| lanes.lane(direction).ready);
        match ready {
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
            Some(false) if rang => Err(io::ErrorKind::TimedOut.into()),
            Some(_) => Ok(()),
        }
    }

    /// Waits for events and makes ready whoever waited for them.
    pub(crate) fn poll(&self, worker: &Worker, timeout: Option<Duration>) {
        let mut ready = self.ready.borrow_mut();
        let result = self.selector.borrow_mut().select(&mut ready, timeout);
        if let Err(error) = result {
            panic!("the poller that was opened for this worker must be usable: {error}");
        }
        for (key, readiness) in ready.iter() {
            self.deliver(worker, key, readiness);
        }
    }

    /// Takes note of an event and wakes the waiters.
    fn deliver(&self, worker: &Worker, key: Key, readiness: Readiness) {
        let mut selector = self.selector.borrow_mut();
        let lanes = match selector.data_mut(key) {
            Some(Registered::Descriptor(lanes)) => lanes,
            Some(Registered::Waker) => return worker.inbox.drain(),
            None => return,
        };
        lanes.never_drained |= readiness.is_closed() || readiness.is_priority();
        if readiness.is_readable() || readiness.is_closed() || readiness.is_priority() {
            self.wake_all(worker, &mut lanes.read);
        }
        if readiness.is_writable() {
            self.wake_all(worker, &mut lanes.write);
        }
        if !self.edge_triggered {
            let interest = lanes.waited_for();
            if let Err(error) = selector.set_interest(key, interest) {
                log::error!("could not change the interest in {key:?}: {error}");
            }
        }
    }

    /// Makes a lane ready, and with it all who wait there.
    fn wake_all(&self, worker: &Worker, lane: &mut Lane) {
        lane.ready = true;
        let mut next = std::mem::replace(&mut lane.waiters, ptr::null());
        // SAFETY: whoever is in a list is parked and has not ended; `Waiting` takes it out before.
        while let Some(task) = unsafe { next.as_ref() } {
            next = task.next_waiter.replace(ptr::null());
            task.is_listed.set(false);
            self.waiting.set(self.waiting.get() - 1);
            worker.wake(task);
        }
    }

    /// Drops a registration; whoever waits is woken and finds it gone.
    pub(crate) fn forget(&self, worker: &Worker, key: Key) {
        let removed = worker.aside(|| self.selector.borrow_mut().unregister_key(key));
        if let Ok(Registered::Descriptor(mut lanes)) = removed {
            log_step!(worker, "descriptor {} is forgotten", lanes.fd);
            self.wake_all(worker, &mut lanes.read);
            self.wake_all(worker, &mut lanes.write);
        }
    }
}

/// Keeps a descriptor registered that no source of this worker has settled.
pub(super) struct Visit<'a> {
    worker: &'a Worker,
    key: Key,
}

impl Visit<'_> {
    /// Where it is registered.
    pub(super) fn key(&self) -> Key {
        self.key
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let registry = &self.worker.registry;
        let is_last = registry.with(self.key, |lanes| {
            lanes.visitors -= 1;
            lanes.visitors == 0 && !lanes.settled
        });
        if is_last == Some(true) {
            registry.forget(self.worker, self.key);
        }
    }
}

/// A green thread's place in a list of waiters; taken out, if it is still there, when dropped.
struct Waiting<'a> {
    registry: &'a Registry,
    key: Key,
    direction: Direction,
    task: &'a Task,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Whoever wakes takes out of the list; it is still there after a time-out, a kill, or a
        // wake-up that was meant for something else.
        if !self.task.is_listed.replace(false) {
            return;
        }
        self.registry.waiting.set(self.registry.waiting.get() - 1);
        let removed = self.registry.with(self.key, |lanes| {
            lanes.lane(self.direction).remove(self.task);
        });
        assert!(
            removed.is_some(),
            "a registration must not go before its waiters"
        );
    }
}
