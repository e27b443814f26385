//! `client`: puts connections on a server, checks every reply, measures.
//!
//! Application on L4, the uppermost layer of the runtime (runtime/ARCHITECTURE.md draws them all);
//! files that do not wait through its green threads are "above L4". Read `connection` first (what
//! one connection does), then `message` and `verify` (what is sent, and how a reply is checked),
//! `load` (the run around them), `slot` and `recorder` (its books), and `style` (who runs the
//! connections).
//!
//! Deliberately not here: anything that another program would use; there is no library.

mod arguments;
mod chat;
mod clock;
mod compare;
mod condition;
mod connection;
mod csv_file;
mod fail_if;
mod failure;
mod fairness;
mod find_max;
mod flight;
mod gate;
mod hdr_log;
mod hostile;
mod limits;
mod load;
mod measure;
mod merge;
mod message;
mod out_file;
mod pacing;
mod print;
mod progress;
mod recorder;
mod report;
mod results;
mod sender;
mod slot;
mod style;
mod timeline;
mod verify;
mod wire;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

// Whatever waits comes from here, under the names that std gives it.
use runtime::{net, thread};

use arguments::Command;
use failure::{Failure, Phase};
use load::{Load, Outcome};
use merge::Merge;
use progress::Progress;
use report::{Measurements, OutcomeWord, Report};

/// Something failed; also what a run ends with that could not start.
const EXIT_FAILED: u8 = 1;
/// All went well, but a gate was not met.
const EXIT_GATE: u8 = 3;
/// Added to a signal's number, as shells do.
const EXIT_SIGNAL: u8 = 128;

fn main() -> ExitCode {
    let wanted = env_logger::Env::default().default_filter_or("warn");
    env_logger::init_from_env(wanted);
    let done = match arguments::command() {
        Command::Load(settings) => run(settings),
        Command::Chat(settings) => chat::run(settings),
        Command::Compare(settings) => compare::run(&settings),
        Command::Merge(settings) => merge(&settings),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(settings: arguments::Load) -> Result<ExitCode, String> {
    let files = settings.results.files()?;
    let signal = catch_signals().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let prepared = limits::prepare(&settings.needs());
    let (report, measured, outcome) = match prepared {
        Ok(()) => runtime::Builder::new()
            .run(move || load(settings, &signal))
            .map_err(|error| format!("the runtime cannot start: {error}"))?,
        Err(obstacles) => {
            let load = Load::new(settings);
            let obstacles = obstacles.join("\nerror: ");
            load.fail_all(Failure::new(Phase::Prepare, "limits", obstacles));
            closed_books(&load, Outcome::Complete)
        }
    };
    let shown = show(&report);
    files.write(&report, measured)?;
    shown?;
    Ok(exit_code(&report, outcome))
}

/// The run or, to find the highest rate, several, on the main green thread.
fn load(settings: arguments::Load, signal: &AtomicUsize) -> (Report, Measurements, Outcome) {
    match &settings.search.find_max {
        None => load_once(settings, signal),
        Some(condition) => {
            find_max::run(&settings, condition, |settings| load_once(settings, signal))
        }
    }
}

fn load_once(settings: arguments::Load, signal: &AtomicUsize) -> (Report, Measurements, Outcome) {
    let mut progress = Progress::new(settings.quiet);
    let load = Arc::new(Load::new(settings));
    let outcome = load.run(signal, &mut progress);
    // The books are closed here: what ends with the runtime after an interruption must not be in
    // them.
    closed_books(&load, outcome)
}

fn closed_books(load: &Load, outcome: Outcome) -> (Report, Measurements, Outcome) {
    let measured = Measurements::of(load);
    (Report::of(load, outcome, &measured), measured, outcome)
}

fn merge(settings: &Merge) -> Result<ExitCode, String> {
    let files = settings.results.files()?;
    let (report, measured) = merge::run(settings)?;
    let shown = show(&report);
    files.write(&report, measured)?;
    shown?;
    Ok(exit_code(&report, Outcome::Complete))
}

/// The first SIGINT or SIGTERM leaves its number in the result, the second one ends the process at
/// once.
fn catch_signals() -> io::Result<Arc<AtomicUsize>> {
    let number = note_signals()?;
    end_with_the_next(false)?;
    Ok(number)
}

/// SIGINT and SIGTERM leave their numbers in the result, and do nothing else.
fn note_signals() -> io::Result<Arc<AtomicUsize>> {
    let number = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        flag::register_usize(signal, Arc::clone(&number), signal as usize)?;
    }
    Ok(number)
}

/// From now on the second SIGINT or SIGTERM ends the process at once; if `one_came` that is the
/// next.
fn end_with_the_next(one_came: bool) -> io::Result<()> {
    let armed = Arc::new(AtomicBool::new(one_came));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: a signal finds the way out armed only if another one came before.
        let status = i32::from(EXIT_SIGNAL) + signal;
        flag::register_conditional_shutdown(signal, status, Arc::clone(&armed))?;
        flag::register(signal, Arc::clone(&armed))?;
    }
    Ok(())
}

/// # Errors
///
/// In words, why a result could not be printed. Why there is none is told as far as that goes: the
/// exit code tells it, too.
fn show(report: &Report) -> Result<(), String> {
    if report.outcome == OutcomeWord::NotStarted {
        let _ = io::stderr().write_all(print::not_started(report).as_bytes());
        return Ok(());
    }
    out_file::print(&print::report(report))
}

/// A failure weighs more than a gate: what was measured beside it is not what was asked for.
fn exit_code(report: &Report, outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Interrupted(signal) => ExitCode::from(EXIT_SIGNAL.saturating_add(signal as u8)),
        Outcome::Complete if report.nothing_held() => ExitCode::from(EXIT_GATE),
        Outcome::Complete if !report.is_clean() => ExitCode::from(EXIT_FAILED),
        Outcome::Complete if !report.gates_are_met() => ExitCode::from(EXIT_GATE),
        Outcome::Complete => ExitCode::SUCCESS,
    }
}
