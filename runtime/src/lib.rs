//! A hand-written reactor and stackful green threads that mirror std.
//!
//! Write blocking code, get the speed of a hand-written event loop: `use runtime::{net, thread,
//! sync}` in place of `std::{net, thread, sync}`, inside [`run`].
//!
//! Layers, from the ground up; imports only ever go downward:
//!
//! ```text
//!   net  thread  sync  io                 L4  std's names
//!   sched                                 L3  who runs next, who is woken
//!   selector  reactor  timer  coroutine   L2  registry, callbacks, deadlines, coroutines
//!   poller              context           L1  readiness; stacks and the switch
//!   sys                                   L0  the kernel
//! ```

mod builder;

mod context;
pub mod coroutine;
pub mod io;
pub mod net;
pub mod poller;
pub mod reactor;
mod sched;
pub mod selector;
pub mod sync;
pub(crate) mod sys;
pub mod thread;
pub mod timer;

pub use builder::{Builder, run};
pub use sched::interrupt::{TimedOut, timeout};
