//! What models with blocking calls and OS threads have in common: who is connected, how many may
//! be, and how a stop reaches those who are blocked.
//!
//! Each connection is served by one thread that is alone with it, and calls read and write as if
//! there were nothing else in the world. What the threads share lies behind one lock
//! (`service`), which is taken when a connection begins and when it ends, and never for a message.
//!
//! A thread that is blocked cannot be asked anything. So a stop does not ask: a second thread
//! shuts the sockets down, and the call that was blocked returns (`drain`).
//!
//! Deliberately not here: accepting and echoing, which are the models themselves.

pub(crate) mod connection;
pub(crate) mod drain;
pub(crate) mod service;
