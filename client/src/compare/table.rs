//! The printed form of a comparison: one table.
//!
//! Application, above L4. A number that was not measured is a `-`, and why stands below the table.
//!
//! Deliberately not here: what the numbers are (`results`), and the charts (`page`).

use std::fmt::{self, Write};
use std::time::Duration;

use indicatif::HumanCount;

use crate::compare::results::{Comparison, ModelResult, Trial};
use crate::print::time;

/// The head of each column but the first.
pub(crate) const HEADS: [&str; 9] = [
    "requests/s",
    "p50",
    "p99",
    "p99.9",
    "CPU/req.",
    "memory/conn.",
    "switches/req.",
    "calls/req.",
    "served",
];

/// The comparison as text, for standard output.
pub(crate) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_all(&mut text, comparison);
    text
}

fn write_all(text: &mut String, comparison: &Comparison) -> fmt::Result {
    let settings = &comparison.settings;
    writeln!(
        text,
        "{} connections, messages of {} bytes, {} of {}{}\n",
        HumanCount(settings.connections.into()),
        HumanCount(settings.size_bytes.into()),
        settings.what_is_shown(),
        time(Duration::from_secs_f64(settings.duration_s)),
        if comparison.interrupted {
            " (interrupted)"
        } else {
            ""
        },
    )?;
    let rows: Vec<(&ModelResult, Option<[String; 9]>)> = comparison
        .models
        .iter()
        .map(|model| {
            let trial = model.at(settings.connections);
            (model, trial.map(|trial| cells(model, trial)))
        })
        .collect();
    let names = rows.iter().map(|(model, _)| model.name.chars().count());
    let name_width = names.max().unwrap_or(0).max("model".len());
    let widths: Vec<usize> = HEADS
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let cells = rows.iter().filter_map(|(_, cells)| cells.as_ref());
            let widest = cells.map(|cells| cells[column].chars().count()).max();
            widest.unwrap_or(0).max(head.chars().count())
        })
        .collect();
    write!(text, "{:<name_width$}", "model")?;
    for (head, width) in HEADS.iter().zip(&widths) {
        write!(text, "  {head:>width$}")?;
    }
    writeln!(text)?;
    for (model, cells) in &rows {
        write!(text, "{:<name_width$}", model.name)?;
        match cells {
            Some(cells) => {
                for (cell, width) in cells.iter().zip(&widths) {
                    write!(text, "  {cell:>width$}")?;
                }
            }
            None => write!(text, "  {}", why_not(model))?,
        }
        writeln!(text)?;
    }
    write_notes(text, comparison)
}

fn write_notes(text: &mut String, comparison: &Comparison) -> fmt::Result {
    let failures = comparison.models.iter().filter_map(|model| {
        let failure = model.failure.as_ref()?;
        Some(format!("{} failed: {failure}", model.name))
    });
    let lacking = comparison.models.iter().filter_map(|model| {
        let reason = model.lacking.as_ref()?;
        Some(format!("{}: {reason}", model.name))
    });
    let notes = comparison.notes.iter().cloned();
    let lines: Vec<String> = failures.chain(lacking).chain(notes).collect();
    if !lines.is_empty() {
        writeln!(text)?;
    }
    for line in lines {
        writeln!(text, "{line}")?;
    }
    Ok(())
}

/// Why there is no row of numbers.
pub(crate) fn why_not(model: &ModelResult) -> &'static str {
    match (&model.lacking, &model.failure) {
        (Some(_), _) => "not on this system",
        (None, Some(_)) => "failed",
        (None, None) => "not measured",
    }
}

/// The numbers of a model, in the order of the heads.
pub(crate) fn cells(model: &ModelResult, trial: &Trial) -> [String; 9] {
    let nothing = || "-".to_owned();
    let audience = model.audience.as_ref();
    let memory = audience.and_then(|audience| audience.bytes_per_connection);
    let calls = model.system_calls.as_ref();
    [
        rate(trial),
        nanoseconds(trial.p50_ns),
        nanoseconds(trial.p99_ns),
        nanoseconds(trial.p99_9_ns),
        nanoseconds(trial.cpu_per_request_ns),
        memory.map_or_else(nothing, bytes),
        ratio(trial.switches_per_request),
        calls.map_or_else(nothing, |calls| ratio(calls.per_request)),
        audience.map_or_else(nothing, |audience| {
            format!(
                "{} of {}",
                HumanCount(audience.served.into()),
                HumanCount(audience.asked.into())
            )
        }),
    ]
}

