//! A pool of OS threads: a fixed number of workers, each of which serves one connection at a time.
//!
//! Right when the number of connections must not decide how many threads there are: the memory is
//! known beforehand, no thread is started while a client waits, and a burst of clients makes a
//! queue instead of thousands of threads.
//!
//! Wrong when connections are long. A worker belongs to its client until that leaves, so as many
//! silent clients as there are workers (`--workers`) stop the server for everybody else. Pools are
//! for requests; a connection that stays is a request that does not end. More clients at once than
//! workers is what this model cannot do by its nature.
//!
//! Nobody is accepted before a worker is free. So the queue that clients wait in is the kernel's,
//! which costs no descriptors and sends nobody away, and the channel to the workers never holds
//! more than they will take at once.
//!
//! Man pages: accept(2), recv(2), send(2), pthreads(7). Deliberately not here: who is connected and
//! what is counted (`blocking::service`), how threads that are blocked are told to stop
//! (`blocking::drain`).

use crate::blocking::connection::Connection;
use crate::blocking::drain::Drain;
use crate::blocking::service::Service;
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What a connection's buffer begins with.
const BUFFER_BYTES_FIRST: usize = 512;

/// Echoing takes a page or two, logging a few more. The usual 2 MiB would only be address space,
/// but of that, too, there may be a limit.
const STACK_BYTES: usize = 256 << 10;

/// The end of the channel that all workers take their connections from.
type Connections = Arc<Mutex<Receiver<Connection>>>;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    let service = Service::new(options, Some(limit(options)));
    let drain = Drain::start(&service, options.drain_timeout, stop)?;
    let (sender, connections) = mpsc::channel();
    start_workers(options.workers(), connections, &service)?;
    let failure = accept_loop(&listener, &service, &sender, stop).err();
    drop(listener);
    // Workers without a connection end with the channel.
    drop(sender);
    Ok(drain.finish(failure))
}

/// As many as there are workers for, and as are allowed.
fn limit(options: &Options) -> NonZeroUsize {
    let workers = options.workers();
    options
        .max_connections
        .map_or(workers, |most| most.min(workers))
}

/// Gives every connection to a worker that is free.
fn accept_loop(
    listener: &TcpListener,
    service: &Arc<Service>,
    sender: &Sender<Connection>,
    stop: &Stop,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    while service.wait_for_client(listener, stop)? {
        match listener.accept() {
            Ok((stream, peer)) => {
                let sent = sender.send(service.welcome(stream, peer));
                sent.map_err(|_| io::Error::other("no worker is left"))?;
            }
            Err(error) => service.recover_from(error)?,
        }
    }
    Ok(())
}

/// Starts the workers, which live as long as the server does.
fn start_workers(
    count: NonZeroUsize,
    connections: Receiver<Connection>,
    service: &Service,
) -> io::Result<()> {
    let (buffer_bytes, upper) = (service.buffer_bytes, service.upper);
    let connections = Arc::new(Mutex::new(connections));
    for number in 1..=count.get() {
        let connections = Arc::clone(&connections);
        let name = format!("worker {number}");
        let builder = thread::Builder::new().name(name).stack_size(STACK_BYTES);
        let started = builder.spawn(move || {
            while let Some(mut connection) = next(&connections) {
                connection.begin();
                let result = echo(&mut connection, buffer_bytes, upper);
                connection.end(result);
            }
        });
        started.map_err(|error| {
            let words = format!("cannot start worker {number} of {count} (--workers): {error}");
            io::Error::new(error.kind(), words)
        })?;
    }
    Ok(())
}

/// Waits for the next connection. One worker waits for the channel, the others for the lock.
fn next(connections: &Connections) -> Option<Connection> {
    let connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
    connections.recv().ok()
}

/// Sends back whatever comes, in upper case if so desired, until the peer has sent its last byte.
///
/// The buffer begins small: those of many connections with small messages then lie close together
/// and stay in the caches. A read that fills it doubles it, up to `buffer_bytes`.
fn echo(mut stream: impl Read + Write, buffer_bytes: usize, upper: bool) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES_FIRST.min(buffer_bytes)];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let message = &mut buffer[..count];
        if upper {
            message.make_ascii_uppercase();
        }
        stream.write_all(message)?;
        if count == buffer.len() {
            buffer.resize((2 * count).min(buffer_bytes), 0);
        }
    }
}
