//! poll: a list of sockets goes in with what each is watched for, and comes back with what it is
//! ready for.
//!
//! Unlike select's sets, the list (an array of `pollfd`) has a place for the question and another
//! for the answer, so it is not made anew for each wait: it changes only when a connection comes,
//! goes, or wants something else. And it can have any length. Here a descriptor's place in
//! it is its own number, and an entry of -1 is one that the kernel passes over. A socket is watched
//! for room to write only while there is something to send that the kernel did not take: nearly
//! every socket can be written to nearly always, and poll would never wait.
//!
//! Right when the program has to run everywhere, and many of the connections are busy at a time.
//!
//! Wrong when connections are many and few of them are busy: for every wait the kernel is given the
//! whole list and looks at each socket in it, and so do we in the answer.
//!
//! Man pages: poll(2), tcp(7) (urgent data). Deliberately not here: what all event loops share
//! (`ready`).

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Interest, Next, Service, timeout_ms};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        list: List::default(),
        service: Service::new(options),
    };
    let (door, bell) = (listener.as_raw_fd(), stop.as_fd().as_raw_fd());
    server.list.watch(bell, Interest::READ);
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
    for fd in [door, bell] {
        server.list.watch(fd, Interest::NOTHING);
    }
    drop(listener);
    server.service.finish();
    while !server.service.is_over() {
        server.round(None)?;
    }
    Ok(server.service.summary(failure))
}

struct Server {
    list: List,
    service: Service,
}

impl Server {
    /// Waits, and serves everybody who is ready, once.
    fn round(&mut self, listener: Option<&TcpListener>) -> io::Result<()> {
        if let Some(listener) = listener {
            let interest = Interest::READ.when(self.service.may_accept());
            self.list.watch(listener.as_raw_fd(), interest);
        }
        self.list.wait(self.service.next_timeout())?;
        for fd in self.service.tick() {
            self.attend(fd, Interest::BOTH);
        }
        for fd in self.list.descriptors() {
            let ready = self.list.report(fd);
            match listener {
                _ if ready == Interest::NOTHING => {}
                Some(listener) if listener.as_raw_fd() == fd => {
                    self.accept_ready(listener, ACCEPTS_A_ROUND)?;
                }
                _ => self.attend(fd, ready),
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

    /// Puts a new connection into the list.
    fn start(&mut self, fd: RawFd) {
        self.list.watch(fd, Interest::FIRST);
    }

    /// Serves a connection that is ready, and notes what it is to be watched for next.
    fn attend(&mut self, fd: RawFd, ready: Interest) {
        let upper = self.service.upper;
        let Some(connection) = self.service.connection(fd) else {
            // It has ended in this round, or it is the stop.
            return;
        };
        let result = echo(connection, ready, upper);
        match self.service.settle(fd, result) {
            Next::AsBefore => {}
            Next::WaitFor(interest) => self.list.watch(fd, interest),
            Next::End => {
                self.list.watch(fd, Interest::NOTHING);
                self.service.end(fd);
            }
        }
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

/// An entry that the kernel passes over.
const NOBODY: libc::pollfd = libc::pollfd {
    fd: -1,
    events: 0,
    revents: 0,
};

/// The questions and, after the wait, the answers; by descriptor.
#[derive(Default)]
struct List {
    entries: Vec<libc::pollfd>,
}

impl List {
    /// Watches a descriptor for this from now on.
    fn watch(&mut self, fd: RawFd, interest: Interest) {
        let index = usize::try_from(fd).expect("a descriptor is not negative");
        if self.entries.len() <= index {
            self.entries.resize(index + 1, NOBODY);
        }
        let flags = [
            (interest.read, libc::POLLIN),
            (interest.write, libc::POLLOUT),
            (interest.urgent, libc::POLLPRI),
        ];
        let wanted = flags.iter().filter(|(wanted, _)| *wanted);
        let events = wanted.fold(0, |all, (_, flag)| all | flag);
        // The kernel reports a broken socket whatever it is watched for. An entry of -1 it passes
        // over, so a socket that is watched for nothing gets one.
        let fd = if events == 0 { -1 } else { fd };
        self.entries[index] = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
    }

    /// All descriptors that may be in the list.
    fn descriptors(&self) -> std::ops::Range<RawFd> {
        0..RawFd::try_from(self.entries.len()).expect("descriptors are as many")
    }

    /// Waits until something is ready or the time is over, and leaves in the list what is.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let count = self.entries.len() as libc::nfds_t;
        let entries = self.entries.as_mut_ptr();
        // SAFETY: `entries` points to as many elements as we say.
        if unsafe { libc::poll(entries, count, timeout_ms(timeout)) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // The answers are then those of the last wait: nobody is known to be ready.
        self.entries.iter_mut().for_each(|entry| entry.revents = 0);
        match error.kind() {
            // A signal has come; perhaps it is the stop.
            ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }

    /// What a descriptor is ready for.
    fn report(&self, fd: RawFd) -> Interest {
        let answer = self.entries[fd as usize].revents;
        let has = |flags: i16| answer & flags != 0;
        // A broken connection is ready for everything: the attempt brings the error to light.
        let is_broken = has(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
        Interest {
            read: is_broken || has(libc::POLLIN),
            write: is_broken || has(libc::POLLOUT),
            urgent: has(libc::POLLPRI),
        }
    }
}
