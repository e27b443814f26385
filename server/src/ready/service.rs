//! Who is connected, what is counted, and what is due: the state of an event loop.
//!
//! The clock is read once a round, and not at all while nothing depends on it.
//!
//! Deliberately not here: a single connection (`connection`), and the wait (see `models`).

use crate::drain::Phase;
use crate::ending::Ending;
use crate::farewell::LOOK_EVERY;
use crate::options::Options;
use crate::ready::connection::{Connection, Interest};
use crate::ready::idle::Idle;
use crate::ready::limits::Limits;
use crate::ready::steps::Steps;
use crate::summary::Summary;
use log::{info, warn};
use std::io::{self, ErrorKind};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// What a loop has to do about a connection after it has read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for the same as before.
    AsBefore,
    /// Wait for this from now on.
    WaitFor(Interest),
    /// Close it with [`Service::end`].
    End,
}

/// All connections of a loop.
#[derive(Debug)]
pub(crate) struct Service {
    /// Answer in upper case.
    pub(crate) upper: bool,
    buffer_bytes: usize,
    /// By descriptor: the kernel gives out the smallest one that is free, so the list is dense.
    connections: Vec<Option<Entry>>,
    /// Those who look for more before they end, and when.
    resting: Vec<RawFd>,
    next_look: Option<Instant>,
    idle: Option<Idle>,
    limits: Limits,
    steps: Steps,
    /// The time when this round began; only kept up while there are deadlines.
    now: Instant,
    last_number: u64,
    books: Summary,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    ending: Ending,
}

impl Service {
    pub(crate) fn new(options: &Options) -> Service {
        Service {
            upper: options.upper,
            buffer_bytes: options.buffer_bytes(),
            connections: Vec::new(),
            resting: Vec::new(),
            next_look: None,
            idle: options.idle_timeout.map(Idle::new),
            limits: Limits::new(options.max_connections),
            steps: Steps::new(options.drain_timeout),
            now: Instant::now(),
            last_number: 0,
            books: Summary::default(),
        }
    }

    /// Whether to accept, and so whether to watch the listener.
    pub(crate) fn may_accept(&self) -> bool {
        self.limits.may_accept() && !self.steps.has_begun()
    }

    /// Makes a connection of an accepted socket. It is to be watched for
    /// [`Interest::FIRST`].
    ///
    /// # Errors
    ///
    /// If the socket cannot be made non-blocking.
    pub(crate) fn welcome(&mut self, socket: TcpStream, peer: SocketAddr) -> io::Result<RawFd> {
        socket.set_nonblocking(true)?;
        Ok(self.enroll(socket, peer))
    }

    /// The same for a socket that waits as it does by itself.
    pub(crate) fn enroll(&mut self, socket: TcpStream, peer: SocketAddr) -> RawFd {
        self.last_number += 1;
        let fd = socket.as_raw_fd();
        let connection = Connection::new(self.last_number, socket, self.buffer_bytes);
        if let Some(idle) = &mut self.idle {
            self.now = connection.moved_at;
            idle.note_new(self.now);
        }
        let index = usize::try_from(fd).expect("a descriptor is not negative");
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(Entry {
            connection,
            ending: Ending::NeverStarted,
        });
        info!("connection {} accepted from {peer}", self.last_number);
        self.limits.enter();
        self.books.peak = self.books.peak.max(self.limits.open());
        fd
    }

    /// Decides whether accepting can go on after `error`: at once, or when there may be room again.
    ///
    /// # Errors
    ///
    /// `error` itself, if no accept can succeed any more.
    pub(crate) fn recover_from(&mut self, error: io::Error) -> io::Result<()> {
        self.now = Instant::now();
        self.limits.recover_from(error, self.now)
    }

    /// Closes a connection that cannot be watched, because of `error`, and accepts nobody for a
    /// while.
    pub(crate) fn refuse(&mut self, fd: RawFd, error: &io::Error) {
        self.now = Instant::now();
        self.end(fd);
        self.limits.pause(error, self.now);
    }

