//! L4. Scoped green threads: they may borrow from their creator's stack.
//!
//! That is sound because [`scope`] does not return before all of them have ended, also when its
//! closure panics, and also when its own green thread is killed: the wait at the end of a scope is
//! the one suspension point that no interrupt ends. A kill or time-out of the creator is then
//! passed on to the scope's green threads as a kill, and delivered after they have ended.
//!
//! Deliberately not here: green threads of other workers; borrowing needs one OS thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe, Location};
use std::rc::Rc;

use super::builder::Builder;
use super::handle::{JoinHandle, Thread};
use crate::sched::interrupt::{self, Pending};
use crate::sched::park;
use crate::sched::task::{TaskRef, WaitsFor};
use crate::sched::worker::Worker;

/// What [`scope`] hands to its closure to spawn with.
///
/// Mirrors [`std::thread::Scope`]. It belongs to one worker, so it is not `Sync`.
pub struct Scope<'scope, 'env: 'scope> {
    running: Cell<usize>,
    panicked: Cell<bool>,
    /// Whether the creator has been interrupted: whoever is spawned now is killed at once.
    killed: Cell<bool>,
    /// Those that have been spawned, to be killed with their creator; ended ones are swept out.
    threads: RefCell<Vec<Thread>>,
    creator: Option<TaskRef>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Calls `action` and returns when all green threads that it spawned in the scope have ended.
///
/// Mirrors [`std::thread::scope`].
///
/// # Panics
///
/// When one of those green threads panicked and was not joined, and with the panic of `action`.
///
/// # Examples
///
/// ```
/// use runtime::thread;
///
/// runtime::run(|| {
///     let words = vec!["to", "be"];
///     let lengths = thread::scope(|scope| {
///         let first = scope.spawn(|| words[0].len());
///         let second = scope.spawn(|| words[1].len());
///         first.join().unwrap() + second.join().unwrap()
///     });
///     assert_eq!(lengths, 4);
/// });
/// ```
pub fn scope<'env, F, T>(action: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let worker = Worker::current();
    let scope = Scope {
        running: Cell::new(0),
        panicked: Cell::new(false),
        killed: Cell::new(false),
        threads: RefCell::new(Vec::new()),
        creator: worker.map(Worker::running_ref),
        scope: PhantomData,
        env: PhantomData,
    };
    let result = panic::catch_unwind(AssertUnwindSafe(|| action(&scope)));
    if let Some(worker) = worker {
        let mut kill = matches!(&result, Err(payload) if interrupt::is_interrupt(&**payload));
        while scope.running.get() != 0 {
            kill |= worker.running().interrupt.get() != Pending::NONE;
            if kill && !scope.killed.replace(true) {
                scope.threads.borrow().iter().for_each(Thread::kill);
            }
            worker.suspend_through_interrupts(None, WaitsFor::Scope);
        }
        if result.is_ok() && scope.killed.get() && !std::thread::panicking() {
            interrupt::deliver(worker.running());
        }
    }
    match result {
        Err(payload) => panic::resume_unwind(payload),
        Ok(_) if scope.panicked.get() => panic!("a scoped green thread panicked"),
        Ok(value) => value,
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a green thread that may borrow from outside the scope.
    ///
    /// Mirrors [`std::thread::Scope::spawn`], without demanding `Send`.
    ///
    /// # Panics
    ///
    /// As [`crate::thread::spawn`].
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, action: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        match self.spawn_with(Builder::new(), Location::caller(), action) {
            Ok(handle) => handle,
            Err(error) => panic!("failed to spawn a green thread: {error}"),
        }
    }

    pub(super) fn spawn_with<F, T>(
        &'scope self,
        builder: Builder,
        spawned: &'static Location<'static>,
        action: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        if self.creator.is_none() {
            // Nobody would wait for it at the end.
            return Err(super::builder::no_runtime());
        }
        self.running.set(self.running.get() + 1);
        let membership = Membership(self);
        let packet = Rc::new(Packet {
            result: RefCell::new(None),
        });
        let member = Member {
            action,
            packet: Rc::clone(&packet),
            membership,
        };
        let run = move || member.run();
        // SAFETY: `scope` does not return before `running` is zero again, which is when the
        // closure has let go of all that it borrows.
        let task = unsafe { builder.spawn_unchecked::<_, ()>(spawned, run) }?;
        let handle = JoinHandle::new(task);
        if self.killed.get() {
            handle.kill();
        }
        let mut threads = self.threads.borrow_mut();
        if threads.len() == threads.capacity() {
            threads.retain(|thread| !thread.is_finished());
        }
        threads.push(handle.thread().clone());
        Ok(ScopedJoinHandle {
            handle,
            packet,
            panicked: &self.panicked,
        })
    }
}

