//! What a server does when all its connections are open at the same time: how many of them it
//! answers, and how much memory each of them takes.
//!
//! Application, above L4. Man pages: proc(5). A server of its own is asked, not the one whose time
//! is taken. Memory is that of its processes as the kernel counts it for user space; what the
//! kernel keeps for each socket, thread and process besides is not in it.
//!
//! Deliberately not here: speed (`trial`).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::compare::process::{Server, Signal, Trouble};
use crate::compare::procfs::{self, Count};
use crate::compare::results::Audience;

/// When nobody has been answered for so long, nobody will be any more.
const SILENCE: Duration = Duration::from_secs(1);
/// How often it is looked for answers.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// For how long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A server is at rest when it has not changed for so long.
const REST: Duration = Duration::from_millis(50);
/// A server that has not come to rest by then never will.
const REST_LOOKS: usize = 20;

/// Every connection sends this, small enough for any socket buffer.
const MESSAGE: &[u8] = b"0 0 is anybody there?\n";

/// Opens `asked` connections, has each send one message, and looks.
pub(crate) fn gather(
    server: &mut Server,
    asked: u32,
    signal: &Signal,
) -> Result<Audience, Trouble> {
    let idle = at_rest(server, signal)?;
    let mut guests = connect(server.address, asked, signal)?;
    let connected = guests.len() as u32;
    if guests.is_empty() {
        server.check()?;
        return Err(Trouble::Failed("no connection came up".to_owned()));
    }
    let served = listen(&mut guests, signal)?;
    server.check()?;
    let full = at_rest(server, signal)?;
    let added = match (idle.memory, full.memory) {
        (Some((idle, _)), Some((full, _))) if served > 0 => {
            Some(full.saturating_sub(idle) as f64 / f64::from(served))
        }
        _ => None,
    };
    Ok(Audience {
        asked,
        connected,
        served,
        bytes_per_connection: added,
        idle_bytes: idle.memory.map(|(bytes, _)| bytes),
        processes: full.processes.len(),
    })
}

#[derive(PartialEq)]
struct State {
    processes: Vec<u32>,
    memory: Option<(u64, Count)>,
}

/// Waits until processes and memory no longer change.
fn at_rest(server: &Server, signal: &Signal) -> Result<State, Trouble> {
    let look = || {
        let processes = server.family();
        let memory = procfs::memory_of(&processes);
        State { processes, memory }
    };
    let mut state = look();
    for _ in 0..REST_LOOKS {
        signal.pause(REST)?;
        let next = look();
        if next == state {
            break;
        }
        state = next;
    }
    Ok(state)
}

struct Guest {
    stream: TcpStream,
    received: usize,
}

/// Opens up to `asked` connections, and sends on each.
fn connect(address: SocketAddr, asked: u32, signal: &Signal) -> Result<Vec<Guest>, Trouble> {
    let mut guests = Vec::new();
    for _ in 0..asked {
        signal.check()?;
        // One that is refused is not connected, and those after it would be refused, too.
        let Ok(mut stream) = TcpStream::connect_timeout(&address, CONNECT_LIMIT) else {
            break;
        };
        stream.set_nonblocking(true)?;
        if stream.write_all(MESSAGE).is_ok() {
            guests.push(Guest {
                stream,
                received: 0,
            });
        }
    }
    Ok(guests)
}

/// Waits for answers until all have one, or none comes any more; how many have one.
fn listen(guests: &mut [Guest], signal: &Signal) -> Result<u32, Trouble> {
    let mut last = Instant::now();
    let mut served = 0;
    while served < guests.len() as u32 && last.elapsed() < SILENCE {
        signal.pause(LOOK_EVERY)?;
        for guest in guests.iter_mut().filter(|guest| !guest.is_served()) {
            if guest.look()? {
                served += 1;
                last = Instant::now();
            }
        }
    }
    Ok(served)
}

impl Guest {
    fn is_served(&self) -> bool {
        self.received >= MESSAGE.len()
    }

    /// Whether its answer is complete by now.
    fn look(&mut self) -> Result<bool, Trouble> {
        let mut piece = [0; 64];
        match self.stream.read(&mut piece) {
            Ok(count) => {
                let expected = &MESSAGE[self.received..];
                if !expected.starts_with(&piece[..count]) {
                    return Err(Trouble::Failed("an answer has wrong bytes".to_owned()));
                }
                self.received += count;
                Ok(self.is_served())
            }
            Err(error) if is_patience(&error) => Ok(false),
            // A connection that the server has reset gets no answer.
            Err(_) => Ok(false),
        }
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn only_those_who_are_answered_count() {
        // Goal: connections that nobody serves come up, and are not counted as served. Method: a
        // server that answers the first two, and keeps all open.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut open = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut message = [0; MESSAGE.len()];
                stream.read_exact(&mut message).unwrap();
                if number < 2 {
                    stream.write_all(&message).unwrap();
                }
                open.push(stream);
            }
        });
        let signal = Signal(Arc::default());
        let mut guests = connect(address, 5, &signal).unwrap();
        assert_eq!(guests.len(), 5);
        assert_eq!(listen(&mut guests, &signal), Ok(2));
    }
}
