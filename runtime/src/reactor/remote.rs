//! L2. The way into a reactor from other threads: an inbox, and a waker beside it.
//!
//! The waker's descriptor is registered with the reactor as any other. The inbox remembers
//! whether it has been written to since the reactor last looked, so that a burst of calls costs
//! one system call, and a reactor that is behind is not woken again and again.
//!
//! Man pages: none of its own (see `sys::waker`). Not here: when the reactor looks.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io, mem};

use super::Reactor;
use crate::sys::waker::Waker;

/// What is called once, on the reactor's thread.
type RemoteTask = Box<dyn FnOnce(&mut Reactor) + Send>;

/// What a reactor and its handles share.
pub(super) struct Remote {
    waker: Waker,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    tasks: Vec<RemoteTask>,
    /// How many handles there are: without any, nothing can come any more.
    handle_count: usize,
    /// Whether the waker was written to and the reactor has not looked since.
    is_woken: bool,
    /// Whether the reactor is gone.
    is_closed: bool,
}

impl Remote {
    pub(super) fn new() -> io::Result<Remote> {
        Ok(Remote {
            waker: Waker::new()?,
            inbox: Mutex::default(),
        })
    }

    /// All that has been sent. For the reactor, when the waker's descriptor is readable.
    pub(super) fn take(&self) -> Vec<RemoteTask> {
        // Under the lock, so that a task which comes between the two finds the flag as it finds
        // the waker, and neither a wake-up nor its task can be lost.
        let mut inbox = self.lock();
        self.waker.drain();
        inbox.is_woken = false;
        mem::take(&mut inbox.tasks)
    }

    /// Refuses tasks from now on, and hands out those that nobody will call any more.
    pub(super) fn close(&self) -> Vec<RemoteTask> {
        let mut inbox = self.lock();
        inbox.is_closed = true;
        mem::take(&mut inbox.tasks)
    }

    /// Whether there is a handle, or something that one has sent.
    pub(super) fn may_call(&self) -> bool {
        let inbox = self.lock();
        inbox.handle_count > 0 || !inbox.tasks.is_empty()
    }

    fn wake(&self, inbox: &mut Inbox) {
        if !mem::replace(&mut inbox.is_woken, true) {
            self.waker.wake();
        }
    }

    /// Nothing of the user's runs under the lock, so a poisoned one has seen no half-made change.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Remote {
    fn as_raw_fd(&self) -> RawFd {
        self.waker.as_raw_fd()
    }
}

/// Reaches a [`Reactor`] from any thread. While there is one, [`Reactor::run`] goes on waiting.
///
/// ```
/// use runtime::reactor::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// std::thread::spawn(move || handle.call(|reactor| reactor.stop()));
/// reactor.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RemoteHandle {
    remote: Arc<Remote>,
}

impl RemoteHandle {
    pub(super) fn new(remote: Arc<Remote>) -> RemoteHandle {
        remote.lock().handle_count += 1;
        RemoteHandle { remote }
    }

    /// Makes the reactor go round once, now or as soon as it would wait the next time.
    pub fn wake(&self) {
        self.remote.wake(&mut self.remote.lock());
    }

    /// Calls `task` on the reactor's thread, soon, and after all that this thread has sent before.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if the reactor is gone; the task is then dropped.
    pub fn call(&self, task: impl FnOnce(&mut Reactor) + Send + 'static) -> io::Result<()> {
        let task: RemoteTask = Box::new(task);
        let mut inbox = self.remote.lock();
        if inbox.is_closed {
            drop(inbox); // The task, which drops after this, may be anything.
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the reactor is gone",
            ));
        }
        inbox.tasks.push(task);
        self.remote.wake(&mut inbox);
        Ok(())
    }
}

impl Clone for RemoteHandle {
    fn clone(&self) -> RemoteHandle {
        RemoteHandle::new(Arc::clone(&self.remote))
    }
}

impl Drop for RemoteHandle {
    fn drop(&mut self) {
        let mut inbox = self.remote.lock();
        inbox.handle_count -= 1;
        // The reactor may be waiting only for what the last handle might have sent.
        if inbox.handle_count == 0 {
            self.remote.wake(&mut inbox);
        }
    }
}

impl fmt::Debug for RemoteHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RemoteHandle")
            .finish_non_exhaustive()
    }
}
