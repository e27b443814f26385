//! L4. `std::net`, for green threads: the same names, signatures and errors.
//!
//! Replace `use std::net` by `use runtime::net`. In a green thread a call that would wait parks
//! that green thread, and the others of its worker run on; in any other thread it blocks, just as
//! std's does. Whatever has no reason to wait (addresses, [`Shutdown`]) *is* std's.
//!
//! Each type lists how it differs from std's. What is common to all of them:
//!
//! - A call that a signal interrupts goes on; `ErrorKind::Interrupted` is never returned.
//! - A mode that is set behind our back, through the bare descriptor, goes unnoticed: a stream or
//!   listener asks for it once, when it is made from a descriptor.
//! - Host names are looked up on another OS thread (see [`ToSocketAddrs`]).
//!
//! `socket` holds what every kind of socket shares, `tcp_stream` and `tcp_listener` put std's
//! names on it, `lookup` turns names into addresses. Deliberately not here yet: `UdpSocket`, and
//! `std::os::linux::net::TcpStreamExt`, which std allows nobody else to implement.

mod descriptor;
mod lookup;
mod socket;
mod tcp_listener;
mod tcp_stream;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};

pub use lookup::ToSocketAddrs;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_stream::TcpStream;
