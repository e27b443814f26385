//! L4. `std::net::TcpListener`'s names on a socket that parks green threads.
//!
//! Only names, documents and conversions are here. Man pages: tcp(7), accept(2). Not here: waiting
//! (see `net::socket`), what to do when a process has no descriptor left (its server's decision).

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::descriptor::owns_descriptor;
use super::lookup::each_address;
use super::socket::{Guard, Socket};
use super::{TcpStream, ToSocketAddrs};
use crate::sys::socket;

/// A socket that takes connections: [`std::net::TcpListener`], for green threads.
///
/// Several green threads, on several workers too, may accept from one listener.
///
/// # Differences from std
///
/// Those that [the module](super) names, and:
///
/// - Up to 4096 connections wait to be accepted (or what the system allows at most), not 128.
/// - `O_NONBLOCK` stays set while the listener is of this type, since `accept` has no flag of its
///   own: look out when you lend the bare descriptor to code that expects it to block. Conversion
///   into std's type or a descriptor puts the user's mode back. If clones of it stay behind, two
///   of them that race for one connection may then make the loser block its whole OS thread.
/// - `into_incoming` is missing, as it is in stable std; so are the deprecated `only_v6` and
///   `set_only_v6`.
///
/// # Examples
///
/// See [`TcpStream`].
pub struct TcpListener(Socket);

impl TcpListener {
    /// Listens on `addr`; if that means several addresses, on the first that can be had. Port 0
    /// stands for one that is free.
    ///
    /// See [`std::net::TcpListener::bind`].
    ///
    /// # Errors
    ///
    /// That of the look-up, or else that of the last address tried, such as `AddrInUse`.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_address(addr, Socket::listen).map(TcpListener)
    }

    /// The address it listens on. See [`std::net::TcpListener::local_addr`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the descriptor this was made from is not of an internet socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_address(self.0.fd())
    }

    /// Another handle of the same listener: one queue of connections, one mode.
    ///
    /// See [`std::net::TcpListener::try_clone`].
    ///
    /// # Errors
    ///
    /// If the process may have no more descriptors.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        self.0.try_clone().map(TcpListener)
    }

    /// Waits for a connection; answers it and the address of its other end.
    ///
    /// See [`std::net::TcpListener::accept`].
    ///
    /// # Errors
    ///
    /// What the system says, which need not be the listener's end: `ConnectionAborted` is the
    /// matter of one connection, and a lack of descriptors (`EMFILE`, `ENFILE`) leaves the
    /// connection in the queue.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = self.0.accept()?;
        Ok((TcpStream::from_socket(socket), address))
    }

    /// Goes through the connections as they come; it never ends.
    ///
    /// See [`std::net::TcpListener::incoming`].
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// How many routers a packet may pass. See [`std::net::TcpListener::set_ttl`].
    ///
    /// # Errors
    ///
    /// If the system does not allow that number.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        socket::set_ttl(self.0.fd(), ttl)
    }

    /// See [`set_ttl`](TcpListener::set_ttl) and [`std::net::TcpListener::ttl`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of an internet socket.
    pub fn ttl(&self) -> io::Result<u32> {
        socket::ttl(self.0.fd())
    }

    /// Takes the error that waits on the socket (`SO_ERROR`), if there is one.
    ///
    /// See [`std::net::TcpListener::take_error`].
    ///
    /// # Errors
    ///
    /// If the descriptor this was made from is not of a socket.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket::take_error(self.0.fd())
    }

    /// Whether `accept` fails with `WouldBlock` when no connection waits, at every handle.
    ///
    /// See [`std::net::TcpListener::set_nonblocking`].
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}

/// The connections of a listener as they come: [`std::net::Incoming`], for green threads.
///
/// There are no differences from std.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("TcpListener");
        if let Ok(address) = self.local_addr() {
            all.field("addr", &address);
        }
        all.field("fd", &self.as_raw_fd()).finish()
    }
}

owns_descriptor!(TcpListener, Guard::LISTENER);
