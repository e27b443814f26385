//! Green threads: a thread of control for each connection, and one OS thread for all of them.
//!
//! Right when connections are many and mostly wait. Each is plain sequential code: read, write, and
//! so on until the end. Where a call has to wait, the runtime parks the green thread and runs
//! another, so thousands of them take turns on one OS thread. They never run at the same time,
//! which is why what they share needs no lock (`Rc`, `Cell`).
//!
//! Wrong when a connection has to compute for long: nobody else runs until it reads, writes or
//! yields.
//!
//! A peer that reads slowly stops nobody but itself: its green thread waits in `write_all`, and so
//! reads no more, until the kernel's buffers are full on both sides and the peer has to wait too.
//! That is all there is to backpressure, and why a connection needs no more memory than one buffer
//! and one stack.
//!
//! Man pages: accept(2), recv(2), send(2). Deliberately not here: limits (`admission`), counting
//! and logging (`service`), signals (`stop`), the rules of a graceful stop (`drain`),
//! the choice of the poller (`green::run`).

use crate::accept_error::Fault;
use crate::green;
use crate::green::connection::Connection;
use crate::green::drain::drain;
use crate::green::service::Service;
use crate::listen::QUEUE_LENGTH;
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use log::debug;
use runtime::net::TcpListener;
use runtime::thread;
use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::rc::Rc;

/// What a connection's buffer begins with.
const BUFFER_BYTES_FIRST: usize = 512;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    options: &Options,
    stop: &Stop,
) -> io::Result<Summary> {
    green::run(options, NonZeroUsize::MIN, |options| {
        let listener = TcpListener::from(listener);
        // The runtime takes `O_NONBLOCK` for a wish of the user's, but it may be left over from
        // another process that had this socket, whose runtime needed it (see `prefork`).
        listener.set_nonblocking(false)?;
        serve_here(listener, options, stop)
    })?
}

/// The same, on the worker of the green thread that calls it.
pub(crate) fn serve_here(
    listener: TcpListener,
    options: &Options,
    stop: &Stop,
) -> io::Result<Summary> {
    let service = Service::new(options);
    let listener = Rc::new(listener);

    let acceptor = thread::Builder::new().name("acceptor".into()).spawn({
        let (listener, service, stopping) =
            (listener.clone(), service.clone(), stop.when_dropped());
        move || {
            let _stopping = stopping;
            accept_loop(&listener, &service)
        }
    })?;
    stop.wait();

    // The acceptor waits for a connection, or for room for one. Either way it holds none.
    acceptor.kill();
    let failure = match acceptor.join() {
        Ok(Err(error)) => Some(error),
        Err(payload) if payload.is::<thread::Killed>() => None,
        Err(panic) => resume_unwind(panic),
    };
    accept_the_queued(&listener, &service);
    drop(listener);
    drain(&service, options.drain_timeout);
    Ok(service.summary(failure))
}

/// Gives every connection a green thread of its own.
fn accept_loop(listener: &TcpListener, service: &Rc<Service>) -> io::Result<Infallible> {
    loop {
        service.admission.wait_for_room();
        match listener.accept() {
            Ok((stream, peer)) => {
                let mut started = start(service.welcome(stream, peer), service);
                while let Err((connection, error)) = started {
                    service.admission.pause(1, &error);
                    started = start(connection, service);
                }
            }
            Err(error) => service.admission.recover_from(error)?,
        }
    }
}

/// Starts the green thread of a connection, which lives as long as the connection does.
///
/// # Errors
///
/// If there is no memory for its stack, which may change. The connection comes back.
fn start(connection: Connection, service: &Service) -> Result<(), (Connection, io::Error)> {
    let (buffer_bytes, upper) = (service.buffer_bytes, service.upper);
    // The name is for traces, and for the message of a stack that has overflowed.
    let name = format!("connection {}", connection.number);
    // It is left where the green thread finds it: what is given to one that cannot be started is
    // lost.
    let place = Rc::new(Cell::new(Some(connection)));
    let found = Rc::clone(&place);
    let started = thread::Builder::new().name(name).spawn(move || {
        let Some(mut connection) = found.take() else {
            return;
        };
        // Nothing else lies there, and a connection may last long.
        drop(found);
        connection.begin();
        let result = echo(&mut connection, buffer_bytes, upper);
        connection.end(result);
    });
    match started {
        Ok(_) => Ok(()),
        Err(error) => Err((place.take().expect("nobody has found it"), error)),
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

/// Takes in those who have connected before the stop, and who cannot know that nobody accepted
/// them.
fn accept_the_queued(listener: &TcpListener, service: &Rc<Service>) {
    let result = listener.set_nonblocking(true).and_then(|()| {
        // Bounded, or a flood of clients would never let the server stop.
        for _ in 0..QUEUE_LENGTH {
            if !service.admission.has_room() {
                break;
            }
            match listener.accept() {
                // When there is no memory, nobody waits for it any more.
                Ok((stream, peer)) => {
                    start(service.welcome(stream, peer), service).map_err(|(_, error)| error)?;
                }
                // Who has left meanwhile does not speak for those behind.
                Err(error) if Fault::of(&error) == Fault::Peer => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    if let Err(error) = result
        && error.kind() != ErrorKind::WouldBlock
    {
        debug!("the listen queue is left: {error}");
    }
}
