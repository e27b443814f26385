//! L4. Waiting for descriptors of any kind: pipes, sockets of other crates, devices.
//!
//! What std has no name for and gevent calls `wait_read` and `wait_write`: the caller is suspended
//! until a descriptor is ready, and then makes its own, non-blocking call.
//!
//! Man pages: poll(2), epoll(7). Deliberately not here: making the call (see `net` for that).

use std::io::Result;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sched::driver::{Direction, wait_ready};
use crate::sys::clock::Moment;

/// Waits until `fd` can be read from, which includes its end and errors, for at most `timeout`.
/// `false` means that the time has passed.
///
/// Readiness is a hint: somebody else may be faster. The call that follows should not block.
///
/// # Errors
///
/// What the poller reports: for instance that `select` cannot watch so large a number, or that
/// epoll cannot watch regular files, which are always ready.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
/// use runtime::{io, thread};
///
/// runtime::run(|| {
///     let (mut here, mut there) = UnixStream::pair().unwrap();
///     assert!(!io::wait_readable(&here, Some(Duration::from_millis(1))).unwrap());
///     thread::spawn(move || there.write_all(b"x").unwrap());
///     assert!(io::wait_readable(&here, None).unwrap());
///     here.read_exact(&mut [0]).unwrap();
/// });
/// ```
pub fn wait_readable(fd: impl AsFd, timeout: Option<Duration>) -> Result<bool> {
    wait_ready(fd.as_fd(), Direction::Read, timeout.and_then(Moment::after))
}

/// As [`wait_readable`], until `fd` can be written to.
///
/// # Errors
///
/// As [`wait_readable`].
pub fn wait_writable(fd: impl AsFd, timeout: Option<Duration>) -> Result<bool> {
    wait_ready(
        fd.as_fd(),
        Direction::Write,
        timeout.and_then(Moment::after),
    )
}
