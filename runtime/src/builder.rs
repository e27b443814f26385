//! L4. Starting the runtime: [`run`], and the [`Builder`] with its choices.
//!
//! Deliberately not here: what a run consists of (`sched::crew`).

use std::io;

use crate::context::DEFAULT_SLOT_BYTES;
use crate::poller::Kind;
use crate::sched::crew::{self, Settings};

/// Runs `main` as a green thread on this OS thread and returns its result.
///
/// When `main` returns, all other green threads are unwound: each ends where it waits, its
/// destructors run.
///
/// # Panics
///
/// When the runtime cannot be started ([`Builder::run`] reports that as an error), when called
/// inside a run, and with the panic of `main`.
///
/// # Examples
///
/// ```
/// use runtime::thread;
///
/// let sum = runtime::run(|| {
///     let threads: Vec<_> = (0..10).map(|n| thread::spawn(move || n)).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
/// });
/// assert_eq!(sum, 45);
/// ```
#[track_caller]
pub fn run<T>(main: impl FnOnce() -> T) -> T {
    match Builder::new().run(main) {
        Ok(value) => value,
        Err(error) => panic!("the runtime could not be started: {error}"),
    }
}

/// Chooses the poller, the number of workers and the size of stacks of a run.
///
/// # Examples
///
/// ```
/// use runtime::poller::Kind;
///
/// let seven = runtime::Builder::new().poller(Kind::Poll).workers(2).run(|| 7)?;
/// assert_eq!(seven, 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder starts nothing until `run` is called"]
pub struct Builder {
    kind: Option<Kind>,
    workers: Option<usize>,
    stack_bytes: Option<usize>,
}

impl Builder {
    /// The poller that `RUNTIME_POLLER` names, or the system's best; one worker; stacks of
    /// 128 KiB.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The poller, whatever `RUNTIME_POLLER` says.
    pub fn poller(mut self, kind: Kind) -> Builder {
        self.kind = Some(kind);
        self
    }

    /// How many workers: OS threads with a scheduler and a poller each. Green threads are spawned
    /// on their spawner's worker, or with [`spawn_on`](crate::thread::spawn_on).
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers);
        self
    }

    /// The size of stacks in bytes, rounded up to a power of two; address space, not memory.
    pub fn stack_bytes(mut self, stack_bytes: usize) -> Builder {
        self.stack_bytes = Some(stack_bytes);
        self
    }

    /// Runs `main` as a green thread on this OS thread and returns its result.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero workers, for a `RUNTIME_POLLER` that names no poller of this system
    /// and for a `RUNTIME_SEED` that is no number; what opening the pollers and starting the OS
    /// threads reports; `OutOfMemory` when there is no room for the first stack.
    ///
    /// # Panics
    ///
    /// When called inside a run, and with the panic of `main`.
    #[track_caller]
    pub fn run<T>(self, main: impl FnOnce() -> T) -> io::Result<T> {
        let kind = match self.kind {
            Some(kind) => kind,
            None => Kind::from_environment()?,
        };
        let workers = self.workers.unwrap_or(1);
        if workers == 0 {
            let message = "a run needs at least one worker";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let stack_bytes = self.stack_bytes.unwrap_or(DEFAULT_SLOT_BYTES);
        crew::run(
            Settings {
                kind,
                workers,
                stack_bytes,
            },
            main,
        )
    }
}
