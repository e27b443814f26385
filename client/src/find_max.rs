//! `--find-max`: the highest rate at which a condition holds, found by trying.
//!
//! Application, above L4. Doubles the rate until the condition breaks, or halves it until it
//! holds, and then cuts the distance between the two in half until it is small. Every try is a
//! probe: a short run of its own on new connections, with a warm-up that is not measured, so that
//! what one probe has left behind does not count against the next.
//!
//! A probe holds if its condition is true, nothing failed, and the replies came at the rate that
//! was asked for: a server that falls behind may still look fast in a run too short to show it.
//! If no connection comes up any more the search breaks off, which is a failure: who has killed the
//! server has not found its limit.
//!
//! Deliberately not here: how a probe is run (`load`), and trying a rate again. A probe that had
//! bad luck makes the answer lower; longer probes make it surer.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;

use crate::arguments::Load;
use crate::condition::{Condition, Unit};
use crate::load::Outcome;
use crate::pacing::Rate;
use crate::print::in_unit;
use crate::report::{Measurements, OutcomeWord, Report};

/// The option.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Search {
    /// Search the highest --rate at which this is true, nothing fails and the replies keep up
    ///
    /// METRIC OP VALUE as for --fail-if. The search begins at --rate (or 1000/s), doubles, and then
    /// halves what is left; each probe is a run of --duration (or 2s) on new connections after
    /// --warmup (or 500ms). Exit code 3 if not even 10/s holds.
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["messages", "think"])]
    #[arg(value_parser = condition)]
    pub(crate) find_max: Option<Condition>,
}

/// Only what a higher rate breaks can be searched for.
fn condition(text: &str) -> Result<Condition, String> {
    let condition: Condition = text.parse().map_err(|error| format!("{error}"))?;
    match (condition.unit(), condition.is_upper_bound()) {
        (Unit::PerSecond, _) => Err(
            "the rate is what is searched for: name what must hold at it, \
                                     for example p99<5ms"
                .to_owned(),
        ),
        (Unit::Index, true) => Err("write what must hold, for example fairness>0.9".to_owned()),
        (Unit::Nanoseconds | Unit::Connections, false) => {
            Err("write what must hold, for example p99<5ms".to_owned())
        }
        _ => Ok(condition),
    }
}

/// How long a probe lasts if `--duration` does not say.
const PROBE: Duration = Duration::from_secs(2);
/// What goes before if `--warmup` does not say.
const WARMUP: Duration = Duration::from_millis(500);

/// Where the search begins if `--rate` does not say.
const FIRST_PER_S: u64 = 1000;
/// Below this the search gives up: a probe would have too few replies to tell anything.
const LOWEST_PER_S: u64 = 10;
/// Nothing that answers messages one by one comes near this.
const HIGHEST_PER_S: u64 = 1 << 30;
/// The answer is this part of itself below a rate that did not hold, or nearer.
const NEAR: u64 = 20;
/// The share of what was due that must have been answered ...
const KEPT_UP: f64 = 0.95;
/// ... but for so many replies, which the end of a short window may cut off.
const CUT_OFF: f64 = 2.0;

/// What one probe has shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probe {
    pub(crate) rate_per_s: u64,
    pub(crate) answered_per_s: Option<f64>,
    /// What the condition is about.
    pub(crate) value: Option<f64>,
    pub(crate) failures: u64,
    pub(crate) held: bool,
    /// Why it did not hold, or what is to be known if it did.
    pub(crate) note: Option<String>,
}

/// What the search has come to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FindMax {
    /// As it was written.
    pub(crate) condition: String,
    pub(crate) unit: Unit,
    /// The highest rate that held.
    pub(crate) held_per_s: Option<u64>,
    /// The lowest rate above it that did not.
    pub(crate) broken_per_s: Option<u64>,
    /// Why the search could not go on, if it could not.
    pub(crate) broke_off: Option<String>,
    pub(crate) probes: Vec<Probe>,
}

/// What was measured in a probe.
#[derive(Copy, Clone, Debug)]
struct Measured {
    value: Option<f64>,
    answered: u64,
    elapsed_s: f64,
    failures: u64,
    /// Whether the client held the rate back.
    client_was_limit: bool,
}

impl Measured {
    fn of(report: &Report, measurements: &Measurements, condition: &Condition) -> Measured {
        let figures = measurements.figures(report);
        let window = report.window.as_ref();
        let client = report.client.as_ref();
        Measured {
            value: condition.value(&figures),
            answered: window.map_or(0, |window| window.answered),
            elapsed_s: window.map_or(0.0, |window| window.elapsed_s),
            failures: figures.failures,
            client_was_limit: client.is_some_and(|client| client.limit.is_some()),
        }
    }
}

