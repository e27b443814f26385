//! Green threads in several processes: the whole `green` server once in each of them, at the same
//! time.
//!
//! Right when one processor is not enough and nobody should suffer from another's crash. Coroutines
//! take turns on a processor and processes use all of them, which together is how a server has many
//! connections and much computing power without a single lock. The processes share a port and
//! nothing else: each has its own listening socket, to which the kernel gives its share of the
//! connections, its own memory and its own table of descriptors. One that dies takes along its own
//! connections only and is replaced (see `prefork`).
//!
//! Wrong when connections must know of each other: `green_workers` has them all in one memory. The
//! kernel spreads connections by a hash of their addresses, so a few of them may meet in one
//! process while another is idle, and nobody moves them.
//!
//! Man pages: socket(7) (SO_REUSEPORT). Deliberately not here: the server (see `green`) and the
//! processes (see `prefork`).

use crate::models::{green, prefork};
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use std::io;
use std::net::TcpListener;

/// Serves in every process until `stop` says so, and gives back the books of all.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    // The runtime is started in each process, after the fork: there is nothing to inherit.
    prefork::serve_each(listener, options, stop, green::serve)
}
