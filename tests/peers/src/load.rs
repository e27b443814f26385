//! The load: connections that each send a message, wait for its echo, compare it byte for byte and
//! send the next. One thread, one edge-triggered epoll loop.
//!
//! Outside the layers. Rests on epoll(7), tcp(7). Deliberately not here: the product's own client,
//! which is to be measured by something that does not change with it; latencies, which one busy
//! processor on each side turns into queueing times.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::epoll::{self, Epoll};

/// The longest message: one that an empty socket buffer always takes whole.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// How long the last replies may take to arrive once no more is sent.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How many decimal digits count the messages of a connection.
const COUNTER_DIGITS: usize = 10;

/// One connection with the message that is on its way.
struct Connection {
    stream: TcpStream,
    message: Box<[u8]>,
    /// Where the counter's last digit lies.
    counter_end: usize,
    /// How much of the reply has arrived; the whole size when nothing is on its way.
    received: usize,
}

impl Connection {
    /// Puts the next number into the message and sends it.
    #[inline]
    fn send(&mut self) -> io::Result<()> {
        for digit in self.message[..self.counter_end]
            .iter_mut()
            .rev()
            .take(COUNTER_DIGITS)
        {
            if *digit != b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        self.received = 0;
        let sent = (&self.stream).write(&self.message)?;
        if sent == self.message.len() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the socket took only {sent} bytes of a message"
        )))
    }

    /// Takes what has arrived and compares it; true when the reply is complete.
    #[inline]
    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        loop {
            let count = match (&self.stream).read(scratch) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let expected = self.message.get(self.received..self.received + count);
            if expected != Some(&scratch[..count]) {
                return Err(io::Error::other("a reply differs from its message"));
            }
            self.received += count;
            if self.received == self.message.len() {
                return Ok(true);
            }
        }
    }
}

/// The connections, the loop and its buffers.
pub(crate) struct Load {
    epoll: Epoll,
    connections: Vec<Connection>,
    events: Vec<libc::epoll_event>,
    scratch: Box<[u8]>,
}

/// What one measured stretch of load came to. Nothing is under way before it or after it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Stretch {
    /// Messages sent, echoed and compared.
    pub(crate) requests: u64,
    /// From the first message to the last reply.
    pub(crate) elapsed: Duration,
}

impl Load {
    /// Opens the connections.
    pub(crate) fn connect(
        address: SocketAddr,
        connections: usize,
        message_bytes: usize,
    ) -> io::Result<Load> {
        let epoll = Epoll::new()?;
        let mut list = Vec::with_capacity(connections);
        for index in 0..connections {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(
                stream.as_raw_fd(),
                libc::EPOLLIN | libc::EPOLLET,
                index as u64,
            )?;
            let text = format!("{index} {:0width$}", 0, width = COUNTER_DIGITS);
            let mut message: Vec<u8> = text.into_bytes();
            let counter_end = message.len().min(message_bytes);
            message.resize(message_bytes, b'.');
            let message = message.into_boxed_slice();
            list.push(Connection {
                stream,
                received: message.len(),
                message,
                counter_end,
            });
        }
        Ok(Load {
            epoll,
            connections: list,
            events: epoll::buffer(connections.max(1)),
            // One byte more than a message, so that bytes nobody sent are seen.
            scratch: vec![0; message_bytes + 1].into_boxed_slice(),
        })
    }

    /// Keeps one message under way on every connection for `length`, then awaits the last replies.
    pub(crate) fn run(&mut self, length: Duration) -> io::Result<Stretch> {
        let start = Instant::now();
        let mut under_way = self.connections.len();
        let mut requests = 0;
        let mut sending = true;
        for connection in &mut self.connections {
            connection.send()?;
        }
        while under_way > 0 {
            let elapsed = start.elapsed();
            sending = sending && elapsed < length;
            if elapsed > length + DRAIN_LIMIT {
                return Err(io::Error::other(format!("{under_way} replies never came")));
            }
            for event in self.epoll.wait(&mut self.events, 100)? {
                let connection = &mut self.connections[event.u64 as usize];
                if !connection.receive(&mut self.scratch)? {
                    continue;
                }
                requests += 1;
                if sending {
                    connection.send()?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(Stretch {
            requests,
            elapsed: start.elapsed(),
        })
    }
}
