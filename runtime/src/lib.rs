//! A hand-written reactor and stackful green threads that mirror std.
//!
//! Layers, from the ground up; imports only ever go downward.

#[allow(dead_code, unused_imports)] // Until the scheduler uses all of it.
mod context;
pub mod poller;
pub mod reactor;
pub mod selector;
pub(crate) mod sys;
pub mod timer;
