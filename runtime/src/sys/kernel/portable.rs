//! L0. The system calls of FreeBSD, NetBSD, OpenBSD and macOS, by way of libc.
//!
//! These systems promise a stable libc, not stable call numbers, and OpenBSD kills a process that
//! enters the kernel from elsewhere. The names and signatures are those of `linux.rs`, so that
//! the neighbours in `sys` are written once; `kqueue` and `kevent` stand where epoll does there.
//! macOS lacks `accept4`, `ppoll` and the flags of `socket`: they are put together here from
//! several calls, each with what that costs.
//!
//! Man pages: intro(2), kqueue(2), accept(2), poll(2) of each system. Not here: any choice of
//! what to call; epoll and eventfd, which only Linux has.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::RawFd;

/// macOS has no such flag of `socket` and `accept4`; ours takes a bit that no socket type has.
#[cfg(target_vendor = "apple")]
pub(crate) const SOCK_CLOEXEC: c_int = 0x1000_0000;
/// See [`SOCK_CLOEXEC`].
#[cfg(target_vendor = "apple")]
pub(crate) const SOCK_NONBLOCK: c_int = 0x2000_0000;

/// What libc answers as Rust states it: -1 means that the cause lies in this thread's errno.
#[inline(always)]
fn answer(result: isize) -> io::Result<usize> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as usize)
}

