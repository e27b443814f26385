//! The gates of a run (`--fail-if`): what must not be, and whether it was.
//!
//! Application, above L4. A gate is a condition that makes the run fail. One whose figure has no
//! sample is not met either, because it has not shown that the server is good enough.
//!
//! Deliberately not here: the grammar (`condition`), and the exit code (`main`).

use serde::Serialize;

use crate::condition::{Condition, Figures, Unit};

/// A gate after the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Gate {
    /// As it was written.
    pub(crate) fail_if: String,
    pub(crate) value: Option<f64>,
    pub(crate) limit: f64,
    pub(crate) unit: Unit,
    pub(crate) verdict: Verdict,
    /// Whether it says how many connections may fail.
    #[serde(skip)]
    pub(crate) is_about_failures: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    NotMet,
    NoSamples,
}

impl Gate {
    pub(crate) fn all(conditions: &[Condition], figures: &Figures<'_>) -> Vec<Gate> {
        let gates = conditions.iter();
        gates
            .map(|condition| Gate::of(condition, figures))
            .collect()
    }

    /// The verdict on `figures`.
    fn of(condition: &Condition, figures: &Figures<'_>) -> Gate {
        let value = condition.value(figures);
        Gate {
            fail_if: condition.to_string(),
            value,
            limit: condition.limit(),
            unit: condition.unit(),
            verdict: match value {
                None => Verdict::NoSamples,
                Some(value) if condition.is_true_of(value) => Verdict::NotMet,
                Some(_) => Verdict::Met,
            },
            is_about_failures: condition.is_about_failures(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Times;

    #[test]
    fn a_gate_without_samples_is_not_met() {
        // Goal: the three verdicts, and that no samples are not taken for good ones. Method: the
        // same gate over a fast, a slow and no reply; both directions over none.
        let verdict = |text: &str, ms: Option<u64>| {
            let mut times = Times::new();
            if let Some(ms) = ms {
                times.record_ns(ms * 1_000_000);
            }
            let figures = Figures {
                response: Some(&times),
                ..Figures::default()
            };
            Gate::of(&text.parse().unwrap(), &figures).verdict
        };
        assert_eq!(verdict("p99>5ms", Some(2)), Verdict::Met);
        assert_eq!(verdict("p99>5ms", Some(9)), Verdict::NotMet);
        assert_eq!(verdict("p99>5ms", None), Verdict::NoSamples);
        assert_eq!(verdict("p99<5ms", None), Verdict::NoSamples);
    }
}
