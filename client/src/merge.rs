//! `client merge`: the logs of several runs (`--hdr`) as one result.
//!
//! Application, above L4. The runs are taken as parts of one load: their seconds, counted from the
//! beginning of each one's window, are laid upon one another, their counts and rates are added, and
//! the percentiles are those of all times together. That makes sense only for runs that were asked
//! for the same, so others are refused; the server's address may differ, because one server has
//! many.
//!
//! Deliberately not here: the longest silence, which the runs cannot tell apart: while one waited
//! another one may have had replies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::fail_if::Gate;
use crate::hdr_log::{self, Log};
use crate::hostile;
use crate::measure::{Summary, Times};
use crate::pacing::Schedule;
use crate::recorder::Interval;
use crate::report::{
    Connect, Connections, Effort, Kind, Measurements, Messages, OutcomeWord, Report, Settings,
    Window,
};
use crate::results::Results;
use crate::timeline::Timeline;

const SECOND_NS: u64 = 1_000_000_000;
/// How exactly a log stamps its intervals.
const STAMP_NS: u64 = 1_000_000;
/// What may differ between runs that are merged.
const MAY_DIFFER: [&str; 2] = ["connect", "addresses"];

/// What `client merge --help` adds after the options.
pub(crate) const AFTER_HELP: &str = "\
The seconds of all runs are laid upon one another, counts and rates are added, and the percentiles
are those of all times together. Runs that were asked for something else, the address excepted, are
refused with the difference; so are damaged files, with the line, and a run that is given twice.
What is printed and written is as for `client load`, without the longest silence and the lag.

Exit codes: as for `client load`; 1 also if a file is refused.";

/// The options of `client merge`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Merge {
    /// Logs that `client load --hdr` or `client merge --hdr` has written
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) results: Results,
}

/// Reads and adds up.
///
/// # Errors
///
/// In words, which file cannot be read or taken, and why.
pub(crate) fn run(merge: &Merge) -> Result<(Report, Measurements), String> {
    let mut logs = Vec::new();
    for path in &merge.files {
        let in_file = |error: String| format!("{}: {error}", path.display());
        let content = fs::read(path).map_err(|error| in_file(error.to_string()))?;
        logs.push((path.as_path(), hdr_log::read(&content).map_err(in_file)?));
    }
    check_alike(&logs)?;
    check_different_runs(&logs)?;
    let logs: Vec<Log> = logs.into_iter().map(|(_, log)| log).collect();
    let measured = measured(&logs, merge.results.keeps_histograms());
    let reports: Vec<&Report> = logs.iter().map(|log| &log.report).collect();
    let mut report = merged(&reports, &measured, lateness_of(&logs));
    report.gates = Gate::all(&merge.results.fail_if, &measured.figures(&report));
    Ok((report, measured))
}

fn check_alike(logs: &[(&Path, Log)]) -> Result<(), String> {
    let settings = |log: &Log| match serde_json::to_value(&log.report.settings) {
        Ok(Value::Object(settings)) => settings,
        _ => unreachable!("settings are an object"),
    };
    let Some(((first, model), others)) = logs.split_first() else {
        return Ok(());
    };
    let expected = settings(model);
    for (path, log) in others {
        let found = settings(log);
        let differences: Vec<String> = expected
            .iter()
            .filter(|(key, value)| {
                !MAY_DIFFER.contains(&key.as_str()) && found.get(*key) != Some(value)
            })
            .map(|(key, value)| {
                let other = found.get(key).unwrap_or(&Value::Null);
                format!(
                    "\n  {key} is {value} in {} and {other} here",
                    first.display()
                )
            })
            .collect();
        if !differences.is_empty() {
            let path = path.display();
            return Err(format!(
                "{path}: a run of other settings:{}",
                differences.concat()
            ));
        }
    }
    Ok(())
}

fn check_different_runs(logs: &[(&Path, Log)]) -> Result<(), String> {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for (path, log) in logs {
        for run in &log.report.runs {
            if let Some(other) = seen.insert(&run.id, path) {
                let (path, other) = (path.display(), other.display());
                return Err(format!("{path}: its run is also in {other}"));
            }
        }
    }
    Ok(())
}

