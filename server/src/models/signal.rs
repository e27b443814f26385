//! Signal-driven I/O: a signal comes when something happens to a socket, and tells to which.
//!
//! Each socket is asked once to do so (`O_ASYNC`), with a real-time signal (`F_SETSIG`): of those
//! the kernel keeps a queue, in order, and each carries the descriptor and what has happened. The
//! signals are blocked, so no handler ever runs in the middle of something; the loop takes one
//! after the other from the queue and waits when there is none (`sigtimedwait`). signalfd(2) would
//! take many at once from a descriptor of its own, but cannot wait with a time-out, and hides that
//! a signal is all there is to it. The listener and the stop are sockets, too, and treated alike.
//!
//! A signal tells that something has changed, and tells it once. Whoever does not use it up must
//! remember: here that is `is_drained` of each connection, and the list of those to look at
//! `again`. It is only a hint, too: it may be out of date when it is taken, or about a socket that
//! was closed meanwhile and whose number has a successor. So nothing is believed but what the read
//! or write itself says, and then a signal too many does no harm.
//!
//! A signal too few would. The queue has a limit (`RLIMIT_SIGPENDING`, `ulimit -i`), shared by all
//! processes of a user. When it is full the kernel sends a plain SIGIO instead, which says only
//! that something was lost. The way out: empty the queue, and ask poll(2) about every socket once.
//!
//! Right when nothing else is to be had. It was the fastest that Linux could do before epoll(7),
//! and shows what that took over: to be told, instead of asking.
//!
//! Wrong otherwise. Every event is a system call to take it, plus the read that finds nothing left;
//! the queue can overflow because of somebody else; and libraries may want the same signals.
//!
//! Man pages: fcntl(2) (F_SETSIG), sigwaitinfo(2), signal(7), poll(2). Deliberately not here: what
//! all event loops share (`ready`); urgent data, for which there is a signal of its own (SIGURG).

use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::ready::{ACCEPTS_A_ROUND, Connection, Interest, Next, Service};
use crate::stop::Stop;
use crate::summary::Summary;
use log::{debug, warn};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::mem::{self, MaybeUninit};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

/// More signals than any queue holds by default.
const DISCARDS_MAX: u32 = 1_000_000;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        signals: Signals::block()?,
        service: Service::new(options),
        again: BTreeSet::new(),
        is_somebody_waiting: true,
        has_overflowed: false,
    };
    server.signals.ask(listener.as_raw_fd())?;
    // Its signal ends a wait; whether it has come is asked afterwards.
    server.signals.ask(stop.as_fd().as_raw_fd())?;
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
    signals: Signals,
    service: Service,
    /// Connections that may have more to read, of which no signal will come.
    again: BTreeSet<RawFd>,
    /// There may be somebody to accept, of whom no signal will come.
    is_somebody_waiting: bool,
    /// The user has been told.
    has_overflowed: bool,
}

