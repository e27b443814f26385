//! The conformance body over std: what std does is what is demanded.

pub(crate) use std::{net, thread};

#[path = "body.rs"]
pub(crate) mod body;