/// All times together, and the intervals laid upon one another.
fn measured(logs: &[Log], keeps_histograms: bool) -> Measurements {
    let mut measured = Measurements {
        started: logs
            .iter()
            .map(|log| log.started)
            .min()
            .expect("there is at least one file"),
        response: Times::new(),
        service: Times::new(),
        connect: Times::new(),
        lag: Times::new(),
        timeline: Timeline::new(keeps_histograms),
    };
    let windows = logs.iter().map(|log| window_ns(&log.report));
    let late_ns = windows.max().unwrap_or(0);
    let mut seconds: BTreeMap<u64, Interval> = BTreeMap::new();
    for log in logs {
        measured.connect.add(&log.connect);
        for interval in &log.intervals {
            measured.response.add(interval.response());
            measured.service.add(interval.service());
            // What came after a window comes after all of them.
            let start_ns = if interval.start_ns + STAMP_NS > window_ns(&log.report) {
                late_ns
            } else {
                (interval.start_ns + SECOND_NS / 2) / SECOND_NS * SECOND_NS
            };
            let sum = seconds
                .entry(start_ns)
                .or_insert_with(|| Interval::at(start_ns));
            let elapsed_ns = interval.end_ns - interval.start_ns;
            let end_ns = sum.end_ns.max(start_ns + elapsed_ns);
            sum.add(interval);
            sum.end_ns = end_ns;
        }
    }
    for interval in seconds.into_values() {
        measured.timeline.push(interval);
    }
    measured
}

/// How long after it was due each message was sent, where there was a schedule.
fn lateness_of(logs: &[Log]) -> Option<Summary> {
    let mut sum = Times::new();
    let intervals = logs.iter().flat_map(|log| &log.intervals);
    for lateness in intervals.filter_map(Interval::lateness) {
        sum.add(lateness);
    }
    sum.summary()
}

fn window_ns(report: &Report) -> u64 {
    let window = report.window.as_ref();
    window.map_or(0, |window| (window.elapsed_s * 1e9) as u64)
}

fn merged(reports: &[&Report], measured: &Measurements, lateness_ns: Option<Summary>) -> Report {
    let connections = |count: fn(&Connections) -> u64| {
        let counts = reports.iter().map(|report| count(&report.connections));
        counts.sum()
    };
    let messages = |count: fn(&Messages) -> u64| {
        let counts = reports.iter().map(|report| count(&report.messages));
        counts.sum()
    };
    let elapsed_s = reports.iter().map(|report| report.connect.elapsed_s);
    let fairness = reports.iter().filter_map(|report| report.fairness);
    Report {
        outcome: outcome_of(reports),
        runs: reports
            .iter()
            .flat_map(|report| report.runs.clone())
            .collect(),
        settings: settings_of(reports),
        connections: Connections {
            asked: connections(|all| all.asked),
            connected: connections(|all| all.connected),
            failed: connections(|all| all.failed),
            connecting: connections(|all| all.connecting),
            closed: connections(|all| all.closed),
            broken: connections(|all| all.broken),
            open: connections(|all| all.open),
        },
        connect: Connect {
            elapsed_s: elapsed_s.fold(0.0, f64::max),
            latency_ns: measured.connect.summary(),
        },
        messages: Messages {
            sent: messages(|all| all.sent),
            answered: messages(|all| all.answered),
            failed: messages(|all| all.failed),
            in_flight: messages(|all| all.in_flight),
        },
        window: window_of(reports),
        schedule: schedule_of(reports, lateness_ns),
        latency_ns: measured.response.summary(),
        service_ns: measured.service.summary(),
        latency_curve_ns: measured.response.curve(),
        fairness: fairness.reduce(|sum, more| sum.and(&more)),
        failures: failures_of(reports),
        hostile: hostile_of(reports),
        client: effort_of(reports),
        gates: Vec::new(),
        find_max: None,
        timeline: measured.timeline.rows().to_vec(),
    }
}

fn outcome_of(reports: &[&Report]) -> OutcomeWord {
    let any = |outcome| reports.iter().any(|report| report.outcome == outcome);
    if any(OutcomeWord::Interrupted) {
        OutcomeWord::Interrupted
    } else if any(OutcomeWord::Complete) {
        OutcomeWord::Complete
    } else {
        OutcomeWord::NotStarted
    }
}

