//! L0. Linux's epoll: the kernel's own registry of descriptors, as an owned object.
//!
//! Man pages: epoll(7), epoll_ctl(2), epoll_wait(2). Not here: what the events mean (see
//! `poller::epoll`).

use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{kernel, wait};

/// An epoll instance; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Epoll {
    instance: OwnedFd,
    /// Whether the kernel has epoll_pwait2 (Linux 5.11), whose timeouts are in nanoseconds.
    has_fine_timeouts: Cell<bool>,
}

impl Epoll {
    /// A new instance that watches nothing and is closed on exec.
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { kernel::epoll_create1(libc::EPOLL_CLOEXEC) }?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let instance = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Epoll {
            instance,
            has_fine_timeouts: Cell::new(true),
        })
    }

    /// epoll_ctl(2): `operation` on `fd`, with the flags to watch for and the word to report.
    pub(crate) fn control(
        &self,
        operation: c_int,
        fd: RawFd,
        flags: u32,
        word: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: flags,
            u64: word,
        };
        let instance = self.instance.as_raw_fd();
        // SAFETY: the kernel reads `event`, which outlives the call.
        unsafe { kernel::epoll_ctl(instance, operation, fd, &raw mut event) }?;
        Ok(())
    }

    /// Waits, through signals, until something is ready: how many events now stand in `events`.
    /// Zero means that `timeout` passed.
    pub(crate) fn wait(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        wait::bounded(timeout, |left| {
            if self.has_fine_timeouts.get() {
                match self.wait_nanoseconds(events, left) {
                    Err(error) if is_unknown_call(&error) => {
                        log::trace!("epoll_pwait2 is missing here ({error}): whole milliseconds");
                        self.has_fine_timeouts.set(false);
                    }
                    answer => return answer,
                }
            }
            self.wait_milliseconds(events, left)
        })
    }

    fn wait_nanoseconds(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout = timeout.map(wait::timespec);
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), |timeout| &raw const *timeout);
        let count = events.len() as c_int;
        let instance = self.instance.as_raw_fd();
        // SAFETY: the kernel writes at most `count` events and reads `timeout`, which is alive.
        unsafe { kernel::epoll_pwait2(instance, events.as_mut_ptr(), count, timeout) }
    }

    fn wait_milliseconds(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout_ms = timeout.map_or(-1, whole_milliseconds);
        let count = events.len() as c_int;
        let instance = self.instance.as_raw_fd();
        // SAFETY: the kernel writes at most `count` events.
        unsafe { kernel::epoll_wait(instance, events.as_mut_ptr(), count, timeout_ms) }
    }
}

/// `timeout` for epoll_wait. Rounded up, because rounded down the last millisecond of every wait
/// would be spun away.
fn whole_milliseconds(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
}

/// Whether the kernel does not have a call: `ENOSYS`, or the `EPERM` of an older container's
/// seccomp filter, which epoll_pwait2 itself never answers.
fn is_unknown_call(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Moment;

    #[test]
    fn milliseconds_are_rounded_up() {
        // Goal: the timeout of the fallback. Method: the cases at its corners.
        let cases = [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)];
        for (nanoseconds, milliseconds) in cases {
            assert_eq!(
                whole_milliseconds(Duration::from_nanos(nanoseconds)),
                milliseconds
            );
        }
        assert_eq!(whole_milliseconds(Duration::MAX), c_int::MAX);
    }

    #[test]
    fn coarse_timeouts_are_not_early_either() {
        // Goal: the fallback for kernels before 5.11. Method: pretend the call was missing.
        let epoll = Epoll::new().unwrap();
        epoll.has_fine_timeouts.set(false);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
        for microseconds in [0, 1, 999, 1_001, 2_500] {
            let timeout = Duration::from_micros(microseconds);
            let deadline = Moment::after(timeout).unwrap();
            assert_eq!(epoll.wait(&mut events, Some(timeout)).unwrap(), 0);
            assert!(Moment::now() >= deadline);
        }
    }
}
