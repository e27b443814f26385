//! The conformance body over the runtime's sockets in green threads.

pub(crate) use runtime::{net, thread};

#[path = "body.rs"]
pub(crate) mod body;
