//! The echo server: reads its options, listens, serves until it is told to stop, prints the books.
//!
//! Where to read on: each file of `models` is a whole server, a page or two; `models/green.rs` is
//! the one that runs if nobody chooses. The other directories hold what models of one family share:
//! `blocking`, `green`, `ready` (event loops), `process`, `ring` (io_uring). Beside them is what
//! all share, one matter a file: `drain` and `farewell` (a graceful stop), `stop` (signals),
//! `listen` (the listening socket), `accept_error`, `wait`, `fd_room` (what select can watch),
//! `ending` and `summary` (the books: what was served, counted).
//!
//! Deliberately not here: anything that runs once a message.

mod accept_error;
mod blocking;
mod drain;
mod ending;
mod farewell;
mod fd_room;
mod green;
mod listen;
mod models;
mod options;
mod process;
mod ready;
#[cfg(target_os = "linux")]
mod ring;
mod stop;
mod summary;
mod wait;

use crate::options::Options;
use crate::process::log::NamedByProcess;
use crate::stop::Stop;
use log::{debug, warn};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::read();
    start_logging();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics when nobody reads it: the code tells of it anyway.
            let _ = writeln!(io::stderr(), "server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let model = options.model();
    model.check(options)?;
    raise_descriptor_limit();
    // Signals are caught before the address is told: whoever reads it may send one at once.
    let stop = Stop::on_signals()?;
    let listener = listen::listen(&options.listen, model.shares_port())?;
    tell(format_args!("listening on {}", listener.local_addr()?));
    let summary = model.serve(listener, options, &stop)?;
    tell(format_args!("stopped by {}\n{summary}", stop.reason()));
    match summary.failure {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// Writes to the standard error what `RUST_LOG` asks for.
fn start_logging() {
    let wanted = env_logger::Env::default().default_filter_or("warn");
    let logger = env_logger::Builder::from_env(wanted).build();
    log::set_max_level(logger.filter());
    log::set_boxed_logger(Box::new(NamedByProcess(logger))).expect("nobody logs before");
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
