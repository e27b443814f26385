//! The listening socket: its options, and what to tell a user for whom it cannot be had.
//!
//! Man pages: bind(2), listen(2), tcp(7), socket(7). Deliberately not here: accepting (see the
//! models).

use runtime::net::TcpListener;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind};
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

/// Listens on `address`.
///
/// # Errors
///
/// The message names the cause and what can be done about it.
pub(crate) fn listen(address: &str) -> io::Result<TcpListener> {
    let explain = |error: io::Error| {
        let message = format!("cannot listen on {address}: {}", remedy(&error, address));
        io::Error::new(error.kind(), message)
    };
    let listener = TcpListener::bind(address).map_err(explain)?;
    configure(&listener).map_err(explain)?;
    Ok(listener)
}

/// Accepted sockets inherit these options, which saves three system calls for each of them.
fn configure(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // An answer is sent as soon as it is known, however short: Nagle's algorithm would hold it back
    // until the one before is acknowledged.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    #[cfg(not(target_os = "openbsd"))]
    let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    // Listening again only changes the length of the queue.
    socket.listen(QUEUE_LENGTH)
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
