//! One connection: its socket, its counts, and how it came to its end.
//!
//! To the code that echoes it is something to read from and to write to. It counts itself in when
//! it is made and out when it is dropped, so that neither an error nor a panic can make the books
//! wrong.
//!
//! Man pages: tcp(7), shutdown(2). Deliberately not here: the books (see `service`).

use crate::farewell::Farewell;
use crate::service::{Phase, Service};
use log::debug;
use runtime::net::{Shutdown, TcpStream};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
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

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// There was no memory for its green thread.
    NeverStarted,
    /// Its green thread panicked, or was unwound with the end of the process.
    Unwound,
    /// The peer had sent its last byte, and has every answer.
    Finished,
    /// It was told to finish, and has.
    Drained,
    /// It was told to finish, and had not when the time was over.
    CutOff,
    /// Nothing came or went for the idle time-out.
    Idle,
    Failed(io::Error),
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
        self.ending = match (self.service.phase(), result) {
            (Phase::Serving, Ok(())) => Ending::Finished,
            (Phase::Finishing, Ok(())) => Ending::Drained,
            (Phase::CutOff, _) => Ending::CutOff,
            (_, Err(error)) if is_time_out(&error) => Ending::Idle,
            (_, Err(error)) => Ending::Failed(error),
        };
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
                && self.farewell.worth_waiting(&self.socket, self.bytes_in)
            {
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

/// Whether it is our time-out that passed. The kernel's own, when a peer has vanished, has a
/// number.
fn is_time_out(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || (error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none())
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Ending::NeverStarted => "there was no memory for its green thread",
            Ending::Unwound => "its green thread was unwound",
            Ending::Finished => "the peer had finished",
            Ending::Drained => "the server is stopping",
            Ending::CutOff => "the drain time-out passed",
            Ending::Idle => "it was idle",
            Ending::Failed(error) => return error.fmt(formatter),
        })
    }
}
