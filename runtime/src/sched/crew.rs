//! L3. The crew: the workers of one run, from the first to the last.
//!
//! The OS thread that starts a run becomes worker 0 and runs the main green thread; each further
//! worker gets an OS thread of its own. When the main green thread ends, every other one is
//! unwound, on all workers, before the run returns.
//!
//! Man pages: pthreads(7). Deliberately not here: balancing work. It goes where it is sent.

use std::io;
use std::panic::{self, Location};
use std::sync::Arc;
use std::thread;

use super::birth;
use super::inbox::{Inbox, Message};
use super::interrupt::Killed;
use super::task::{Birth, TaskRef};
use super::worker::{Plan, Worker};
use crate::poller::Kind;

/// What a run is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) kind: Kind,
    pub(crate) workers: usize,
    pub(crate) stack_bytes: usize,
}

/// An inbox that belongs to this run until this is dropped.
struct OpenInbox(&'static Inbox);

impl Drop for OpenInbox {
    fn drop(&mut self) {
        // Outside the lock: a message may own what sends messages when dropped.
        drop(self.0.close());
        self.0.retire();
    }
}

/// Closes a worker's inbox as soon as the worker ends, on the worker's own OS thread: whoever
/// waits for what came too late, perhaps in a destructor on another worker, must not wait on.
struct Listening(&'static Inbox);

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

/// Runs `main` as a green thread of worker 0 and returns its result.
///
/// # Errors
///
/// What opening pollers, wakers and OS threads reports; `main` has then not run.
///
/// # Panics
///
/// With the panic of `main`, and when called on an OS thread that is a worker already.
#[track_caller]
pub(crate) fn run<T>(settings: Settings, main: impl FnOnce() -> T) -> io::Result<T> {
    let spawned = Location::caller();
    assert!(
        Worker::of_this_thread().is_none(),
        "runtime::run was called inside a runtime; spawn a green thread instead"
    );
    let inboxes: Vec<OpenInbox> = (0..settings.workers)
        .map(|_| Inbox::open().map(OpenInbox))
        .collect::<io::Result<_>>()?;
    let crew: Arc<[&'static Inbox]> = inboxes.iter().map(|inbox| inbox.0).collect();
    let plan = |index: usize| Plan {
        kind: settings.kind,
        inbox: crew[index],
        crew: Arc::clone(&crew),
        stack_bytes: settings.stack_bytes,
    };
    let worker = Worker::new(plan(0))?;
    thread::scope(|scope| {
        let hands = Hands(&crew[1..]);
        for index in 1..settings.workers {
            let worker = plan(index);
            let name = format!("worker-{index}");
            let (started, has_started) = std::sync::mpsc::channel();
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, move || match Worker::new(worker) {
                    Ok(worker) => {
                        let _ = started.send(Ok(()));
                        let _listening = Listening(worker.inbox);
                        worker.enter(|| worker.run(None));
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                })?;
            match has_started.recv() {
                Ok(result) => result?,
                Err(_) => return Err(io::Error::other("a worker ended before it had begun")),
            }
        }
        let listening = Listening(worker.inbox);
        let result = worker.enter(|| run_main(&worker, spawned, main));
        drop(listening);
        drop(hands);
        result
    })
}

/// Tells the other workers to stop, however the run ends.
struct Hands<'a>(&'a [&'static Inbox]);

impl Drop for Hands<'_> {
    fn drop(&mut self) {
        for inbox in self.0 {
            inbox.send_or_drop(Message::Stop);
        }
    }
}

fn run_main<T>(
    worker: &Worker,
    spawned: &'static Location<'static>,
    main: impl FnOnce() -> T,
) -> io::Result<T> {
    let birth = Birth {
        name: Some("main".into()),
        spawned,
        inbox: worker.inbox,
    };
    // SAFETY: `Worker::run` returns only when every green thread has ended.
    let main: TaskRef = unsafe { birth::spawn(worker, birth, worker.stack_bytes, main) }?;
    worker.run(Some(&main));
    // SAFETY: the task was created for this type two lines above, and this is its only handle.
    match unsafe { main.take::<T>() } {
        Some(Ok(value)) => Ok(value),
        Some(Err(payload)) if payload.is::<Killed>() => {
            panic!("the main green thread was killed")
        }
        Some(Err(payload)) => panic::resume_unwind(payload),
        None => unreachable!("a run must not return before its main green thread has ended"),
    }
}
