//! Example 1: a poller, the bottom of the reactor.
//!
//! It echoes to one client after another without ever blocking in a read: the poller is the only
//! place where this program waits. Run it, and talk to it from another terminal:
//!
//! ```text
//! cargo run -p runtime --example 01_poller
//! nc 127.0.0.1 8080
//! ```

use runtime::poller::{self, Events, Interest, Kind, Token, Trigger};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const LISTENER: Token = Token(0);
const CLIENT: Token = Token(1);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);

    // The poller is told once what to watch, and by which word (a token) to call it.
    let mut poller = poller::open(Kind::from_environment()?)?;
    poller.add(
        listener.as_raw_fd(),
        LISTENER,
        Interest::READABLE,
        Trigger::Level,
    )?;

    let mut events = Events::new();
    let mut client: Option<TcpStream> = None;
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            if event.token == LISTENER {
                // Readiness is a hint. The call itself has the last word, and may well say that
                // there is nothing after all.
                let Ok((stream, peer)) = listener.accept() else {
                    continue;
                };
                println!("{peer} is here");
                poller.modify(
                    listener.as_raw_fd(),
                    LISTENER,
                    Interest::EMPTY,
                    Trigger::Level,
                )?;
                poller.add(
                    stream.as_raw_fd(),
                    CLIENT,
                    Interest::READABLE,
                    Trigger::Level,
                )?;
                client = Some(stream);
            } else if let Some(mut stream) = client.take() {
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).unwrap_or(0);
                if length > 0 && stream.write_all(&buffer[..length]).is_ok() {
                    client = Some(stream);
                    continue;
                }
                // The end of the stream: forget it before it is closed, and take the next one.
                poller.remove(stream.as_raw_fd())?;
                poller.modify(
                    listener.as_raw_fd(),
                    LISTENER,
                    Interest::READABLE,
                    Trigger::Level,
                )?;
            }
        }
    }
}
