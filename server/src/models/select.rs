//! select: three sets of sockets go in, and come back with only those that are ready.
//!
//! A set is a row of bits, one for each descriptor: `readable`, `writable` and `exceptional` (which
//! on a TCP socket means urgent data). As the kernel overwrites them with its answer, they are made
//! anew for each wait, and as the answer only tells how many are ready, every bit is looked at
//! after it. A socket is in the writable set only while there is something to send that the kernel
//! did not take: nearly every socket can be written to nearly always, and select would never wait.
//!
//! The row has 1,024 bits (`FD_SETSIZE`): a larger descriptor cannot be watched, and putting it
//! into a set would write beside it. So there are at most 1,000 connections, and fewer if whoever
//! started the server has left it many open descriptors (`fd_room`); the rest is for the server's
//! own. Whoever comes then waits in the listen queue.
//!
//! Right when the program has to run everywhere, and connections are few: select is the oldest of
//! these calls, and every system has it.
//!
//! Wrong when connections are many, even if few of them are ever ready: a wait costs a look at each
//! of them, by the kernel and by us.
//!
//! Man pages: select(2), select_tut(2), tcp(7) (urgent data). Deliberately not here: what all event
//! loops share (`ready`).

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Interest, Next, Service};
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    for fd in [listener.as_raw_fd(), stop.as_fd().as_raw_fd()] {
        check(fd)?;
    }
    let mut options = options.clone();
    options.bound_for_select(NonZeroUsize::MIN);
    let mut server = Server {
        service: Service::new(&options),
    };
    let mut failure = None;
    while !stop.is_requested() {
        if let Err(error) = server.round(Some((&listener, stop))) {
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
}

impl Server {
    /// Waits, and serves everybody who is ready, once.
    fn round(&mut self, door: Option<(&TcpListener, &Stop)>) -> io::Result<()> {
        let mut sets = Sets::new();
        if let Some((listener, stop)) = door {
            sets.insert(stop.as_fd().as_raw_fd(), Interest::READ);
            if self.service.may_accept() {
                sets.insert(listener.as_raw_fd(), Interest::READ);
            }
        }
        for (fd, interest) in self.service.interests() {
            sets.insert(fd, interest);
        }
        sets.wait(self.service.next_timeout())?;
        for fd in self.service.tick() {
            self.attend(fd, Interest::BOTH);
        }
        for fd in 0..sets.bound {
            let ready = sets.report(fd);
            match door {
                _ if ready == Interest::NOTHING => {}
                Some((listener, _)) if listener.as_raw_fd() == fd => {
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

    /// Sees that a new connection can be watched. The next round puts it into the sets.
    fn start(&mut self, fd: RawFd) {
        if let Err(error) = check(fd) {
            self.service.refuse(fd, &error);
        }
    }

    /// Serves a connection that is ready.
    fn attend(&mut self, fd: RawFd, ready: Interest) {
        let upper = self.service.upper;
        let Some(connection) = self.service.connection(fd) else {
            // It has ended in this round, or it is the stop.
            return;
        };
        let result = echo(connection, ready, upper);
        if self.service.settle(fd, result) == Next::End {
            self.service.end(fd);
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

/// The first descriptor that does not fit into a set.
const FD_BOUND: RawFd = libc::FD_SETSIZE as RawFd;

/// Sees that a descriptor fits into a set. With at most as many connections as there may be, it
/// does, unless whoever started this process has left it no other.
fn check(fd: RawFd) -> io::Result<()> {
    if fd < FD_BOUND {
        return Ok(());
    }
    let message = format!("select watches descriptors below {FD_BOUND} only, and this is {fd}");
    Err(io::Error::new(ErrorKind::Unsupported, message))
}

/// The question and, after the wait, the answer.
struct Sets {
    readable: libc::fd_set,
    writable: libc::fd_set,
    exceptional: libc::fd_set,
    /// All descriptors in the sets are smaller.
    bound: RawFd,
}

impl Sets {
    fn new() -> Sets {
        Sets {
            readable: empty_set(),
            writable: empty_set(),
            exceptional: empty_set(),
            bound: 0,
        }
    }

    fn insert(&mut self, fd: RawFd, interest: Interest) {
        assert!((0..FD_BOUND).contains(&fd), "descriptor {fd} was checked");
        let sets = [
            (interest.read, &mut self.readable),
            (interest.write, &mut self.writable),
            (interest.urgent, &mut self.exceptional),
        ];
        for (_, set) in sets.into_iter().filter(|(wanted, _)| *wanted) {
            // SAFETY: the set has a bit for `fd`, as was just asserted.
            unsafe { libc::FD_SET(fd, set) };
        }
        self.bound = self.bound.max(fd + 1);
    }

    /// Waits until something is ready or the time is over, and leaves in the sets what is.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut timeval = timeout.map(to_timeval);
        let timeval = timeval.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        let (readable, writable) = (&raw mut self.readable, &raw mut self.writable);
        let exceptional = &raw mut self.exceptional;
        // SAFETY: all pointers are to places that outlive the call, and the sets have more bits
        // than `bound`.
        let count = unsafe { libc::select(self.bound, readable, writable, exceptional, timeval) };
        if count < 0 {
            let error = io::Error::last_os_error();
            // The sets are then what they were before: nobody is known to be ready.
            *self = Sets::new();
            // A signal has come; perhaps it is the stop.
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What a descriptor below `bound` is ready for.
    fn report(&self, fd: RawFd) -> Interest {
        // SAFETY: the bit exists: no descriptor beyond the sets was inserted.
        let has = |set: &libc::fd_set| unsafe { libc::FD_ISSET(fd, set) };
        Interest {
            read: has(&self.readable),
            write: has(&self.writable),
            urgent: has(&self.exceptional),
        }
    }
}

fn empty_set() -> libc::fd_set {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a whole set, for writing.
    unsafe { libc::FD_ZERO(set.as_mut_ptr()) };
    // SAFETY: FD_ZERO has just made all of it.
    unsafe { set.assume_init() }
}

/// Rounded up: too early a return would only lead to another wait.
fn to_timeval(timeout: Duration) -> libc::timeval {
    // More than a day is as good as for ever: the next round would wait again.
    let timeout = timeout.min(Duration::from_secs(86_400));
    let rounded = timeout + Duration::from_nanos(999);
    libc::timeval {
        tv_sec: rounded.as_secs() as libc::time_t,
        tv_usec: rounded.subsec_micros() as libc::suseconds_t,
    }
}
