//! Example 5: an echo server in which every connection is a green thread.
//!
//! The code of example 1 has come apart into a loop that accepts and a loop that echoes, and the
//! poller is gone from sight: `read`, `write_all` and `accept` wait by themselves, and while one
//! waits the others run. With `std::` in place of `runtime::` in the second and third `use` line,
//! and without `runtime::run`, this is a server with an OS thread for each connection.
//! Run it, and talk to it from several terminals: `nc 127.0.0.1 8080`.

use std::io::{self, Read, Write};

use runtime::net::{TcpListener, TcpStream};
use runtime::thread;

fn main() -> io::Result<()> {
    runtime::run(|| {
        let address = std::env::args().nth(1);
        let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:8080".into()))?;
        println!("listening on {}", listener.local_addr()?);

        for stream in listener.incoming() {
            let stream = stream?;
            thread::spawn(move || {
                if let Err(error) = echo(stream) {
                    eprintln!("a connection failed: {error}");
                }
            });
        }
        Ok(())
    })
}

/// Sends back whatever comes, until the peer has said all it wants to say.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
