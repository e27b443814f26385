//! The result of a run as data: what `--json` writes and what the printed report is made from.
//!
//! Application, above L4. The keys are a promise (they are listed in `--help`): they may become
//! more, but keep their meaning.
//!
//! Deliberately not here: the printed form (`print`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::arguments::{self, Extent};
use crate::failure::{FailureBook, Phase};
use crate::hostile;
use crate::load::{Books, Border, Load, Outcome};
use crate::measure::{Summary, Times, limit};
use crate::pacing::{Rate, Schedule};
use crate::slot::State;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) outcome: OutcomeWord,
    pub(crate) settings: Settings,
    pub(crate) connections: Connections,
    pub(crate) connect: Connect,
    pub(crate) messages: Messages,
    pub(crate) window: Option<Window>,
    /// How far `--rate` was kept.
    pub(crate) schedule: Option<Schedule>,
    /// From when a message was to be sent, or was sent where there is no schedule.
    pub(crate) latency_ns: Option<Summary>,
    /// From when it was sent.
    pub(crate) service_ns: Option<Summary>,
    /// Pairs of quantile and time.
    pub(crate) latency_curve_ns: Option<Vec<(f64, u64)>>,
    pub(crate) failures: Vec<Kind>,
    pub(crate) hostile: Vec<hostile::Line>,
    pub(crate) client: Option<Effort>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeWord {
    Complete,
    Interrupted,
    /// No connection came up.
    NotStarted,
}

#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) connect: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) connections: u32,
    pub(crate) size_bytes: u32,
    pub(crate) duration_s: Option<f64>,
    pub(crate) messages: Option<u64>,
    pub(crate) depth: u32,
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) think_s: Option<f64>,
    pub(crate) ramp_s: Option<f64>,
    pub(crate) warmup_s: Option<f64>,
    pub(crate) upper: bool,
    /// The mix of hostile connections in the words of the command line.
    pub(crate) hostile: Option<String>,
    pub(crate) timeout_s: f64,
    pub(crate) connect_timeout_s: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Connections {
    pub(crate) asked: u64,
    pub(crate) connected: u64,
    /// Never came up.
    pub(crate) failed: u64,
    pub(crate) connecting: u64,
    /// Ended in order.
    pub(crate) closed: u64,
    /// Came up and failed later.
    pub(crate) broken: u64,
    pub(crate) open: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Connect {
    pub(crate) elapsed_s: f64,
    pub(crate) latency_ns: Option<Summary>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) in_flight: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) elapsed_s: f64,
    pub(crate) answered: u64,
    pub(crate) bytes: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) bytes_per_s: f64,
    /// The longest time without a reply on any connection.
    pub(crate) longest_silence_ns: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Kind {
    pub(crate) phase: Phase,
    pub(crate) cause: String,
    pub(crate) connections: u64,
    pub(crate) messages: u64,
    pub(crate) first: String,
}

/// What the client itself spent in the window.
#[derive(Debug, Serialize)]
pub(crate) struct Effort {
    pub(crate) cpu_s: f64,
    pub(crate) cpu_share: f64,
    pub(crate) cpu_per_request_ns: Option<f64>,
    pub(crate) lag_ns: Option<Summary>,
    pub(crate) limit: Option<String>,
}

impl Report {
    /// The books of `load` as they are now.
    ///
    /// # Panics
    ///
    /// If the books do not balance, which would be a mistake of this program and not of the server.
    pub(crate) fn of(load: &Load, outcome: Outcome) -> Report {
        let books = load.books();
        let connections = connections_of(&books);
        let connect_times = load.with_connect_times(Times::summary);
        let (latency, service) = load
            .recorder
            .with_total(|total| (total.response().summary(), total.service().summary()));
        let curve = load.recorder.with_total(|total| total.response().curve());
        let silence_ns = load.recorder.longest_silence_ns(load.clock.now_ns());
        let lag = load.with_lag(Times::summary);
        let nothing = connections.connected == 0 && connections.connecting == 0;
        let window = load.window();
        let report = Report {
            outcome: match outcome {
                Outcome::Interrupted(_) => OutcomeWord::Interrupted,
                Outcome::Complete if nothing => OutcomeWord::NotStarted,
                Outcome::Complete => OutcomeWord::Complete,
            },
            settings: settings_of(load),
            connections,
            connect: Connect {
                elapsed_s: load.connect_elapsed().as_secs_f64(),
                latency_ns: connect_times,
            },
            messages: Messages {
                sent: books.totals.sent,
                answered: books.totals.answered,
                failed: books.failures.messages(),
                in_flight: books.totals.in_flight(),
            },
            window: window.map(|(start, end)| window_of(&start, &end, silence_ns)),
            schedule: window.and_then(|(start, end)| Schedule::of(load, &start, &end)),
            latency_ns: latency,
            service_ns: service,
            latency_curve_ns: curve,
            failures: failures_of(&books.failures),
            hostile: hostile::lines(&load.hostile),
            client: window.map(|(start, end)| effort_of(&start, &end, lag)),
        };
        report.check();
        report
    }

