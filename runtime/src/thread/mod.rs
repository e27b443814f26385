//! L4. Green threads under the names of [`std::thread`].
//!
//! `use runtime::thread` in place of `use std::thread` and the same code runs on green threads.
//! The differences, which each item states again:
//!
//! - [`spawn`] starts the green thread on the caller's own worker. It therefore demands no `Send`,
//!   and panics on an OS thread that is no worker. [`spawn_on`] reaches the other workers.
//! - A green thread runs until it waits or yields; nothing takes the processor from it.
//! - [`JoinHandle`] and [`Thread`] can `kill`; `join` then answers [`Killed`] as the error.
//! - Thread-locals belong to the OS thread, so the green threads of a worker share them.
//! - The standard library's own locks and channels block the whole worker; use [`crate::sync`].
//!
//! Everything but `spawn` may be called on a plain OS thread, which then simply blocks.
//!
//! Deliberately not here: the scheduler (`sched`).

mod builder;
mod handle;
mod scope;

use std::panic::Location;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use builder::Builder;
pub use handle::{JoinHandle, Thread, ThreadId, current};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use std::thread::{LocalKey, Result, available_parallelism, panicking};

pub use crate::sched::interrupt::Killed;
use crate::sched::park::park as park_any;
use crate::sched::task::WaitsFor;
use crate::sched::worker::Worker;
use crate::sys::clock::Moment;

/// Starts a green thread on the caller's worker.
///
/// Mirrors [`std::thread::spawn`], without demanding `Send`.
///
/// # Panics
///
/// On an OS thread that is no worker, and when there is no memory for another stack. See
/// [`Builder::spawn`] for a version that reports both as errors.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
/// use runtime::thread;
///
/// runtime::run(|| {
///     let shared = Rc::new(5);
///     let theirs = Rc::clone(&shared);
///     let handle = thread::spawn(move || *theirs + 1);
///     assert_eq!(handle.join().unwrap(), 6);
/// });
/// ```
#[track_caller]
pub fn spawn<F, T>(action: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    match Builder::new().spawn_at(Location::caller(), action) {
        Ok(handle) => handle,
        Err(error) => panic!("failed to spawn a green thread: {error}"),
    }
}

/// Starts a green thread on the worker of this index, from 0 to [`workers`]` - 1`.
///
/// # Panics
///
/// As [`spawn`], and when there is no such worker.
///
/// # Examples
///
/// ```
/// use runtime::thread;
///
/// runtime::Builder::new().workers(2).run(|| {
///     let here = std::thread::current().id();
///     let there = thread::spawn_on(1, || std::thread::current().id()).join().unwrap();
///     assert_ne!(here, there);
/// }).unwrap();
/// ```
#[track_caller]
pub fn spawn_on<F, T>(worker: usize, action: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn_on_at(Location::caller(), worker, action) {
        Ok(handle) => handle,
        Err(error) => panic!("failed to spawn a green thread on worker {worker}: {error}"),
    }
}

/// How many workers this run has; 0 outside a run.
pub fn workers() -> usize {
    Worker::of_this_thread().map_or(0, |worker| worker.crew.len())
}

/// Lets every other ready green thread of the worker run first.
///
/// Mirrors [`std::thread::yield_now`], which it calls on a plain OS thread.
#[inline]
pub fn yield_now() {
    match Worker::current() {
        Some(worker) => worker.yield_now(),
        None => std::thread::yield_now(),
    }
}

/// Suspends the caller for at least `duration`.
///
/// Mirrors [`std::thread::sleep`], which it calls on a plain OS thread.
pub fn sleep(duration: Duration) {
    if Worker::current().is_none() {
        return std::thread::sleep(duration);
    }
    let deadline = Moment::after(duration);
    while !park_any(deadline, WaitsFor::Sleep) {}
}

/// Suspends the caller until its token is given by [`Thread::unpark`]; takes the token.
///
/// Mirrors [`std::thread::park`], which it calls on a plain OS thread.
///
/// # Examples
///
/// ```
/// use runtime::thread;
///
/// runtime::run(|| {
///     let parked = thread::spawn(thread::park);
///     parked.thread().unpark();
///     parked.join().unwrap();
/// });
/// ```
pub fn park() {
    match Worker::current() {
        Some(worker) => park_until(worker, None),
        None => std::thread::park(),
    }
}

/// As [`park`], but for at most `duration`.
///
/// Mirrors [`std::thread::park_timeout`], which it calls on a plain OS thread.
pub fn park_timeout(duration: Duration) {
    match Worker::current() {
        Some(worker) => park_until(worker, Moment::after(duration)),
        None => std::thread::park_timeout(duration),
    }
}

fn park_until(worker: &Worker, deadline: Option<Moment>) {
    // Acquire: pairs with the release in `Thread::unpark`, as std promises.
    while !worker.running().token.swap(false, Ordering::Acquire) {
        if worker.suspend(deadline, WaitsFor::Unpark) {
            // The token may have come in the last moment; it is taken then.
            worker.running().token.swap(false, Ordering::Acquire);
            return;
        }
    }
}