impl Server {
    /// Waits for one signal, and serves whom it is about and those who are to be looked at again.
    fn round(&mut self, listener: Option<&TcpListener>) -> io::Result<()> {
        let accepts = listener.is_some() && self.is_somebody_waiting && self.service.may_accept();
        let timeout = if accepts || !self.again.is_empty() {
            Some(Duration::ZERO)
        } else {
            self.service.next_timeout()
        };
        let signal = self.signals.wait(timeout)?;
        for fd in self.service.tick() {
            self.attend(fd, Interest::BOTH);
        }
        for fd in mem::take(&mut self.again) {
            self.attend(fd, Interest::READ);
        }
        match signal {
            None => {}
            Some(Signal::Overflow) => self.recover()?,
            Some(Signal::Ready(fd, ready)) => match listener {
                Some(listener) if listener.as_raw_fd() == fd => self.is_somebody_waiting = true,
                _ => self.attend(fd, ready),
            },
        }
        match listener {
            Some(listener) if self.is_somebody_waiting => {
                self.accept_ready(listener, ACCEPTS_A_ROUND)
            }
            _ => Ok(()),
        }
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_somebody_waiting = false;
                    break;
                }
                Err(error) => self.service.recover_from(error)?,
            }
        }
        Ok(())
    }

    /// Has the kernel send signals for a new connection.
    fn start(&mut self, fd: RawFd) {
        match self.signals.ask(fd) {
            // No signal will tell of what arrived before.
            Ok(()) => drop(self.again.insert(fd)),
            Err(error) => self.service.refuse(fd, &error),
        }
    }

    /// Serves a connection to which something has happened, or may have.
    fn attend(&mut self, fd: RawFd, ready: Interest) {
        let upper = self.service.upper;
        let Some(connection) = self.service.connection(fd) else {
            // It has ended since, or it is the stop.
            return;
        };
        if ready.read {
            connection.is_drained = false;
        }
        let result = echo(connection, upper);
        let reads_on = !connection.is_drained && connection.wants().read;
        // What to wait for is no matter here: signals come for everything.
        if self.service.settle(fd, result) == Next::End {
            self.service.end(fd);
        } else if reads_on {
            self.again.insert(fd);
        }
    }

    /// Finds out without signals who is ready, as some were lost.
    fn recover(&mut self) -> io::Result<()> {
        if !mem::replace(&mut self.has_overflowed, true) {
            warn!(
                "the queue of signals was full: `ulimit -i` tells how many may wait. Every socket \
                 is asked instead, which takes time"
            );
        }
        self.signals.discard()?;
        self.is_somebody_waiting = true;
        let mut sockets: Vec<libc::pollfd> = self
            .service
            .interests()
            .map(|(fd, _)| libc::pollfd {
                fd,
                // A signal would have come for either.
                events: libc::POLLIN | libc::POLLOUT,
                revents: 0,
            })
            .collect();
        poll(&mut sockets)?;
        for socket in sockets {
            self.attend(socket.fd, ready_for(socket.revents.into()));
        }
        Ok(())
    }
}

/// Sends back what has come, in upper case if so desired, as far as it goes without waiting.
fn echo(connection: &mut Connection, upper: bool) -> io::Result<()> {
    if !connection.is_drained {
        let message = connection.receive()?;
        if upper {
            message.make_ascii_uppercase();
        }
    }
    // Without asking whether there is room: nearly always there is.
    connection.send()
}

