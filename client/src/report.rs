//! The result of a run as data: what `--json` writes and what the printed report is made from.
//!
//! Application, above L4. The keys are a promise (they are listed in `--help`): they may become
//! more, but keep their meaning.
//!
//! Deliberately not here: the printed form (`print`).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::arguments::{self, Extent};
use crate::condition::Figures;
use crate::fail_if::{Gate, Verdict};
use crate::failure::{FailureBook, Phase};
use crate::fairness::Fairness;
use crate::find_max::FindMax;
use crate::hostile;
use crate::load::{Books, Border, Load, Outcome};
use crate::measure::{Summary, Times, limit};
use crate::pacing::{Rate, Schedule};
use crate::slot::{Entry, State};
use crate::style::Style;
use crate::timeline::{Row, Timeline};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) outcome: OutcomeWord,
    /// One, or those that were merged.
    pub(crate) runs: Vec<Run>,
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
    pub(crate) fairness: Option<Fairness>,
    pub(crate) failures: Vec<Kind>,
    pub(crate) hostile: Vec<hostile::Line>,
    pub(crate) client: Option<Effort>,
    #[serde(skip_deserializing)]
    pub(crate) gates: Vec<Gate>,
    #[serde(skip_deserializing)]
    pub(crate) find_max: Option<FindMax>,
    /// Last, because it is long.
    #[serde(default)]
    pub(crate) timeline: Vec<Row>,
}

/// Where a result comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    /// Of no other run: by it one that is merged twice is found.
    pub(crate) id: String,
    pub(crate) connect: String,
    pub(crate) started_unix_s: f64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeWord {
    Complete,
    Interrupted,
    /// No connection came up.
    NotStarted,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) connect: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) connections: u32,
    pub(crate) style: Style,
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

#[derive(Clone, Debug, Deserialize, Serialize)]
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

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Connect {
    pub(crate) elapsed_s: f64,
    pub(crate) latency_ns: Option<Summary>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) in_flight: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Window {
    pub(crate) elapsed_s: f64,
    pub(crate) answered: u64,
    pub(crate) bytes: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) bytes_per_s: f64,
    /// The longest time without a reply on any connection.
    pub(crate) longest_silence_ns: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Kind {
    pub(crate) phase: Phase,
    pub(crate) cause: String,
    pub(crate) connections: u64,
    pub(crate) messages: u64,
    pub(crate) first: String,
}

/// What the client itself spent in the window.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Effort {
    pub(crate) cpu_s: f64,
    pub(crate) cpu_share: f64,
    pub(crate) cpu_per_request_ns: Option<f64>,
    pub(crate) lag_ns: Option<Summary>,
    pub(crate) limit: Option<String>,
}

impl Report {
    /// The books of `load` as they are now, and what was measured in it.
    ///
    /// # Panics
    ///
    /// If the books do not balance, which would be a mistake of this program and not of the server.
    pub(crate) fn of(load: &Load, outcome: Outcome, measured: &Measurements) -> Report {
        let books = load.books();
        let connections = connections_of(&books);
        let lag = measured.lag.summary();
        let silence_ns = load.recorder.longest_silence_ns(load.clock.now_ns());
        let nothing = connections.connected == 0 && connections.connecting == 0;
        let window = load.window();
        let mut report = Report {
            runs: vec![run_of(load, measured.started)],
            outcome: match outcome {
                Outcome::Interrupted(_) => OutcomeWord::Interrupted,
                Outcome::Complete if nothing => OutcomeWord::NotStarted,
                Outcome::Complete => OutcomeWord::Complete,
            },
            settings: settings_of(load),
            connections,
            connect: Connect {
                elapsed_s: load.connect_elapsed().as_secs_f64(),
                latency_ns: measured.connect.summary(),
            },
            messages: Messages {
                sent: books.totals.sent,
                answered: books.totals.answered,
                failed: books.failures.messages(),
                in_flight: books.totals.in_flight(),
            },
            window: window.map(|(start, end)| window_of(&start, &end, silence_ns)),
            schedule: window.and_then(|(start, end)| Schedule::of(load, &start, &end)),
            latency_ns: measured.response.summary(),
            service_ns: measured.service.summary(),
            latency_curve_ns: measured.response.curve(),
            fairness: fairness_of(&books.entries),
            failures: failures_of(&books.failures),
            hostile: hostile::lines(&load.hostile),
            client: window.map(|(start, end)| effort_of(load, &start, &end, lag)),
            gates: Vec::new(),
            find_max: None,
            timeline: measured.timeline.rows().to_vec(),
        };
        report.check();
        let conditions = &load.settings.results.fail_if;
        report.gates = Gate::all(conditions, &measured.figures(&report));
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
        let in_window = self.window.as_ref().map_or(0, |window| window.answered);
        let shared = self.fairness.map_or(0, |fairness| fairness.answered);
        assert!(
            in_window <= messages.answered && shared == messages.answered,
            "the books do not balance: {in_window} in the window, {shared} shared, {messages:?}"
        );
        let failed: u64 = self.failures.iter().map(|kind| kind.connections).sum();
        let accounted = connections.failed + connections.broken;
        assert!(
            failed == accounted,
            "the books do not balance: {failed} failures, {connections:?}"
        );
    }

