//! One connection of an event loop: a socket that never waits, and what it still has to send.
//!
//! It has one buffer. What has been read and not yet sent is the output queue, and lies in it from
//! `begin` to `end`:
//!
//! ```text
//!       0          begin              end            buffer.len()
//!       +------------+-----------------+------------------+
//!       |    sent    |  to be sent     |  room for more   |
//!       +------------+-----------------+------------------+
//! ```
//!
//! Mostly the kernel takes everything at once, and the queue is empty again before anybody looks.
//! When it does not, its own buffer is full because the peer reads slowly. Then nothing is thrown
//! away and nobody waits: the rest stays in the queue, the loop watches for room, and reads on
//! until the buffer is full, too. A peer that never reads costs that one buffer, and ends up
//! waiting itself.
//!
//! The buffer begins small: those of many connections with small messages then lie close together
//! and stay in the caches. A read that fills it doubles it, up to `--buffer`.
//!
//! Man pages: recv(2), send(2), tcp(7) ("Sockets API": urgent data). Deliberately not here: what a
//! readiness means, and when a connection is over (see `service`).

use crate::farewell::Farewell;
use log::{debug, info};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

/// What a connection's buffer begins with.
const BUFFER_BYTES_FIRST: usize = 512;

/// What a socket is to be watched for, or is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Urgent data, which select calls an exceptional condition.
    pub(crate) urgent: bool,
}

impl Interest {
    pub(crate) const NOTHING: Interest = Interest {
        read: false,
        write: false,
        urgent: false,
    };
    /// A listener's.
    pub(crate) const READ: Interest = Interest {
        read: true,
        ..Interest::NOTHING
    };
    /// A new connection's.
    pub(crate) const FIRST: Interest = Interest {
        urgent: true,
        ..Interest::READ
    };
    /// To try both, whatever the kernel may know.
    pub(crate) const BOTH: Interest = Interest {
        write: true,
        ..Interest::READ
    };

    /// This, or nothing.
    pub(crate) fn when(self, condition: bool) -> Interest {
        if condition { self } else { Interest::NOTHING }
    }
}

/// A connection of an event loop. Dropping it closes its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(super) socket: TcpStream,
    pub(super) buffer: Vec<u8>,
    buffer_bytes_max: usize,
    pub(super) begin: usize,
    pub(super) end: usize,
    /// A read has found the end of the stream.
    pub(super) is_at_end: bool,
    /// It has found the end, and looks again in a moment.
    pub(super) is_resting: bool,
    /// The last read has found nothing.
    pub(crate) is_drained: bool,
    /// It is over, but an operation is still under way on it (see `lending`).
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "nothing lends there")
    )]
    pub(crate) is_leaving: bool,
    /// Something has come or gone since anybody asked.
    pub(super) has_moved: bool,
    /// When it was last noticed that something had.
    pub(super) moved_at: Instant,
    /// What the loop watches it for.
    pub(super) watched: Interest,
    pub(super) farewell: Farewell,
}

impl Connection {
    /// `socket` must be non-blocking.
    pub(super) fn new(number: u64, socket: TcpStream, buffer_bytes_max: usize) -> Connection {
        Connection {
            number,
            bytes_in: 0,
            bytes_out: 0,
            socket,
            buffer: vec![0; BUFFER_BYTES_FIRST.min(buffer_bytes_max)],
            buffer_bytes_max,
            begin: 0,
            end: 0,
            is_at_end: false,
            is_resting: false,
            is_drained: false,
            is_leaving: false,
            has_moved: false,
            moved_at: Instant::now(),
            watched: Interest::FIRST,
            farewell: Farewell::default(),
        }
    }

