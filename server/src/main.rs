//! The echo server: reads its options, listens, serves until it is told to stop, prints the books.
//!
//! Where to read on: `models/green.rs` is the server itself, a page of blocking code in which every
//! connection has a green thread. Around it, one matter a file: `service` and `connection` (who is
//! connected, and what is counted), `admission` (how many may be), `drain` and `farewell` (a
//! graceful stop), `stop` (signals), `listen` (the listening socket), `summary` (the books).
//!
//! Deliberately not here: anything that runs once a message.

mod admission;
mod connection;
mod drain;
mod farewell;
mod listen;
mod models;
mod options;
mod service;
mod stop;
mod summary;

use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use clap::Parser;
use log::{debug, warn};
use runtime::poller::Kind;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

/// select cannot watch a descriptor from 1024 on. Two dozen are left for the server's own.
const SELECT_CONNECTIONS_MAX: NonZeroUsize = NonZeroUsize::new(1000).expect("1000 is not 0");

fn main() -> ExitCode {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut options: Options) -> io::Result<()> {
    raise_descriptor_limit();
    let kind = match options.poller {
        Some(kind) => kind,
        None => Kind::from_environment()?,
    };
    if kind == Kind::Select {
        bound_for_select(&mut options);
    }
    // Signals are caught before the address is told: who has read it may send one at once.
    let stop = Stop::on_signals()?;
    let summary = runtime::Builder::new()
        .poller(kind)
        .workers(options.workers.get())
        .run(|| serve(&options, &stop))??;
    tell(format_args!("stopped by {}\n{summary}", stop.reason()));
    match summary.failure {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

fn serve(options: &Options, stop: &Stop) -> io::Result<Summary> {
    stop.listen()?;
    let listener = listen::listen(&options.listen)?;
    tell(format_args!("listening on {}", listener.local_addr()?));
    if options.workers.get() == 1 {
        models::green::serve(listener, options, stop)
    } else {
        models::green_workers::serve(listener, options, stop)
    }
}

/// Writes to the standard output, and lives on if nobody reads it any more.
fn tell(text: std::fmt::Arguments<'_>) {
    let mut output = io::stdout();
    if let Err(error) = writeln!(output, "{text}").and_then(|()| output.flush()) {
        debug!("cannot write to the standard output: {error}");
    }
}

/// A connection is a descriptor, and the soft limit is often 1024. The hard one is what the
/// administrator allows, so there is no reason to stay below it.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => debug!("up to {limit} descriptors"),
        Err(error) => warn!("cannot raise the limit of open descriptors: {error}"),
    }
}

fn bound_for_select(options: &mut Options) {
    let asked = options.max_connections;
    if asked.is_none_or(|count| count > SELECT_CONNECTIONS_MAX) {
        warn!(
            "select watches small descriptors only: at most {SELECT_CONNECTIONS_MAX} connections"
        );
        options.max_connections = Some(SELECT_CONNECTIONS_MAX);
    }
}
