//! L3. The inbox of a worker: the only way in which other OS threads reach it.
//!
//! Workers share nothing, so what one wants of another goes as a message: wake this green thread,
//! start that closure. The receiver's waker is written to (a system call) only when the receiver
//! sleeps in its poller. The two sides agree on that without a lock, in the manner of Dekker: the
//! sender stores "there is mail" and then looks whether the worker sleeps; the worker stores "I
//! sleep" and then looks whether there is mail. Sequentially consistent, at least one of them sees
//! the other.
//!
//! Inboxes are never freed but used again, so a plain reference to one is valid for ever, and a
//! handle may outlive the worker; its messages are then refused, or concern green threads that
//! have ended and are ignored.
//!
//! Man pages: eventfd(2). Deliberately not here: what the messages do (`worker`).

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::interrupt::Pending;
use super::task::TaskRef;
use super::worker::Worker;
use crate::selector::Key;
use crate::sys::waker::Waker;

/// What other OS threads may ask of a worker.
pub(crate) enum Message {
    /// Make a parked green thread ready.
    Wake(TaskRef),
    /// Kill it, or end one of its time-outs.
    Interrupt(TaskRef, Pending),
    /// Start a green thread here. Dropped unstarted, the closure settles the matter itself.
    Start(Box<dyn FnOnce(&Worker) + Send>),
    /// A descriptor that is registered here is about to be closed.
    Forget { worker: u32, key: Key },
    /// Unwind every green thread and end.
    Stop,
}

/// A worker's inbox, or one that waits to be used again.
pub(crate) struct Inbox {
    /// The worker's number; 0 while there is none. No two workers of a process share one.
    number: AtomicU32,
    has_mail: AtomicBool,
    asleep: AtomicBool,
    post: Mutex<Post>,
}

#[derive(Default)]
struct Post {
    messages: Vec<Message>,
    /// Open exactly while a worker listens.
    waker: Option<Waker>,
}

/// Every inbox that was ever made.
static INBOXES: Mutex<Vec<&'static Inbox>> = Mutex::new(Vec::new());

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

/// A lock that no user code runs under, so that poison cannot mean anything.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// An open inbox for a new worker.
    ///
    /// # Errors
    ///
    /// As [`Waker::new`].
    pub(crate) fn open() -> io::Result<&'static Inbox> {
        let waker = Waker::new()?;
        let mut inboxes = lock(&INBOXES);
        let unused = inboxes.iter().find(|inbox| inbox.number() == 0).copied();
        let inbox = unused.unwrap_or_else(|| {
            let inbox: &'static Inbox = Box::leak(Box::new(Inbox {
                number: AtomicU32::new(0),
                has_mail: AtomicBool::new(false),
                asleep: AtomicBool::new(false),
                post: Mutex::default(),
            }));
            inboxes.push(inbox);
            inbox
        });
        lock(&inbox.post).waker = Some(waker);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        assert!(number != 0, "a process must start fewer than 2^32 workers");
        inbox.number.store(number, Ordering::Relaxed);
        Ok(inbox)
    }

    /// The inbox of the worker of this number, unless that has ended.
    pub(crate) fn of_worker(number: u32) -> Option<&'static Inbox> {
        lock(&INBOXES)
            .iter()
            .find(|inbox| inbox.number() == number)
            .copied()
    }

    /// The number of the worker that listens here.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Puts a message in and sees to it that the worker looks.
    ///
    /// # Errors
    ///
    /// Gives the message back when no worker listens any more.
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        let mut post = lock(&self.post);
        if post.waker.is_none() {
            return Err(message);
        }
        post.messages.push(message);
        // SeqCst, here and below: pairs with the store and load in `go_to_sleep`.
        self.has_mail.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Under the lock, so that the worker cannot close the waker meanwhile.
            post.waker.iter().for_each(Waker::wake);
        }
        Ok(())
    }

    /// As [`send`](Inbox::send), for what means nothing once the worker has ended.
    pub(crate) fn send_or_drop(&self, message: Message) {
        // The message is dropped outside the lock: it may own what sends messages when dropped.
        drop(self.send(message));
    }

    /// Whether a message waits; a glance that costs nothing.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Relaxed)
    }

    /// Takes all messages out.
    pub(crate) fn take(&self) -> Vec<Message> {
        let mut post = lock(&self.post);
        self.has_mail.store(false, Ordering::SeqCst);
        std::mem::take(&mut post.messages)
    }

    /// Asks senders to use the waker from now on. `false` means that a message is here already.
    pub(crate) fn go_to_sleep(&self) -> bool {
        // SeqCst: pairs with the store and swap in `send`.
        self.asleep.store(true, Ordering::SeqCst);
        if self.has_mail.load(Ordering::SeqCst) {
            self.asleep.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// The worker is awake and will look by itself. The poller may have been told of a waker
    /// that is not needed any more; the worker drains it when it sees the event.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Makes the waker quiet again.
    pub(crate) fn drain(&self) {
        lock(&self.post).waker.iter().for_each(Waker::drain);
    }

    /// The descriptor that becomes readable when the worker should look.
    pub(crate) fn waker_fd(&self) -> RawFd {
        lock(&self.post)
            .waker
            .as_ref()
            .map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Refuses messages from now on and returns those that came too late. The number stays, and
    /// with it the place among the workers of the run, until [`retire`](Inbox::retire).
    pub(crate) fn close(&self) -> Vec<Message> {
        let mut post = lock(&self.post);
        post.waker = None;
        self.has_mail.store(false, Ordering::Relaxed);
        std::mem::take(&mut post.messages)
    }

    /// Lets a later run use this inbox, which must be closed.
    pub(crate) fn retire(&self) {
        let post = lock(&self.post);
        assert!(post.waker.is_none(), "an inbox in use must not be retired");
        self.number.store(0, Ordering::Relaxed);
    }
}
