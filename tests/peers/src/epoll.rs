//! The four epoll calls as safe functions: all that the load and the hand-written echo server need.
//!
//! Outside the layers, and on purpose not built on the product: what measures and what is compared
//! with must not change when the product does. Rests on epoll(7).
//! Deliberately not here: a registry. Tokens are descriptors or indices; their owner checks them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// Opens an instance.
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor and nobody else owns it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds a descriptor; `events` are epoll's own bits.
    pub(crate) fn add(&self, fd: RawFd, events: i32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, token)
    }

    /// Changes what is awaited of a descriptor.
    pub(crate) fn modify(&self, fd: RawFd, events: i32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, token)
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: token,
        };
        // SAFETY: `event` is a local that outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) })?;
        Ok(())
    }

    /// Waits for events; -1 ms is for ever. Interrupted by a signal, it answers with none.
    pub(crate) fn wait<'buffer>(
        &self,
        buffer: &'buffer mut [libc::epoll_event],
        timeout_ms: i32,
    ) -> io::Result<&'buffer [libc::epoll_event]> {
        let capacity = i32::try_from(buffer.len()).map_err(io::Error::other)?;
        // SAFETY: the pointer and the capacity are those of one live, writable slice.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr(),
                capacity,
                timeout_ms,
            )
        };
        match check(count) {
            Ok(count) => Ok(&buffer[..count.cast_unsigned() as usize]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

/// A buffer for `wait`.
pub(crate) fn buffer(capacity: usize) -> Vec<libc::epoll_event> {
    vec![libc::epoll_event { events: 0, u64: 0 }; capacity]
}

fn check(status: i32) -> io::Result<i32> {
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(status)
    }
}
