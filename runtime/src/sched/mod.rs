//! L3. The scheduler: coroutines, readiness and deadlines made into green threads.
//!
//! Read in this order:
//!
//! 1. [`task`]: what is known of a green thread. 2. [`run_queue`]: who is ready. 3. [`worker`]:
//!    who runs next, and [`hub`]: what happens in between. 4. [`park`]: the one way to wait.
//! 5. [`birth`]: beginning and end. 6. [`driver`]: I/O. 7. [`interrupt`]: kill and time-outs.
//! 8. [`inbox`] and [`crew`]: several workers. 9. [`offload`], [`report`], [`random`]: the rest.
//!
//! Deliberately not here: std's names for all this; see `thread`, `net`, `sync`.

pub(crate) mod birth;
pub(crate) mod crew;
pub(crate) mod driver;
pub(crate) mod hub;
pub(crate) mod inbox;
pub(crate) mod interrupt;
pub(crate) mod offload;
pub(crate) mod park;
pub(crate) mod random;
pub(crate) mod report;
pub(crate) mod run_queue;
pub(crate) mod task;
pub(crate) mod worker;