    fn check(&self) {
        let messages = &self.messages;
        let accounted = messages.answered + messages.failed + messages.in_flight;
        assert!(
            messages.sent == accounted,
            "the books do not balance: {messages:?}"
        );
        let connections = &self.connections;
        let accounted = connections.connected + connections.failed + connections.connecting;
        assert!(
            connections.asked == accounted,
            "the books do not balance: {connections:?}"
        );
        let accounted = connections.closed + connections.broken + connections.open;
        assert!(
            connections.connected == accounted,
            "the books do not balance: {connections:?}"
        );
        let failed: u64 = self.failures.iter().map(|kind| kind.connections).sum();
        let accounted = connections.failed + connections.broken;
        assert!(
            failed == accounted,
            "the books do not balance: {failed} failures, {connections:?}"
        );
    }

    /// Whether all went well as far as it went.
    pub(crate) fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.hostile.iter().all(|line| line.failures == 0)
    }
}

fn settings_of(load: &Load) -> Settings {
    let arguments::Load {
        connect,
        connections,
        size_bytes,
        pace,
        upper,
        ..
    } = &load.settings;
    let (duration_s, messages) = match load.extent() {
        Extent::Duration(duration) => (Some(duration.as_secs_f64()), None),
        Extent::Messages(messages) => (None, Some(messages)),
    };
    Settings {
        connect: connect.clone(),
        addresses: load.addresses().iter().map(ToString::to_string).collect(),
        connections: *connections,
        size_bytes: *size_bytes,
        duration_s,
        messages,
        depth: pace.depth,
        rate_per_s: pace.rate.map(Rate::per_s),
        think_s: pace.think.as_ref().map(Duration::as_secs_f64),
        ramp_s: pace.ramp.as_ref().map(Duration::as_secs_f64),
        warmup_s: pace.warmup.as_ref().map(Duration::as_secs_f64),
        upper: *upper,
        hostile: load.settings.hostile.words(),
        timeout_s: load.settings.timeout.as_secs_f64(),
        connect_timeout_s: load.settings.connect_timeout.as_secs_f64(),
    }
}

fn connections_of(books: &Books) -> Connections {
    let never_connected = books.failures.never_connected();
    let count = |state| books.totals.connections_in(state);
    let states = [State::Connecting, State::Open, State::Closed, State::Failed];
    Connections {
        asked: states.map(count).iter().sum(),
        connected: books.connected(),
        failed: never_connected,
        connecting: count(State::Connecting),
        closed: count(State::Closed),
        broken: count(State::Failed) - never_connected,
        open: count(State::Open),
    }
}

fn failures_of(failures: &FailureBook) -> Vec<Kind> {
    let kinds = failures.iter().map(|(phase, cause, count)| Kind {
        phase,
        cause: cause.to_owned(),
        connections: count.connections,
        messages: count.messages,
        first: count.first.clone(),
    });
    kinds.collect()
}

/// A shorter run is all beginning and end.
const LIMIT_WINDOW_MIN_NS: u64 = 100_000_000;

/// Seconds that may be divided by, however short the window was.
fn seconds(start: &Border, end: &Border) -> f64 {
    Duration::from_nanos((end.at_ns - start.at_ns).max(1)).as_secs_f64()
}

fn window_of(start: &Border, end: &Border, longest_silence_ns: u64) -> Window {
    let elapsed_s = seconds(start, end);
    let (answered, bytes) = (end.answered - start.answered, end.bytes - start.bytes);
    Window {
        elapsed_s,
        answered,
        bytes,
        requests_per_s: answered as f64 / elapsed_s,
        bytes_per_s: bytes as f64 / elapsed_s,
        longest_silence_ns,
    }
}

fn effort_of(start: &Border, end: &Border, lag: Option<Summary>) -> Effort {
    let cpu_s = (end.cpu - start.cpu).as_secs_f64();
    let cpu_share = cpu_s / seconds(start, end);
    let answered = end.answered - start.answered;
    Effort {
        cpu_s,
        cpu_share,
        cpu_per_request_ns: (answered > 0).then(|| cpu_s * 1e9 / answered as f64),
        lag_ns: lag,
        // A window too short for its own clock says nothing about who was the limit.
        limit: if end.at_ns - start.at_ns < LIMIT_WINDOW_MIN_NS {
            None
        } else {
            limit(cpu_share, lag.as_ref())
        },
    }
}

/// Where `--json` writes to.
pub(crate) struct JsonFile {
    path: PathBuf,
}

impl JsonFile {
    /// Finds out before the run whether the report can be written after it.
    ///
    /// # Errors
    ///
    /// If `path` is a directory, or is in none.
    pub(crate) fn new(path: &Path) -> io::Result<JsonFile> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !directory_of(path).is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(JsonFile {
            path: path.to_owned(),
        })
    }

    /// Writes beside the file and puts it in the file's place, so that nobody reads half a report.
    ///
    /// # Errors
    ///
    /// What the system says; an earlier report is still there then.
    pub(crate) fn write(&self, report: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(report)?;
        text.push(b'\n');
        // A pipe or a terminal (/dev/stdout) is written to; a regular file is replaced.
        if fs::metadata(&self.path).is_ok_and(|metadata| !metadata.is_file()) {
            return fs::write(&self.path, text);
        }
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = directory_of(&self.path).join(name);
        let written = File::create(&partial)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}