/// What a scoped green thread consists of, run or dropped unrun, from the first field to the last.
struct Member<'scope, 'env, F, T> {
    action: F,
    packet: Rc<Packet<T>>,
    /// Ends last: until then the scope waits, and all that is borrowed stays.
    membership: Membership<'scope, 'env>,
}

impl<F, T> Member<'_, '_, F, T>
where
    F: FnOnce() -> T,
{
    fn run(self) {
        // Locals are dropped from the last to the first, also by a panic.
        let membership = self.membership;
        let packet = self.packet;
        let result = panic::catch_unwind(AssertUnwindSafe(self.action));
        if Rc::strong_count(&packet) > 1 {
            *packet.result.borrow_mut() = Some(result);
            return;
        }
        // Nobody wants the result, whose destructor may panic as well.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| result.map(drop)));
        if let Err(payload) = dropped.flatten()
            && !payload.is::<super::Killed>()
        {
            membership.0.panicked.set(true);
        }
    }
}

/// Counts a green thread as one of its scope's as long as it has not ended.
struct Membership<'scope, 'env>(&'scope Scope<'scope, 'env>);

impl Drop for Membership<'_, '_> {
    fn drop(&mut self) {
        let left = self.0.running.get() - 1;
        self.0.running.set(left);
        if let (0, Some(creator)) = (left, &self.0.creator) {
            park::wake(creator);
        }
    }
}

/// Where a scoped green thread leaves its result while its handle exists.
struct Packet<T> {
    result: RefCell<Option<super::Result<T>>>,
}

/// The right to join a scoped green thread.
///
/// Mirrors [`std::thread::ScopedJoinHandle`]; it stays on its worker, as the scope does.
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<()>,
    packet: Rc<Packet<T>>,
    panicked: &'scope Cell<bool>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the green thread to end and returns its result.
    ///
    /// # Errors
    ///
    /// The payload of its panic, or [`Killed`](super::Killed).
    pub fn join(self) -> super::Result<T> {
        self.handle.await_end();
        // Nothing is there only if it was killed before it began.
        self.packet
            .result
            .take()
            .unwrap_or_else(|| Err(Box::new(super::Killed)))
    }

    /// The green thread's name, number and token.
    pub fn thread(&self) -> &Thread {
        self.handle.thread()
    }

    /// Whether the green thread has ended, so that `join` will not wait.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// As [`JoinHandle::kill`].
    pub fn kill(&self) {
        self.handle.kill();
    }
}

impl<T> Drop for ScopedJoinHandle<'_, T> {
    fn drop(&mut self) {
        let unjoined = self.packet.result.take();
        if unjoined
            .is_some_and(|result| result.is_err_and(|payload| !payload.is::<super::Killed>()))
        {
            self.panicked.set(true);
        }
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut description = formatter.debug_struct("ScopedJoinHandle");
        description
            .field("thread", self.thread())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut description = formatter.debug_struct("Scope");
        description
            .field("running", &self.running.get())
            .finish_non_exhaustive()
    }
}
