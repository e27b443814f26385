//! `half-close`: sends some messages, shuts its sending side and reads to the end; all must have
//! come back by then.
//!
//! Application on L4. Rests on shutdown(2). A server that takes the end of the input for the end of
//! the connection loses answers here. A first message is exchanged in the ordinary way. A
//! connection that is thrown out before that answer was not wanted, which is no failure. One that
//! is cut off after it has lost answers, which is a failure.
//!
//! Deliberately not here: what is common to all kinds (`peer`), comparing (`script`).

use std::io;

use super::peer::{End, Peer};
use super::script::{Burst, Came, Script};
use crate::net::{Shutdown, TcpStream};
use crate::thread;

const MESSAGES_MAX: usize = 16;
/// Long messages are fewer.
const BYTES_MAX: usize = 64 * 1024;

pub(super) fn run(peer: &Peer) -> ! {
    let size_bytes = peer.load.settings.size_bytes as usize;
    let messages = (BYTES_MAX / size_bytes).clamp(1, MESSAGES_MAX);
    let mut script = Script::new(peer);
    loop {
        let stream = peer.connect();
        script.begin();
        let first = script.next(1);
        let rest = script.next(messages);
        let exchange = Exchange {
            peer,
            script: &script,
            stream: &stream,
        };
        match exchange.run(first, rest) {
            Ok(()) => peer.acted(),
            Err(end) => peer.ended(end),
        }
    }
}

/// What is sent and read on one connection.
struct Exchange<'a> {
    peer: &'a Peer,
    script: &'a Script<'a>,
    stream: &'a TcpStream,
}

impl Exchange<'_> {
    fn run(&self, first: Burst, rest: Burst) -> Result<(), End> {
        let timeout = self.peer.load.settings.timeout;
        self.stream.set_read_timeout(Some(timeout))?;
        self.send_while(first, |burst| self.read_answers(burst), false)?;
        self.send_while(rest, |burst| self.read_to_the_end(burst), true)
    }

    /// Long messages fit no socket's buffer, so sending goes on beside reading.
    fn send_while(
        &self,
        mut burst: Burst,
        read: impl FnOnce(&mut Burst) -> Result<(), End>,
        is_last: bool,
    ) -> Result<(), End> {
        let bytes = std::mem::take(&mut burst.sent);
        thread::scope(|scope| {
            let sender = scope.spawn(|| -> io::Result<()> {
                self.peer.send(self.stream, &bytes)?;
                if is_last {
                    self.stream.shutdown(Shutdown::Write)?;
                }
                Ok(())
            });
            let read = read(&mut burst);
            if read.is_err() {
                // Nobody makes room for the sender any more.
                let _ = self.stream.shutdown(Shutdown::Both);
            }
            let sent = match sender.join() {
                Ok(sent) => sent,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            read?;
            Ok(sent?)
        })
    }

    fn read_answers(&self, burst: &mut Burst) -> Result<(), End> {
        while !burst.is_answered() {
            match self.script.read(self.stream, burst)? {
                Came::Bytes => {}
                Came::End => return Err(End::Server),
                Came::Nothing => return Err(self.script.timed_out(burst)),
            }
        }
        Ok(())
    }

    fn read_to_the_end(&self, burst: &mut Burst) -> Result<(), End> {
        loop {
            match self.script.read(self.stream, burst)? {
                Came::Bytes => {}
                Came::End if burst.is_answered() => return Ok(()),
                Came::End => return Err(self.script.cut_short(burst, "closed by the server")),
                Came::Nothing => return Err(self.script.timed_out(burst)),
            }
        }
    }
}
