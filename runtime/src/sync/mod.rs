//! L4. What green threads wait for each other with, under the names of [`std::sync`].
//!
//! Channels so far. The standard library's own work too as long as nobody waits in them: a wait
//! there blocks the OS thread, and with it every green thread of the worker.
//!
//! Deliberately not here: locks.

pub mod mpsc;