/// Asks about all sockets at once, and does not wait.
fn poll(sockets: &mut [libc::pollfd]) -> io::Result<()> {
    let count = sockets.len() as libc::nfds_t;
    loop {
        // SAFETY: `sockets` points to as many elements as we say.
        match check(unsafe { libc::poll(sockets.as_mut_ptr(), count, 0) }) {
            // It has looked at all of them, found none ready, and then a signal that has a handler.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What the events of poll(2) mean, which signals carry as well.
fn ready_for(events: libc::c_long) -> Interest {
    let has = |flags: i16| events & libc::c_long::from(flags) != 0;
    // A broken connection is ready for everything: the attempt brings the error to light.
    let is_broken = has(libc::POLLERR | libc::POLLHUP);
    Interest {
        read: is_broken || has(libc::POLLIN),
        write: is_broken || has(libc::POLLOUT),
        ..Interest::NOTHING
    }
}

/// What was taken from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// Something has happened to the socket that has, or had, this descriptor.
    Ready(RawFd, Interest),
    /// The queue was full, and signals were lost.
    Overflow,
}

/// The queue of signals of the calling thread.
struct Signals {
    /// The real-time signal by which sockets tell of themselves.
    number: i32,
    /// That one.
    own: libc::sigset_t,
    /// That one, and the one that comes when the queue is full.
    all: libc::sigset_t,
    thread: libc::pid_t,
}

/// `siginfo_t`, as a signal of `F_SETSIG` fills it. The C library keeps the last two in a union.
#[repr(C)]
struct Information {
    signal: libc::c_int,
    error: libc::c_int,
    code: libc::c_int,
    band: libc::c_long,
    fd: libc::c_int,
}

const _: () = assert!(size_of::<Information>() <= size_of::<libc::siginfo_t>());
const _: () = assert!(align_of::<Information>() <= align_of::<libc::siginfo_t>());

/// `struct f_owner_ex`: who gets the signals. The process would do, too, but then any thread that
/// does not block them could be interrupted, and the first such signal would end the process.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

impl Signals {
    /// Keeps the signals in their queue from now on, for good: one that is still there when the
    /// server has ended would end the process if it were let out.
    fn block() -> io::Result<Signals> {
        let number = libc::SIGRTMIN();
        let (own, all) = (set_of(&[number]), set_of(&[number, libc::SIGIO]));
        // SAFETY: `all` is a valid set, and the old mask is not asked for.
        let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &all, ptr::null_mut()) };
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        Ok(Signals {
            number,
            own,
            all,
            // SAFETY: the call touches no memory of ours.
            thread: unsafe { libc::gettid() },
        })
    }

    /// Asks for a signal whenever something happens to a socket. It ends with the socket.
    fn ask(&self, fd: RawFd) -> io::Result<()> {
        let owner = Owner {
            kind: F_OWNER_TID,
            id: self.thread,
        };
        // SAFETY: `owner` is valid for the call, which keeps no pointer to it.
        check(unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) })?;
        // SAFETY: the call touches no memory of ours.
        check(unsafe { libc::fcntl(fd, F_SETSIG, self.number) })?;
        let on: libc::c_int = 1;
        // C libraries do not agree on the type of a request.
        let request = libc::FIOASYNC as _;
        // SAFETY: this request reads one int, from `on`.
        check(unsafe { libc::ioctl(fd, request, &raw const on) })
    }

    /// Takes the next signal, for which it waits if there is none, or for the time to be over.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Signal>> {
        let Some(information) = take(&self.all, timeout)? else {
            return Ok(None);
        };
        Ok(match information.signal {
            libc::SIGIO => Some(Signal::Overflow),
            // Somebody else has sent it, and it is about no socket.
            _ if information.code <= 0 => None,
            _ => Some(Signal::Ready(information.fd, ready_for(information.band))),
        })
    }

    /// Takes all signals that are there, whatever they are about.
    fn discard(&self) -> io::Result<()> {
        // Bounded, or peers that cause them faster than they are taken could keep us here.
        for _ in 0..DISCARDS_MAX {
            if take(&self.own, Some(Duration::ZERO))?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Takes a signal of `set`; `None` if the time is over, or a handler of another has run.
fn take(set: &libc::sigset_t, timeout: Option<Duration>) -> io::Result<Option<Information>> {
    let mut information = MaybeUninit::<libc::siginfo_t>::zeroed();
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `set` and `time` are valid or null, and the call writes to `information` only.
    if unsafe { libc::sigtimedwait(set, information.as_mut_ptr(), time) } < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        };
    }
    let information = information.as_ptr().cast::<Information>();
    // SAFETY: it is no longer and no more aligned than what was written, as is asserted above, and
    // consists of integers, which zeros are as well.
    Ok(Some(unsafe { information.read() }))
}

/// A set of signals.
fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call writes to `set` only.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: `set` was initialised, and these signals exist.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: it was initialised.
    unsafe { set.assume_init() }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));
    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn a_signal_tells_which_socket_and_what_for() {
        // Goal: what the kernel fills in is understood. Method: one of two sockets gets a byte, and
        // then the other one has its end.
        let signals = Signals::block().unwrap();
        let (mut first, mut at_first) = UnixStream::pair().unwrap();
        let (second, at_second) = UnixStream::pair().unwrap();
        for socket in [&first, &second] {
            signals.ask(socket.as_raw_fd()).unwrap();
        }
        assert_eq!(signals.wait(NOW).unwrap(), None);
        at_first.write_all(b"x").unwrap();
        let is_read = |signal, socket: &UnixStream| match signal {
            Some(Signal::Ready(fd, ready)) => fd == socket.as_raw_fd() && ready.read,
            _ => false,
        };
        assert!(is_read(signals.wait(PATIENCE).unwrap(), &first));
        assert_eq!(signals.wait(NOW).unwrap(), None, "it is told once");
        first.read_exact(&mut [0]).unwrap();
        drop(at_second);
        assert!(is_read(signals.wait(PATIENCE).unwrap(), &second));
    }

    #[test]
    fn discarded_signals_do_not_come_back() {
        // Goal: after an overflow the queue is empty. Method: more than one signal, and a look.
        let signals = Signals::block().unwrap();
        let (socket, mut other) = UnixStream::pair().unwrap();
        signals.ask(socket.as_raw_fd()).unwrap();
        for _ in 0..100 {
            other.write_all(b"x").unwrap();
        }
        signals.discard().unwrap();
        assert_eq!(signals.wait(NOW).unwrap(), None);
        other.write_all(b"x").unwrap();
        assert!(signals.wait(PATIENCE).unwrap().is_some());
    }
}
