//! L4. What every kind of socket shares: the descriptor, its mode, and how a call waits.
//!
//! std has two kinds of mode, `set_nonblocking` and the time-outs. Both belong to the socket, not
//! to the handle: clones share them. Here they are shared too ([`Modes`]), and also written to the
//! socket itself, so that it is what it says once it is turned into one of std's.
//!
//! A call that must never wait in the kernel either says so itself (`MSG_DONTWAIT`), and then
//! `O_NONBLOCK` is the user's to set; or it cannot say so (`accept`; any send on some systems),
//! and then `O_NONBLOCK` is ours while the socket is, and the user's mode is put back when it
//! leaves us. [`Guard`] tells the two apart.
//!
//! Man pages: fcntl(2) (`F_SETFL`: flags of the open file description), socket(7). Not here:
//! parking (see `sched::driver`), the system calls (see `sys::socket`).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::sched::driver::{self, Source};
use crate::sys::clock::Moment;
use crate::sys::wait::{Direction, wait_one};
use crate::sys::{retry_interrupted, socket};

/// What keeps a socket's calls from waiting in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Each call says that it must not wait; the descriptor's flag is the user's.
    Call,
    /// The descriptor's flag, which is therefore not the user's while the socket is ours.
    Flag,
}

impl Guard {
    /// For sockets that bytes are sent and received on.
    pub(super) const STREAM: Guard = if socket::PER_CALL_MODE {
        Guard::Call
    } else {
        Guard::Flag
    };
    /// For sockets that connections are accepted on.
    pub(super) const LISTENER: Guard = Guard::Flag;
}

/// The user wants calls to be answered at once.
const NONBLOCKING: u8 = 1;
/// The flag was [`Guard::Flag`]'s, and a handle of this socket has left us with it.
const RELEASED: u8 = 2;

/// For [`Modes`]: no time-out.
const NO_TIMEOUT: u64 = u64::MAX;

/// The modes of a socket, common to all its handles.
///
/// Relaxed suffices throughout: a mode orders nothing but itself, and who must see a change by a
/// certain moment has been told so by other means, which order it.
#[derive(Debug)]
struct Modes {
    /// [`NONBLOCKING`] and [`RELEASED`]; nearly always zero, so that a call looks at one byte.
    bits: AtomicU8,
    read_timeout_ns: AtomicU64,
    write_timeout_ns: AtomicU64,
}

impl Modes {
    fn new(nonblocking: bool) -> Modes {
        Modes {
            bits: AtomicU8::new(if nonblocking { NONBLOCKING } else { 0 }),
            read_timeout_ns: AtomicU64::new(NO_TIMEOUT),
            write_timeout_ns: AtomicU64::new(NO_TIMEOUT),
        }
    }

    fn has(&self, bit: u8) -> bool {
        self.bits.load(Relaxed) & bit != 0
    }

    fn timeout(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Read => &self.read_timeout_ns,
            Direction::Write => &self.write_timeout_ns,
        }
    }

    /// When a call that begins now has waited long enough.
    fn deadline(&self, direction: Direction) -> Option<Moment> {
        match self.timeout(direction).load(Relaxed) {
            NO_TIMEOUT => None,
            timeout_ns => Moment::after(Duration::from_nanos(timeout_ns)),
        }
    }
}

/// A socket, or rather one handle of it.
pub(super) struct Socket {
    /// `None` only while the socket is being taken apart.
    fd: Option<OwnedFd>,
    /// Where this descriptor is registered; each handle has a descriptor and a source of its own.
    source: Source,
    modes: Arc<Modes>,
    guard: Guard,
}

impl Socket {
    /// Takes charge of a descriptor whose modes are known: the time-outs are none.
    fn new(fd: OwnedFd, guard: Guard, nonblocking: bool) -> Socket {
        Socket {
            fd: Some(fd),
            source: Source::new(),
            modes: Arc::new(Modes::new(nonblocking)),
            guard,
        }
    }

    /// Takes charge of somebody's descriptor, and asks it for its modes. What is not a socket has
    /// none: as with std's types, its user learns that from the first call.
    pub(super) fn adopt(fd: OwnedFd, guard: Guard) -> Socket {
        let nonblocking = socket::is_nonblocking(fd.as_fd()).unwrap_or(false);
        let socket = Socket::new(fd, guard, nonblocking);
        for direction in [Direction::Read, Direction::Write] {
            let timeout = socket::timeout(socket.fd(), option_name(direction));
            socket.remember_timeout(direction, timeout.unwrap_or(None));
        }
        if guard == Guard::Flag {
            let _ = socket::set_nonblocking(socket.fd(), true);
        }
        let _ = socket::never_signal(socket.fd());
        socket
    }

