//! One connection: its socket, its counts, and how it came to its end.
//!
//! To the code that echoes it is something to read from and to write to. It counts itself out when
//! it is dropped, so that neither an error nor a panic can make the books wrong.
//!
//! Man pages: tcp(7), shutdown(2), signal(7) ("Interruption of system calls"). Deliberately not
//! here: the books (see `service`).

use crate::blocking::service::Service;
use crate::drain::Phase;
use crate::ending::Ending;
use crate::farewell::{Farewell, LOOK_EVERY};
use log::debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

/// A connection of the server. Dropping it closes its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) ending: Ending,
    socket: Arc<TcpStream>,
    service: Arc<Service>,
    farewell: Farewell,
}

impl Connection {
    pub(crate) fn new(number: u64, socket: Arc<TcpStream>, service: Arc<Service>) -> Connection {
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

    /// Remembers that somebody serves it, who from now on has the say about the end.
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
            match (&*self.socket).read(buffer) {
                Ok(0)
                    if self.service.phase() == Phase::Finishing
                        && self.farewell.worth_waiting(&self.socket, self.bytes_in) =>
                {
                    thread::sleep(LOOK_EVERY);
                }
                Ok(count) => {
                    self.bytes_in += count as u64;
                    return Ok(count);
                }
                // A call with a time-out is not restarted after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
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