impl Probe {
    fn judge(rate_per_s: u64, condition: &Condition, measured: Measured) -> Probe {
        let Measured {
            value,
            answered,
            elapsed_s,
            failures,
            client_was_limit,
        } = measured;
        let due = rate_per_s as f64 * elapsed_s;
        let objection = match value {
            _ if failures > 0 => Some("something failed"),
            None => Some("nothing was measured"),
            Some(value) if !condition.is_true_of(value) => Some("the condition does not hold"),
            Some(_) if answered as f64 + CUT_OFF < KEPT_UP * due => {
                Some("the replies did not keep up")
            }
            Some(_) => None,
        };
        let limit = client_was_limit.then_some("the client was the limit");
        let notes: Vec<&str> = objection.into_iter().chain(limit).collect();
        Probe {
            rate_per_s,
            answered_per_s: (elapsed_s > 0.0).then(|| answered as f64 / elapsed_s),
            value,
            failures,
            held: objection.is_none(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }
}

/// Searches with `run`; the report is that of the best probe, or of the last if none held.
pub(crate) fn run(
    settings: &Load,
    condition: &Condition,
    run: impl Fn(Load) -> (Report, Measurements, Outcome),
) -> (Report, Measurements, Outcome) {
    let mut probes: Vec<Probe> = Vec::new();
    let mut best = None;
    let mut outcome = Outcome::Complete;
    let mut broke_off = None;
    let first = settings.pace.rate.map_or(FIRST_PER_S, Rate::whole_per_s);
    let border = search(first, |rate_per_s| {
        let (report, measured, ended) = run(probe_settings(settings, rate_per_s));
        let is_first = probes.is_empty();
        outcome = ended;
        if ended != Outcome::Complete || is_first && report.outcome == OutcomeWord::NotStarted {
            best = best.take().or(Some((report, measured)));
            return ControlFlow::Break(());
        }
        let figures = Measured::of(&report, &measured, condition);
        let probe = Probe::judge(rate_per_s, condition, figures);
        if !settings.quiet {
            // Who closed our standard error does not want to see it.
            let _ = writeln!(io::stderr(), "{}", line(&probe, condition.unit()));
        }
        let held = probe.held;
        // Without a server lower rates would break, too, and tell nothing.
        broke_off = gone(&report);
        if held || !probes.iter().any(|probe| probe.held) {
            best = Some((report, measured));
        }
        probes.push(probe);
        match broke_off {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(held),
        }
    });
    let (mut report, measured) = best.expect("the search begins with a probe");
    if let Outcome::Interrupted(_) = outcome {
        // The best probe may be complete; the search is not.
        report.outcome = OutcomeWord::Interrupted;
    }
    report.find_max = Some(FindMax {
        condition: condition.to_string(),
        unit: condition.unit(),
        held_per_s: border.held,
        broken_per_s: border.broken,
        broke_off,
        probes,
    });
    (report, measured, outcome)
}

/// Why no connection came up, if none did.
fn gone(report: &Report) -> Option<String> {
    let is_gone = report.outcome == OutcomeWord::NotStarted;
    let failure = report.failures.first().filter(|_| is_gone)?;
    Some(format!("no connection came up any more: {}", failure.cause))
}

fn probe_settings(settings: &Load, rate_per_s: u64) -> Load {
    let mut settings = settings.clone();
    settings.duration = settings.duration.or(Some(PROBE));
    settings.pace.warmup = settings.pace.warmup.or(Some(WARMUP));
    settings.pace.rate = Some(Rate::whole(rate_per_s));
    settings
}

/// The table of all probes, in the order in which they were made, and what came of them.
pub(crate) fn write(text: &mut String, found: &FindMax) -> fmt::Result {
    let FindMax {
        condition, unit, ..
    } = found;
    for probe in &found.probes {
        writeln!(text, "{}", line(probe, *unit))?;
    }
    let broken = found.broken_per_s.map_or_else(String::new, |rate| {
        format!("; {}/s did not hold", HumanCount(rate))
    });
    match found.held_per_s {
        Some(rate) => writeln!(
            text,
            "highest rate {}/s with {condition}{broken}",
            HumanCount(rate)
        )?,
        None => writeln!(text, "highest rate none with {condition}{broken}")?,
    }
    if let Some(reason) = &found.broke_off {
        writeln!(text, "the search broke off: {reason}")?;
    }
    let which = match (found.held_per_s, found.probes.last()) {
        (_, None) => return Ok(()),
        (Some(_), _) => "highest rate that held",
        (None, _) => "last probe",
    };
    writeln!(text, "\nThe {which}:")
}

fn line(probe: &Probe, unit: Unit) -> String {
    let asked = HumanCount(probe.rate_per_s).to_string();
    let answered = probe.answered_per_s.unwrap_or(0.0).round() as u64;
    let answered = HumanCount(answered).to_string();
    let value = probe.value.map(|value| in_unit(value, unit));
    let value = value.unwrap_or_else(|| "none".to_owned());
    let verdict = if probe.held { "held" } else { "not held" };
    let note = probe
        .note
        .as_ref()
        .map_or_else(String::new, |note| format!(": {note}"));
    format!("probe {asked:>13}/s asked {answered:>13}/s answered {value:>11}  {verdict}{note}")
}

/// The border, as far as it is known.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Border {
    held: Option<u64>,
    broken: Option<u64>,
}

impl Border {
    fn enter(&mut self, rate: u64, held: bool) {
        *(if held {
            &mut self.held
        } else {
            &mut self.broken
        }) = Some(rate);
    }

