//! Non-blocking sockets, and nothing else: every socket is tried, all the time.
//!
//! A non-blocking call does what can be done at once, and says so (`EWOULDBLOCK`) where it would
//! have waited. That is enough to serve many connections on one OS thread: accept, read from each,
//! write to each, and begin again. What the kernel does not take stays with the connection until
//! the next round.
//!
//! What is missing is a way to wait. A round in which nothing has happened was for nothing, and
//! the next one begins at once: the loop always costs a whole processor, busy or not, by its
//! nature. A sleep between rounds would only trade this for answers that come late; it is left
//! out, so that it can be seen what the other event loops are for. All that is done for the rest of
//! the machine is that after such a round the processor is offered to whoever else wants it.
//!
//! Right when there is a processor to spare, connections are few and always busy, and every
//! microsecond counts: nothing has to be woken up.
//!
//! Wrong everywhere else: with many connections nearly all calls are for nothing.
//!
//! Man pages: fcntl(2) (O_NONBLOCK), accept(2), recv(2), send(2), sched_yield(2). Deliberately not
//! here: what all event loops share (`ready`), and any sort of waiting (`select`, `poll`, `epoll`,
//! `kqueue`).

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Next, Service};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::thread;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        service: Service::new(options),
        has_moved: false,
    };
    let mut failure = None;
    while !stop.is_requested() {
        if let Err(error) = server.round(Some(&listener)) {
            failure = Some(error);
            stop.request();
        }
    }

    if let Err(error) = server.accept_ready(&listener, QUEUE_LENGTH) {
        debug!("the listen queue is left: {error}");
    }
    drop(listener);
    server.service.finish();
    while !server.service.is_over() {
        server.round(None)?;
    }
    Ok(server.service.summary(failure))
}

struct Server {
    service: Service,
    /// Whether anything has happened in this round.
    has_moved: bool,
}

impl Server {
    /// Tries everything once.
    fn round(&mut self, listener: Option<&TcpListener>) -> io::Result<()> {
        self.has_moved = false;
        // The connections that are due are tried with all the others.
        self.service.tick();
        for fd in self.service.descriptors() {
            self.attend(fd);
        }
        if let Some(listener) = listener {
            self.accept_ready(listener, ACCEPTS_A_ROUND)?;
        }
        if !self.has_moved {
            thread::yield_now();
        }
        Ok(())
    }

    /// Accepts those who have connected.
    fn accept_ready(&mut self, listener: &TcpListener, count_max: i32) -> io::Result<()> {
        for _ in 0..count_max {
            if !self.service.may_accept() {
                break;
            }
            let accepted = listener.accept();
            match accepted.and_then(|(socket, peer)| self.service.welcome(socket, peer)) {
                // The next round finds it.
                Ok(_) => self.has_moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.service.recover_from(error)?,
            }
        }
        Ok(())
    }

    /// Tries a connection, if there is one with this descriptor.
    fn attend(&mut self, fd: RawFd) {
        let upper = self.service.upper;
        let Some(connection) = self.service.connection(fd) else {
            return;
        };
        let bytes_before = connection.bytes_in + connection.bytes_out;
        let result = echo(connection, upper);
        self.has_moved |= connection.bytes_in + connection.bytes_out > bytes_before;
        if self.service.settle(fd, result) == Next::End {
            self.service.end(fd);
        }
    }
}

/// Sends back what has come, in upper case if so desired, as far as it goes without waiting.
fn echo(connection: &mut Connection, upper: bool) -> io::Result<()> {
    let message = connection.receive()?;
    if upper {
        message.make_ascii_uppercase();
    }
    connection.send()
}
