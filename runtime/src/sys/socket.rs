//! L0. Stream sockets: typed calls on borrowed descriptors, none of which ever waits.
//!
//! Every transfer passes `MSG_DONTWAIT`, so the answer is "would block" whatever the mode of the
//! descriptor; and nothing here raises SIGPIPE. What the systems do differently ends here: Apple's
//! has neither `SOCK_CLOEXEC` nor `accept4`, and not every system heeds `MSG_DONTWAIT` when it
//! sends (see [`PER_CALL_MODE`]).
//!
//! Man pages: socket(2), connect(2), accept4(2), recv(2), send(2), socket(7), tcp(7), fcntl(2).
//! Not here: waiting and deadlines (see `sched::driver`), who owns the mode (see `net::socket`).

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::address::{Address, family};
use super::kernel;
// Apple's has neither flag; `kernel` puts the calls that take them together from several.
#[cfg(target_vendor = "apple")]
use super::kernel::{SOCK_CLOEXEC, SOCK_NONBLOCK};
#[cfg(not(target_vendor = "apple"))]
use libc::{SOCK_CLOEXEC, SOCK_NONBLOCK};

/// Whether `MSG_DONTWAIT` is enough for a transfer never to wait. Apple's and NetBSD's kernels
/// heed it when they receive, but their senders look at the descriptor's mode alone.
pub(crate) const PER_CALL_MODE: bool = cfg!(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "openbsd"
));

/// Whether an accepted socket takes `O_NONBLOCK` over from its listener, as a program sees it.
pub(crate) const ACCEPT_INHERITS_MODE: bool = cfg!(target_vendor = "apple");

/// How long the queue of connections that nobody has accepted yet may become. The system cuts
/// this down to its own limit (net.core.somaxconn on Linux, also 4096). std asks for 128, which
/// a burst of clients fills while a single worker is busy; a full queue costs them a second each.
const BACKLOG: c_int = 4096;

/// The most bytes that one transfer moves. Linux cuts longer ones down to this, and Apple's kernel
/// refuses a length that does not fit an `int`. Only a count below both this and the buffer's
/// length says that the socket had no more to give, or no more room.
pub(crate) const TRANSFER_MAX: usize = 0x7fff_f000;

/// The most buffers for one vectored transfer (`IOV_MAX`, the same on all our systems); with more
/// the kernel refuses the call.
const BUFFERS_MAX: usize = 1024;

#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT;

/// A new TCP socket for addresses like `address`: closed on exec, not blocking.
pub(crate) fn open(address: &SocketAddr) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    // SAFETY: the call takes no pointers.
    let fd = unsafe { kernel::socket(family(address), kind, 0) }?;
    let fd = own(fd);
    never_signal(fd.as_fd())?;
    Ok(fd)
}

/// Starts to connect a non-blocking socket. `true`: it is connected; `false`: it is under way, and
/// [`connect_outcome`] tells how it ends once the socket is writable.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<bool> {
    let address = Address::from(address);
    // SAFETY: the kernel reads `length` bytes of an address that outlives the call.
    let result = unsafe { kernel::connect(fd.as_raw_fd(), address.as_ptr(), address.length()) };
    match result {
        Ok(_) => Ok(true),
        // An interrupted attempt goes on by itself (connect(2), EINTR); asking again would only
        // be answered with EALREADY.
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EINTR) => Ok(false),
            _ => Err(error),
        },
    }
}

/// How an attempt to connect has ended; `WouldBlock` while it has not.
///
/// Whoever has a peer is connected. Without one, `SO_ERROR` tells a failure from an attempt that
/// is still under way. In this order success costs one call, and a connection that was made and
/// reset at once is not mistaken for one that never ends.
pub(crate) fn connect_outcome(fd: BorrowedFd<'_>) -> io::Result<()> {
    let Err(no_peer) = peer_address(fd) else {
        return Ok(());
    };
    match take_error(fd)? {
        Some(error) => Err(error),
        None if no_peer.raw_os_error() == Some(libc::ENOTCONN) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        None => Err(no_peer),
    }
}

/// Gives the socket its own address and lets it take connections. As in std, an address whose
/// former connections linger in TIME_WAIT may be taken again.
pub(crate) fn listen_on(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1 as c_int)?;
    let address = Address::from(address);
    // SAFETY: the kernel reads `length` bytes of an address that outlives the call.
    unsafe { kernel::bind(fd.as_raw_fd(), address.as_ptr(), address.length()) }?;
    // SAFETY: the call takes no pointers.
    unsafe { kernel::listen(fd.as_raw_fd(), BACKLOG) }?;
    Ok(())
}

