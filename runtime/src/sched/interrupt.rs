//! L3. Kill and time-outs: ending what a green thread does from outside.
//!
//! Both are *interrupts*. One is left in the control block of its target, and delivered where the
//! target next suspends, or at once where it is suspended already: the wait returns by unwinding
//! its stack, so destructors run and locks are released. The unwinding begins with
//! `resume_unwind`, which calls no panic hook and prints nothing; at the end stands whoever the
//! interrupt was for: the root of the green thread for a kill, [`timeout`] for its own time-out.
//!
//! Interrupts are ordered: a kill comes before every time-out, and an outer time-out before an
//! inner one, which it ends as well. Therefore a single word holds what is pending.
//!
//! Deliberately not here: interrupting code that never suspends. Nothing can.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::task::Task;
use super::worker::{Alarm, Worker};
use crate::sys::clock::Moment;
use crate::timer::TimerKey;

/// What is to be delivered to a green thread; the smaller comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pending(u64);

impl Pending {
    pub(crate) const NONE: Pending = Pending(u64::MAX);
    pub(crate) const KILL: Pending = Pending(0);

    /// The time-out of this number.
    pub(crate) fn timeout(number: u64) -> Pending {
        Pending(number)
    }
}

/// The payload of a kill: what [`JoinHandle::join`](crate::thread::JoinHandle::join) of a killed
/// green thread answers as its error. A panic's payload is whatever it was raised with, so the two
/// are told apart with `is::<Killed>()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl fmt::Display for Killed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the green thread was killed")
    }
}

impl std::error::Error for Killed {}

/// The payload of a time-out on its way to the [`timeout`] of this number.
struct Expired(u64);

/// The time given to [`timeout`] passed before its closure had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the time allowed has passed")
    }
}

impl std::error::Error for TimedOut {}

impl From<TimedOut> for std::io::Error {
    fn from(error: TimedOut) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, error)
    }
}

/// Whether this is what a kill or a time-out unwinds with.
pub(crate) fn is_interrupt(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Killed>() || payload.is::<Expired>()
}

/// Delivers what is pending for the running green thread: does not return if there is something.
#[inline(always)]
pub(crate) fn deliver(task: &Task) {
    if task.interrupt.get() != Pending::NONE {
        unwind(task);
    }
}

/// Begins the unwinding that a pending interrupt asks for.
#[cold]
#[inline(never)]
fn unwind(task: &Task) {
    let Pending(number) = task.interrupt.replace(Pending::NONE);
    let payload: Box<dyn Any + Send> = match Pending(number) {
        Pending::KILL => Box::new(Killed),
        _ => Box::new(Expired(number)),
    };
    log::trace!(
        "{task} unwinds: it was {}",
        if number == 0 { "killed" } else { "out of time" }
    );
    panic::resume_unwind(payload);
}

/// Leaves an interrupt for a green thread of this worker and wakes it.
pub(crate) fn interrupt(worker: &Worker, task: &Task, pending: Pending) {
    task.interrupt.set(task.interrupt.get().min(pending));
    worker.wake(task);
}

/// The alarm of one [`timeout`] call, taken back when the call ends.
struct Limit<'a> {
    worker: &'a Worker,
    task: &'a Task,
    key: TimerKey,
    number: u64,
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        self.worker.cancel_alarm(self.key);
        if self.task.interrupt.get() == Pending::timeout(self.number) {
            self.task.interrupt.set(Pending::NONE);
        }
    }
}

/// Calls `action` and ends it by unwinding when it has not returned after `duration`.
///
/// The time-out takes effect where `action` suspends: in I/O, sleeping, joining, channels. What
/// `action` owns is dropped. A lock of std's that is held across such a wait is released, but std
/// takes the unwinding for a panic and poisons it. Time-outs nest; each ends its own call. Code
/// that catches every panic in between (`catch_unwind`) swallows the time-out, too.
///
/// # Errors
///
/// [`TimedOut`] when the time was not enough.
///
/// # Panics
///
/// When called outside a green thread, where nothing could interrupt `action`. A panic of `action`
/// goes on to the caller.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use runtime::{thread, timeout};
///
/// runtime::run(|| {
///     let result = timeout(Duration::from_millis(5), || thread::sleep(Duration::from_secs(60)));
///     assert!(result.is_err());
///     assert_eq!(timeout(Duration::from_secs(60), || 7), Ok(7));
/// });
/// ```
pub fn timeout<T>(duration: Duration, action: impl FnOnce() -> T) -> Result<T, TimedOut> {
    thread_local! {
        /// Numbers time-outs so that an inner one has the larger number; 0 is the kill's.
        static NUMBER: Cell<u64> = const { Cell::new(1) };
    }
    let Some(worker) = Worker::current() else {
        panic!("timeout() was called outside a green thread; call it inside runtime::run");
    };
    let Some(deadline) = Moment::after(duration) else {
        return Ok(action());
    };
    let task = worker.running();
    let number = NUMBER.get();
    NUMBER.set(number + 1);
    let key = worker.set_alarm(deadline, Alarm::Interrupt(task, Pending::timeout(number)));
    let limit = Limit {
        worker,
        task,
        key,
        number,
    };
    let result = panic::catch_unwind(AssertUnwindSafe(action));
    drop(limit);
    match result {
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<Expired>() {
            Ok(expired) if expired.0 == number => Err(TimedOut),
            Ok(expired) => panic::resume_unwind(expired),
            Err(payload) => panic::resume_unwind(payload),
        },
    }
}
