//! Asynchronous I/O: the kernel is told what to do, not asked whether it could be done.
//!
//! All other models wait until a socket is ready, and then make a call that does something. Here
//! the call comes first: "receive into this buffer", "send this", "accept the next". The kernel
//! does it when it can, and a completion tells the result. There is no readiness, and no attempt in
//! vain. Whatever the connections want to have done is gathered, and handed over with the next
//! wait: one system call a round (`io_uring_enter`), however much it does.
//!
//! The price is that an operation keeps its buffer until it has completed, so every connection that
//! waits for its peer has lent one out, and nothing may be closed or freed before that. A
//! connection is therefore ended in two steps: its socket is shut, which makes the operation
//! complete, and the completion ends it.
//!
//! Right when Linux is new (5.11; at its best from 6.1 on), when there are many messages at a time,
//! or when files are to be read as well, of which no poller knows whether they are ready.
//!
//! Wrong where it may not be used: many containers and hardened systems forbid io_uring. There the
//! server does not start, and a message says why.
//!
//! Man pages: io_uring(7), io_uring_enter(2). Deliberately not here: the ring (`ring`), what all
//! event loops share (`ready`); buffers of which the kernel picks one when something arrives, so
//! that those who wait need none.

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{Connection, Next, Service, Task};
use crate::ring::{Completion, Name, Ring};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    let mut server = Server {
        ring: Ring::new()?,
        service: Service::new(options),
        accepting: None,
    };
    server.ring.watch(stop.as_fd());
    let mut failure = None;
    while !stop.is_requested() {
        if let Err(error) = server.round(Some(&listener)) {
            failure = Some(error);
            stop.request();
        }
    }

    // An accept may be completing at this very moment, so it is cancelled and then waited for.
    if let Some(name) = server.accepting {
        server.ring.cancel(name);
    }
    while server.accepting.is_some() {
        server.round(None)?;
    }
    server.accept_the_queued(&listener);
    drop(listener);
    server.service.finish();
    while !server.service.is_over() {
        server.round(None)?;
    }
    Ok(server.service.summary(failure))
}

struct Server {
    ring: Ring,
    service: Service,
    /// The accept that is under way.
    accepting: Option<Name>,
}

impl Server {
    /// Hands over what is to be done, waits, and goes on with everybody for whom something has
    /// completed.
    fn round(&mut self, listener: Option<&TcpListener>) -> io::Result<()> {
        if let Some(listener) = listener
            && self.accepting.is_none()
            && self.service.may_accept()
        {
            self.accepting = Some(self.ring.accept(listener.as_fd()));
        }
        self.ring.wait(self.service.next_timeout())?;
        let due = self.service.tick();
        if !due.is_empty() {
            // What has happened by now may not have completed yet: the kernel leaves that for a
            // wait, and the last one may have been over too early (`EINTR`).
            self.ring.wait(Some(Duration::ZERO))?;
        }
        while let Some(completion) = self.ring.next() {
            match completion {
                Completion::Accepted(result) => self.accepted(result)?,
                Completion::Received {
                    owner,
                    buffer,
                    result,
                } => self.received(owner as RawFd, buffer, result),
                Completion::Sent {
                    owner,
                    buffer,
                    result,
                } => self.sent(owner as RawFd, buffer, result),
                // The stop. Whoever called us asks it for itself.
                Completion::Readable(result) => result?,
            }
        }
        // Last, because nobody is idle of whom something has just completed: if this process had to
        // wait for a processor, that may have been longer ago than the time-out is long.
        for fd in due {
            self.attend(fd, Ok(()));
        }
        Ok(())
    }

    /// Makes a connection of what was accepted.
    fn accepted(&mut self, result: io::Result<(TcpStream, SocketAddr)>) -> io::Result<()> {
        self.accepting = None;
        match result {
            Ok((socket, peer)) => self.start(socket, peer),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(error) => self.service.recover_from(error)?,
        }
        Ok(())
    }

    /// Starts to receive from a new connection.
    fn start(&mut self, socket: TcpStream, peer: SocketAddr) {
        let fd = self.service.enroll(socket, peer);
        self.attend(fd, Ok(()));
    }

    /// Sends back what has come, in upper case if so desired.
    fn received(&mut self, fd: RawFd, buffer: Vec<u8>, result: io::Result<usize>) {
        let upper = self.service.upper;
        self.completed(fd, buffer, result, |connection, buffer, count| {
            let message = connection.received(buffer, count);
            if upper {
                message.make_ascii_uppercase();
            }
        });
    }

    /// Sends the rest, if the kernel did not take everything, and receives again if it did.
    fn sent(&mut self, fd: RawFd, buffer: Vec<u8>, result: io::Result<usize>) {
        self.completed(fd, buffer, result, Connection::sent);
    }

    /// Gives a connection its buffer back with what an operation came to, and goes on with it.
    fn completed(
        &mut self,
        fd: RawFd,
        buffer: Vec<u8>,
        result: io::Result<usize>,
        take: impl FnOnce(&mut Connection, Vec<u8>, usize),
    ) {
        let connection = self.service.connection(fd);
        let connection = connection.expect("a connection outlives its operations");
        let result = match result {
            Ok(count) => {
                take(connection, buffer, count);
                Ok(())
            }
            Err(error) => {
                connection.take_back(buffer);
                Err(error)
            }
        };
        if connection.is_leaving {
            self.service.end(fd);
        } else {
            self.attend(fd, result);
        }
    }

    /// Starts what a connection is to do next, or ends it.
    fn attend(&mut self, fd: RawFd, result: io::Result<()>) {
        let next = self.service.settle(fd, result);
        let Some(connection) = self.service.connection(fd) else {
            return;
        };
        if next == Next::End {
            if connection.is_lent() {
                connection.recall();
            } else {
                self.service.end(fd);
            }
            return;
        }
        match connection.next_task() {
            Some(Task::Receive(buffer)) => {
                self.ring.receive(connection.as_fd(), fd as usize, buffer);
            }
            Some(Task::Send(buffer, part)) => {
                self.ring
                    .send(connection.as_fd(), fd as usize, buffer, part);
            }
            None => {}
        }
    }

    /// Takes in those who have connected before the stop, and who cannot know that nobody accepted
    /// them.
    fn accept_the_queued(&mut self, listener: &TcpListener) {
        let result = listener.set_nonblocking(true).and_then(|()| {
            // Bounded, or a flood of clients would never let the server stop.
            for _ in 0..QUEUE_LENGTH {
                if !self.service.may_accept() {
                    break;
                }
                match listener.accept() {
                    Ok((socket, peer)) => self.start(socket, peer),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => self.service.recover_from(error)?,
                }
            }
            Ok(())
        });
        if let Err(error) = result {
            debug!("the listen queue is left: {error}");
        }
    }
}