/// Defines one function per call: `name(argument: type, ...) = libc_name [words];`.
macro_rules! calls {
    ($($(#[$note:meta])* fn $name:ident($($argument:ident: $kind:ty),*) = $call:ident
        [$($word:expr),*];)*) => {$(
        $(#[$note])*
        ///
        /// # Safety
        ///
        /// Pointers must be valid for what the call reads or writes through them, and the call
        /// must not break an invariant of memory or descriptors that others own.
        #[inline(always)]
        pub(crate) unsafe fn $name($($argument: $kind),*) -> io::Result<usize> {
            // SAFETY: the caller vouches for these arguments, which stand in the call's order.
            answer(unsafe { libc::$call($($word),*) } as isize)
        }
    )*};
}

calls! {
    /// close(2).
    fn close(fd: RawFd) = close [fd];
    /// read(2).
    fn read(fd: RawFd, buffer: *mut c_void, length: usize) = read [fd, buffer, length];
    /// write(2).
    fn write(fd: RawFd, buffer: *const c_void, length: usize) = write [fd, buffer, length];
    /// fcntl(2), the commands whose argument is an integer.
    fn fcntl(fd: RawFd, command: c_int, argument: c_int) = fcntl [fd, command, argument];
    /// mmap(2), anonymous. Its failure is `MAP_FAILED`, which is the same -1.
    fn map_anonymous(address: *mut c_void, length: usize, protection: c_int, flags: c_int)
        = mmap [address, length, protection, flags | libc::MAP_ANON, -1, 0];
    /// munmap(2).
    fn munmap(address: *mut c_void, length: usize) = munmap [address, length];
    /// mprotect(2).
    fn mprotect(address: *mut c_void, length: usize, protection: c_int)
        = mprotect [address, length, protection];
    /// madvise(2).
    fn madvise(address: *mut c_void, length: usize, advice: c_int)
        = madvise [address, length, advice];
    /// bind(2).
    fn bind(fd: RawFd, address: *const libc::sockaddr, length: libc::socklen_t)
        = bind [fd, address, length];
    /// listen(2).
    fn listen(fd: RawFd, backlog: c_int) = listen [fd, backlog];
    /// connect(2).
    fn connect(fd: RawFd, address: *const libc::sockaddr, length: libc::socklen_t)
        = connect [fd, address, length];
    /// shutdown(2).
    fn shutdown(fd: RawFd, how: c_int) = shutdown [fd, how];
    /// getsockname(2).
    fn getsockname(fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t)
        = getsockname [fd, address, length];
    /// getpeername(2).
    fn getpeername(fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t)
        = getpeername [fd, address, length];
    /// getsockopt(2).
    fn getsockopt(fd: RawFd, level: c_int, name: c_int, value: *mut c_void,
        length: *mut libc::socklen_t) = getsockopt [fd, level, name, value, length];
    /// setsockopt(2).
    fn setsockopt(fd: RawFd, level: c_int, name: c_int, value: *const c_void,
        length: libc::socklen_t) = setsockopt [fd, level, name, value, length];
    /// recv(2).
    fn recv(fd: RawFd, buffer: *mut c_void, length: usize, flags: c_int)
        = recv [fd, buffer, length, flags];
    /// send(2).
    fn send(fd: RawFd, buffer: *const c_void, length: usize, flags: c_int)
        = send [fd, buffer, length, flags];
    /// recvmsg(2).
    fn recvmsg(fd: RawFd, message: *mut libc::msghdr, flags: c_int)
        = recvmsg [fd, message, flags];
    /// sendmsg(2).
    fn sendmsg(fd: RawFd, message: *const libc::msghdr, flags: c_int)
        = sendmsg [fd, message, flags];
    /// pselect(2) without a signal mask; a null timeout waits for ever.
    fn pselect(count: c_int, readable: *mut libc::fd_set, writable: *mut libc::fd_set,
        exceptional: *mut libc::fd_set, timeout: *const libc::timespec)
        = pselect [count, readable, writable, exceptional, timeout, std::ptr::null()];
    /// kqueue(2). It does not survive a fork, but it does an exec: the caller sets `FD_CLOEXEC`.
    fn kqueue() = kqueue [];
    /// sigaltstack(2).
    fn sigaltstack(new: *const libc::stack_t, old: *mut libc::stack_t) = sigaltstack [new, old];
}

#[cfg(not(target_vendor = "apple"))]
calls! {
    /// socket(2).
    fn socket(domain: c_int, kind: c_int, protocol: c_int) = socket [domain, kind, protocol];
    /// accept4(2).
    fn accept4(fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: c_int)
        = accept4 [fd, address, length, flags];
    /// ppoll(2) without a signal mask; a null timeout waits for ever.
    fn ppoll(entries: *mut libc::pollfd, count: usize, timeout: *const libc::timespec)
        = ppoll [entries, count as libc::nfds_t, timeout, std::ptr::null()];
}

/// kevent(2); a null timeout waits for ever. NetBSD counts in `size_t`, the others in `int`.
///
/// # Safety
///
/// `changes` and `events` must be valid for as many entries as their counts say, `timeout` valid
/// or null, and the data words of `changes` whatever their owner expects to get back.
#[inline(always)]
pub(crate) unsafe fn kevent(
    queue: RawFd,
    changes: *const libc::kevent,
    changes_count: usize,
    events: *mut libc::kevent,
    events_count: usize,
    timeout: *const libc::timespec,
) -> io::Result<usize> {
    // SAFETY: the caller vouches for these arguments, which stand in the call's order.
    let result = unsafe {
        libc::kevent(
            queue,
            changes,
            changes_count as _,
            events,
            events_count as _,
            timeout,
        )
    };
    answer(result as isize)
}

/// socket(2), its flags set by further calls. A fork in another thread between the two inherits
/// the descriptor; nothing can be done about that on this system.
///
/// # Safety
///
/// As for every call; there are no pointers.
#[cfg(target_vendor = "apple")]
pub(crate) unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<usize> {
    let flags = kind & (SOCK_CLOEXEC | SOCK_NONBLOCK);
    // SAFETY: the call takes no pointers.
    let fd = answer(unsafe { libc::socket(domain, kind & !flags, protocol) } as isize)?;
    // SAFETY: the descriptor was made just now and is nobody else's.
    unsafe { set_flags(fd, flags) }
}

/// accept(2), its flags set by further calls; see [`socket`] for what that costs. A socket that
/// was reset while it waited answers `ECONNABORTED` or has no address, which the caller must know.
///
/// # Safety
///
/// `address` must be valid for `*length` bytes, or both null.
#[cfg(target_vendor = "apple")]
pub(crate) unsafe fn accept4(
    fd: RawFd,
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
    flags: c_int,
) -> io::Result<usize> {
    // SAFETY: the caller vouches for the pointers.
    let fd = answer(unsafe { libc::accept(fd, address, length) } as isize)?;
    // SAFETY: the descriptor was made just now and is nobody else's.
    unsafe { set_flags(fd, flags) }
}

/// Gives a new descriptor the flags that it could not be made with, or closes it again. An
/// accepted socket has its listener's `O_NONBLOCK` on this system, so both values are set.
///
/// # Safety
///
/// The descriptor must be the caller's alone.
#[cfg(target_vendor = "apple")]
unsafe fn set_flags(fd: usize, flags: c_int) -> io::Result<usize> {
    let number = fd as RawFd;
    let close_on_exec = if flags & SOCK_CLOEXEC != 0 {
        libc::FD_CLOEXEC
    } else {
        0
    };
    let mode = if flags & SOCK_NONBLOCK != 0 {
        libc::O_NONBLOCK
    } else {
        0
    };
    // SAFETY: the command takes an integer.
    let result = unsafe { fcntl(number, libc::F_SETFD, close_on_exec) }.and_then(|_| {
        // SAFETY: the command takes an integer.
        unsafe { fcntl(number, libc::F_SETFL, mode) }
    });
    if let Err(error) = result {
        // SAFETY: the caller alone owns the descriptor and does not learn its number.
        let _ = unsafe { close(number) };
        return Err(error);
    }
    Ok(fd)
}

/// poll(2) in the place of ppoll(2), which this system lacks: the timeout is rounded up to whole
/// milliseconds, so that it is never early, and cut at what an `int` holds, which is allowed
/// because every caller asks again when a wait ends before its deadline. Not pselect(2), whose
/// timeout would be exact: it refuses descriptors from `FD_SETSIZE` on.
///
/// # Safety
///
/// `entries` must be valid for `count` entries, `timeout` valid or null.
#[cfg(target_vendor = "apple")]
pub(crate) unsafe fn ppoll(
    entries: *mut libc::pollfd,
    count: usize,
    timeout: *const libc::timespec,
) -> io::Result<usize> {
    let mut timeout_ms = -1;
    // SAFETY: the caller vouches that the pointer is valid or null.
    if let Some(timeout) = unsafe { timeout.as_ref() } {
        let whole_ms = (timeout.tv_sec as i64).saturating_mul(1_000);
        let rest_ms = (timeout.tv_nsec as i64 + 999_999) / 1_000_000;
        timeout_ms = whole_ms.saturating_add(rest_ms).min(c_int::MAX as i64) as c_int;
    }
    // SAFETY: the caller vouches for the entries.
    answer(unsafe { libc::poll(entries, count as libc::nfds_t, timeout_ms) } as isize)
}