fn settings_of(reports: &[&Report]) -> Settings {
    let mut settings = reports[0].settings.clone();
    let mut connects: Vec<&str> = Vec::new();
    for report in reports {
        for connect in report.settings.connect.split(", ") {
            if !connects.contains(&connect) {
                connects.push(connect);
            }
        }
        for address in &report.settings.addresses {
            if !settings.addresses.contains(address) {
                settings.addresses.push(address.clone());
            }
        }
    }
    settings.connect = connects.join(", ");
    settings
}

/// As if all had run side by side: rates add up.
fn window_of(reports: &[&Report]) -> Option<Window> {
    let mut windows = reports.iter().filter_map(|report| report.window.as_ref());
    let first = windows.next()?.clone();
    if reports.len() == 1 {
        return Some(first);
    }
    let first = Window {
        longest_silence_ns: None,
        ..first
    };
    Some(windows.fold(first, |sum, more| Window {
        elapsed_s: sum.elapsed_s.max(more.elapsed_s),
        answered: sum.answered + more.answered,
        bytes: sum.bytes + more.bytes,
        requests_per_s: sum.requests_per_s + more.requests_per_s,
        bytes_per_s: sum.bytes_per_s + more.bytes_per_s,
        longest_silence_ns: None,
    }))
}

fn schedule_of(reports: &[&Report], lateness_ns: Option<Summary>) -> Option<Schedule> {
    let schedules = reports.iter().filter_map(|report| report.schedule.clone());
    let mut sum = schedules.reduce(|sum, more| Schedule {
        intended_per_s: sum.intended_per_s + more.intended_per_s,
        achieved_per_s: sum.achieved_per_s + more.achieved_per_s,
        due: sum.due + more.due,
        unsent: sum.unsent + more.unsent,
        late: sum.late + more.late,
        lateness_ns: None,
    })?;
    sum.lateness_ns = lateness_ns;
    Some(sum)
}

fn failures_of(reports: &[&Report]) -> Vec<Kind> {
    let mut kinds: BTreeMap<_, Kind> = BTreeMap::new();
    for kind in reports.iter().flat_map(|report| &report.failures) {
        kinds
            .entry((kind.phase, kind.cause.clone()))
            .and_modify(|sum| {
                sum.connections += kind.connections;
                sum.messages += kind.messages;
            })
            .or_insert_with(|| kind.clone());
    }
    kinds.into_values().collect()
}

/// The kinds are the same in all runs, and in the same order, because the settings are.
fn hostile_of(reports: &[&Report]) -> Vec<hostile::Line> {
    let mut sums = reports[0].hostile.clone();
    for lines in reports[1..].iter().map(|report| &report.hostile) {
        for (sum, more) in sums.iter_mut().zip(lines) {
            sum.connections += more.connections;
            sum.connects += more.connects;
            sum.refused += more.refused;
            sum.acts += more.acts;
            sum.ended_by_server += more.ended_by_server;
            sum.sent_bytes += more.sent_bytes;
            sum.received_bytes += more.received_bytes;
            sum.failures += more.failures;
            let or = |first: &mut Option<String>, other: &Option<String>| {
                *first = first.take().or_else(|| other.clone());
            };
            or(&mut sum.first_refusal, &more.first_refusal);
            or(&mut sum.first_failure, &more.first_failure);
        }
    }
    sums
}

/// The time that all clients used together, the share of the busiest, and what the first has to say
/// that was the limit.
fn effort_of(reports: &[&Report]) -> Option<Effort> {
    let efforts: Vec<&Effort> = reports
        .iter()
        .filter_map(|report| report.client.as_ref())
        .collect();
    let windows = reports.iter().filter_map(|report| report.window.as_ref());
    let answered: u64 = windows.map(|window| window.answered).sum();
    let cpu_s = efforts.iter().map(|effort| effort.cpu_s).sum();
    let shares = efforts.iter().map(|effort| effort.cpu_share);
    (!efforts.is_empty()).then(|| Effort {
        cpu_s,
        cpu_share: shares.fold(0.0, f64::max),
        cpu_per_request_ns: (answered > 0).then(|| cpu_s * 1e9 / answered as f64),
        lag_ns: None,
        limit: efforts.iter().find_map(|effort| effort.limit.clone()),
    })
}
