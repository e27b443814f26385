//! The hand-written event loop: what a specialist would write for exactly this job.
//!
//! Edge-triggered; a read that did not fill the buffer has drained the socket, so that a message
//! costs one read and one write; one buffer for all connections. std's `read` and `write` on a
//! socket are `recv` and `send` with nothing added. Rests on epoll(7).
//! Deliberately not here: a limit on how long one connection is served before the next.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use super::BUFFER_BYTES;
use crate::epoll::{self, Epoll};

const READ: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;
const WRITE: i32 = libc::EPOLLOUT | libc::EPOLLET;

/// One connection, and what its socket did not take of the last reply.
struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
}

/// What is to become of a connection after its event.
#[derive(PartialEq)]
enum Fate {
    Keep,
    Close,
}

/// Accepts and echoes for ever. Connections are found by their descriptor.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listening_fd = listener.as_raw_fd();
    let epoll = Epoll::new()?;
    epoll.add(listening_fd, libc::EPOLLIN, listening_fd as u64)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = epoll::buffer(1024);
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        for event in epoll.wait(&mut events, -1)? {
            let index = event.u64 as usize;
            if event.u64 == listening_fd as u64 {
                accept(&listener, &epoll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(index).and_then(Option::as_mut) {
                let bits = event.events.cast_signed();
                if serve_one(connection, &epoll, bits, &mut buffer)? == Fate::Close {
                    connections[index] = None;
                }
            }
        }
    }
}

/// Takes all connections that wait.
fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let index = stream.as_raw_fd() as usize;
        epoll.add(stream.as_raw_fd(), READ, index as u64)?;
        if connections.len() <= index {
            connections.resize_with(index + 1, || None);
        }
        connections[index] = Some(Connection {
            stream,
            unsent: Vec::new(),
        });
    }
}

/// Reads and writes back until the socket is drained, full or at its end.
#[inline]
fn serve_one(
    connection: &mut Connection,
    epoll: &Epoll,
    bits: i32,
    buffer: &mut [u8],
) -> io::Result<Fate> {
    if !connection.unsent.is_empty() && !flush(connection, epoll)? {
        return Ok(Fate::Keep);
    }
    let at_end = bits & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
    loop {
        let count = match (&connection.stream).read(buffer) {
            Ok(0) => return Ok(Fate::Close),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fate::Keep),
            Err(_) => return Ok(Fate::Close),
        };
        let sent = match (&connection.stream).write(&buffer[..count]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Ok(Fate::Close),
        };
        if sent < count {
            connection.unsent.extend_from_slice(&buffer[sent..count]);
            let fd = connection.stream.as_raw_fd();
            epoll.modify(fd, WRITE, fd as u64)?;
            return Ok(Fate::Keep);
        }
        // At the end there is no further edge, so the zero has to be read now.
        if count < buffer.len() && !at_end {
            return Ok(Fate::Keep);
        }
    }
}

/// Sends what was left; true when all is gone and the connection may be read again.
#[cold]
fn flush(connection: &mut Connection, epoll: &Epoll) -> io::Result<bool> {
    while !connection.unsent.is_empty() {
        match (&connection.stream).write(&connection.unsent) {
            Ok(sent) => drop(connection.unsent.drain(..sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // Reading answers with the same error, and closes the connection there.
            Err(_) => connection.unsent.clear(),
        }
    }
    let fd = connection.stream.as_raw_fd();
    epoll.modify(fd, READ, fd as u64)?;
    Ok(true)
}
