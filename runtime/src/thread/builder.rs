//! L4. Starting green threads: names, stack sizes, and errors instead of panics.
//!
//! Deliberately not here: what can be done with them then (`handle`).

use std::io;
use std::panic::Location;

use super::handle::JoinHandle;
use super::scope::{Scope, ScopedJoinHandle};
use crate::sched::birth::{self, Emigrant};
use crate::sched::inbox::Message;
use crate::sched::task::{Birth, TaskRef};
use crate::sched::worker::Worker;

/// Chooses a green thread's name and stack size.
///
/// Mirrors [`std::thread::Builder`]. Its `spawn` demands no `Send`; see [`crate::thread::spawn`].
///
/// # Examples
///
/// ```
/// use runtime::thread;
///
/// runtime::run(|| {
///     let builder = thread::Builder::new().name("digger".into());
///     let handle = builder.spawn(|| thread::current().name().map(str::to_owned)).unwrap();
///     assert_eq!(handle.join().unwrap().as_deref(), Some("digger"));
/// });
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing until `spawn` is called"]
pub struct Builder {
    name: Option<String>,
    stack_bytes: Option<usize>,
}

impl Builder {
    /// No name, and the run's stack size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The name by which overflows and reports call the green thread.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// The size of the stack in bytes, rounded up to a power of two. It is address space;
    /// memory is used page by page, as the stack grows.
    pub fn stack_size(mut self, stack_bytes: usize) -> Builder {
        self.stack_bytes = Some(stack_bytes);
        self
    }

    /// Starts a green thread on the caller's worker.
    ///
    /// # Errors
    ///
    /// `Unsupported` on an OS thread that is no worker, `OutOfMemory` when there is no room for
    /// another stack.
    #[track_caller]
    pub fn spawn<F, T>(self, action: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.spawn_at(Location::caller(), action)
    }

    /// Starts a green thread on the worker of this index.
    ///
    /// # Errors
    ///
    /// `Unsupported` on an OS thread that is no worker, `InvalidInput` when there is no worker of
    /// this index. Should that worker have no room for a stack, `join` reports it as an error
    /// whose payload is an [`io::Error`].
    #[track_caller]
    pub fn spawn_on<F, T>(self, worker: usize, action: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_on_at(Location::caller(), worker, action)
    }

    /// Starts a green thread that may borrow from outside the scope.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Builder::spawn).
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        action: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        scope.spawn_with(self, Location::caller(), action)
    }

    #[inline]
    pub(super) fn spawn_at<F, T>(
        self,
        spawned: &'static Location<'static>,
        action: F,
    ) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // SAFETY: what is `'static` borrows nothing.
        let task = unsafe { self.spawn_unchecked::<F, T>(spawned, action) }?;
        Ok(JoinHandle::new(task))
    }

    /// Starts a green thread on this worker, whatever it borrows.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Builder::spawn).
    ///
    /// # Safety
    ///
    /// The green thread must end before anything that `F` or `T` borrows does.
    #[inline]
    pub(super) unsafe fn spawn_unchecked<F, T>(
        self,
        spawned: &'static Location<'static>,
        action: F,
    ) -> io::Result<TaskRef>
    where
        F: FnOnce() -> T,
    {
        let worker = own_worker()?;
        let stack_bytes = self.stack_bytes.unwrap_or(worker.stack_bytes);
        let name = self.name.map(String::into_boxed_str);
        let birth = Birth {
            name,
            spawned,
            inbox: worker.inbox,
        };
        // SAFETY: the caller's promise.
        unsafe { birth::spawn::<F, T>(worker, birth, stack_bytes, action) }
    }

    pub(super) fn spawn_on_at<F, T>(
        self,
        spawned: &'static Location<'static>,
        index: usize,
        action: F,
    ) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let worker = own_worker()?;
        let Some(&inbox) = worker.crew.get(index) else {
            let message = format!("there are {} workers, counted from 0", worker.crew.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let stack_bytes = self.stack_bytes.unwrap_or(worker.stack_bytes);
        let name = self.name.map(String::into_boxed_str);
        let birth = Birth {
            name,
            spawned,
            inbox,
        };
        let emigrant = Emigrant::<F, T>::new(birth, stack_bytes, action);
        let task = emigrant.task().clone();
        inbox.send_or_drop(Message::Start(Box::new(|worker| emigrant.arrive(worker))));
        Ok(JoinHandle::new(task))
    }
}

/// The worker that this is called on.
fn own_worker<'a>() -> io::Result<&'a Worker> {
    Worker::of_this_thread().ok_or_else(no_runtime)
}

/// The answer to whoever spawns where nothing could run it.
pub(super) fn no_runtime() -> io::Error {
    let message = "green threads need a runtime; call this inside runtime::run(|| ...)";
    io::Error::new(io::ErrorKind::Unsupported, message)
}
