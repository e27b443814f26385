//! The listening socket: its options, and what to tell a user for whom it cannot be had.
//!
//! Man pages: bind(2), listen(2), tcp(7), socket(7) (SO_REUSEPORT). Deliberately not here: accept
//! (see the models).

use socket2::{Domain, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

/// How many connections may wait to be accepted. std asks for 128, which a burst of clients
/// overflows; the kernel lowers this one to its own limit (`net.core.somaxconn`).
pub(crate) const QUEUE_LENGTH: i32 = 4096;

/// A peer that is silent for so long is asked for a sign of life, and again each interval. A
/// machine that was switched off never ends its connections; this finds it out within a few
/// minutes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// OpenBSD has only its own.
#[cfg(not(target_os = "openbsd"))]
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Listens on `address`. If `shared`, [`sibling`] can make more sockets for the same port.
///
/// # Errors
///
/// The message names the cause and what can be done about it.
pub(crate) fn listen(address: &str, shared: bool) -> io::Result<TcpListener> {
    let explain = |error: io::Error| {
        let message = format!("cannot listen on {address}: {}", remedy(&error, address));
        io::Error::new(error.kind(), message)
    };
    let mut result = Err(io::Error::from(ErrorKind::AddrNotAvailable));
    // A name may lead to several addresses. The first that works is taken.
    for address in address.to_socket_addrs().map_err(explain)? {
        result = listen_on(address, shared);
        if result.is_ok() {
            break;
        }
    }
    result.map_err(explain)
}

fn listen_on(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = socket_for(address)?;
    socket.bind(&address.into())?;
    if shared {
        // Only now: a server that asked for it before would get a port that another has, who shares
        // it as well, and each would have half of the clients.
        socket.set_reuse_port(true)?;
    }
    configure(socket)
}

/// Another listening socket for the port of `listener`, with a queue of its own: the kernel gives
/// each new connection to one of them (`SO_REUSEPORT`). Other systems share ports in ways of their
/// own, which need not spread the connections.
///
/// # Errors
///
/// If the system does not share ports, or there is no descriptor left.
#[cfg(target_os = "linux")]
pub(crate) fn sibling(listener: &TcpListener) -> io::Result<TcpListener> {
    let address = listener.local_addr()?;
    let socket = socket_for(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    configure(socket)
}

/// A socket that may have a port whose last connections the kernel still remembers.
fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Accepted sockets inherit these options, which saves three system calls for each of them.
fn configure(socket: Socket) -> io::Result<TcpListener> {
    // An answer is sent as soon as it is known, however short: Nagle's algorithm would hold it back
    // until the one before is acknowledged.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    #[cfg(not(target_os = "openbsd"))]
    let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.listen(QUEUE_LENGTH)?;
    Ok(socket.into())
}

fn remedy(error: &io::Error, address: &str) -> String {
    let port = address.rsplit(':').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "the port is in use. `ss -ltnp sport = :{port}` names the program that has it; stop \
             that program, or choose another port with --listen (port 0 takes a free one)"
        ),
        ErrorKind::PermissionDenied => format!(
            "permission denied. A port below 1024 needs a privilege (CAP_NET_BIND_SERVICE); choose \
             another than {port} with --listen"
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address. `ip address` lists those it \
            has; 0.0.0.0 and [::] stand for all of them"
                .into()
        }
        ErrorKind::Unsupported => format!("this system does not speak that protocol ({error})"),
        _ => match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => {
                "this system has IPv4 or IPv6 switched off; choose an address \
                of the other with --listen"
                    .into()
            }
            // Whatever is left is a name that the resolver does not know, or a lack it names
            // itself.
            _ => format!(
                "{error}. --listen takes an address of this machine or a name that leads to one"
            ),
        },
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn siblings_share_a_port_that_strangers_cannot_have() {
        // Goal: connections are spread over the sockets of one server, and a second server is told
        // that the port is taken. Method: connects until each socket has had one; then listens on
        // the same port like a stranger, who shares as well.
        let first = listen("127.0.0.1:0", true).unwrap();
        let second = sibling(&first).unwrap();
        let address = first.local_addr().unwrap();
        for listener in [&first, &second] {
            listener.set_nonblocking(true).unwrap();
            while listener.accept().is_err() {
                drop(TcpStream::connect(address).unwrap());
            }
        }
        for shared in [true, false] {
            let error = listen(&address.to_string(), shared).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
    }
}
