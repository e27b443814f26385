//! Who is connected, how many may be, and what is counted: what the threads of a server share.
//!
//! One lock guards it all. It is taken a few times in the life of a connection and held for
//! moments, so there is nothing to gain from a finer one.
//!
//! At the limit of connections, and when the system is short of descriptors or memory, nobody is
//! refused: who connects then waits in the listen queue until a connection has ended.
//!
//! Man pages: accept(2), poll(2), socket(7) (SO_RCVTIMEO, SO_SNDTIMEO). Deliberately not here: a
//! single connection (`connection`), the steps of a stop (`drain`).

use crate::accept_error::{Fault, PAUSE_MAX, Shortages};
use crate::blocking::connection::Connection;
use crate::drain::Phase;
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use crate::wait::wait_for_any;
use log::{debug, info};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) buffer_bytes: usize,
    pub(crate) upper: bool,
    idle_timeout: Option<Duration>,
    limit: Option<NonZeroUsize>,
    state: Mutex<State>,
    /// Notified when a connection has ended, when nobody will be accepted any more, and when the
    /// phase changes.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Whether there may still be new connections.
    accepting: bool,
    /// The sockets of all connections, by number, for those who must end them.
    sockets: HashMap<u64, Arc<TcpStream>>,
    last_number: u64,
    shortages: Shortages,
    books: Summary,
}

impl Service {
    /// A service that holds at most `limit` connections.
    pub(crate) fn new(options: &Options, limit: Option<NonZeroUsize>) -> Arc<Service> {
        let state = State {
            phase: Phase::Serving,
            accepting: true,
            sockets: HashMap::new(),
            last_number: 0,
            shortages: Shortages::default(),
            books: Summary::default(),
        };
        Arc::new(Service {
            buffer_bytes: options.buffer_bytes(),
            upper: options.upper,
            idle_timeout: options.idle_timeout,
            limit,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Gives the next connection this number: in a process of its own it would always be the first.
    pub(crate) fn number_from(&self, number: u64) {
        self.state().last_number = number - 1;
    }

    /// Blocks until there is room for a client, and a client. `false` means that no more are to be
    /// accepted: a stop was requested and nobody is left in the queue, or waited too long.
    ///
    /// # Errors
    ///
    /// If it cannot be waited.
    pub(crate) fn wait_for_client(&self, listener: &TcpListener, stop: &Stop) -> io::Result<bool> {
        if !self.wait_for_room() {
            return Ok(false);
        }
        // A blocked accept would not hear of a stop, so both are waited for before it is called.
        loop {
            let fds = [Some(listener.as_fd()), Some(stop.as_fd())];
            match wait_for_any(fds, None)? {
                [true, _] => return Ok(true),
                [false, true] => return Ok(false),
                // A signal; if it asks for a stop, the next look tells.
                [false, false] => {}
            }
        }
    }

    fn wait_for_room(&self) -> bool {
        let has_room = |state: &State| {
            let open = state.sockets.len();
            self.limit.is_none_or(|limit| open < limit.get())
        };
        let mut state = self.state();
        if !has_room(&state) {
            let open = state.sockets.len();
            info!("{open} connections, which is the limit: the next wait until one ends");
            state = self.wait_while(state, |state| {
                !has_room(state) && state.phase != Phase::CutOff
            });
        }
        state.phase != Phase::CutOff
    }

    /// Decides whether accepting can go on after `error`, and waits before it does if it must.
    ///
    /// # Errors
    ///
    /// `error` itself, if no accept can succeed any more.
    pub(crate) fn recover_from(&self, error: io::Error) -> io::Result<()> {
        if error.kind() == ErrorKind::WouldBlock {
            // The client has left, or somebody else was faster.
            return Ok(());
        }
        match Fault::of(&error) {
            Fault::Peer => Ok(()),
            Fault::Shortage => {
                self.pause(0, &error);
                Ok(())
            }
            Fault::Listener => Err(error),
        }
    }

    /// Blocks until a connection ends, but not long. Of those there are, `unserved` lack a thread.
    pub(crate) fn pause(&self, unserved: usize, error: &io::Error) {
        let mut state = self.state();
        let served = state.sockets.len() - unserved;
        state.shortages.note(served, error);
        let waited = self.changed.wait_timeout(state, PAUSE_MAX);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes a connection of an accepted socket.
    pub(crate) fn welcome(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Connection {
        if let Err(error) = self.configure(&stream) {
            // Only systems that refuse it for a connection that was reset already.
            debug!("{peer} has left before it was greeted: {error}");
        }
        let socket = Arc::new(stream);
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        if state.phase == Phase::Finishing {
            shut_down(number, &socket, Shutdown::Read);
        }
        state.sockets.insert(number, Arc::clone(&socket));
        state.books.peak = state.books.peak.max(state.sockets.len());
        drop(state);
        info!("connection {number} accepted from {peer}");
        Connection::new(number, socket, Arc::clone(self))
    }

    fn configure(&self, stream: &TcpStream) -> io::Result<()> {
        // Elsewhere than on Linux a socket is accepted with the mode of its listener.
        #[cfg(not(target_os = "linux"))]
        stream.set_nonblocking(false)?;
        if self.idle_timeout.is_some() {
            stream.set_read_timeout(self.idle_timeout)?;
            stream.set_write_timeout(self.idle_timeout)?;
        }
        Ok(())
    }

    /// Shuts the sockets of all connections, so that whoever is blocked on one finds an end.
    pub(crate) fn shut_down(&self, how: Shutdown, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        for (number, socket) in &state.sockets {
            shut_down(*number, socket, how);
        }
        self.changed.notify_all();
    }

    /// Tells that nobody will be accepted any more.
    pub(crate) fn close(&self) {
        self.state().accepting = false;
        self.changed.notify_all();
    }

    /// Blocks until there is no connection and will be none, or `timeout` has passed since `begin`;
    /// tells which.
    pub(crate) fn wait_until_empty(&self, begin: Instant, timeout: Duration) -> bool {
        let rest = timeout.saturating_sub(begin.elapsed());
        let waited = self
            .changed
            .wait_timeout_while(self.state(), rest, |state| !state.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.state().sockets.len()
    }

    /// How far a graceful stop has come.
    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Enters a connection that ends into the books.
    pub(crate) fn count_out(&self, connection: &Connection) {
        let Connection {
            number,
            bytes_in,
            bytes_out,
            ending,
            ..
        } = connection;
        let mut state = self.state();
        state.books.count(*number, ending, *bytes_in, *bytes_out);
        state.sockets.remove(number);
        drop(state);
        self.changed.notify_all();
    }

    /// Takes the books when everybody has left.
    pub(crate) fn summary(&self, failure: Option<io::Error>) -> Summary {
        Summary {
            failure,
            ..std::mem::take(&mut self.state().books)
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_while(state, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.sockets.is_empty() && !self.accepting
    }
}

fn shut_down(number: u64, socket: &TcpStream, how: Shutdown) {
    if let Err(error) = socket.shutdown(how) {
        // The peer has reset it, which whoever serves it will find as well.
        debug!("connection {number} cannot be shut down: {error}");
    }
}
