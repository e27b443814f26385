//! Several processes on one port, started before anybody has connected: in each the whole
//! `blocking` server.
//!
//! Right when clients are served by code that blocks or may crash, and a fork for each would be too
//! dear. One that dies takes along its own client only, and is replaced by its parent, who does
//! nothing else.
//!
//! Wrong when there may be more clients at once than processes, or clients that stay. A client
//! whose process is serving another one waits until that one leaves, even if a process beside it
//! has nothing to do.
//!
//! Each process has its own listening socket on the same port, with its own queue, and the kernel
//! chooses one for each connection by a hash of its addresses. With one socket for all, as it was
//! done before there was `SO_REUSEPORT`, they would all wait for the same queue. The parent opens
//! the sockets before the first fork and keeps them: the queue of a process that has died lives on,
//! and its replacement serves those who wait there. Other systems than Linux share ports in ways of
//! their own, which need not spread the connections; there, all processes wait for one socket.
//!
//! What a process was busy with when it was killed is missing from the books, because connections
//! are entered when they end.
//!
//! Man pages: socket(7) (SO_REUSEPORT), fork(2), listen(2). Deliberately not here: the server
//! inside (see `blocking`) and keeping the processes alive (`process::supervisor`).

use crate::models::blocking;
use crate::models::green_workers::shares;
use crate::options::Options;
use crate::process::supervisor::Supervisor;
use crate::stop::Stop;
use crate::summary::Summary;
use std::cell::Cell;
use std::io;
use std::net::TcpListener;

/// Serves in every process until `stop` says so, and gives back the books of all.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    serve_each(listener, options, stop, blocking::serve)
}

/// As [`serve`], with any server in the processes.
pub(crate) fn serve_each(
    listener: TcpListener,
    options: &Options,
    stop: &Stop,
    server: fn(TcpListener, &Options, &Stop) -> io::Result<Summary>,
) -> io::Result<Summary> {
    let shares = shares(options.max_connections, options.workers());
    let listeners = Cell::new(listeners(listener, shares.len())?);
    let work = |place: usize, stop: &Stop| {
        // Taking all of them closes those of the others: connections that nobody accepts any more
        // would otherwise go on waiting there for as long as this process lives.
        let listener = listeners.take().swap_remove(place);
        let mut options = options.clone();
        options.max_connections = shares[place];
        server(listener, &options, stop)
    };
    let mut supervisor = Supervisor::new(shares.len(), stop, work)?;
    let failure = supervisor.keep_alive().err();
    // From here on a socket lives as long as its process, which sees to those in its queue.
    drop(listeners.take());
    supervisor.see_out(options.drain_timeout, failure)
}

/// One listening socket for each process.
#[cfg(target_os = "linux")]
fn listeners(first: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(crate::listen::sibling(&listeners[0])?);
    }
    Ok(listeners)
}

/// The same socket for each process.
#[cfg(not(target_os = "linux"))]
fn listeners(first: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listeners[0].try_clone()?);
    }
    Ok(listeners)
}
