//! A selector with callbacks: whoever watches a socket says at once what is to be called when it is
//! ready.
//!
//! The loop knows nothing but this: select, look up what was registered, call it. `accept` is
//! registered for the listener, and registers `echo` for each connection, which unregisters itself
//! at the end. Something new to wait for, say a pipe or a timer, is one more callback and changes
//! nothing else; in the other loops it is one more case. This is how Python's `selectors` are used,
//! and what asyncio, libevent and browsers are made of.
//!
//! The selector stands on whichever poller the system has (`--poller`), so of all event loops this
//! is the one that runs everywhere.
//!
//! Right when many different things are waited for, in a program that has to grow.
//!
//! Wrong when each of them is a long story: a callback returns to the loop after every step, so the
//! story is told in as many callbacks as it has waits, and one that computes for long stops all.
//!
//! Man pages: poll(2), epoll(7), kqueue(2). Deliberately not here: the selector
//! (`runtime::selector`), what all event loops share (`ready`).

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Interest, Next, Service};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use runtime::poller::{self, Kind, Readiness};
use runtime::selector::{Ready, Selector};
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// What the selector keeps for a descriptor: what to call when it is ready.
#[derive(Clone, Copy)]
struct Registered {
    fd: RawFd,
    callback: Callback,
}

/// It gets the server for itself: the selector is not borrowed while it runs, so that it can
/// register and unregister whom it likes.
type Callback = fn(&mut Server, RawFd, Interest) -> io::Result<()>;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let kind = options.poller()?;
    let mut options = options.clone();
    if kind == Kind::Select {
        options.bound_for_select(NonZeroUsize::MIN);
    }
    let (door, bell) = (listener.as_raw_fd(), stop.as_fd().as_raw_fd());
    let mut server = Server {
        selector: Selector::with_kind(kind)?,
        service: Service::new(&options),
        listener: Some(listener),
        is_listening: true,
    };
    server.register(door, Interest::READ, Server::accept)?;
    server.register(bell, Interest::READ, Server::stop)?;
    let mut ready = Ready::new();
    let mut failure = None;
    while !server.service.is_over() {
        if let Err(error) = server.round(&mut ready) {
            if server.listener.is_none() {
                return Err(error);
            }
            failure = Some(error);
            stop.request();
            // Now, and not when its callback is called: whatever has failed may come before it.
            server.stop(bell, Interest::READ)?;
        }
    }
    Ok(server.service.summary(failure))
}

struct Server {
    selector: Selector<Registered>,
    service: Service,
    /// Until the stop.
    listener: Option<TcpListener>,
    /// Whether the listener is watched.
    is_listening: bool,
}

impl Server {
    /// Waits, and calls back whoever is ready, once.
    fn round(&mut self, ready: &mut Ready) -> io::Result<()> {
        self.listen_if_there_is_room()?;
        self.selector.select(ready, self.service.next_timeout())?;
        for fd in self.service.tick() {
            self.echo(fd, Interest::BOTH)?;
        }
        for (key, readiness) in ready.iter() {
            // One callback may unregister another, so each is looked up when its turn comes.
            if let Some(Registered { fd, callback }) = self.selector.data(key).copied() {
                callback(self, fd, ready_for(readiness))?;
            }
        }
        Ok(())
    }

    /// Registers a callback.
    fn register(&mut self, fd: RawFd, interest: Interest, callback: Callback) -> io::Result<()> {
        let registered = Registered { fd, callback };
        let key = self.selector.register(&fd, watched(interest), registered);
        key.map(drop)
    }

    /// Callback of the listener: accepts those who have connected.
    fn accept(&mut self, _door: RawFd, _ready: Interest) -> io::Result<()> {
        self.accept_ready(ACCEPTS_A_ROUND)
    }

    /// Callback of a connection: sends back what has come, and says what to wait for next.
    fn echo(&mut self, fd: RawFd, ready: Interest) -> io::Result<()> {
        let upper = self.service.upper;
        let Some(connection) = self.service.connection(fd) else {
            return Ok(());
        };
        let result = echo(connection, ready, upper);
        match self.service.settle(fd, result) {
            Next::AsBefore => {}
            Next::WaitFor(interest) => self.watch(fd, interest)?,
            Next::End => {
                self.selector.unregister(&fd)?;
                self.service.end(fd);
            }
        }
        Ok(())
    }

    /// Callback of the stop: takes in those who wait, and accepts nobody any more.
    fn stop(&mut self, bell: RawFd, _ready: Interest) -> io::Result<()> {
        self.selector.unregister(&bell)?;
        if let Err(error) = self.accept_ready(QUEUE_LENGTH) {
            debug!("the listen queue is left: {error}");
        }
        if let Some(listener) = self.listener.take() {
            self.selector.unregister(&listener)?;
        }
        self.service.finish();
        Ok(())
    }

    fn accept_ready(&mut self, count_max: i32) -> io::Result<()> {
        for _ in 0..count_max {
            let Some(listener) = self.listener.as_ref().filter(|_| self.service.may_accept())
            else {
                break;
            };
            let accepted = listener.accept();
            match accepted.and_then(|(socket, peer)| self.service.welcome(socket, peer)) {
                Ok(fd) => self.start(fd),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.service.recover_from(error)?,
            }
        }
        Ok(())
    }

    /// Has the selector watch a new connection.
    fn start(&mut self, fd: RawFd) {
        if let Err(error) = self.register(fd, Interest::FIRST, Server::echo) {
            // There is no memory for it, or no more is allowed: that may change.
            self.service.refuse(fd, &error);
        }
    }

    /// Watches the listener while somebody may be accepted, and only then: it stays readable.
    fn listen_if_there_is_room(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        if self.is_listening != self.service.may_accept() {
            self.is_listening = !self.is_listening;
            let interest = if self.is_listening {
                Interest::READ
            } else {
                Interest::NOTHING
            };
            let door = listener.as_raw_fd();
            self.watch(door, interest)?;
        }
        Ok(())
    }

    /// Changes what a descriptor is watched for. Its callback stays.
    fn watch(&mut self, fd: RawFd, interest: Interest) -> io::Result<()> {
        match self.selector.get(&fd).map(|entry| entry.key) {
            Some(key) => self.selector.set_interest(key, watched(interest)),
            None => Err(ErrorKind::NotFound.into()),
        }
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

/// The selector's word for an interest. Urgent data is left alone: not every poller can tell of it,
/// and none reports it as something to read.
fn watched(interest: Interest) -> poller::Interest {
    match (interest.read, interest.write) {
        (true, true) => poller::Interest::BOTH,
        (true, false) => poller::Interest::READABLE,
        (false, true) => poller::Interest::WRITABLE,
        (false, false) => poller::Interest::EMPTY,
    }
}

/// What a report of the selector means.
fn ready_for(readiness: Readiness) -> Interest {
    Interest {
        read: readiness.is_readable(),
        write: readiness.is_writable(),
        ..Interest::NOTHING
    }
}
