//! Blocking calls: one client at a time, from its first byte to its last.
//!
//! Right when there is one client, or when each asks one thing and leaves: nothing is simpler, and
//! nothing is faster for a single client, because nothing has to be asked before reading but the
//! socket itself. All other models are answers to the question what happens to the second.
//!
//! Wrong when a client takes its time. Until it leaves, everybody else waits in the listen queue:
//! connected, as far as they can tell, and without an answer. `--idle-timeout` bounds how long a
//! silent client can hold up the others; a talkative one can do so for ever. More than one client
//! at once is what this model cannot do by its nature.
//!
//! Man pages: accept(2), recv(2), send(2). Deliberately not here: who is connected and what is
//! counted (`blocking::service`), and the second OS thread, which serves nobody, but ends what
//! blocks when the server stops (`blocking::drain`).

use crate::blocking::connection::Connection;
use crate::blocking::drain::Drain;
use crate::blocking::service::Service;
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

/// What a connection's buffer begins with.
const BUFFER_BYTES_FIRST: usize = 512;

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    let service = Service::new(options, options.max_connections);
    let drain = Drain::start(&service, options.drain_timeout, stop)?;
    let failure = accept_loop(&listener, &service, stop).err();
    drop(listener);
    Ok(drain.finish(failure))
}

/// Serves one connection after the other.
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

/// Serves a connection until it ends.
pub(crate) fn start(mut connection: Connection, service: &Service) {
    connection.begin();
    let result = echo(&mut connection, service.buffer_bytes, service.upper);
    connection.end(result);
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