    /// Lets go of the descriptor, with the modes on it that the user gave it.
    pub(super) fn release(mut self) -> OwnedFd {
        driver::forget(&self.source);
        let modes = &self.modes;
        // The other handles, if there are any, must not rely on the flag from now on.
        if self.guard == Guard::Flag && modes.bits.fetch_or(RELEASED, Relaxed) & RELEASED == 0 {
            let _ = socket::set_nonblocking(self.fd(), modes.has(NONBLOCKING));
        }
        self.fd.take().expect("a whole socket has its descriptor")
    }

    /// Connects to `address`, for at most `timeout`.
    pub(super) fn connect(address: &SocketAddr, timeout: Option<Duration>) -> io::Result<Socket> {
        let deadline = timeout.and_then(Moment::after);
        let socket = Socket::new(socket::open(address)?, Guard::STREAM, false);
        if !socket::connect(socket.fd(), address)? {
            if timeout == Some(Duration::ZERO) {
                return Err(socket::zero_timeout());
            }
            let outcome = driver::perform(
                socket.fd(),
                &socket.source,
                Direction::Write,
                deadline,
                |()| false,
                || socket::connect_outcome(socket.fd()),
            );
            outcome.map_err(|error| match has_timed_out(&error) {
                true => io::Error::new(io::ErrorKind::TimedOut, "connection timed out"),
                false => error,
            })?;
        }
        if Guard::STREAM == Guard::Call {
            socket::set_nonblocking(socket.fd(), false)?;
        }
        Ok(socket)
    }

    /// Listens on `address`.
    pub(super) fn listen(address: &SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(socket::open(address)?, Guard::LISTENER, false);
        socket::listen_on(socket.fd(), address)?;
        Ok(socket)
    }

