//! Waiting for several descriptors at once, for those who have no event loop.
//!
//! poll(2) and not something faster: there are a handful, and unlike an epoll or a kqueue the list
//! takes no descriptor and is nothing that a forked child would share.
//!
//! Man pages: poll(2). Deliberately not here: what is done when one is ready.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of `fds` can be read or `timeout` is over, and tells which can, each in its
/// place. `None` in `fds` is never ready. A signal may end the wait early, with nothing ready.
///
/// # Errors
///
/// If the kernel has no memory for it.
pub(crate) fn wait_for_any<const COUNT: usize>(
    fds: [Option<BorrowedFd<'_>>; COUNT],
    timeout: Option<Duration>,
) -> io::Result<[bool; COUNT]> {
    let mut entries = fds.map(|fd| libc::pollfd {
        // A negative one is passed over.
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    // Rounded up, or the last part of a millisecond would be spent in a circle.
    let timeout_ms = timeout.map_or(-1, |timeout| {
        timeout
            .as_nanos()
            .div_ceil(1_000_000)
            .try_into()
            .unwrap_or(i32::MAX)
    });
    let count = libc::nfds_t::try_from(COUNT).expect("there are a handful");
    // SAFETY: `entries` is an array of `count` entries, and `fds` keeps the descriptors open.
    if unsafe { libc::poll(entries.as_mut_ptr(), count, timeout_ms) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok([false; COUNT]);
    }
    Ok(entries.map(|entry| entry.revents != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};
    use std::os::fd::AsFd;

    #[test]
    fn each_is_told_in_its_place() {
        // Goal: who is ready is told, and nobody else. Method: one of two pipes holds a byte.
        let (empty, _open) = pipe().unwrap();
        let (full, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let fds = [Some(empty.as_fd()), None, Some(full.as_fd())];
        assert_eq!(wait_for_any(fds, None).unwrap(), [false, false, true]);
        let nobody = wait_for_any([fds[0]], Some(Duration::from_nanos(1)));
        assert_eq!(nobody.unwrap(), [false]);
    }
}
