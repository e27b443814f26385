//! `dribble`: sends its messages one byte at a time, with small pauses, and checks the answers.
//!
//! Application on L4. Rests on tcp(7), TCP_NODELAY: each byte is a segment of its own, and costs
//! the server a wake-up. A server may throw out a client that is so slow; as long as it does not,
//! its answers must be right.
//!
//! Deliberately not here: what is common to all kinds (`peer`), comparing (`script`).

use std::time::{Duration, Instant};

use super::peer::{End, Peer};
use super::script::{Burst, Came, Script};
use crate::net::TcpStream;

/// From one byte to the next.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn run(peer: &Peer) -> ! {
    let mut script = Script::new(peer);
    loop {
        let stream = peer.connect();
        script.begin();
        let end = loop {
            let message = script.next(1);
            match exchange(peer, &script, &stream, message) {
                Ok(()) => peer.acted(),
                Err(end) => break end,
            }
        };
        drop(stream);
        peer.ended(end);
    }
}

fn exchange(
    peer: &Peer,
    script: &Script<'_>,
    stream: &TcpStream,
    mut message: Burst,
) -> Result<(), End> {
    let bytes = std::mem::take(&mut message.sent);
    for byte in bytes {
        peer.send(stream, &[byte])?;
        read_for(PAUSE, script, stream, &mut message)?;
    }
    // A server that answers whole lines begins only now.
    let timeout = peer.load.settings.timeout;
    while !message.is_answered() {
        stream.set_read_timeout(Some(timeout))?;
        match script.read(stream, &mut message)? {
            Came::Bytes => {}
            Came::End => return Err(End::Server),
            Came::Nothing => return Err(script.timed_out(&message)),
        }
    }
    Ok(())
}

/// A pause in which is read what comes, so that a wrong byte is found when it comes.
fn read_for(
    pause: Duration,
    script: &Script<'_>,
    stream: &TcpStream,
    message: &mut Burst,
) -> Result<(), End> {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match script.read(stream, message)? {
            Came::Bytes | Came::Nothing => {}
            Came::End => return Err(End::Server),
        }
    }
}
