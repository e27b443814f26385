//! epoll: the kernel keeps the list of sockets, and a wait brings only those that are ready.
//!
//! A socket is told to the kernel once (`EPOLL_CTL_ADD`). From then on it is put on a ready list
//! when something happens to it, and a wait takes from there: its cost depends on how many sockets
//! are ready, not on how many there are. A message is one read and one write, and with many
//! messages at a time all of them share the wait. Writing is tried without asking; only a socket
//! that did not take everything is watched for room (`EPOLL_CTL_MOD`), and only until it has.
//!
//! It is level-triggered: a socket is reported as long as it is ready, so that one read a round is
//! enough, and whatever is left is reported again. Edge-triggered (`EPOLLET`) a report is not
//! repeated, and each socket has to be read until nothing is left.
//!
//! Right when connections are many, and Linux is all there will ever be.
//!
//! Wrong when answering takes long, by computing or by waiting for a disk: meanwhile nobody else
//! is served. And the program is inside out: what one connection does next is found in its state,
//! and nowhere in the code.
//!
//! Man pages: epoll(7), epoll_create1(2), epoll_ctl(2), epoll_wait(2). Deliberately not here: what
//! all event loops share (`ready`); more threads, which would each have an epoll of their own.

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Interest, Next, Service, timeout_ms};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How many reports one wait takes at most. The others are taken by the next.
const EVENTS_A_ROUND: usize = 1024;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        epoll: Epoll::new()?,
        service: Service::new(options),
        is_listening: true,
    };
    let (door, bell) = (listener.as_raw_fd(), stop.as_fd().as_raw_fd());
    for fd in [door, bell] {
        server
            .epoll
            .control(libc::EPOLL_CTL_ADD, fd, Interest::READ)?;
    }
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
    server
        .epoll
        .control(libc::EPOLL_CTL_DEL, bell, Interest::NOTHING)?;
    server.service.finish();
    while !server.service.is_over() {
        server.round(None)?;
    }
    Ok(server.service.summary(failure))
}

struct Server {
    epoll: Epoll,
    service: Service,
    /// Whether the listener is watched.
    is_listening: bool,
}

impl Server {
    /// Waits, and serves everybody who is ready, once.
    fn round(&mut self, listener: Option<&TcpListener>) -> io::Result<()> {
        if let Some(listener) = listener
            && self.is_listening != self.service.may_accept()
        {
            self.is_listening = !self.is_listening;
            let interest = Interest::READ.when(self.is_listening);
            self.epoll
                .control(libc::EPOLL_CTL_MOD, listener.as_raw_fd(), interest)?;
        }
        let count = self.epoll.wait(self.service.next_timeout())?;
        for fd in self.service.tick() {
            self.attend(fd, Interest::BOTH)?;
        }
        for index in 0..count {
            let (fd, ready) = self.epoll.report(index);
            match listener {
                Some(listener) if listener.as_raw_fd() == fd => {
                    self.accept_ready(listener, ACCEPTS_A_ROUND)?;
                }
                _ => self.attend(fd, ready)?,
            }
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
                Ok(fd) => self.start(fd),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.service.recover_from(error)?,
            }
        }
        Ok(())
    }

    /// Has the kernel watch a new connection.
    fn start(&mut self, fd: RawFd) {
        if let Err(error) = self.epoll.control(libc::EPOLL_CTL_ADD, fd, Interest::FIRST) {
            // There is no memory for it, or no more is allowed: that may change.
            self.service.refuse(fd, &error);
        }
    }

    /// Serves a connection that is ready, and says what it is to be watched for next.
    fn attend(&mut self, fd: RawFd, ready: Interest) -> io::Result<()> {
        let upper = self.service.upper;
        let Some(connection) = self.service.connection(fd) else {
            // It has ended in this round, or it is the stop.
            return Ok(());
        };
        let result = echo(connection, ready, upper);
        match self.service.settle(fd, result) {
            Next::AsBefore => {}
            Next::WaitFor(interest) => self.epoll.control(libc::EPOLL_CTL_MOD, fd, interest)?,
            // Closing it takes it out of the kernel's list as well.
            Next::End => self.service.end(fd),
        }
        Ok(())
    }
}

/// Sends back what has come, in upper case if so desired, as far as it goes without waiting.
fn echo(connection: &mut Connection, ready: Interest, upper: bool) -> io::Result<()> {
    if ready.urgent {
        connection.set_urgent_aside();
    }
    if ready.read {
        let message = connection.receive()?;
        if upper {
            message.make_ascii_uppercase();
        }
    }
    // Without asking whether there is room: nearly always there is.
    connection.send()
}

/// The kernel's list.
struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: the call touches no memory of ours.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Epoll {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_A_ROUND],
        })
    }

    /// Changes the list. A descriptor is reported by its number.
    fn control(&self, operation: i32, fd: RawFd, interest: Interest) -> io::Result<()> {
        let flags = [
            (interest.read, libc::EPOLLIN),
            (interest.write, libc::EPOLLOUT),
            (interest.urgent, libc::EPOLLPRI),
        ];
        let wanted = flags.iter().filter(|(wanted, _)| *wanted);
        let mut event = libc::epoll_event {
            events: wanted.fold(0, |all, (_, flag)| all | flag) as u32,
            u64: fd as u64,
        };
        // SAFETY: `event` is valid for the call, which keeps no pointer to it.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits until something is ready or the time is over, and tells how many reports there are.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let (fd, timeout_ms) = (self.fd.as_raw_fd(), timeout_ms(timeout));
        let (events, count_max) = (self.events.as_mut_ptr(), EVENTS_A_ROUND as i32);
        // SAFETY: `events` points to as many elements as we say.
        let count = unsafe { libc::epoll_wait(fd, events, count_max, timeout_ms) };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                // A signal has come; perhaps it is the stop.
                error if error.kind() == ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }

    /// Who is ready, and for what.
    fn report(&self, index: usize) -> (RawFd, Interest) {
        let event = self.events[index];
        let has = |flags: i32| event.events & flags as u32 != 0;
        // A broken connection is ready for everything: the attempt brings the error to light.
        let is_broken = has(libc::EPOLLERR | libc::EPOLLHUP);
        let ready = Interest {
            read: is_broken || has(libc::EPOLLIN),
            write: is_broken || has(libc::EPOLLOUT),
            urgent: has(libc::EPOLLPRI),
        };
        (event.u64 as RawFd, ready)
    }
}
