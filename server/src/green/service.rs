//! Who is connected, and what is counted: the state that the green threads of a server share.
//!
//! They all run on one OS thread and only change places where they wait, so plain cells do.
//!
//! Deliberately not here: a single connection (`connection`), the limits (`admission`), and
//! anything that waits, except for the end of the last connection.

use crate::drain::Phase;
use crate::green::admission::Admission;
use crate::green::connection::Connection;
use crate::options::Options;
use crate::summary::Summary;
use log::{debug, info};
use runtime::net::{Shutdown, TcpStream};
use runtime::thread::{self, Thread};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) admission: Admission,
    pub(crate) buffer_bytes: usize,
    pub(crate) upper: bool,
    idle_timeout: Option<Duration>,
    phase: Cell<Phase>,
    /// The sockets of all connections, by number, for those who must end them.
    sockets: RefCell<HashMap<u64, Rc<TcpStream>>>,
    /// Who waits for the last connection to end.
    waiting: RefCell<Option<Thread>>,
    last_number: Cell<u64>,
    books: RefCell<Summary>,
}

impl Service {
    pub(crate) fn new(options: &Options) -> Rc<Service> {
        Rc::new(Service {
            admission: Admission::new(options.max_connections),
            buffer_bytes: options.buffer_bytes(),
            upper: options.upper,
            idle_timeout: options.idle_timeout,
            phase: Cell::new(Phase::Serving),
            sockets: RefCell::default(),
            waiting: RefCell::default(),
            last_number: Cell::new(0),
            books: RefCell::default(),
        })
    }

    /// Makes a connection of an accepted socket.
    pub(crate) fn welcome(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) -> Connection {
        if self.idle_timeout.is_some() {
            let reading = stream.set_read_timeout(self.idle_timeout);
            if let Err(error) = reading.and(stream.set_write_timeout(self.idle_timeout)) {
                // Only systems that refuse it for a connection that was reset already.
                debug!("{peer} has left before it was greeted: {error}");
            }
        }
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let socket = Rc::new(stream);
        self.sockets.borrow_mut().insert(number, socket.clone());
        self.admission.enter();
        let mut books = self.books.borrow_mut();
        books.peak = books.peak.max(self.admission.open());
        info!("connection {number} accepted from {peer}");
        Connection::new(number, socket, self.clone())
    }

    /// Shuts the sockets of all connections, so that their green threads find an end.
    pub(crate) fn shut_down(&self, how: Shutdown, phase: Phase) {
        self.phase.set(phase);
        for (number, socket) in self.sockets.borrow().iter() {
            if let Err(error) = socket.shutdown(how) {
                // The peer has reset it, which its green thread will find as well.
                debug!("connection {number} cannot be shut down: {error}");
            }
        }
    }

    /// Parks the caller until there is no connection or `timeout` has passed since `begin`; tells
    /// which.
    pub(crate) fn wait_until_empty(&self, begin: Instant, timeout: Duration) -> bool {
        self.waiting.replace(Some(thread::current()));
        while self.admission.open() > 0 {
            match timeout.checked_sub(begin.elapsed()) {
                Some(rest) if !rest.is_zero() => thread::park_timeout(rest),
                _ => break,
            }
        }
        self.waiting.take();
        self.admission.open() == 0
    }

    /// How far a graceful stop has come.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
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
        self.sockets.borrow_mut().remove(number);
        let mut books = self.books.borrow_mut();
        books.count(*number, ending, *bytes_in, *bytes_out);
        drop(books);
        self.admission.leave();
        if self.admission.open() == 0
            && let Some(waiting) = self.waiting.take()
        {
            waiting.unpark();
        }
    }

    /// Takes the books when everybody has left.
    pub(crate) fn summary(&self, failure: Option<io::Error>) -> Summary {
        Summary {
            failure,
            ..self.books.take()
        }
    }
}
