//! L4. `std::net::TcpStream`'s names on a socket that parks green threads.
//!
//! Only names, documents and conversions are here. Man pages: tcp(7). Not here: waiting (see
//! `net::socket`), listening (see `net::tcp_listener`).

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::ToSocketAddrs;
use super::descriptor::owns_descriptor;
use super::lookup::each_address;
use super::socket::{Guard, Socket};
use crate::sys::socket;
use crate::sys::wait::Direction;

/// A TCP connection: [`std::net::TcpStream`], for green threads.
///
/// Waiting to connect, for bytes, or for room for bytes parks the calling green thread; in any
/// other thread it blocks that thread. It is closed when it is dropped.
///
/// # Differences from std
///
/// Those that [the module](super) names, and:
///
/// - Each handle is 32 bytes, not 4, because it remembers where it is registered; handles of one
///   connection share a small allocation. Making the first one from a descriptor asks the system
///   for the socket's modes.
/// - Where a system has no `MSG_DONTWAIT` for sending (Apple's, NetBSD), `O_NONBLOCK` stays set
///   while the stream is of this type; conversion into another puts the user's mode back.
/// - `set_linger`, `linger` and `is_read_vectored` are missing, as they are in stable std.
///
/// # Examples
///
/// ```
/// use runtime::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// let (mut server, _) = listener.accept()?;
/// client.write_all(b"hello")?;
/// drop(client);
/// let mut text = String::new();
/// server.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # std::io::Result::Ok(())
/// ```
pub struct TcpStream(Socket);

impl TcpStream {
    /// Connects to `addr`; if that means several addresses, to the first that answers.
    ///
    /// See [`std::net::TcpStream::connect`].
    ///
    /// # Errors
    ///
    /// That of the look-up, or else that of the last address tried.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        each_address(addr, |address| Socket::connect(address, None)).map(TcpStream)
    }

    /// Connects to one address, waiting no longer than `timeout`.
    ///
    /// See [`std::net::TcpStream::connect_timeout`].
    ///
    /// # Errors
    ///
    /// `TimedOut` once the time has passed, `InvalidInput` if it is zero, and what the network
    /// answers.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        Socket::connect(addr, Some(timeout)).map(TcpStream)
    }

    /// The address of the other end. See [`std::net::TcpStream::peer_addr`].
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_address(self.0.fd())
    }

    /// The address of this end. See [`std::net::TcpStream::local_addr`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the descriptor this was made from is not of an internet socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_address(self.0.fd())
    }

    /// Ends one direction of the connection, or both, for every handle of it; who waits wakes.
    ///
    /// See [`std::net::TcpStream::shutdown`].
    ///
    /// # Errors
    ///
    /// `NotConnected` once the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        socket::shutdown(self.0.fd(), how)
    }

    /// Another handle of the same connection: one stream of bytes, one set of modes.
    ///
    /// See [`std::net::TcpStream::try_clone`].
    ///
    /// # Errors
    ///
    /// If the process may have no more descriptors.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        self.0.try_clone().map(TcpStream)
    }

    /// How long a read may wait before it fails with `WouldBlock`; `None` is for ever.
    ///
    /// See [`std::net::TcpStream::set_read_timeout`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the time is zero.
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(Direction::Read, dur)
    }

    /// How long a write may wait before it fails with `WouldBlock`; `None` is for ever.
    ///
    /// See [`std::net::TcpStream::set_write_timeout`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the time is zero.
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(Direction::Write, dur)
    }

    /// The time-out of reads, as the system has rounded it.
    ///
    /// See [`std::net::TcpStream::read_timeout`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of a socket.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.0.timeout(Direction::Read)
    }

    /// The time-out of writes, as the system has rounded it.
    ///
    /// See [`std::net::TcpStream::write_timeout`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of a socket.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.0.timeout(Direction::Write)
    }

    /// Reads, and leaves the bytes there for the next read. See [`std::net::TcpStream::peek`].
    ///
    /// # Errors
    ///
    /// As a read.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buf)
    }

    /// Whether small writes go out at once (`TCP_NODELAY`).
    ///
    /// See [`std::net::TcpStream::set_nodelay`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of a TCP socket.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        socket::set_nodelay(self.0.fd(), nodelay)
    }

    /// See [`set_nodelay`](TcpStream::set_nodelay) and [`std::net::TcpStream::nodelay`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of a TCP socket.
    pub fn nodelay(&self) -> io::Result<bool> {
        socket::nodelay(self.0.fd())
    }

    /// How many routers a packet may pass. See [`std::net::TcpStream::set_ttl`].
    ///
    /// # Errors
    ///
    /// If the system does not allow that number.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        socket::set_ttl(self.0.fd(), ttl)
    }

    /// See [`set_ttl`](TcpStream::set_ttl) and [`std::net::TcpStream::ttl`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of an internet socket.
    pub fn ttl(&self) -> io::Result<u32> {
        socket::ttl(self.0.fd())
    }

    /// Takes the error that waits on the socket (`SO_ERROR`), if there is one.
    ///
    /// See [`std::net::TcpStream::take_error`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of a socket.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket::take_error(self.0.fd())
    }

    /// Whether calls that would wait fail with `WouldBlock` instead, at every handle.
    ///
    /// See [`std::net::TcpStream::set_nonblocking`].
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    pub(super) fn from_socket(socket: Socket) -> TcpStream {
        TcpStream(socket)
    }
}

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(bufs)
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    /// Does nothing: the stream keeps no bytes back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(bufs)
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    /// Does nothing: the stream keeps no bytes back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("TcpStream");
        if let Ok(address) = self.local_addr() {
            all.field("addr", &address);
        }
        if let Ok(address) = self.peer_addr() {
            all.field("peer", &address);
        }
        all.field("fd", &self.as_raw_fd()).finish()
    }
}

owns_descriptor!(TcpStream, Guard::STREAM);