/// Requests a second. Where the client held them back, a faster one might see more.
pub(crate) fn rate(trial: &Trial) -> String {
    let rate = HumanCount(trial.requests_per_s.round() as u64);
    let sign = if trial.client_was_the_limit {
        "≥ "
    } else {
        ""
    };
    format!("{sign}{rate}")
}

pub(crate) fn nanoseconds(nanoseconds: f64) -> String {
    time(Duration::from_nanos(nanoseconds.round() as u64))
}

pub(crate) fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e3 => format!("{bytes:.0} B"),
        bytes if bytes < 1e4 => format!("{:.1} kB", bytes / 1e3),
        bytes if bytes < 1e6 => format!("{:.0} kB", bytes / 1e3),
        bytes => format!("{:.1} MB", bytes / 1e6),
    }
}

/// A number of which the small ones matter, too.
pub(crate) fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 100.0 => format!("{ratio:.0}"),
        ratio if ratio >= 10.0 => format!("{ratio:.1}"),
        ratio if ratio >= 0.1 || ratio == 0.0 => format!("{ratio:.2}"),
        ratio if ratio >= 0.001 => format!("{ratio:.3}"),
        _ => "< 0.001".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::compare::machine::Machine;
    use crate::compare::results::tests::trial;
    use crate::compare::results::{Audience, Settings, SystemCalls};

    /// A comparison of two models that were measured, one that is lacking and one that failed.
    pub(crate) fn comparison() -> Comparison {
        let measured = |name: &str, rate: f64, served: u32| {
            let mut model = ModelResult {
                name: name.to_owned(),
                about: format!("What <{name}> is"),
                audience: Some(Audience {
                    asked: 400,
                    connected: 400,
                    served,
                    bytes_per_connection: Some(4_573.0),
                    idle_bytes: Some(2_000_000),
                    processes: 1,
                }),
                system_calls: Some(SystemCalls {
                    per_request: 2.01,
                    by_name: vec![("sendto".to_owned(), 1.0), ("recvfrom".to_owned(), 1.01)],
                }),
                ..ModelResult::default()
            };
            for connections in [1, 400] {
                model.add(connections, trial(rate));
            }
            model
        };
        let mut models = vec![
            measured("blocking", 20_000.0, 1),
            measured("green", 98_765.0, 400),
        ];
        models.push(ModelResult {
            name: "kqueue".to_owned(),
            lacking: Some("the kernel has no kqueue".to_owned()),
            ..ModelResult::default()
        });
        models.push(ModelResult {
            name: "a<b>&\"c'".to_owned(),
            failure: Some("it died & <was> \"lost\"".to_owned()),
            ..ModelResult::default()
        });
        Comparison {
            interrupted: false,
            settings: Settings {
                command: "client compare".to_owned(),
                connections: 400,
                steps: vec![1, 400],
                size_bytes: 64,
                duration_s: 2.0,
                rounds: 3,
                server_processors: vec![0],
                client_processors: vec![1],
            },
            machine: Machine::this(),
            models,
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn every_model_has_a_row() {
        // Goal: numbers stand under their heads, and who has none has a reason. Method: a
        // comparison of all sorts.
        let text = text(&comparison());
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        let head = row("model");
        assert!(row("green").ends_with("400 of 400") && row("green").contains("98,765"));
        assert!(row("green").contains("4.6 kB") && row("green").contains("2.01"));
        assert_eq!(row("green").chars().count(), head.chars().count());
        assert!(row("blocking").ends_with("1 of 400"));
        assert!(row("kqueue ").ends_with("not on this system"));
        assert!(row("kqueue:").contains("the kernel has no kqueue"));
        assert!(row("a<b>").contains("failed"));
        assert!(text.contains("it died & <was>") && text.contains("a note"));
    }

    #[test]
    fn numbers_are_short() {
        // Goal: each magnitude reads well. Method: one of each.
        let expected = [
            (2.0, "2.00"),
            (0.05, "0.050"),
            (0.0001, "< 0.001"),
            (44.44, "44.4"),
        ];
        for (number, text) in expected {
            assert_eq!(ratio(number), text);
        }
        assert_eq!(
            (ratio(0.0), ratio(397.6)),
            ("0.00".to_owned(), "398".to_owned())
        );
        let expected = [(512.0, "512 B"), (4_573.0, "4.6 kB"), (90_000.0, "90 kB")];
        for (number, text) in expected {
            assert_eq!(bytes(number), text);
        }
        let mut slow = trial(12_345.4);
        slow.client_was_the_limit = true;
        assert_eq!(rate(&slow), "≥ 12,345");
    }
}