    /// Reads once, if there is room for what may come, and gives back what has come: nothing, if
    /// nothing is there or the stream has ended. It is in the output queue already.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(crate) fn receive(&mut self) -> io::Result<&mut [u8]> {
        if self.wants().read {
            match self.socket.read(&mut self.buffer[self.end..]) {
                Ok(count) => return Ok(self.take_in(count)),
                Err(error) if is_for_later(&error) => {
                    self.is_drained = error.kind() == ErrorKind::WouldBlock;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(&mut [])
    }

    /// Sends what is in the queue, once, and keeps what the kernel does not take.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if !self.has_output() {
            return Ok(());
        }
        match self.socket.write(&self.buffer[self.begin..self.end]) {
            Ok(count) => {
                self.take_out(count);
                Ok(())
            }
            Err(error) if is_for_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds what has been read into the buffer to the queue, and gives it back. Nothing is the end.
    pub(super) fn take_in(&mut self, count: usize) -> &mut [u8] {
        let (is_first, begin) = (!self.has_output(), self.end);
        self.is_at_end |= count == 0;
        self.end += count;
        self.bytes_in += count as u64;
        // A peer that says much and takes nothing is as good as gone.
        self.has_moved |= is_first && count > 0;
        if self.end == self.buffer.len() {
            let bytes = (2 * self.end).min(self.buffer_bytes_max);
            self.buffer.resize(bytes, 0);
        }
        &mut self.buffer[begin..self.end]
    }

    /// Takes what has been sent from the queue.
    pub(super) fn take_out(&mut self, count: usize) {
        self.begin += count;
        self.bytes_out += count as u64;
        self.has_moved = true;
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }

    /// Takes urgent data out of the way, for which select and poll would report the connection as
    /// exceptional again and again. TCP has room for one urgent byte, which is no part of the
    /// stream, and it is the stream that is echoed.
    pub(crate) fn set_urgent_aside(&mut self) {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&self.socket).recv_out_of_band(&mut byte) {
            Ok(_) => info!(
                "connection {}: an urgent byte is not echoed (MSG_OOB)",
                self.number
            ),
            Err(error) => debug!("connection {}: no urgent byte: {error}", self.number),
        }
    }

    /// What to watch it for: more to read as long as there is room for it, and room at the kernel
    /// only while there is something to send. A socket nearly always has room, so that a loop which
    /// always watched for it would never wait.
    pub(crate) fn wants(&self) -> Interest {
        let has_room = self.end < self.buffer.len() || !self.has_output();
        let read = has_room && !self.is_at_end && !self.is_resting;
        Interest {
            read,
            write: self.has_output(),
            urgent: read,
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether the stream has ended and everything in it is sent.
    pub(super) fn has_answered_all(&self) -> bool {
        self.is_at_end && !self.has_output()
    }

    /// Decides, when there is no more to read, whether to rest and look again.
    pub(super) fn rests_before_the_end(&mut self) -> bool {
        self.is_resting = self.farewell.worth_waiting(&self.socket, self.bytes_in);
        self.is_at_end = !self.is_resting;
        self.is_resting
    }

    pub(super) fn shut_down(&self, how: Shutdown) {
        if let Err(error) = self.socket.shutdown(how) {
            // The peer has reset it, which the next read or write will find as well.
            debug!("connection {} cannot be shut down: {error}", self.number);
        }
    }

    fn has_output(&self) -> bool {
        self.begin < self.end
    }
}

/// Whether it only means that nothing can be had at the moment.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A connection with a buffer of so many bytes, and its peer.
    fn pair(buffer_bytes: usize) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Connection::new(1, socket, buffer_bytes), peer)
    }

    /// Reads until something has come, or the end.
    fn receive_some(connection: &mut Connection) -> Vec<u8> {
        loop {
            let bytes = connection.receive().unwrap().to_vec();
            if !bytes.is_empty() || connection.is_at_end {
                return bytes;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_comes_goes_back() {
        // Goal: the ordinary way: read, sent at once, nothing left to wait for. Method: one message
        // and the end.
        let (mut connection, mut peer) = pair(8192);
        assert!(connection.receive().unwrap().is_empty());
        peer.write_all(b"hello").unwrap();
        assert_eq!(receive_some(&mut connection), b"hello");
        assert!(connection.wants().write && connection.wants().read);
        connection.send().unwrap();
        assert_eq!(connection.wants(), Interest::FIRST);
        let mut answer = [0; 5];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(receive_some(&mut connection).is_empty());
        assert!(connection.has_answered_all());
        assert_eq!((connection.bytes_in, connection.bytes_out), (5, 5));
    }

    #[test]
    fn a_full_buffer_is_not_read_into() {
        // Goal: a peer that takes nothing costs one buffer, and saying more does not keep it from
        // being idle. Method: fills it without sending, and lets it go.
        let (mut connection, mut peer) = pair(600);
        peer.write_all(&[7; 1000]).unwrap();
        let mut count = receive_some(&mut connection).len();
        connection.has_moved = false;
        while connection.wants().read {
            count += connection.receive().unwrap().len();
        }
        assert_eq!(count, 600);
        assert!(!connection.has_moved);
        assert!(connection.receive().unwrap().is_empty());
        assert!(connection.wants().write && !connection.wants().urgent);
        connection.send().unwrap();
        assert_eq!(connection.wants(), Interest::FIRST);
    }

    #[test]
    fn what_the_kernel_does_not_take_is_kept() {
        // Goal: nothing is forgotten, repeated or exchanged when the kernel's buffers are full.
        // Method: a peer that writes much before it reads; what comes back is compared.
        let (mut connection, mut peer) = pair(8192);
        SockRef::from(&peer).set_recv_buffer_size(1 << 16).unwrap();
        let socket = SockRef::from(&connection.socket);
        socket.set_send_buffer_size(1 << 16).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
        let expected = sent.clone();
        let mut reader = peer.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            peer.write_all(&sent).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
        });
        let mut was_full = false;
        while !was_full {
            connection.receive().unwrap();
            connection.send().unwrap();
            was_full = connection.wants().write && !connection.wants().read;
        }
        let checker = std::thread::spawn(move || {
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).unwrap();
            assert!(answer == expected, "{} bytes came back", answer.len());
        });
        while !connection.has_answered_all() {
            connection.receive().unwrap();
            connection.send().unwrap();
        }
        assert_eq!(connection.bytes_in, connection.bytes_out);
        drop(connection);
        writer.join().unwrap();
        checker.join().unwrap();
    }

    #[test]
    fn urgent_bytes_stay_out_of_the_stream() {
        // Goal: MSG_OOB neither reaches the echo nor breaks it. Method: a message with an urgent
        // byte in its middle.
        let (mut connection, peer) = pair(8192);
        (&peer).write_all(b"before").unwrap();
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        (&peer).write_all(b"after").unwrap();
        let mut stream: Vec<u8> = Vec::new();
        while stream.len() < 11 {
            connection.set_urgent_aside();
            stream.extend(connection.receive().unwrap().iter());
        }
        assert_eq!(stream, b"beforeafter");
    }
}
