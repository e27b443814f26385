//! What models of green threads have in common: how the runtime is started, and the parts of a
//! server whose connections have a green thread each.
//!
//! All of it runs on one OS thread for each worker, and workers share nothing, so that `Rc` and
//! `Cell` do.
//!
//! Deliberately not here: accepting and echoing, which are the models themselves.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod drain;
pub(crate) mod service;

use crate::options::Options;
use runtime::poller::Kind;
use std::io;
use std::num::NonZeroUsize;

/// Runs `main` as a green thread over the poller that was asked for, and bounds the options by what
/// that poller can do.
///
/// # Errors
///
/// If the runtime cannot be started.
pub(crate) fn run<T>(
    options: &Options,
    workers: NonZeroUsize,
    main: impl FnOnce(&Options) -> T,
) -> io::Result<T> {
    let kind = options.poller()?;
    let mut options = options.clone();
    if kind == Kind::Select {
        options.bound_for_select(workers);
    }
    runtime::Builder::new()
        .poller(kind)
        .workers(workers.get())
        .run(|| main(&options))
}
