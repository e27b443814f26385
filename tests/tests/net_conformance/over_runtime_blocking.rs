//! The conformance body over the runtime's sockets in plain OS threads, which simply block.

pub(crate) use runtime::net;
pub(crate) use std::thread;

#[path = "body.rs"]
pub(crate) mod body;