    /// Waits for a connection. It takes the listener's time-outs over, because in the kernel it
    /// does so too.
    pub(super) fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let flag = Guard::STREAM == Guard::Flag;
        let (fd, address) = self.perform(
            Direction::Read,
            |_| false,
            |fd| {
                let mode = socket::ACCEPT_INHERITS_MODE && self.modes.has(NONBLOCKING);
                socket::accept(fd, flag || mode)
            },
        )?;
        let nonblocking = socket::ACCEPT_INHERITS_MODE && self.modes.has(NONBLOCKING);
        let socket = Socket::new(fd, Guard::STREAM, nonblocking);
        for direction in [Direction::Read, Direction::Write] {
            let timeout_ns = self.modes.timeout(direction).load(Relaxed);
            socket.modes.timeout(direction).store(timeout_ns, Relaxed);
        }
        Ok((socket, address))
    }

    /// Another handle of the same socket, with the same modes.
    pub(super) fn try_clone(&self) -> io::Result<Socket> {
        Ok(Socket {
            fd: Some(socket::duplicate(self.fd())?),
            source: Source::new(),
            modes: Arc::clone(&self.modes),
            guard: self.guard,
        })
    }

    /// The descriptor, for calls that never wait.
    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_ref();
        fd.expect("a whole socket has its descriptor").as_fd()
    }

    /// Waits for bytes and takes them.
    #[inline]
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(socket::TRANSFER_MAX);
        self.perform(
            Direction::Read,
            // A short read has emptied the socket. The end, zero, is there to be read again.
            |count| *count != 0 && *count < length,
            |fd| socket::receive(fd, buffer),
        )
    }

    /// Waits for bytes and takes them, into several buffers.
    pub(super) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.perform(
            Direction::Read,
            |_| false,
            |fd| socket::receive_vectored(fd, buffers),
        )
    }

    /// Waits for bytes and leaves them there.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.perform(Direction::Read, |_| false, |fd| socket::peek(fd, buffer))
    }

    /// Hands over all bytes, waiting for room, as a blocking `send` does; fewer in non-blocking
    /// mode, or if an error or the time-out comes in between.
    #[inline]
    pub(super) fn write(&self, buffer: &[u8]) -> io::Result<usize> {
        let length = buffer.len().min(socket::TRANSFER_MAX);
        let deadline = self.modes.deadline(Direction::Write);
        let sent = self.perform_until(
            deadline,
            Direction::Write,
            |count| *count < length,
            |fd| socket::send(fd, buffer),
        )?;
        if sent == length || self.modes.has(NONBLOCKING) {
            return Ok(sent);
        }
        Ok(self.write_rest(deadline, &[IoSlice::new(&buffer[..length])], sent))
    }

    /// As [`Socket::write`], from several buffers.
    pub(super) fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = socket::buffers_at_once(buffers);
        let lengths = buffers.iter().map(|buffer| buffer.len());
        let length = lengths.fold(0, usize::saturating_add);
        let deadline = self.modes.deadline(Direction::Write);
        let sent = self.perform_until(
            deadline,
            Direction::Write,
            |count| *count < length.min(socket::TRANSFER_MAX),
            |fd| socket::send_vectored(fd, buffers),
        )?;
        if sent == length || self.modes.has(NONBLOCKING) {
            return Ok(sent);
        }
        Ok(self.write_rest(deadline, buffers, sent))
    }

    /// Sends what follows the first `sent` bytes of `buffers`; answers how many are sent then.
    ///
    /// An error ends it without being told, because bytes have been sent: the kernel does the
    /// same, and the next call meets the error again. Buffer by buffer, since this is the slow
    /// path: the socket was full a moment ago.
    #[cold]
    fn write_rest(
        &self,
        deadline: Option<Moment>,
        buffers: &[IoSlice<'_>],
        mut sent: usize,
    ) -> usize {
        let mut start = 0;
        for buffer in buffers {
            while sent < start + buffer.len() {
                let rest = &buffer[sent - start..];
                let result = self.perform_until(
                    deadline,
                    Direction::Write,
                    |count| *count < rest.len().min(socket::TRANSFER_MAX),
                    |fd| socket::send(fd, rest),
                );
                let Ok(count) = result else { return sent };
                sent += count;
            }
            start += buffer.len();
        }
        sent
    }

    /// Sets the user's mode, for all handles.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let modes = &self.modes;
        if self.guard == Guard::Call || modes.has(RELEASED) {
            socket::set_nonblocking(self.fd(), nonblocking)?;
        }
        match nonblocking {
            true => modes.bits.fetch_or(NONBLOCKING, Relaxed),
            false => modes.bits.fetch_and(!NONBLOCKING, Relaxed),
        };
        Ok(())
    }

    /// What the socket itself says: the kernel rounds time-outs, and std shows that too.
    pub(super) fn timeout(&self, direction: Direction) -> io::Result<Option<Duration>> {
        socket::timeout(self.fd(), option_name(direction))
    }

    /// Sets the time-out of one direction, for all handles.
    pub(super) fn set_timeout(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        socket::set_timeout(self.fd(), option_name(direction), timeout)?;
        self.remember_timeout(direction, timeout);
        Ok(())
    }

    fn remember_timeout(&self, direction: Direction, timeout: Option<Duration>) {
        // What does not fit is longer than five centuries, and "none" to the clock.
        let timeout_ns = timeout.and_then(|timeout| u64::try_from(timeout.as_nanos()).ok());
        let place = self.modes.timeout(direction);
        place.store(timeout_ns.unwrap_or(NO_TIMEOUT), Relaxed);
    }

    /// Makes `call` as the socket's modes say.
    #[inline]
    fn perform<T>(
        &self,
        direction: Direction,
        drained: impl Fn(&T) -> bool,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.perform_until(self.modes.deadline(direction), direction, drained, call)
    }

    #[inline]
    fn perform_until<T>(
        &self,
        deadline: Option<Moment>,
        direction: Direction,
        drained: impl Fn(&T) -> bool,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let fd = self.fd();
        let bits = self.modes.bits.load(Relaxed);
        let mut call = || {
            if bits & RELEASED != 0 {
                self.ask_first(direction)?;
            }
            call(fd)
        };
        if bits & NONBLOCKING != 0 {
            return retry_interrupted(call);
        }
        let result = driver::perform(fd, &self.source, direction, deadline, drained, &mut call);
        result.map_err(|error| match has_timed_out(&error) {
            true => io::Error::from_raw_os_error(libc::EAGAIN),
            false => error,
        })
    }

    /// Makes up for the flag that another handle has taken with it: the call waits in the kernel
    /// unless there is something for it, and somebody else can still take that away in between.
    #[cold]
    fn ask_first(&self, direction: Direction) -> io::Result<()> {
        match wait_one(self.fd().as_raw_fd(), direction, Some(Moment::now()))? {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            driver::forget(&self.source);
            socket::close(fd);
        }
    }
}

/// Whether this is the deadline's error and not the network's, which has a number (`ETIMEDOUT`).
fn has_timed_out(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

fn option_name(direction: Direction) -> libc::c_int {
    match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_as_small_as_its_document_says() {
        // Goal: what `TcpStream`'s document says of its size. Method: the compiler.
        assert_eq!(size_of::<Socket>(), 32);
    }
}