    /// Whether no more failed than may: nothing, if no gate says how much.
    pub(crate) fn is_clean(&self) -> bool {
        let tolerates = self.gates.iter().any(|gate| gate.is_about_failures);
        let is_clean =
            self.failures.is_empty() || tolerates && self.outcome != OutcomeWord::NotStarted;
        is_clean && !self.broke_off() && self.hostile.iter().all(|line| line.failures == 0)
    }

    /// Whether a search has tried and no rate held.
    pub(crate) fn nothing_held(&self) -> bool {
        let search = self.find_max.as_ref().filter(|_| !self.broke_off());
        search.is_some_and(|found| found.held_per_s.is_none() && !found.probes.is_empty())
    }

    /// Whether a search could not go on.
    fn broke_off(&self) -> bool {
        let search = self.find_max.as_ref();
        search.is_some_and(|found| found.broke_off.is_some())
    }

    pub(crate) fn gates_are_met(&self) -> bool {
        self.gates.iter().all(|gate| gate.verdict == Verdict::Met)
    }

    /// Without what a log has in another form, and without the verdicts, which are the reader's.
    pub(crate) fn for_log(&self) -> Report {
        Report {
            gates: Vec::new(),
            find_max: None,
            timeline: Vec::new(),
            ..self.clone()
        }
    }
}

/// What a report is made from, in full.
#[derive(Debug)]
pub(crate) struct Measurements {
    pub(crate) started: SystemTime,
    pub(crate) response: Times,
    pub(crate) service: Times,
    pub(crate) connect: Times,
    pub(crate) lag: Times,
    pub(crate) timeline: Timeline,
}

impl Measurements {
    /// Takes what `load` has measured, when it has ended.
    pub(crate) fn of(load: &Load) -> Measurements {
        let (response, service) = load
            .recorder
            .with_total(|total| (total.response().clone(), total.service().clone()));
        Measurements {
            started: load.window_started(),
            response,
            service,
            connect: load.with_connect_times(Times::clone),
            lag: load.with_lag(Times::clone),
            timeline: load.take_timeline(),
        }
    }

    /// What conditions are asked of, with the numbers that `report` has beside the times.
    pub(crate) fn figures(&self, report: &Report) -> Figures<'_> {
        let window = report.window.as_ref();
        let window = window.filter(|_| !self.response.is_empty());
        Figures {
            response: Some(&self.response),
            service: Some(&self.service),
            connect: Some(&self.connect),
            lag: Some(&self.lag),
            silence_ns: window.and_then(|window| window.longest_silence_ns),
            rate: window.map(|window| window.requests_per_s),
            failures: report.failures.iter().map(|kind| kind.connections).sum(),
            fairness: report.fairness.map(|fairness| fairness.jain),
        }
    }
}

fn run_of(load: &Load, started: SystemTime) -> Run {
    let since = started.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    Run {
        id: format!("{:x}-{:x}", since.as_nanos(), std::process::id()),
        connect: load.settings.connect.clone(),
        started_unix_s: since.as_secs_f64(),
    }
}

/// Of those that came up: one that did not was not served badly but not at all, and has failed.
fn fairness_of(entries: &[Entry]) -> Option<Fairness> {
    let came_up = entries.iter().filter(|entry| entry.came_up);
    Fairness::of(came_up.map(|entry| entry.answered))
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
        style: load.settings.style.style,
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
        longest_silence_ns: Some(longest_silence_ns),
    }
}

fn effort_of(load: &Load, start: &Border, end: &Border, lag: Option<Summary>) -> Effort {
    let cores = load.settings.style.style.cores(load.slots.len() as u32);
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
            limit(cpu_share, cores, lag.as_ref())
        },
    }
}
