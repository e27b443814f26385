//! L4. Handles of green threads: joining, naming, waking, killing.
//!
//! Deliberately not here: handles of scoped green threads (`scope`).

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sched::inbox::Message;
use crate::sched::interrupt::{self, Pending};
use crate::sched::park::{self, Parker};
use crate::sched::task::{Task, TaskRef, WaitsFor};
use crate::sched::worker::Worker;

/// The right to join a green thread, from whichever green or OS thread.
///
/// Mirrors [`std::thread::JoinHandle`]; it adds [`kill`](JoinHandle::kill), and can be sent to
/// another OS thread only where the result can. Dropped, it lets the green thread run on.
pub struct JoinHandle<T> {
    thread: Thread,
    result: PhantomData<T>,
}

// SAFETY: all that a shared handle can do is atomic (`TaskRef`); the result is reached only
// through an owned one.
unsafe impl<T> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// The handle of a task, which must have been created for the result type `T`.
    pub(super) fn new(task: TaskRef) -> JoinHandle<T> {
        JoinHandle {
            thread: Thread(Inner::Green(task)),
            result: PhantomData,
        }
    }

    fn task(&self) -> &TaskRef {
        match &self.thread.0 {
            Inner::Green(task) => task,
            Inner::System(_) => unreachable!("a join handle must be one of a green thread"),
        }
    }

    /// Waits for the green thread to end and returns its result.
    ///
    /// # Errors
    ///
    /// The payload of its panic, or [`Killed`](super::Killed).
    pub fn join(self) -> super::Result<T> {
        self.await_end();
        // SAFETY: a `JoinHandle<T>` is only made for a task of result type `T`, and this one is
        // consumed.
        match unsafe { self.task().take::<T>() } {
            Some(result) => result,
            None => unreachable!("a result must be taken only once"),
        }
    }

    /// Waits for the green thread to end.
    pub(super) fn await_end(&self) {
        /// Takes the parker back when a kill or time-out ends the wait.
        struct Waiting<'a>(&'a Task);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.withdraw();
            }
        }
        let task = self.task();
        if task.is_done() {
            return;
        }
        task.await_end(Parker::current());
        let waiting = Waiting(task);
        while !task.is_done() {
            park::park(None, WaitsFor::Join(task.id));
        }
        std::mem::forget(waiting);
    }

    /// The green thread's name, number and token.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Whether the green thread has ended, so that `join` will not wait.
    pub fn is_finished(&self) -> bool {
        self.task().is_done()
    }

    /// Ends the green thread by unwinding it where it waits, or where it next does.
    ///
    /// Destructors run, nothing is printed, and `join` answers [`Killed`](super::Killed). A lock
    /// of std's that is held across the wait is released, but std takes the unwinding for a panic
    /// and poisons it. A green thread that never waits is never killed.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtime::thread;
    ///
    /// runtime::run(|| {
    ///     let idle = thread::spawn(|| loop { thread::park() });
    ///     thread::yield_now();
    ///     idle.kill();
    ///     assert!(idle.join().unwrap_err().is::<thread::Killed>());
    /// });
    /// ```
    pub fn kill(&self) {
        self.thread.kill();
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // SAFETY: as in `join`; the handle is not used again.
        unsafe { self.task().detach::<T>() };
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JoinHandle")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// A green thread, or the OS thread that called [`current`] outside of any.
///
/// Mirrors [`std::thread::Thread`].
#[derive(Clone)]
pub struct Thread(Inner);

#[derive(Clone)]
enum Inner {
    Green(TaskRef),
    System(std::thread::Thread),
}

/// Numbers plain OS threads downwards, so that they differ from all green threads.
static NEXT_SYSTEM_ID: AtomicU64 = AtomicU64::new(u64::MAX);

thread_local! {
    static SYSTEM_ID: u64 = NEXT_SYSTEM_ID.fetch_sub(1, Ordering::Relaxed);
}

impl Thread {
    /// Gives the thread its token, which ends its present or next [`park`](super::park).
    pub fn unpark(&self) {
        match &self.0 {
            Inner::Green(task) => {
                // Release: what happened before is seen by whoever takes the token (`park_until`).
                task.token.store(true, Ordering::Release);
                park::wake(task);
            }
            Inner::System(thread) => thread.unpark(),
        }
    }

    /// The number of a green thread, which no other of the process has.
    ///
    /// # Panics
    ///
    /// On the handle of a plain OS thread, anywhere but on that thread itself.
    pub fn id(&self) -> ThreadId {
        match &self.0 {
            Inner::Green(task) => ThreadId(task.id),
            Inner::System(thread) => {
                let is_own = thread.id() == std::thread::current().id();
                assert!(
                    is_own,
                    "the number of a plain OS thread is known only on that thread"
                );
                ThreadId(SYSTEM_ID.with(|id| *id))
            }
        }
    }

    /// The name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Inner::Green(task) => task.name.as_deref(),
            Inner::System(thread) => thread.name(),
        }
    }

    /// Whether it has ended; never true of a plain OS thread.
    pub(super) fn is_finished(&self) -> bool {
        matches!(&self.0, Inner::Green(task) if task.is_done())
    }

    /// As [`JoinHandle::kill`]; does nothing to a plain OS thread.
    pub fn kill(&self) {
        let Inner::Green(task) = &self.0 else { return };
        match Worker::of_this_thread() {
            Some(worker) if std::ptr::eq(worker.inbox, task.inbox) => {
                if !task.is_done() {
                    interrupt::interrupt(worker, task, Pending::KILL);
                }
            }
            _ => task
                .inbox
                .send_or_drop(Message::Interrupt(task.clone(), Pending::KILL)),
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Green(task) => formatter
                .debug_struct("Thread")
                .field("id", &ThreadId(task.id))
                .field("name", &self.name())
                .finish_non_exhaustive(),
            Inner::System(thread) => thread.fmt(formatter),
        }
    }
}

/// Names one thread of the process: see [`Thread::id`].
///
/// Mirrors [`std::thread::ThreadId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(u64);

/// The handle of the calling green thread, or of the OS thread outside of any.
///
/// Mirrors [`std::thread::current`].
pub fn current() -> Thread {
    match Worker::current() {
        Some(worker) => Thread(Inner::Green(worker.running_ref())),
        None => Thread(Inner::System(std::thread::current())),
    }
}
