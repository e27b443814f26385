//! L0. Socket addresses: std's on our side, the kernel's on the other.
//!
//! Ports and addresses travel in network byte order. The flow information of IPv6 is handed over
//! as it is, because std does so too and both must agree on what a program sees.
//!
//! Man pages: ip(7), ipv6(7), sockaddr(3type). Not here: names (see `net::lookup`), the addresses
//! of Unix sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An internet address as the kernel reads and writes it, with the length that is valid.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    place: Place,
    length: libc::socklen_t,
}

/// Room for either family. Both begin with the family, in the same place on every system.
#[derive(Clone, Copy)]
#[repr(C)]
union Place {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Address {
    /// An empty place for the kernel to write an address into.
    pub(crate) fn empty() -> Address {
        Address {
            place: Place {
                v6: v6_to_kernel(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)),
            },
            length: size_of::<Place>() as libc::socklen_t,
        }
    }

    /// Where the address lies, for a call that reads it.
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.place).cast()
    }

    /// How many bytes a call may read.
    pub(crate) fn length(&self) -> libc::socklen_t {
        self.length
    }

    /// Where a call writes the address and its length; on entry the length is that of the place.
    pub(crate) fn as_mut_parts(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        ((&raw mut self.place).cast(), &raw mut self.length)
    }

    /// What the kernel has written.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, as std says it, if this is no internet address (a Unix socket was adopted
    /// as a TCP one), or the kernel wrote less than one.
    pub(crate) fn to_std(self) -> io::Result<SocketAddr> {
        let length = self.length as usize;
        // SAFETY: the place is initialised from the start (`empty`, `From`), and any bits do.
        let family = libc::c_int::from(unsafe { self.place.v4.sin_family });
        if family == libc::AF_INET && length >= size_of::<libc::sockaddr_in>() {
            // SAFETY: initialised as above; the family says which view is meant.
            let v4 = unsafe { self.place.v4 };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            return Ok(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into());
        }
        if family == libc::AF_INET6 && length >= size_of::<libc::sockaddr_in6>() {
            // SAFETY: initialised as above; the family says which view is meant.
            let v6 = unsafe { self.place.v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            return Ok(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "invalid argument",
        ))
    }
}

impl From<&SocketAddr> for Address {
    fn from(address: &SocketAddr) -> Address {
        let (place, length) = match *address {
            SocketAddr::V4(address) => (
                Place {
                    v4: v4_to_kernel(address),
                },
                size_of::<libc::sockaddr_in>(),
            ),
            SocketAddr::V6(address) => (
                Place {
                    v6: v6_to_kernel(address),
                },
                size_of::<libc::sockaddr_in6>(),
            ),
        };
        Address {
            place,
            length: length as libc::socklen_t,
        }
    }
}

/// The protocol family that sockets for `address` are of.
pub(crate) fn family(address: &SocketAddr) -> libc::c_int {
    match address.ip() {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    }
}

fn v4_to_kernel(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        // The BSDs keep the length in the address too.
        #[cfg(not(target_os = "linux"))]
        sin_len: size_of::<libc::sockaddr_in>() as u8,
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn v6_to_kernel(address: SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        #[cfg(not(target_os = "linux"))]
        sin6_len: size_of::<libc::sockaddr_in6>() as u8,
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr {
            s6_addr: address.ip().octets(),
        },
        sin6_scope_id: address.scope_id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        // Goal: no part of an address is lost or swapped. Method: there and back, with values
        // whose bytes all differ.
        let v6 = Ipv6Addr::new(
            0x0102, 0x0304, 0x0506, 0x0708, 0x090a, 0x0b0c, 0x0d0e, 0x0f10,
        );
        let addresses = [
            SocketAddr::from(([1, 2, 3, 4], 0x1234)),
            SocketAddr::from(([0, 0, 0, 0], 0)),
            SocketAddrV6::new(v6, 0x1234, 0x0001_0203, 7).into(),
            SocketAddrV6::new(Ipv6Addr::LOCALHOST, 65535, 0, u32::MAX).into(),
        ];
        for address in addresses {
            assert_eq!(Address::from(&address).to_std().unwrap(), address);
        }
    }

    #[test]
    fn bytes_lie_as_the_wire_has_them() {
        // Goal: the kernel's view is in network byte order. Method: look at the memory.
        let address = Address::from(&SocketAddr::from(([1, 2, 3, 4], 0x1234)));
        // SAFETY: a `sockaddr_in` is what `from` has just put there.
        let v4 = unsafe { address.place.v4 };
        assert_eq!(v4.sin_port.to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(v4.sin_addr.s_addr.to_ne_bytes(), [1, 2, 3, 4]);
        assert_eq!(address.length(), 16);
    }

    #[test]
    fn what_is_no_internet_address_is_refused() {
        // Goal: neither another family nor a cut address is taken for one. Method: forge both.
        let mut cut = Address::from(&SocketAddr::from(([1, 2, 3, 4], 5)));
        cut.length -= 1;
        let mut other = Address::empty();
        other.place.v4.sin_family = libc::AF_UNIX as libc::sa_family_t;
        for address in [cut, other] {
            let error = address.to_std().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