/// Takes a connection from a non-blocking listener: closed on exec, and with `nonblocking` as its
/// mode whatever the listener's is.
pub(crate) fn accept(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut address = Address::empty();
    let (place, length) = address.as_mut_parts();
    let flags = SOCK_CLOEXEC | if nonblocking { SOCK_NONBLOCK } else { 0 };
    // SAFETY: both places outlive the call, and the length says how much may be written.
    let accepted = own(unsafe { kernel::accept4(fd.as_raw_fd(), place, length, flags) }?);
    if cfg!(target_vendor = "apple") {
        never_signal(accepted.as_fd())?;
    }
    Ok((accepted, address.to_std()?))
}

/// The address the socket itself has.
pub(crate) fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut address = Address::empty();
    let (place, length) = address.as_mut_parts();
    // SAFETY: both places outlive the call, and the length says how much may be written.
    unsafe { kernel::getsockname(fd.as_raw_fd(), place, length) }?;
    address.to_std()
}

/// The address of the other end.
pub(crate) fn peer_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut address = Address::empty();
    let (place, length) = address.as_mut_parts();
    // SAFETY: both places outlive the call, and the length says how much may be written.
    unsafe { kernel::getpeername(fd.as_raw_fd(), place, length) }?;
    address.to_std()
}

/// Takes bytes that have arrived.
#[inline]
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, libc::MSG_DONTWAIT)
}

/// Copies bytes that have arrived and leaves them where they are.
pub(crate) fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

#[inline]
fn receive_with(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: c_int) -> io::Result<usize> {
    let length = buffer.len().min(TRANSFER_MAX);
    // SAFETY: the kernel writes at most `length` bytes, and the buffer is ours alone for so long.
    unsafe { kernel::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), length, flags) }
}

/// Takes bytes that have arrived into one buffer after the other.
pub(crate) fn receive_vectored(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    // An `IoSliceMut` has the layout of an `iovec`, std guarantees.
    let mut message = message(buffers.as_mut_ptr().cast(), buffers.len());
    // SAFETY: the message lists exactly these buffers, which are ours alone during the call.
    unsafe { kernel::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) }
}

/// Hands bytes to the kernel, as many as there is room for.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, buffer: &[u8]) -> io::Result<usize> {
    let length = buffer.len().min(TRANSFER_MAX);
    // SAFETY: the kernel reads at most `length` bytes of a buffer that outlives the call.
    unsafe { kernel::send(fd.as_raw_fd(), buffer.as_ptr().cast(), length, SEND_FLAGS) }
}

/// Hands the bytes of one buffer after the other to the kernel, as many as there is room for.
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    // An `IoSlice` has the layout of an `iovec`, std guarantees; the kernel only reads them.
    let message = message(buffers.as_ptr().cast_mut().cast(), buffers.len());
    // SAFETY: the message lists exactly these buffers, which outlive the call.
    unsafe { kernel::sendmsg(fd.as_raw_fd(), &raw const message, SEND_FLAGS) }
}

/// The first buffers of `buffers`, as many as one vectored transfer takes.
pub(crate) fn buffers_at_once<'a, 'b>(buffers: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    &buffers[..buffers.len().min(BUFFERS_MAX)]
}

/// A message of buffers alone: no address, no control data.
fn message(buffers: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: zeros are a valid message for every field, null pointers of length zero.
    let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    message.msg_iov = buffers;
    message.msg_iovlen = count.min(BUFFERS_MAX) as _;
    message
}

/// Ends one direction, or both, for every descriptor of this socket.
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: the call takes no pointers.
    unsafe { kernel::shutdown(fd.as_raw_fd(), how) }?;
    Ok(())
}

/// Another descriptor for the same socket, closed on exec. Zero, one and two are avoided, so that
/// a program whose standard streams are closed does not print into a connection.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the command takes a number, no pointer.
    let copy = unsafe { kernel::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) }?;
    Ok(own(copy))
}

/// Closes the descriptor. The outcome is deliberately not looked at: whatever it says, the
/// descriptor is gone, and its number may already be somebody else's.
pub(crate) fn close(fd: OwnedFd) {
    // SAFETY: the descriptor was owned, and `into_raw_fd` has ended that: nobody closes it again.
    let _ = unsafe { kernel::close(fd.into_raw_fd()) };
}

/// The error that waits to be told, which is thereby told.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    let number: c_int = option(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
    Ok((number != 0).then(|| io::Error::from_raw_os_error(number)))
}

