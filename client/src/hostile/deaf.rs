//! `deaf`: sends without ever reading until the kernel takes no more, and then holds.
//!
//! Application on L4. Rests on tcp(7): the server's answers fill our receive buffer, then its send
//! buffer; if it then stops reading, as it must, our send buffer fills, too. A server that goes on
//! reading fills its memory.
//!
//! Deliberately not here: what is common to all kinds (`peer`).

use std::io::{self, Write};
use std::time::Duration;

use super::peer::Peer;
use super::script::{Script, is_time_out};
use crate::net::TcpStream;
use crate::thread;

/// A kernel that has taken nothing for this long will take no more.
const FULL_AFTER: Duration = Duration::from_millis(200);
/// Fewer calls than with single messages: this kind wants the buffers full.
const BYTES_MAX: usize = 16 * 1024;

pub(super) fn run(peer: &Peer) -> ! {
    let size_bytes = peer.load.settings.size_bytes as usize;
    let messages = (BYTES_MAX / size_bytes).max(1);
    let mut script = Script::new(peer);
    loop {
        let stream = peer.connect();
        let error = match fill(peer, &mut script, &stream, messages) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        drop(stream);
        peer.ended(error.into());
    }
}

/// Sends until the connection ends. That the kernel is full is an act, once a connection; after it,
/// sending is how the connection is held: it takes nothing, and tells when the server has ended.
fn fill(
    peer: &Peer,
    script: &mut Script<'_>,
    mut stream: &TcpStream,
    messages: usize,
) -> io::Result<std::convert::Infallible> {
    stream.set_write_timeout(Some(FULL_AFTER))?;
    loop {
        let burst = script.next(messages);
        let mut rest = &burst.sent[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => {
                    peer.enter(|tally| tally.sent_bytes += count as u64);
                    rest = &rest[count..];
                    // As long as there is room, nothing else would let the others on.
                    thread::yield_now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_time_out(&error) => {
                    stream.set_write_timeout(None)?;
                    peer.enter(|tally| tally.acts += 1);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
