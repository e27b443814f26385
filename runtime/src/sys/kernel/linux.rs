//! L0. Linux's system calls by the syscall instruction, for x86-64 and aarch64.
//!
//! The kernel answers a value in `-4095..=-1` for an error (its negated number) and the result
//! otherwise; libc's `errno` is never involved. aarch64 has no `poll`, `select`, `epoll_wait` or
//! `accept`, so the newer calls that both machines have are used throughout.
//!
//! Man pages: syscall(2) (register tables), intro(2). Not here: any choice of what to call.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::RawFd;

/// Enters the kernel with six arguments; the calls with fewer pass zeros, which it ignores.
///
/// # Safety
///
/// The arguments must be what the call numbered `number` expects, pointers valid for what the
/// kernel reads or writes through them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn enter(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller vouches for the call; rcx and r11 are what `syscall` itself overwrites.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// See the x86-64 version; here the number goes in x8 and nothing else is overwritten.
///
/// # Safety
///
/// As for x86-64.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn enter(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller vouches for the call; `svc` preserves every register but x0.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack),
        );
    }
    result
}

/// A kernel answer as Rust states it.
#[inline(always)]
fn answer(result: isize) -> io::Result<usize> {
    if (-4095..0).contains(&result) {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    Ok(result as usize)
}

/// Defines one function per system call: `name(argument: type, ...) = NUMBER, words;`.
macro_rules! calls {
    ($($(#[$note:meta])* fn $name:ident($($argument:ident: $kind:ty),*) = $number:ident
        [$($word:expr),*];)*) => {$(
        $(#[$note])*
        ///
        /// # Safety
        ///
        /// Pointers must be valid for what the call reads or writes through them, and the call
        /// must not break an invariant of memory or descriptors that others own.
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        pub(crate) unsafe fn $name($($argument: $kind),*) -> io::Result<usize> {
            let mut arguments = [0usize; 6];
            for (slot, word) in arguments.iter_mut().zip([$($word as usize),*]) {
                *slot = word;
            }
            // SAFETY: the caller vouches for these arguments, which stand in the call's order.
            answer(unsafe { enter(libc::$number, arguments) })
        }
    )*};
}

/// What the kernel calls a signal set: 64 bits, whatever libc's own type is.
const SIGNAL_SET_BYTES: usize = 8;

calls! {
    /// close(2).
    fn close(fd: RawFd) = SYS_close [fd];
    /// read(2).
    fn read(fd: RawFd, buffer: *mut c_void, length: usize) = SYS_read [fd, buffer, length];
    /// write(2).
    fn write(fd: RawFd, buffer: *const c_void, length: usize) = SYS_write [fd, buffer, length];
    /// fcntl(2), the commands whose argument is an integer.
    fn fcntl(fd: RawFd, command: c_int, argument: c_int) = SYS_fcntl [fd, command, argument];
    /// mmap(2), anonymous.
    fn map_anonymous(address: *mut c_void, length: usize, protection: c_int, flags: c_int)
        = SYS_mmap [address, length, protection, flags | libc::MAP_ANONYMOUS, -1isize, 0];
    /// munmap(2).
    fn munmap(address: *mut c_void, length: usize) = SYS_munmap [address, length];
    /// mprotect(2).
    fn mprotect(address: *mut c_void, length: usize, protection: c_int)
        = SYS_mprotect [address, length, protection];
    /// madvise(2).
    fn madvise(address: *mut c_void, length: usize, advice: c_int)
        = SYS_madvise [address, length, advice];
    /// socket(2).
    fn socket(domain: c_int, kind: c_int, protocol: c_int) = SYS_socket [domain, kind, protocol];
    /// bind(2).
    fn bind(fd: RawFd, address: *const libc::sockaddr, length: libc::socklen_t)
        = SYS_bind [fd, address, length];
    /// listen(2).
    fn listen(fd: RawFd, backlog: c_int) = SYS_listen [fd, backlog];
    /// accept4(2).
    fn accept4(fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: c_int)
        = SYS_accept4 [fd, address, length, flags];
    /// connect(2).
    fn connect(fd: RawFd, address: *const libc::sockaddr, length: libc::socklen_t)
        = SYS_connect [fd, address, length];
    /// shutdown(2).
    fn shutdown(fd: RawFd, how: c_int) = SYS_shutdown [fd, how];
    /// getsockname(2).
    fn getsockname(fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t)
        = SYS_getsockname [fd, address, length];
    /// getpeername(2).
    fn getpeername(fd: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t)
        = SYS_getpeername [fd, address, length];
    /// getsockopt(2).
    fn getsockopt(fd: RawFd, level: c_int, name: c_int, value: *mut c_void,
        length: *mut libc::socklen_t) = SYS_getsockopt [fd, level, name, value, length];
    /// setsockopt(2).
    fn setsockopt(fd: RawFd, level: c_int, name: c_int, value: *const c_void,
        length: libc::socklen_t) = SYS_setsockopt [fd, level, name, value, length];
    /// recv(2).
    fn recv(fd: RawFd, buffer: *mut c_void, length: usize, flags: c_int)
        = SYS_recvfrom [fd, buffer, length, flags, 0, 0];
    /// send(2).
    fn send(fd: RawFd, buffer: *const c_void, length: usize, flags: c_int)
        = SYS_sendto [fd, buffer, length, flags, 0, 0];
    /// recvmsg(2).
    fn recvmsg(fd: RawFd, message: *mut libc::msghdr, flags: c_int)
        = SYS_recvmsg [fd, message, flags];
    /// sendmsg(2).
    fn sendmsg(fd: RawFd, message: *const libc::msghdr, flags: c_int)
        = SYS_sendmsg [fd, message, flags];
    /// ppoll(2) without a signal mask; a null timeout waits for ever.
    fn ppoll(entries: *mut libc::pollfd, count: usize, timeout: *const libc::timespec)
        = SYS_ppoll [entries, count, timeout, 0, SIGNAL_SET_BYTES];
    /// select(2), by way of pselect6 without a signal mask.
    fn pselect(count: c_int, readable: *mut libc::fd_set, writable: *mut libc::fd_set,
        exceptional: *mut libc::fd_set, timeout: *const libc::timespec)
        = SYS_pselect6 [count, readable, writable, exceptional, timeout, 0];
    /// epoll_create1(2).
    fn epoll_create1(flags: c_int) = SYS_epoll_create1 [flags];
    /// epoll_ctl(2).
    fn epoll_ctl(epoll: RawFd, operation: c_int, fd: RawFd, event: *mut libc::epoll_event)
        = SYS_epoll_ctl [epoll, operation, fd, event];
    /// epoll_wait(2), by way of epoll_pwait without a signal mask; milliseconds, -1 for ever.
    fn epoll_wait(epoll: RawFd, events: *mut libc::epoll_event, count: c_int, timeout_ms: c_int)
        = SYS_epoll_pwait [epoll, events, count, timeout_ms, 0, SIGNAL_SET_BYTES];
    /// epoll_pwait2(2) (Linux 5.11) without a signal mask; a null timeout waits for ever.
    fn epoll_pwait2(epoll: RawFd, events: *mut libc::epoll_event, count: c_int,
        timeout: *const libc::timespec)
        = SYS_epoll_pwait2 [epoll, events, count, timeout, 0, SIGNAL_SET_BYTES];
    /// eventfd2(2).
    fn eventfd(initial: u32, flags: c_int) = SYS_eventfd2 [initial, flags];
    /// sigaltstack(2).
    fn sigaltstack(new: *const libc::stack_t, old: *mut libc::stack_t)
        = SYS_sigaltstack [new, old];
}