/// Whether the descriptor has `O_NONBLOCK`.
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(status(fd)? & libc::O_NONBLOCK != 0)
}

/// Sets or clears `O_NONBLOCK`, for every descriptor of this socket.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let before = status(fd)?;
    let after = if nonblocking {
        before | libc::O_NONBLOCK
    } else {
        before & !libc::O_NONBLOCK
    };
    if before != after {
        // SAFETY: the command takes a number, no pointer.
        unsafe { kernel::fcntl(fd.as_raw_fd(), libc::F_SETFL, after) }?;
    }
    Ok(())
}

fn status(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: the command takes no argument.
    Ok(unsafe { kernel::fcntl(fd.as_raw_fd(), libc::F_GETFL, 0) }? as c_int)
}

/// The time-out that blocking calls of others on this socket have: `SO_RCVTIMEO`, `SO_SNDTIMEO`.
pub(crate) fn timeout(fd: BorrowedFd<'_>, name: c_int) -> io::Result<Option<Duration>> {
    let time: libc::timeval = option(fd, libc::SOL_SOCKET, name)?;
    let timeout = Duration::from_secs(time.tv_sec as u64)
        .saturating_add(Duration::from_micros(time.tv_usec as u64));
    Ok((!timeout.is_zero()).then_some(timeout))
}

/// Sets such a time-out; `None` means none.
///
/// # Errors
///
/// `InvalidInput` for zero: to the kernel that is "none", which nobody can have meant.
pub(crate) fn set_timeout(
    fd: BorrowedFd<'_>,
    name: c_int,
    timeout: Option<Duration>,
) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(zero_timeout());
    }
    let timeout = timeout.unwrap_or(Duration::ZERO);
    let mut time = libc::timeval {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: timeout.subsec_micros() as _,
    };
    // Less than a microsecond must not be rounded to "none".
    if !timeout.is_zero() && time.tv_sec == 0 && time.tv_usec == 0 {
        time.tv_usec = 1;
    }
    set_option(fd, libc::SOL_SOCKET, name, time)
}

/// What std says to a time-out of nothing.
pub(crate) fn zero_timeout() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "cannot set a 0 duration timeout",
    )
}

/// Whether small messages go out at once (`TCP_NODELAY`).
pub(crate) fn nodelay(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let on: c_int = option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    Ok(on != 0)
}

/// See [`nodelay`].
pub(crate) fn set_nodelay(fd: BorrowedFd<'_>, nodelay: bool) -> io::Result<()> {
    let on = c_int::from(nodelay);
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, on)
}

/// How many routers a packet may pass (`IP_TTL`).
pub(crate) fn ttl(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let hops: c_int = option(fd, libc::IPPROTO_IP, libc::IP_TTL)?;
    Ok(hops as u32)
}

/// See [`ttl`].
pub(crate) fn set_ttl(fd: BorrowedFd<'_>, ttl: u32) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IP, libc::IP_TTL, ttl as c_int)
}

/// What an option's value may be: a type for which any bits are a value.
trait Plain: Copy {
    const ZERO: Self;
}

impl Plain for c_int {
    const ZERO: c_int = 0;
}

impl Plain for libc::timeval {
    const ZERO: libc::timeval = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
}

fn option<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = T::ZERO;
    let mut length = size_of::<T>() as libc::socklen_t;
    let place = (&raw mut value).cast::<c_void>();
    // SAFETY: the kernel writes at most the value's size, and any bits make a `Plain` value.
    unsafe { kernel::getsockopt(fd.as_raw_fd(), level, name, place, &raw mut length) }?;
    Ok(value)
}

fn set_option<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let place = (&raw const value).cast::<c_void>();
    // SAFETY: the kernel reads the value's size from a value that outlives the call.
    unsafe { kernel::setsockopt(fd.as_raw_fd(), level, name, place, length) }?;
    Ok(())
}

/// Tells a socket, where that is possible, never to raise SIGPIPE. Apple's has no flag for single
/// sends; on the BSDs this is for the calls that others make once we have let go of the socket.
pub(crate) fn never_signal(fd: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(any(target_os = "freebsd", target_os = "netbsd", target_vendor = "apple"))]
    set_option(fd, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, 1 as c_int)?;
    let _ = fd;
    Ok(())
}

/// Takes charge of a descriptor that the kernel has just made.
fn own(fd: usize) -> OwnedFd {
    // SAFETY: only called with a fresh answer of the kernel's, which nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}
