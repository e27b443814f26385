//! L0. The kernel: the only place where system calls are made.
//!
//! [`kernel`] holds the bare calls; the other files give them types, ownership and policy, one
//! subject each. Nothing here knows of green threads or of readiness registries.
//!
//! Man pages: intro(2), signal(7) for `EINTR`. Not here: anything that decides when to wait.

pub(crate) mod address;
pub(crate) mod clock;
#[cfg(target_os = "linux")]
pub(crate) mod epoll;
pub(crate) mod kernel;
#[cfg(not(target_os = "linux"))]
pub(crate) mod kqueue;
pub(crate) mod memory;
pub(crate) mod select;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod valgrind;
pub(crate) mod wait;
pub(crate) mod waker;

use std::io;

/// Repeats a call that a signal interrupted: the one place where `EINTR` is decided.
///
/// Calls that wait are made with their deadline recomputed inside `call`. `close` must never
/// come here: after `EINTR` Linux has already released the descriptor, which may by then be
/// somebody else's (close(2), "Dealing with error returns").
#[inline(always)]
pub(crate) fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => return result,
        }
    }
}
