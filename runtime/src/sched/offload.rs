//! L3. Offloading: work that can only block, such as name look-up, done on other OS threads.
//!
//! A few OS threads take closures from one queue, and end when they have been idle for a while.
//! The green thread that asked is parked meanwhile.
//!
//! Man pages: pthreads(7). Deliberately not here: cancelling. What has begun runs to its end, and
//! its result is dropped if nobody waits for it any more.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::park::{Parker, park};
use super::task::WaitsFor;
use super::worker::Worker;

/// More would not look names up any faster.
const THREADS_MAX: usize = 16;
/// So long an OS thread waits for more work.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    work: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static CHANGED: Condvar = Condvar::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the result is left, and who waits for it.
struct Errand<T> {
    result: Mutex<Option<Result<T, Box<dyn Any + Send>>>>,
    parker: Parker,
}

/// Runs `work` where it may block, and parks the calling green thread until it is done. A plain OS
/// thread does the work itself.
///
/// A panic of `work` goes on in the caller.
pub(crate) fn offload<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if Worker::current().is_none() {
        return work();
    }
    let errand = Arc::new(Errand {
        result: Mutex::new(None),
        parker: Parker::current(),
    });
    let theirs = Arc::clone(&errand);
    let run = move || {
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        *lock(&theirs.result) = Some(result);
        theirs.parker.unpark();
    };
    if let Err(run) = submit(Box::new(run)) {
        // No OS thread can be had. Blocking this one is worse than waiting, better than failing.
        run();
    }
    loop {
        let result = lock(&errand.result).take();
        match result {
            Some(Ok(value)) => return value,
            Some(Err(payload)) => panic::resume_unwind(payload),
            None => park(None, WaitsFor::Offload),
        };
    }
}

/// Queues work; gives it back when there is no OS thread to do it and none can be started.
fn submit(work: Work) -> Result<(), Work> {
    let mut queue = lock(&QUEUE);
    let mut refusal = None;
    if queue.idle <= queue.work.len() && queue.threads < THREADS_MAX {
        let started = thread::Builder::new().name("offload".into()).spawn(serve);
        match started {
            Ok(_) => queue.threads += 1,
            Err(error) => refusal = Some(error),
        }
    }
    // A logger is the user's code, which the lock is not to be held for.
    if let (0, Some(error)) = (queue.threads, &refusal) {
        drop(queue);
        log::warn!("no OS thread for blocking work: {error}");
        return Err(work);
    }
    queue.work.push_back(work);
    drop(queue);
    CHANGED.notify_one();
    if let Some(error) = refusal {
        log::debug!("no further OS thread for blocking work: {error}");
    }
    Ok(())
}

/// The life of one OS thread of the pool.
fn serve() {
    let mut queue = lock(&QUEUE);
    loop {
        while let Some(work) = queue.work.pop_front() {
            drop(queue);
            work();
            queue = lock(&QUEUE);
        }
        queue.idle += 1;
        let (guard, waited) = CHANGED
            .wait_timeout(queue, IDLE)
            .unwrap_or_else(PoisonError::into_inner);
        queue = guard;
        queue.idle -= 1;
        if waited.timed_out() && queue.work.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}
