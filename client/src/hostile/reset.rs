//! `reset`: sends half a message and resets the connection, again and again on new ones.
//!
//! Application on L4. Rests on socket(7), SO_LINGER: closing with a time of zero sends RST in place
//! of what is unsent, and leaves no port in TIME_WAIT. The server learns of it in its next read or
//! write. Every other time the reset comes when the server has begun to answer, so that it also
//! meets a write.
//!
//! Deliberately not here: what is common to all kinds (`peer`).

use std::io::{self, Read};
use std::time::Duration;

use socket2::SockRef;

use super::peer::Peer;
use super::script::Script;
use crate::net::TcpStream;

/// How long the server may take to begin its answer; one that answers whole lines never does.
const PATIENCE: Duration = Duration::from_millis(20);

pub(super) fn run(peer: &Peer) -> ! {
    let mut script = Script::new(peer);
    let mut waits = false;
    loop {
        let stream = peer.connect();
        let message = script.next(1).sent;
        match break_off(peer, stream, &message, waits) {
            Ok(()) => peer.acted(),
            Err(error) => peer.ended(error.into()),
        }
        waits = !waits;
    }
}

fn break_off(peer: &Peer, stream: TcpStream, message: &[u8], waits: bool) -> io::Result<()> {
    peer.send(&stream, &message[..message.len().div_ceil(2)])?;
    if waits {
        stream.set_read_timeout(Some(PATIENCE))?;
        // Whatever comes, and if nothing does: the connection is reset.
        if let Ok(count) = (&stream).read(&mut [0; 4096]) {
            peer.enter(|tally| tally.received_bytes += count as u64);
        }
    }
    // The descriptor is closed with the stream, at the end of this.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
