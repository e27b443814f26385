//! kqueue: the kernel keeps the list of sockets, and a wait brings only those that are ready.
//!
//! What epoll is on Linux, kqueue is on the BSDs and on macOS, and it came first. An entry of its
//! list is not a socket but a filter on one: `EVFILT_READ` and `EVFILT_WRITE` are watched, switched
//! on and off, and reported each for itself. (There are filters for other things as well: files,
//! processes, signals, timers.) One call, kevent, both changes the list and waits; the two are kept
//! apart here, because a change that was put off could meet the next connection which has the same
//! descriptor.
//!
//! It is level-triggered: a socket is reported as long as it is ready, so that one read a round is
//! enough, and whatever is left is reported again. With `EV_CLEAR` a report is not repeated, and
//! each socket has to be read until nothing is left.
//!
//! Right when connections are many, on a BSD or on macOS.
//!
//! Wrong when answering takes long, by computing or by waiting for a disk: meanwhile nobody else
//! is served. And the program is inside out: what one connection does next is found in its state,
//! and nowhere in the code.
//!
//! Man pages: kqueue(2), kevent(2), EV_SET(3). Deliberately not here: what all event loops share
//! (`ready`); urgent data, for which not all of these systems have a filter, and which recv passes
//! over if nobody asks for it.

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Interest, Next, Service};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// How many reports one wait takes at most. The others are taken by the next.
const EVENTS_A_ROUND: usize = 1024;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        kqueue: Kqueue::new()?,
        service: Service::new(options),
        is_listening: true,
    };
    let (door, bell) = (listener.as_raw_fd(), stop.as_fd().as_raw_fd());
    for fd in [door, bell] {
        server.kqueue.watch(fd, Interest::READ)?;
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
    server.kqueue.watch(bell, Interest::NOTHING)?;
    server.service.finish();
    while !server.service.is_over() {
        server.round(None)?;
    }
    Ok(server.service.summary(failure))
}

struct Server {
    kqueue: Kqueue,
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
            self.kqueue.watch(listener.as_raw_fd(), interest)?;
        }
        let count = self.kqueue.wait(self.service.next_timeout())?;
        for fd in self.service.tick() {
            self.attend(fd, Interest::BOTH)?;
        }
        for index in 0..count {
            let (fd, ready) = self.kqueue.report(index);
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
        if let Err(error) = self.kqueue.watch(fd, Interest::FIRST) {
            // There is no memory for it: that may change.
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
            Next::WaitFor(interest) => self.kqueue.watch(fd, interest)?,
            // Closing it takes it out of the kernel's list as well.
            Next::End => self.service.end(fd),
        }
        Ok(())
    }
}

/// Sends back what has come, in upper case if so desired, as far as it goes without waiting.
fn echo(connection: &mut Connection, ready: Interest, upper: bool) -> io::Result<()> {
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
struct Kqueue {
    fd: OwnedFd,
    events: Vec<libc::kevent>,
}

impl Kqueue {
    fn new() -> io::Result<Kqueue> {
        // SAFETY: the call touches no memory of ours.
        let fd = unsafe { libc::kqueue() };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Kqueue {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![blank(); EVENTS_A_ROUND],
        })
    }

    /// Watches a descriptor for this from now on. A filter that is there is only switched.
    fn watch(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        let mut changes = [blank(), blank()];
        changes[0].filter = libc::EVFILT_READ;
        changes[1].filter = libc::EVFILT_WRITE;
        for (change, wanted) in changes.iter_mut().zip([interest.read, interest.write]) {
            let switch = if wanted {
                libc::EV_ENABLE
            } else {
                libc::EV_DISABLE
            };
            change.ident = fd as _;
            change.flags = (libc::EV_ADD | switch) as _;
        }
        let (queue, count) = (self.fd.as_raw_fd(), changes.len());
        let (changes, none) = (changes.as_ptr(), ptr::null_mut());
        // SAFETY: there are as many changes as we say, and there is no room for reports.
        if unsafe { libc::kevent(queue, changes, count as _, none, 0, ptr::null()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits until something is ready or the time is over, and tells how many reports there are.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(to_timespec);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let queue = self.fd.as_raw_fd();
        let (events, room) = (self.events.as_mut_ptr(), EVENTS_A_ROUND as _);
        // SAFETY: `events` points to as many elements as we say, and `timeout` lives till the end.
        let count = unsafe { libc::kevent(queue, ptr::null(), 0, events, room, timeout) };
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
        let event = &self.events[index];
        let ready = Interest {
            read: event.filter == libc::EVFILT_READ,
            write: event.filter == libc::EVFILT_WRITE,
            urgent: false,
        };
        (event.ident as RawFd, ready)
    }
}

/// An entry that says nothing. The systems do not agree on the types of its fields.
fn blank() -> libc::kevent {
    // SAFETY: the structure holds numbers and a pointer, all of which may be zero.
    unsafe { std::mem::zeroed() }
}

fn to_timespec(timeout: Duration) -> libc::timespec {
    // More than a day is as good as for ever: the next round would wait again.
    let timeout = timeout.min(Duration::from_secs(86_400));
    libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as _,
    }
}
