//! Example 1: a poller, the bottom of the reactor.
//!
//! It echoes to one client after another, and accepts and reads when the poller says so. (A write
//! may still wait.) Run it, and talk to it from another terminal: `nc 127.0.0.1 8080`.

use runtime::poller::{self, Events, Interest, Kind, Token, Trigger};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const LISTENER: Token = Token(0);
const CLIENT: Token = Token(1);
const LEVEL: Trigger = Trigger::Level;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:8080".into()))?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);

    // The poller is told once what to watch, and by which word (a token) to call it.
    let mut poller = poller::open(Kind::from_environment()?)?;
    let door = listener.as_raw_fd();
    poller.add(door, LISTENER, Interest::READABLE, LEVEL)?;

    let mut events = Events::new();
    let mut client: Option<TcpStream> = None;
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            if event.token == LISTENER {
                // Readiness is a hint. The call itself has the last word, and may well say that
                // there is nothing after all.
                if let Ok((stream, _peer)) = listener.accept() {
                    // One client at a time: whoever else comes waits in the listener's queue.
                    poller.modify(door, LISTENER, Interest::EMPTY, LEVEL)?;
                    poller.add(stream.as_raw_fd(), CLIENT, Interest::READABLE, LEVEL)?;
                    client = Some(stream);
                }
            } else if let Some(mut stream) = client.take() {
                if echo(&mut stream).is_ok() {
                    client = Some(stream);
                } else {
                    // Forget the descriptor first, and close it afterwards.
                    poller.remove(stream.as_raw_fd())?;
                    poller.modify(door, LISTENER, Interest::READABLE, LEVEL)?;
                }
            }
        }
    }
}

/// Sends back what is there: an error at the end of the stream.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => stream.write_all(&buffer[..length]),
    }
}
