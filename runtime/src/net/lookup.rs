//! L4. From what a caller names to addresses: std's `ToSocketAddrs`, off the loop.
//!
//! A look-up by name reads files, asks servers and may take seconds, all of it inside libc, which
//! knows no green threads. So names, and only names, are handed to another OS thread; what is an
//! address already is turned into one on the spot.
//!
//! Man pages: getaddrinfo(3), hosts(5). Not here: a resolver of our own, caching.

use std::io;
use std::iter::Cloned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{option, slice, vec};

use crate::sched::offload::offload;

/// What can be turned into socket addresses: std's
/// [`ToSocketAddrs`](std::net::ToSocketAddrs), for green threads.
///
/// Implemented for the same types as std's, with the same errors.
///
/// # Differences from std
///
/// - A host name is looked up on another OS thread, while the calling green thread is parked.
/// - It is a trait of its own, because std's would look names up on the spot. A type of yours that
///   implements only std's trait is passed as
///   `&std::net::ToSocketAddrs::to_socket_addrs(&it)?.collect::<Vec<_>>()[..]`.
///
/// # Examples
///
/// ```
/// use runtime::net::{SocketAddr, ToSocketAddrs};
///
/// let mut addresses = "127.0.0.1:8080".to_socket_addrs()?;
/// assert_eq!(addresses.next(), Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
/// assert!(("localhost", 8080).to_socket_addrs()?.all(|address| address.ip().is_loopback()));
/// # std::io::Result::Ok(())
/// ```
pub trait ToSocketAddrs {
    /// Goes through the addresses found.
    type Iter: Iterator<Item = SocketAddr>;

    /// Finds the addresses; for a name this may take a while.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a string is not of the form `host:port`; what the system's resolver says
    /// if it does not know the host.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

impl ToSocketAddrs for SocketAddr {
    type Iter = option::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(Some(*self).into_iter())
    }
}

/// Implements the trait for types that std turns into a [`SocketAddr`] without any look-up.
macro_rules! addresses {
    ($($kind:ty),*) => {$(
        impl ToSocketAddrs for $kind {
            type Iter = option::IntoIter<SocketAddr>;
            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                SocketAddr::from(*self).to_socket_addrs()
            }
        }
    )*};
}

addresses!(
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)].into_iter()),
            Err(_) => look_up(host.to_owned(), port),
        }
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        match self.parse::<SocketAddr>() {
            Ok(address) => Ok(vec![address].into_iter()),
            Err(_) => {
                let (host, port) = self
                    .rsplit_once(':')
                    .ok_or_else(|| invalid("invalid socket address"))?;
                let port = port.parse().map_err(|_| invalid("invalid port value"))?;
                (host, port).to_socket_addrs()
            }
        }
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = Cloned<slice::Iter<'a, SocketAddr>>;
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;
    fn to_socket_addrs(&self) -> io::Result<T::Iter> {
        (**self).to_socket_addrs()
    }
}

/// Asks the system's resolver, through std, which words its errors.
fn look_up(host: String, port: u16) -> io::Result<vec::IntoIter<SocketAddr>> {
    log::debug!("looking up {host} on another thread");
    offload(move || std::net::ToSocketAddrs::to_socket_addrs(&(host, port)))
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// The result of the first address that `attempt` succeeds with, or else the last error.
pub(super) fn each_address<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut outcome = Err(invalid("could not resolve to any addresses"));
    for address in addresses.to_socket_addrs()? {
        outcome = attempt(&address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
