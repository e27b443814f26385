//! The printed form of a report.
//!
//! Application, above L4. Numbers stand under one another, each with its unit, and whatever went
//! wrong stands at the end, where it is seen.
//!
//! Deliberately not here: what the numbers are (`report`).

use std::fmt::{self, Write};
use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount};

use crate::condition::Unit;
use crate::fail_if::{Gate, Verdict};
use crate::failure::Phase;
use crate::fairness::Fairness;
use crate::find_max;
use crate::hostile;
use crate::measure::Summary;
use crate::pacing::Schedule;
use crate::report::{Effort, OutcomeWord, Report, Settings, Window};
use crate::timeline::{self, Row};

/// The report as text, for standard output.
pub(crate) fn report(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(text: &mut String, report: &Report) -> fmt::Result {
    if let Some(found) = &report.find_max {
        find_max::write(text, found)?;
    }
    let settings = &report.settings;
    let extent = match (settings.duration_s, settings.messages) {
        (Some(seconds), _) => format!("for {}", time(Duration::from_secs_f64(seconds))),
        (None, messages) => format!("{} each", HumanCount(messages.unwrap_or(0))),
    };
    if report.runs.len() > 1 {
        write!(
            text,
            "{} runs merged: ",
            HumanCount(report.runs.len() as u64)
        )?;
    }
    writeln!(
        text,
        "{} connections to {}, messages of {} bytes{}{}, {extent}{}\n",
        HumanCount(report.connections.asked),
        settings.connect,
        HumanCount(settings.size_bytes.into()),
        if settings.upper {
            ", replies in upper case"
        } else {
            ""
        },
        pace(settings),
        if report.outcome == OutcomeWord::Interrupted {
            " (interrupted)"
        } else {
            ""
        },
    )?;
    write_connections(text, report)?;
    write_messages(text, report)?;
    if let Some(window) = &report.window {
        write_rates(text, window)?;
    }
    if let Some(schedule) = &report.schedule {
        write_schedule(text, schedule)?;
    }
    if let Some(fairness) = &report.fairness {
        write_fairness(text, fairness)?;
    }
    write_latencies(text, report)?;
    write_timeline(text, report)?;
    if let Some(effort) = &report.client {
        write_effort(text, effort)?;
    }
    hostile::write(text, &report.hostile)?;
    write_failures(text, report)?;
    write_gates(text, &report.gates)
}

/// How it was sent, where that is not one message after the other.
fn pace(settings: &Settings) -> String {
    let mut text = String::new();
    let seconds = |seconds: f64| time(Duration::from_secs_f64(seconds));
    if settings.depth > 1 {
        text += &format!(", {} in flight each", HumanCount(settings.depth.into()));
    }
    if let Some(rate) = settings.rate_per_s {
        text += &format!(", {}/s", number(rate));
    }
    if let Some(think_s) = settings.think_s {
        text += &format!(", {} between them", seconds(think_s));
    }
    if let Some(ramp_s) = settings.ramp_s {
        text += &format!(", made over {}", seconds(ramp_s));
    }
    if let Some(warmup_s) = settings.warmup_s {
        text += &format!(", after {} that are not measured", seconds(warmup_s));
    }
    text
}

/// A rate may be a fraction.
fn number(value: f64) -> String {
    if value >= 10.0 {
        HumanCount(value.round() as u64).to_string()
    } else {
        format!("{value:.3}")
    }
}

fn write_connections(text: &mut String, report: &Report) -> fmt::Result {
    let connections = &report.connections;
    let elapsed = time(Duration::from_secs_f64(report.connect.elapsed_s));
    let connected = HumanCount(connections.connected);
    write!(
        text,
        "connections  {connected} of {} up in {elapsed}",
        HumanCount(connections.asked)
    )?;
    for (count, word) in [
        (connections.failed, "failed"),
        (connections.connecting, "not yet up"),
    ] {
        if count > 0 {
            write!(text, ", {} {word}", HumanCount(count))?;
        }
    }
    write!(text, "; {} closed in order", HumanCount(connections.closed))?;
    for (count, word) in [
        (connections.broken, "broken"),
        (connections.open, "still open"),
    ] {
        if count > 0 {
            write!(text, ", {} {word}", HumanCount(count))?;
        }
    }
    writeln!(text)
}

fn write_messages(text: &mut String, report: &Report) -> fmt::Result {
    let messages = &report.messages;
    writeln!(
        text,
        "messages     {} sent = {} answered + {} failed + {} in flight",
        HumanCount(messages.sent),
        HumanCount(messages.answered),
        HumanCount(messages.failed),
        HumanCount(messages.in_flight),
    )
}

fn write_rates(text: &mut String, window: &Window) -> fmt::Result {
    writeln!(
        text,
        "rate         {} requests/s, {}/s each way, over {}",
        HumanCount(window.requests_per_s.round() as u64),
        DecimalBytes(window.bytes_per_s.round() as u64),
        time(Duration::from_secs_f64(window.elapsed_s)),
    )?;
    if let Some(silence_ns) = window.longest_silence_ns {
        let silence = time(Duration::from_nanos(silence_ns));
        writeln!(text, "silence      {silence} at most without any reply")?;
    }
    Ok(())
}

fn write_fairness(text: &mut String, fairness: &Fairness) -> fmt::Result {
    let (least, most) = (HumanCount(fairness.least), HumanCount(fairness.most));
    let jain = fairness.jain;
    writeln!(
        text,
        "fairness     {least} to {most} answered on each connection, Jain's index {jain:.3}"
    )
}

fn write_schedule(text: &mut String, schedule: &Schedule) -> fmt::Result {
    writeln!(
        text,
        "schedule     {}/s intended, {}/s achieved; {} due, {} never sent, {} over 1 ms late",
        number(schedule.intended_per_s),
        number(schedule.achieved_per_s),
        HumanCount(schedule.due),
        HumanCount(schedule.unsent),
        HumanCount(schedule.late),
    )
}

/// One table of all times, so that their columns can be compared.
fn write_latencies(text: &mut String, report: &Report) -> fmt::Result {
    let lag = report.client.as_ref().and_then(|effort| effort.lag_ns);
    // Without a schedule response and service are the same.
    let scheduled = report.schedule.as_ref();
    let rows = [
        (
            if scheduled.is_some() {
                "response"
            } else {
                "reply"
            },
            report.latency_ns,
        ),
        ("service", scheduled.and(report.service_ns)),
        (
            "sent late",
            scheduled.and_then(|schedule| schedule.lateness_ns),
        ),
        ("connect", report.connect.latency_ns),
        ("loop's lag", lag),
    ];
    if rows.iter().all(|(_, summary)| summary.is_none()) {
        return Ok(());
    }
    let columns = ["p50", "p90", "p99", "p99.9", "max"];
    write!(text, "\n{:<12}", "time")?;
    for column in columns {
        write!(text, "{column:>11}")?;
    }
    writeln!(text)?;
    for (name, summary) in rows {
        let Some(summary) = summary else { continue };
        write!(text, "{name:<12}")?;
        for value in values(&summary) {
            write!(text, "{:>11}", time(Duration::from_nanos(value)))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn values(summary: &Summary) -> [u64; 5] {
    [
        summary.p50,
        summary.p90,
        summary.p99,
        summary.p99_9,
        summary.max,
    ]
}

/// So many rows are seen at a glance; a longer run has more seconds in a row.
const TIMELINE_ROWS_MAX: usize = 20;

/// How it went from second to second. A run of one interval has been told already.
fn write_timeline(text: &mut String, report: &Report) -> fmt::Result {
    let end_s = report
        .window
        .as_ref()
        .map_or(0.0, |window| window.elapsed_s);
    // What came after the window is in a row that has no rate worth the name. It begins where the
    // window ends, but for a last digit.
    let is_inside = |row: &&Row| row.start_s + 1e-6 < end_s;
    let rows = report.timeline.iter().filter(is_inside);
    let rows: Vec<Row> = rows.copied().collect();
    if rows.len() < 2 {
        return Ok(());
    }
    let each = rows.len().div_ceil(TIMELINE_ROWS_MAX);
    let title = if each > 1 {
        format!("\nthe worst second of every {each}")
    } else {
        "\nfrom second".to_owned()
    };
    write!(text, "{title:<31}")?;
    for column in ["requests/s", "p50", "p99", "max"] {
        write!(text, "{column:>11}")?;
    }
    writeln!(text)?;
    for row in rows.chunks(each).filter_map(timeline::worst) {
        let rate = HumanCount(row.requests_per_s.round() as u64).to_string();
        write!(text, "{:<30.0}{rate:>11}", row.start_s)?;
        match row.latency_ns {
            None => write!(text, "{:>33}", "no reply")?,
            Some(summary) => {
                for value in [summary.p50, summary.p99, summary.max] {
                    write!(text, "{:>11}", time(Duration::from_nanos(value)))?;
                }
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_effort(text: &mut String, effort: &Effort) -> fmt::Result {
    write!(
        text,
        "\nclient       {:.0} % of a core",
        effort.cpu_share * 100.0
    )?;
    if let Some(per_request_ns) = effort.cpu_per_request_ns {
        let each = time(Duration::from_nanos(per_request_ns as u64));
        write!(text, ", {each} of CPU time a request")?;
    }
    match &effort.limit {
        None => writeln!(text, "; it was not the limit"),
        Some(reason) => writeln!(text, "\nlimit        the client itself: {reason}"),
    }
}

fn write_failures(text: &mut String, report: &Report) -> fmt::Result {
    if report.failures.is_empty() {
        return writeln!(text, "failures     none");
    }
    let header = ["connections", "messages"];
    writeln!(
        text,
        "\n{:<9}{:>12}{:>10}  cause, and the first one",
        "failures", header[0], header[1]
    )?;
    for kind in &report.failures {
        let (connections, messages) = (HumanCount(kind.connections), HumanCount(kind.messages));
        let (connections, messages) = (connections.to_string(), messages.to_string());
        writeln!(
            text,
            "{:<9}{connections:>12}{messages:>10}  {}",
            kind.phase, kind.cause
        )?;
        writeln!(text, "{:33}{}", "", kind.first)?;
    }
    Ok(())
}

fn write_gates(text: &mut String, gates: &[Gate]) -> fmt::Result {
    for gate in gates {
        let value = gate.value.map_or_else(String::new, |value| {
            format!(" ({})", in_unit(value, gate.unit))
        });
        let verdict = match gate.verdict {
            Verdict::Met => "met",
            Verdict::NotMet => "NOT MET",
            Verdict::NoSamples => "NOT MET: nothing was measured to tell it from",
        };
        writeln!(
            text,
            "gate         fail if {}: {verdict}{value}",
            gate.fail_if
        )?;
    }
    Ok(())
}

/// What a condition is about, as a reader wants it.
pub(crate) fn in_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => time(Duration::from_nanos(value as u64)),
        Unit::PerSecond => format!("{}/s", HumanCount(value.round() as u64)),
        Unit::Connections => HumanCount(value as u64).to_string(),
        Unit::Index => format!("{value:.3}"),
    }
}

/// Why nothing could be measured, with what to do about it, for standard error.
pub(crate) fn not_started(report: &Report) -> String {
    let connect = &report.settings.connect;
    let mut text = String::new();
    for kind in &report.failures {
        let Some(line) = reason(kind.phase, &kind.cause, &kind.first, connect) else {
            continue;
        };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "error: {line}");
    }
    text
}

/// Why there is no connection, and what to do about it; nothing if there was one.
pub(crate) fn reason(phase: Phase, cause: &str, first: &str, connect: &str) -> Option<String> {
    Some(match phase {
        Phase::Prepare => first.to_owned(),
        Phase::Resolve => {
            format!(
                "the name in {first} cannot be resolved: {cause}\n  is it spelled right? \
                     An address works without names: --connect 127.0.0.1:8080"
            )
        }
        Phase::Connect => {
            let remedy = if cause.contains("ECONNREFUSED") {
                format!(
                    "nobody listens there: start a server with `server --listen {connect}`, \
                         or name another with --connect"
                )
            } else {
                "is the address right, and the server reachable? Name another with --connect"
                    .to_owned()
            };
            format!("no connection to {connect}: {cause}\n  {remedy}")
        }
        _ => return None,
    })
}

/// A time with three digits and the unit that suits it.
pub(crate) fn time(time: Duration) -> String {
    let nanoseconds = time.as_nanos() as f64;
    let (value, unit) = match nanoseconds {
        value if value < 1e3 => return format!("{value:.0} ns"),
        value if value < 1e6 => (value / 1e3, "us"),
        value if value < 1e9 => (value / 1e6, "ms"),
        value => (value / 1e9, "s"),
    };
    let decimals = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        // Goal: each magnitude is printed readably. Method: one of each.
        for (nanoseconds, expected) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_234, "1.23 us"),
            (45_600, "45.6 us"),
            (789_000, "789 us"),
            (3_210_000, "3.21 ms"),
            (10_000_000_000, "10.0 s"),
            (123_000_000_000, "123 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanoseconds)), expected);
        }
    }
}
