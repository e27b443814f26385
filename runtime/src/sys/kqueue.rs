//! L0. kqueue: the registry of descriptors in the kernels of the BSDs and of macOS.
//!
//! The systems agree on what kqueue does and disagree on the widths of its integers; the casts
//! with `as _` here are the places. A filter is one thing to watch about a descriptor, so
//! reading and writing are two registrations, and come back as two notices.
//!
//! Man pages: kqueue(2) (FreeBSD's is the fullest). Not here: what the notices mean (see
//! `poller::kqueue`), timers and signals and processes, which kqueue could watch as well.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{kernel, wait};

/// One thing to watch about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// There is something to read, or the end.
    Read,
    /// There is room to write.
    Write,
    /// There is urgent data.
    Exceptional,
}

/// What one entry of a batch says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice {
    /// Whom it concerns.
    pub(crate) fd: RawFd,
    /// What has happened.
    pub(crate) filter: Filter,
    /// `EV_EOF`: no more comes (reading) or can go (writing).
    pub(crate) end: bool,
    /// The error that the descriptor failed with; zero if it did not.
    pub(crate) error: i32,
}

/// Whether the system has a filter for urgent data: FreeBSD and NetBSD have none.
pub(crate) const HAS_EXCEPTIONAL: bool = cfg!(any(
    target_vendor = "apple",
    target_os = "openbsd",
    target_os = "dragonfly"
));

/// A kqueue; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Kqueue {
    queue: OwnedFd,
}

impl Kqueue {
    /// A kqueue that watches nothing and is closed on exec.
    pub(crate) fn new() -> io::Result<Kqueue> {
        // SAFETY: the call takes no arguments.
        let fd = unsafe { kernel::kqueue() }? as RawFd;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let queue = unsafe { OwnedFd::from_raw_fd(fd) };
        // kqueue1(2), which would do both at once, is missing from some of the systems.
        // SAFETY: the command sets a flag of a descriptor that is ours.
        unsafe { kernel::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }?;
        Ok(Kqueue { queue })
    }

    /// Begins to watch `filter` of `fd`. What holds already is reported.
    pub(crate) fn add(&self, fd: RawFd, filter: Filter, edge: bool) -> io::Result<()> {
        // EV_CLEAR takes the notice back once it is fetched: that is edge-triggering.
        let clear = if edge { libc::EV_CLEAR } else { 0 };
        self.change(fd, filter, (libc::EV_ADD | clear) as _)
    }

    /// Stops watching `filter` of `fd`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it was not watched; `EBADF` if the descriptor is closed.
    pub(crate) fn delete(&self, fd: RawFd, filter: Filter) -> io::Result<()> {
        self.change(fd, filter, libc::EV_DELETE as _)
    }

    /// Makes one change at once. With no room for answers, a refusal is the call's own error.
    fn change(&self, fd: RawFd, filter: Filter, flags: u32) -> io::Result<()> {
        let mut change = blank();
        change.ident = fd as _;
        change.flags = flags as _;
        match filter {
            Filter::Read => change.filter = libc::EVFILT_READ,
            Filter::Write => change.filter = libc::EVFILT_WRITE,
            Filter::Exceptional => {
                (change.filter, change.fflags) = exceptional()?;
            }
        }
        let queue = self.queue.as_raw_fd();
        let none = std::ptr::null_mut();
        // SAFETY: the kernel reads the one change, which outlives the call, and writes nothing.
        unsafe { kernel::kevent(queue, &raw const change, 1, none, 0, std::ptr::null()) }?;
        Ok(())
    }

    /// Waits, through signals, until there are notices: how many, at most `count_max`, are now in
    /// `batch`. Zero means that `timeout` passed.
    pub(crate) fn wait(
        &self,
        batch: &mut Batch,
        count_max: usize,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let count = batch.entries.len().min(count_max);
        let queue = self.queue.as_raw_fd();
        wait::bounded(timeout, |left| {
            let left = left.map(wait::timespec);
            let left = left
                .as_ref()
                .map_or(std::ptr::null(), |left| &raw const *left);
            let entries = batch.entries.as_mut_ptr();
            // SAFETY: the kernel writes at most `count` entries, and `left` outlives the call.
            unsafe { kernel::kevent(queue, std::ptr::null(), 0, entries, count, left) }
        })
    }
}

/// The filter for urgent data and its note.
#[cfg(any(
    target_vendor = "apple",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
fn exceptional() -> io::Result<(i16, u32)> {
    Ok((libc::EVFILT_EXCEPT, libc::NOTE_OOB))
}

/// There is no filter for urgent data; the types are those of the system's `kevent`.
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "openbsd",
    target_os = "dragonfly"
)))]
fn exceptional<F>() -> io::Result<(F, u32)> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// An entry that says nothing.
fn blank() -> libc::kevent {
    // SAFETY: the structure holds integers and a pointer, for all of which zeros are valid.
    unsafe { std::mem::zeroed() }
}

/// Room for notices.
pub(crate) struct Batch {
    entries: Vec<libc::kevent>,
}

// SAFETY: the only pointer in an entry is the caller's word, which is always left null.
unsafe impl Send for Batch {}

impl Batch {
    /// Room for `capacity` notices.
    pub(crate) fn new(capacity: usize) -> Batch {
        Batch {
            entries: vec![blank(); capacity],
        }
    }

    /// The first `count` notices.
    pub(crate) fn notices(&self, count: usize) -> impl Iterator<Item = Notice> + '_ {
        self.entries[..count].iter().map(|entry| {
            let end = entry.flags & libc::EV_EOF != 0;
            let refused = entry.flags & libc::EV_ERROR != 0;
            let filter = match entry.filter {
                libc::EVFILT_READ => Filter::Read,
                libc::EVFILT_WRITE => Filter::Write,
                _ => Filter::Exceptional,
            };
            // A refusal is in `data`; a socket's own failure comes with its end, in the notes.
            let error = if refused {
                entry.data as i32
            } else if end {
                entry.fflags as i32
            } else {
                0
            };
            Notice {
                fd: entry.ident as RawFd,
                filter,
                end,
                error,
            }
        })
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Batch")
            .field("capacity", &self.entries.len())
            .finish()
    }
}
