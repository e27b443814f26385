//! L0. The kernel's calls, one function each, every argument still a plain word or pointer.
//!
//! On Linux they enter the kernel by the syscall instruction, because a crate that takes over
//! libc's own names (`recv`, `poll` ...) must not find the runtime among its callers. Elsewhere
//! the system's stable interface *is* libc (OpenBSD even refuses the instruction outside it), so
//! there the same functions go through libc. Both files export the same names and signatures,
//! and `SOCK_CLOEXEC` and `SOCK_NONBLOCK` are taken from here, because macOS has none.
//!
//! Man pages: syscall(2), syscalls(2). Not here: retrying, types, ownership; the neighbours in
//! `sys` add those.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;

// An import that no file of this build needs is no fault: the users of these come and go.
#[cfg(not(target_vendor = "apple"))]
#[allow(unused_imports)]
pub(crate) use libc::{SOCK_CLOEXEC, SOCK_NONBLOCK};
