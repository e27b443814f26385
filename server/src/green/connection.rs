//! One connection: its socket, its counts, and how it came to its end.
//!
//! To the code that echoes it is something to read from and to write to. It counts itself in when
//! it is made and out when it is dropped, so that neither an error nor a panic can make the books
//! wrong.
//!
//! Man pages: tcp(7), shutdown(2). Deliberately not here: the books (see `service`).

use crate::drain::Phase;
use crate::ending::Ending;
use crate::farewell::{Farewell, LOOK_EVERY};
use crate::green::service::Service;
use log::debug;
use runtime::net::{Shutdown, TcpStream};
use runtime::thread;
use std::io::{self, Read, Write};
use std::rc::Rc;

/// A connection of the server. Dropping it closes its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) ending: Ending,
    socket: Rc<TcpStream>,
    service: Rc<Service>,
    farewell: Farewell,
}

impl Connection {
    pub(crate) fn new(number: u64, socket: Rc<TcpStream>, service: Rc<Service>) -> Connection {
        Connection {
            number,
            bytes_in: 0,
            bytes_out: 0,
            ending: Ending::NeverStarted,
            socket,
            service,
            farewell: Farewell::default(),
        }
    }

    /// Remembers that the green thread is there, which from now on has the say about the end.
    pub(crate) fn begin(&mut self) {
        self.ending = Ending::Unwound;
    }

    /// Closes the connection. `result` is what echoing on it came to.
    pub(crate) fn end(mut self, result: io::Result<()>) {
        self.ending = Ending::of(self.service.phase(), result);
        if matches!(self.ending, Ending::Drained) {
            // If more has arrived since, closing would reset the connection, and the peer might
            // never see that the stream had ended in order. This way it learns of the end first.
            if let Err(error) = self.socket.shutdown(Shutdown::Write) {
                debug!("connection {} was gone already: {error}", self.number);
            }
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = (&*self.socket).read(buffer)?;
            if count == 0
                && self.service.phase() == Phase::Finishing
                && self.farewell.worth_waiting(&*self.socket, self.bytes_in)
            {
                thread::sleep(LOOK_EVERY);
                continue;
            }
            self.bytes_in += count as u64;
            return Ok(count);
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = (&*self.socket).write(bytes)?;
        self.bytes_out += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.service.count_out(self);
    }
}