    /// The connection that has this descriptor, unless it has ended.
    pub(crate) fn connection(&mut self, fd: RawFd) -> Option<&mut Connection> {
        self.entry(fd).map(|entry| &mut entry.connection)
    }

    /// What every connection is to be watched for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (RawFd, Interest)> {
        self.all().map(|it| (it.fd(), it.wants()))
    }

    /// All descriptors that a connection may have.
    pub(crate) fn descriptors(&self) -> Range<RawFd> {
        0..RawFd::try_from(self.connections.len()).expect("descriptors are as many")
    }

    /// Decides how a connection goes on whose reading and writing came to `result`.
    pub(crate) fn settle(&mut self, fd: RawFd, result: io::Result<()>) -> Next {
        let (now, phase) = (self.now, self.steps.phase());
        let Some(Entry { connection, ending }) = self.connections[fd as usize].as_mut() else {
            return Next::AsBefore;
        };
        let mut is_over = phase == Phase::CutOff || result.is_err();
        let mut result = result;
        if connection.has_answered_all() && !is_over {
            if phase == Phase::Finishing && connection.rests_before_the_end() {
                self.resting.push(fd);
                self.next_look.get_or_insert(now + LOOK_EVERY);
            } else {
                is_over = true;
            }
        }
        if let Some(idle) = &self.idle {
            if mem::take(&mut connection.has_moved) {
                connection.moved_at = now;
            }
            if !is_over && idle.is_over(connection, now) {
                (is_over, result) = (true, Err(ErrorKind::TimedOut.into()));
            }
        }
        if is_over {
            *ending = Ending::of(phase, result);
            return Next::End;
        }
        let wants = connection.wants();
        if mem::replace(&mut connection.watched, wants) == wants {
            Next::AsBefore
        } else {
            Next::WaitFor(wants)
        }
    }

    /// Closes a connection and enters it into the books.
    pub(crate) fn end(&mut self, fd: RawFd) {
        let entry = self.connections.get_mut(fd as usize).and_then(Option::take);
        let Some(Entry { connection, ending }) = entry else {
            return;
        };
        if matches!(ending, Ending::Drained) {
            // If more has arrived since, closing would reset the connection, and the peer might
            // never see that the stream had ended in order. This way it learns of the end first.
            connection.shut_down(Shutdown::Write);
        }
        let Connection {
            number,
            bytes_in,
            bytes_out,
            ..
        } = connection;
        self.books.count(number, &ending, bytes_in, bytes_out);
        self.limits.leave();
    }

    /// How long a loop may wait: until the next deadline, if there is one.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        Some(self.deadline()?.saturating_duration_since(self.now))
    }

    /// Takes the steps that are due, and tells which connections have to be tried in both
    /// directions and settled although the kernel may have nothing to tell of them.
    pub(crate) fn tick(&mut self) -> Vec<RawFd> {
        let mut due = Vec::new();
        if self.deadline().is_none() {
            return due;
        }
        self.now = Instant::now();
        self.limits.tick(self.now);
        while let Some(phase) = self.steps.advance(self.now) {
            self.enter(phase);
            due = self.all().map(Connection::fd).collect();
        }
        if self.next_look.is_some_and(|at| at <= self.now) {
            self.next_look = None;
            for fd in mem::take(&mut self.resting) {
                if let Some(connection) = self.connection(fd) {
                    connection.is_resting = false;
                    due.push(fd);
                }
            }
        }
        if let Some(idle) = &mut self.idle {
            let all = self.connections.iter().flatten();
            idle.look(all.map(|entry| &entry.connection), self.now, &mut due);
        }
        due
    }

    /// Begins a graceful stop. Nobody is accepted any more.
    pub(crate) fn finish(&mut self) {
        self.now = Instant::now();
        self.steps.begin(self.now);
        let (open, timeout) = (self.limits.open(), self.steps.timeout());
        if open > 0 {
            info!("{open} connections may finish for {timeout:?}");
        }
    }

    /// Whether everybody has left after a stop.
    pub(crate) fn is_over(&self) -> bool {
        self.steps.has_begun() && self.limits.open() == 0
    }

    /// Takes the books.
    pub(crate) fn summary(self, failure: Option<io::Error>) -> Summary {
        Summary {
            failure,
            ..self.books
        }
    }

    fn enter(&mut self, phase: Phase) {
        let open = self.limits.open();
        match phase {
            Phase::Serving => {}
            Phase::Finishing => {
                info!("no more is read: {open} connections answer what has arrived");
                self.all().for_each(|it| it.shut_down(Shutdown::Read));
            }
            Phase::CutOff => {
                let timeout = self.steps.timeout();
                warn!("{open} connections are cut off after {timeout:?}");
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let idle = self.idle.as_ref().and_then(Idle::deadline);
        let own = [self.limits.deadline(), self.steps.deadline()];
        let all = own.into_iter().chain([self.next_look, idle]);
        all.flatten().min()
    }

    fn entry(&mut self, fd: RawFd) -> Option<&mut Entry> {
        // No descriptor of a connection is negative, so that a stray one becomes a very large one.
        self.connections.get_mut(fd as usize)?.as_mut()
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten().map(|it| &it.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept_error::PAUSE_MAX;
    use clap::Parser;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn service(arguments: &[&str]) -> Service {
        let all = ["server"].iter().chain(arguments);
        Service::new(&Options::try_parse_from(all).unwrap())
    }

    /// One connection more, and its peer.
    fn join(service: &mut Service) -> (RawFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        (service.welcome(socket, address).unwrap(), peer)
    }

    /// What a loop does about a connection that is ready or due.
    fn attend(service: &mut Service, fd: RawFd) -> Next {
        let Some(connection) = service.connection(fd) else {
            return Next::AsBefore;
        };
        let result = connection.receive().map(|_| ());
        let result = result.and_then(|()| connection.send());
        let next = service.settle(fd, result);
        if next == Next::End {
            service.end(fd);
        }
        next
    }

    /// Writes until neither the kernel nor the connection takes any more, and tells how much they
    /// took.
    fn write_until_stuck(service: &mut Service, fd: RawFd, peer: &mut TcpStream) -> usize {
        // One vain attempt may only mean that the kernel has not passed on yet what it has.
        const VAIN_MAX: u32 = 1000;
        peer.set_nonblocking(true).unwrap();
        let (mut sent, mut vain) = (0, 0);
        while vain < VAIN_MAX {
            match peer.write(&[1; 4096]) {
                Ok(count) => (sent, vain) = (sent + count, 0),
                Err(_) => vain += 1,
            }
            attend(service, fd);
        }
        peer.set_nonblocking(false).unwrap();
        sent
    }

    /// How many bytes that were written the other end has not acknowledged: the rest have arrived.
    #[cfg(target_os = "linux")]
    fn unacknowledged(peer: &TcpStream) -> usize {
        let mut count: libc::c_int = 0;
        // SAFETY: this request writes one int, to `count`, and the descriptor is open.
        let result = unsafe { libc::ioctl(peer.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
        assert_eq!(result, 0);
        count as usize
    }

    /// Goes on until all have left. Everybody is tried in every round, ready or not.
    fn see_out(service: &mut Service) {
        while !service.is_over() {
            service.tick();
            for fd in service.descriptors() {
                attend(service, fd);
            }
        }
    }

    #[test]
    fn a_connection_is_counted_from_its_beginning_to_its_end() {
        // Goal: the books. Method: one connection that says something and leaves, one that is
        // refused, one that is reset.
        let mut service = service(&[]);
        let (fd, mut peer) = join(&mut service);
        peer.write_all(b"four").unwrap();
        drop(peer);
        while attend(&mut service, fd) != Next::End {}
        assert!(service.connection(fd).is_none());
        let (fd, _peer) = join(&mut service);
        service.refuse(fd, &io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(!service.may_accept());
        let (fd, peer) = join(&mut service);
        service.settle(fd, Err(io::Error::from_raw_os_error(libc::ECONNRESET)));
        service.end(fd);
        drop(peer);
        let books = service.summary(None);
        assert_eq!((books.served, books.refused, books.peak), (2, 1, 1));
        assert_eq!((books.bytes_in, books.bytes_out), (4, 4));
        assert_eq!(books.errors["connection reset"], 1);
    }

    #[test]
    fn without_deadlines_there_is_no_clock() {
        // Goal: waiting costs nothing when nothing can be due. Method: asks before, during and
        // after a connection.
        let mut service = service(&[]);
        let (fd, _peer) = join(&mut service);
        assert_eq!((service.next_timeout(), service.tick()), (None, Vec::new()));
        assert_eq!(attend(&mut service, fd), Next::AsBefore);
        service.end(fd);
        assert_eq!(service.next_timeout(), None);
    }

    #[test]
    fn the_idle_are_ended_and_the_busy_are_not() {
        // Goal: --idle-timeout. Method: one connection that says something before it is looked at,
        // one that does not.
        let mut service = service(&["--idle-timeout", "50ms"]);
        let (silent, _silent) = join(&mut service);
        let (busy, mut peer) = join(&mut service);
        while service.tick().is_empty() {
            std::thread::sleep(service.next_timeout().expect("two may be idle"));
        }
        peer.write_all(b"here").unwrap();
        assert_eq!(attend(&mut service, silent), Next::End);
        // It has come already when write returns: this is the loopback.
        assert_eq!(attend(&mut service, busy), Next::AsBefore);
        assert_eq!(service.summary(None).idle, 1);
    }

    #[test]
    fn a_stop_answers_and_sees_everybody_out() {
        // Goal: the steps of a stop. Method: an idle connection, one with a message, one that has
        // left; nobody is accepted any more.
        let mut service = service(&["--drain-timeout", "60s"]);
        let (_, mut idle) = join(&mut service);
        let (_, mut speaking) = join(&mut service);
        let (_, leaving) = join(&mut service);
        drop(leaving);
        speaking.write_all(b"and me?").unwrap();
        service.finish();
        assert!(!service.may_accept() && !service.is_over());
        see_out(&mut service);
        let mut answer = Vec::new();
        speaking.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"and me?");
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        let books = service.summary(None);
        assert_eq!((books.served, books.cut_off), (3, 0));
        assert!(books.errors.is_empty());
    }

    // Other kernels throw away what has arrived: see `drain`.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_stop_waits_for_who_reads_late() {
        // Goal: what has arrived is answered, although at first nobody takes the answers and the
        // peer's kernel holds more. Method: a peer that sends until nobody takes more, and reads
        // when nothing is read from it any more.
        let mut service = service(&["--drain-timeout", "60s"]);
        let (fd, mut peer) = join(&mut service);
        let sent = write_until_stuck(&mut service, fd, &mut peer);
        let arrived = sent - unacknowledged(&peer);
        service.finish();
        while service.steps.phase() == Phase::Serving {
            service.tick();
        }
        let reader = std::thread::spawn(move || {
            let mut answer = Vec::new();
            peer.read_to_end(&mut answer).unwrap();
            answer.len()
        });
        see_out(&mut service);
        let answered = reader.join().unwrap();
        // All that was sent, unless the peer's kernel waited too long to repeat a segment.
        println!("{answered} bytes of {sent} came back");
        assert!(answered >= arrived, "{answered} of {arrived}");
        let books = service.summary(None);
        assert_eq!((books.bytes_out, books.cut_off), (answered as u64, 0));
    }

    #[test]
    fn a_shortage_after_a_long_wait_is_short() {
        // Goal: a pause counts from now, not from when the clock was last read. Method: an old
        // reading, then a shortage, and at once the next round.
        let mut service = service(&[]);
        service.now = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        service.recover_from(error).unwrap();
        assert!(service.next_timeout().expect("a pause ends") <= PAUSE_MAX);
        service.tick();
        assert!(!service.may_accept());
    }

    #[test]
    fn who_does_not_finish_is_cut_off() {
        // Goal: --drain-timeout. Method: a peer that takes nothing back, with answers waiting.
        let mut service = service(&["--drain-timeout", "20ms"]);
        let (fd, mut peer) = join(&mut service);
        write_until_stuck(&mut service, fd, &mut peer);
        service.finish();
        see_out(&mut service);
        assert_eq!(service.summary(None).cut_off, 1);
    }
}
