//! The echo servers that ours is compared with: the same job, written the way each of them wants.
//!
//! All listen on the given address, switch Nagle's algorithm off, echo what arrives through a
//! buffer of `BUFFER_BYTES`, and serve until they are killed. Outside the layers.
//! Deliberately not here: limits, logs and a graceful stop, which ours has and these do without.

mod epoll;
mod may;
mod monoio;
mod smol;
mod threads;
mod tokio;

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::Peer;

/// How much a server takes at once.
const BUFFER_BYTES: usize = 4096;

/// Serves for ever.
pub(crate) fn serve(peer: Peer, address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    match peer {
        Peer::Epoll => epoll::serve(listener),
        Peer::Tokio => tokio::serve(listener),
        Peer::May => may::serve(listener),
        Peer::Threads => threads::serve(&listener),
        Peer::Smol => smol::serve(listener),
        Peer::Monoio => monoio::serve(listener),
        Peer::Ours | Peer::Corosensei => Err(io::Error::other("no such server in here")),
    }
}
