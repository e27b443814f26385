//! OS threads: one for each connection.
//!
//! Right when connections are some hundreds, or when each has much to compute: the code is as plain
//! as for a single client, and the kernel shares all processors out among them. A client that takes
//! its time blocks a thread that has nothing else to do.
//!
//! Wrong when connections are many thousands: each costs a stack, a place in the kernel's tables,
//! and a switch by the kernel whenever it has something to say. And what connections share has to
//! be locked, because any two of them may run at the same moment.
//!
//! When there can be no more threads, the connection that was accepted last waits until one of the
//! others has ended, and whoever comes after it waits in the listen queue.
//!
//! Man pages: accept(2), recv(2), send(2), pthreads(7). Deliberately not here: who is connected and
//! what is counted (`blocking::service`), how threads that are blocked are told to stop
//! (`blocking::drain`).

use crate::blocking::connection::Connection;
use crate::blocking::drain::Drain;
use crate::blocking::service::Service;
use crate::drain::Phase;
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;

/// What a connection's buffer begins with.
const BUFFER_BYTES_FIRST: usize = 512;

/// Echoing takes a page or two, logging a few more. The usual 2 MiB would only be address space,
/// but of that, too, there may be a limit.
const STACK_BYTES: usize = 256 << 10;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    let service = Service::new(options, options.max_connections);
    let drain = Drain::start(&service, options.drain_timeout, stop)?;
    let failure = accept_loop(&listener, &service, stop).err();
    drop(listener);
    Ok(drain.finish(failure))
}

/// Gives every connection an OS thread of its own.
fn accept_loop(listener: &TcpListener, service: &Arc<Service>, stop: &Stop) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    while service.wait_for_client(listener, stop)? {
        match listener.accept() {
            Ok((stream, peer)) => start(service.welcome(stream, peer), service),
            Err(error) => service.recover_from(error)?,
        }
    }
    Ok(())
}

/// Starts the OS thread of a connection, which lives as long as the connection does.
fn start(connection: Connection, service: &Service) {
    let (buffer_bytes, upper) = (service.buffer_bytes, service.upper);
    // Until it has a thread, or the stop cuts everybody off.
    while service.phase() != Phase::CutOff {
        let name = format!("connection {}", connection.number);
        let builder = thread::Builder::new().name(name).stack_size(STACK_BYTES);
        // It is handed over to a thread that is there: what is given to one that cannot be started
        // is lost.
        let (sender, receiver) = mpsc::channel::<Connection>();
        let started = builder.spawn(move || {
            if let Ok(mut connection) = receiver.recv() {
                connection.begin();
                let result = echo(&mut connection, buffer_bytes, upper);
                connection.end(result);
            }
        });
        match started {
            Ok(_) => return sender.send(connection).expect("it waits for nothing else"),
            // There are too many threads: that may change.
            Err(error) => service.pause(1, &error),
        }
    }
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
