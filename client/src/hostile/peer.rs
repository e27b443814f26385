//! What all misbehaving connections have in common: connecting, pauses, and being counted.
//!
//! Application on L4. Rests on connect(2). A server may refuse one of them or throw it out: that is
//! counted, and the connection comes again after a while.
//!
//! Deliberately not here: what makes them different (a file for each kind).

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use super::Kind;
use super::book::Tally;
use crate::failure::words_of;
use crate::load::Load;
use crate::net::TcpStream;
use crate::thread;

/// The least time from one act of a connection to its next.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one stays away whom the server has refused or thrown out.
const PAUSE_AFTER_END: Duration = Duration::from_millis(200);

/// How long each of `count` connections of a kind pauses, so that all stay below the kind's rate.
pub(super) fn pause(kind: Kind, count: u32) -> Duration {
    PAUSE.max(Duration::from_secs(count.into()) / kind.connects_per_s_max())
}

/// One misbehaving connection, or rather one after the other.
pub(super) struct Peer {
    pub(super) load: Arc<Load>,
    /// Its number among all connections, which its messages bear.
    pub(super) number: u32,
    share: usize,
    pause: Duration,
}

/// Why a conversation was over.
#[derive(Debug)]
pub(super) enum End {
    /// By the server's wish, or by an error on the way.
    Server,
    /// The answers were wrong, in words.
    Wrong(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        log::debug!("a hostile connection was ended: {error}");
        End::Server
    }
}

impl Peer {
    pub(super) fn new(load: Arc<Load>, share: usize, number: u32, pause: Duration) -> Peer {
        Peer {
            load,
            number,
            share,
            pause,
        }
    }

    pub(super) fn enter(&self, change: impl FnOnce(&mut Tally)) {
        self.load.hostile.enter(self.share, change);
    }

    /// Waits for a connection, however often it is refused.
    pub(super) fn connect(&self) -> TcpStream {
        loop {
            match self.try_to_connect() {
                Ok(stream) => {
                    self.enter(|tally| tally.connects += 1);
                    return stream;
                }
                Err(error) => {
                    self.enter(|tally| tally.refuse(|| words_of(&error)));
                    thread::sleep(self.pause.max(PAUSE_AFTER_END));
                }
            }
        }
    }

    fn try_to_connect(&self) -> io::Result<TcpStream> {
        let timeout = self.load.settings.connect_timeout;
        let mut last = io::Error::from(ErrorKind::NotFound);
        for address in self.load.addresses() {
            let stream = TcpStream::connect_timeout(address, timeout)
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
            match stream {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes)?;
        self.enter(|tally| tally.sent_bytes += bytes.len() as u64);
        Ok(())
    }

    /// The connection has done what it is there for; the next may come after a pause.
    pub(super) fn acted(&self) {
        self.enter(|tally| tally.acts += 1);
        thread::sleep(self.pause);
    }

    /// The connection is over for another reason.
    pub(super) fn ended(&self, end: End) {
        self.enter(|tally| match end {
            End::Server => tally.ended += 1,
            End::Wrong(words) => tally.fail(words),
        });
        thread::sleep(self.pause.max(PAUSE_AFTER_END));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_there_are_the_longer_each_pauses() {
        // Goal: all of a kind stay below its rate. Method: few and many.
        assert_eq!(pause(Kind::Reset, 1), PAUSE);
        assert_eq!(pause(Kind::Churn, 40), Duration::from_millis(400));
        assert_eq!(pause(Kind::Reset, 2_000), Duration::from_secs(2));
    }
}
