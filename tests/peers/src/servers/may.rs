//! may: stackful coroutines, one a connection, on a single worker thread.
//!
//! Outside the layers.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};

use ::may::net::TcpStream;

use super::BUFFER_BYTES;

/// Accepts and echoes for ever.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    ::may::config().set_workers(1);
    // may makes its listeners non-blocking itself when it makes them, not when it adopts them.
    listener.set_nonblocking(true)?;
    // SAFETY: the descriptor has just been given up by std's listener, so nobody else owns it.
    let listener = unsafe { ::may::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let acceptor = ::may::go!(move || -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            drop(::may::go!(move || echo(stream)));
        }
    });
    acceptor
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the accepting coroutine panicked")))
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}
