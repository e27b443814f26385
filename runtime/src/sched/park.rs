//! L3. Parking: the one primitive in which everything blocks.
//!
//! Whoever has to wait for another leaves a [`Parker`] where that other will find it, and calls
//! [`park`]; the other calls [`Parker::unpark`]. On a green thread this suspends the green thread;
//! on a plain OS thread it blocks that thread, so the same channels and handles serve both.
//!
//! A park may end without an unpark (an unpark that was meant for an earlier wait may come late),
//! so every caller parks in a loop around its condition. An unpark is never lost: one that comes
//! between the leaving of the parker and the park ends that park.
//!
//! Man pages: futex(7) for the idea, which the standard library's condition variable rests on
//! here. Deliberately not here: the token of `thread::park`, which is the user's own and must not
//! be eaten by a lock or a channel that happens to wait in between.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::inbox::Message;
use super::task::{Task, TaskRef, WaitsFor};
use super::worker::Worker;
use crate::sys::clock::Moment;

/// Somebody who waits, or is about to.
pub(crate) enum Parker {
    Green(TaskRef),
    System(Arc<SystemThread>),
}

/// Marks a raw parker as an OS thread's. Both pointees are aligned to more than a byte.
const SYSTEM_TAG: usize = 1;

impl Parker {
    /// Whoever calls this.
    pub(crate) fn current() -> Parker {
        match Worker::current() {
            Some(worker) => Parker::Green(worker.running_ref()),
            None => Parker::System(SYSTEM_THREAD.with(Arc::clone)),
        }
    }

    /// Ends the present or the next park of whoever this names.
    pub(crate) fn unpark(&self) {
        match self {
            Parker::Green(task) => wake(task),
            Parker::System(thread) => thread.unpark(),
        }
    }

    /// Whether this names the caller.
    pub(crate) fn is_current(&self) -> bool {
        match (self, Worker::current()) {
            (Parker::Green(task), Some(worker)) => std::ptr::eq(&**task, worker.running()),
            (Parker::System(thread), None) => SYSTEM_THREAD.with(|own| Arc::ptr_eq(own, thread)),
            _ => false,
        }
    }

    /// The parker as one word; never null.
    pub(crate) fn into_raw(self) -> *mut () {
        match self {
            Parker::Green(task) => task.into_raw().cast_mut().cast(),
            Parker::System(thread) => Arc::into_raw(thread)
                .cast_mut()
                .cast::<()>()
                .map_addr(|word| word | SYSTEM_TAG),
        }
    }

    /// The parker that [`into_raw`](Parker::into_raw) made a word of.
    ///
    /// # Safety
    ///
    /// Once for each `into_raw`.
    pub(crate) unsafe fn from_raw(raw: *mut ()) -> Parker {
        let pointer = raw.map_addr(|word| word & !SYSTEM_TAG);
        if pointer == raw {
            // SAFETY: the word came from a task reference, and is used once.
            return Parker::Green(unsafe { TaskRef::from_raw(raw.cast::<Task>()) });
        }
        // SAFETY: the tag says that it came from this kind of `Arc`, and it is used once.
        Parker::System(unsafe { Arc::from_raw(pointer.cast::<SystemThread>()) })
    }
}

/// Wakes a green thread from anywhere.
pub(crate) fn wake(task: &TaskRef) {
    match Worker::of_this_thread() {
        Some(worker) if std::ptr::eq(worker.inbox, task.inbox) => worker.wake(task),
        _ => task.inbox.send_or_drop(Message::Wake(task.clone())),
    }
}

/// Suspends the caller until somebody unparks it or the deadline passes; `true` if that passed.
///
/// On a green thread this is a suspension point: a kill or time-out unwinds from here.
pub(crate) fn park(deadline: Option<Moment>, waits_for: WaitsFor) -> bool {
    match Worker::current() {
        Some(worker) => worker.suspend(deadline, waits_for),
        None => SYSTEM_THREAD.with(|thread| thread.park(deadline)),
    }
}

thread_local! {
    static SYSTEM_THREAD: Arc<SystemThread> = Arc::default();
}

/// What an OS thread that is no worker blocks on.
#[derive(Debug, Default)]
pub(crate) struct SystemThread {
    unparked: Mutex<bool>,
    changed: Condvar,
}

impl SystemThread {
    fn unpark(&self) {
        *self.unparked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    fn park(&self, deadline: Option<Moment>) -> bool {
        let until = deadline.map(|deadline| Instant::now() + deadline.since(Moment::now()));
        let mut unparked = self.unparked.lock().unwrap_or_else(PoisonError::into_inner);
        while !*unparked {
            unparked = match until {
                None => self
                    .changed
                    .wait(unparked)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return true;
                    }
                    let waited = self.changed.wait_timeout(unparked, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *unparked = false;
        false
    }
}
