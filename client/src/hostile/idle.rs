//! `idle`: connects, says nothing, and holds.
//!
//! Application on L4. It costs a server its place among `--max-connections` and whatever it keeps
//! for a connection. A server with an idle time-out throws it out; what it must not do is send
//! bytes to a client that has sent none.
//!
//! Deliberately not here: what is common to all kinds (`peer`).

use std::io::{ErrorKind, Read};

use super::peer::{End, Peer};
use crate::net::TcpStream;

pub(super) fn run(peer: &Peer) -> ! {
    loop {
        let stream = peer.connect();
        peer.enter(|tally| tally.acts += 1);
        let end = hold(peer, &stream);
        drop(stream);
        peer.ended(end);
    }
}

fn hold(peer: &Peer, mut stream: &TcpStream) -> End {
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return End::Server,
            Ok(count) => {
                peer.enter(|tally| tally.received_bytes += count as u64);
                let number = peer.number;
                let words = format!("connection {number}: {count} bytes that nobody asked for");
                return End::Wrong(words);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.into(),
        }
    }
}