    /// The rate to try next; nothing if there is no more to find out.
    fn next(&self, first: u64) -> Option<u64> {
        match (self.held, self.broken) {
            (None, None) => Some(first),
            (Some(held), None) => (held < HIGHEST_PER_S).then_some(held.saturating_mul(2)),
            (None, Some(LOWEST_PER_S)) => None,
            (None, Some(broken)) => Some((broken / 2).max(LOWEST_PER_S)),
            (Some(held), Some(broken)) => {
                let distance = broken - held;
                (distance > (held / NEAR).max(1)).then_some(held + distance / 2)
            }
        }
    }
}

/// Tries rates from `first` on until the border is known or `probe` breaks off.
fn search(first: u64, mut probe: impl FnMut(u64) -> ControlFlow<(), bool>) -> Border {
    let mut border = Border::default();
    while let Some(rate) = border.next(first.max(LOWEST_PER_S)) {
        match probe(rate) {
            ControlFlow::Continue(held) => border.enter(rate, held),
            ControlFlow::Break(()) => break,
        }
    }
    border
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that holds up to `capacity`, and how often it was probed.
    fn search_for(capacity: u64, first: u64) -> (Border, u32) {
        let mut probes = 0;
        let border = search(first, |rate| {
            probes += 1;
            ControlFlow::Continue(rate <= capacity)
        });
        (border, probes)
    }

    #[test]
    fn the_border_is_found_from_either_side() {
        // Goal: the answer holds, is within the promised distance of one that does not, and takes
        // few probes. Method: simulated servers of many sizes, from below and from above.
        for capacity in [10, 11, 99, 1000, 1001, 12_345, 777_777, 50_000_000] {
            for first in [1, 10, 1000, 100_000] {
                let (border, probes) = search_for(capacity, first);
                let (held, broken) = (border.held.unwrap(), border.broken.unwrap());
                assert!(
                    held <= capacity && capacity < broken,
                    "{capacity}: {border:?}"
                );
                assert!(
                    broken - held <= (held / 20).max(1),
                    "{capacity}: {border:?}"
                );
                assert!(probes < 40, "{capacity} from {first}: {probes} probes");
            }
        }
    }

    #[test]
    fn the_lowest_rate_ends_the_search() {
        // Goal: a server that holds nothing ends it, with the lowest rate tried. Method: one that
        // holds less than that.
        let (border, _) = search_for(LOWEST_PER_S - 1, 1000);
        assert_eq!((border.held, border.broken), (None, Some(LOWEST_PER_S)));
    }

    #[test]
    fn a_server_without_limit_ends_the_search() {
        // Goal: no overflow, no search without end. Method: everything holds.
        let (border, probes) = search_for(u64::MAX, 1000);
        assert!(border.held >= Some(HIGHEST_PER_S) && border.broken.is_none());
        assert!(probes < 40);
    }

    #[test]
    fn what_was_found_is_kept_when_it_breaks_off() {
        // Goal: Ctrl-C keeps what is known. Method: breaks off in the fourth probe.
        let mut left = 3;
        let border = search(1000, |rate| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            ControlFlow::Continue(rate <= 3000)
        });
        assert_eq!((border.held, border.broken), (Some(2000), Some(4000)));
    }

    #[test]
    fn a_probe_holds_only_if_all_is_well() {
        // Goal: each of the four reasons alone breaks it. Method: a good probe, spoilt in each way.
        let condition = "p99<5ms".parse().unwrap();
        let good = Measured {
            value: Some(4e6),
            answered: 1990,
            elapsed_s: 2.0,
            failures: 0,
            client_was_limit: false,
        };
        let judge = |measured| Probe::judge(1000, &condition, measured);
        assert!(judge(good).held && judge(good).note.is_none());
        let spoilt = [
            Measured {
                value: Some(6e6),
                ..good
            },
            Measured {
                value: None,
                ..good
            },
            Measured {
                answered: 1800,
                ..good
            },
            Measured {
                failures: 1,
                ..good
            },
        ];
        for measured in spoilt {
            let probe = judge(measured);
            assert!(!probe.held && probe.note.is_some(), "{probe:?}");
        }
        let limited = judge(Measured {
            client_was_limit: true,
            ..good
        });
        assert!(limited.held && limited.note.unwrap().contains("client"));
        // Of ten messages the last two may be on their way when the window ends.
        let few = Measured {
            answered: 8,
            elapsed_s: 1.0,
            ..good
        };
        assert!(Probe::judge(10, &condition, few).held);
    }

    #[test]
    fn only_what_a_rate_can_break_is_searched() {
        // Goal: a condition the wrong way round is a mistake that is told. Method: both ways.
        for text in [
            "p99<5ms",
            "service.max<=1s",
            "silence<1s",
            "fairness>0.9",
            "failures<1",
        ] {
            assert!(condition(text).is_ok(), "{text}");
        }
        for text in [
            "p99>5ms",
            "fairness<0.9",
            "failures>0",
            "rate>5k",
            "rate<5k",
            "p99<5",
        ] {
            assert!(condition(text).is_err(), "{text}");
        }
    }
}
