//! The result of a comparison as data: what `--json` writes, and what the table and the charts are
//! made from.
//!
//! Application, above L4. The keys are a promise (they are listed in client/README.md).
//!
//! Deliberately not here: measuring (`trial`, `audience`, `strace`) and showing (`table`, `page`).

use serde::Serialize;

use crate::compare::machine::Machine;

#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// Whether the user ended it before it was done.
    pub(crate) interrupted: bool,
    pub(crate) settings: Settings,
    pub(crate) machine: Machine,
    pub(crate) models: Vec<ModelResult>,
    /// What a reader must know about the numbers.
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// The command line, as it was typed.
    pub(crate) command: String,
    pub(crate) connections: u32,
    /// All numbers of connections that were measured at.
    pub(crate) steps: Vec<u32>,
    pub(crate) size_bytes: u32,
    pub(crate) duration_s: f64,
    pub(crate) rounds: u32,
    pub(crate) server_processors: Vec<usize>,
    pub(crate) client_processors: Vec<usize>,
}

impl Settings {
    /// What the numbers are, for people.
    pub(crate) fn what_is_shown(&self) -> String {
        match self.rounds {
            1 => "one round".to_owned(),
            rounds => format!("medians of {rounds} rounds"),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ModelResult {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Why this system cannot have it.
    pub(crate) lacking: Option<String>,
    /// What went wrong.
    pub(crate) failure: Option<String>,
    pub(crate) audience: Option<Audience>,
    pub(crate) system_calls: Option<SystemCalls>,
    pub(crate) steps: Vec<Step>,
}

/// What a server does for connections that are all open at the same time.
#[derive(Copy, Clone, Debug, Serialize)]
pub(crate) struct Audience {
    pub(crate) asked: u32,
    /// Those that came up.
    pub(crate) connected: u32,
    /// Those whose message was answered while all others were open, too.
    pub(crate) served: u32,
    /// Memory for each connection that was served, beyond that of the idle server.
    pub(crate) bytes_per_connection: Option<f64>,
    pub(crate) idle_bytes: Option<u64>,
    pub(crate) processes: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SystemCalls {
    pub(crate) per_request: f64,
    /// The most frequent ones, each for itself.
    pub(crate) by_name: Vec<(String, f64)>,
}

/// One number of connections: every round, and their medians.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) connections: u32,
    pub(crate) median: Trial,
    pub(crate) rounds: Vec<Trial>,
}

/// One model under load, once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    pub(crate) requests_per_s: f64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p99_9_ns: f64,
    pub(crate) max_ns: f64,
    /// Quantiles with their times, in ascending order.
    pub(crate) curve: Vec<(f64, f64)>,
    /// What the server and all its children have used in their lives, for each request.
    pub(crate) cpu_per_request_ns: f64,
    pub(crate) switches_per_request: f64,
    /// Processors that the server kept busy.
    pub(crate) server_cpu_share: f64,
    pub(crate) client_cpu_share: f64,
    /// Connections that never came up.
    pub(crate) refused: f64,
    /// Whether the client held the rate back: a faster one might get more from this server.
    pub(crate) client_was_the_limit: bool,
}

impl ModelResult {
    /// The medians at this number of connections.
    pub(crate) fn at(&self, connections: u32) -> Option<&Trial> {
        let step = self
            .steps
            .iter()
            .find(|step| step.connections == connections);
        step.map(|step| &step.median)
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, connections: u32, trial: Trial) {
        let known = self
            .steps
            .iter_mut()
            .find(|step| step.connections == connections);
        if let Some(step) = known {
            step.rounds.push(trial);
            step.median = median_of(&step.rounds);
        } else {
            self.steps.push(Step {
                connections,
                median: trial.clone(),
                rounds: vec![trial],
            });
        }
    }
}

/// Each number's own median: a round that was disturbed in one of them is not thrown away in all.
fn median_of(rounds: &[Trial]) -> Trial {
    let of = |number: fn(&Trial) -> f64| median(rounds.iter().map(number).collect());
    let points = rounds
        .iter()
        .map(|trial| trial.curve.len())
        .min()
        .unwrap_or(0);
    let curve = (0..points).map(|point| {
        let times = rounds.iter().map(|trial| trial.curve[point].1).collect();
        (rounds[0].curve[point].0, median(times))
    });
    Trial {
        requests_per_s: of(|trial| trial.requests_per_s),
        p50_ns: of(|trial| trial.p50_ns),
        p99_ns: of(|trial| trial.p99_ns),
        p99_9_ns: of(|trial| trial.p99_9_ns),
        max_ns: of(|trial| trial.max_ns),
        curve: curve.collect(),
        cpu_per_request_ns: of(|trial| trial.cpu_per_request_ns),
        switches_per_request: of(|trial| trial.switches_per_request),
        server_cpu_share: of(|trial| trial.server_cpu_share),
        client_cpu_share: of(|trial| trial.client_cpu_share),
        refused: of(|trial| trial.refused),
        client_was_the_limit: of(|trial| f64::from(u8::from(trial.client_was_the_limit))) > 0.5,
    }
}

/// The middle one, or what lies between the middle two; 0 of none.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match (numbers.len() % 2, numbers.get(middle)) {
        (_, None) => 0.0,
        (1, Some(number)) => *number,
        (_, Some(number)) => (numbers[middle - 1] + number) / 2.0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A trial with this rate, for the tests of what shows it.
    pub(crate) fn trial(requests_per_s: f64) -> Trial {
        Trial {
            requests_per_s,
            p50_ns: 1_000_000.0,
            p99_ns: 2_000_000.0,
            p99_9_ns: 3_000_000.0,
            max_ns: 4_000_000.0,
            curve: vec![(0.5, 1e6), (0.99, 2e6), (0.999, 3e6)],
            cpu_per_request_ns: 5_200.0,
            switches_per_request: 0.01,
            server_cpu_share: 1.0,
            client_cpu_share: 0.8,
            refused: 0.0,
            client_was_the_limit: false,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        // Goal: odd, even, one, none, and disorder. Method: lists.
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn rounds_are_shown_by_their_medians() {
        // Goal: each number has its own median, the points of the curve too. Method: three rounds
        // that differ in rate, in one point, and in who was the limit.
        let mut model = ModelResult::default();
        for (rate, time, limit) in [(300.0, 9e6, true), (100.0, 7e6, true), (200.0, 8e6, false)] {
            let mut round = trial(rate);
            round.curve[1].1 = time;
            round.client_was_the_limit = limit;
            model.add(400, round);
        }
        let median = model.at(400).unwrap();
        assert_eq!(median.requests_per_s, 200.0);
        assert_eq!(median.curve[1], (0.99, 8e6));
        assert!(median.client_was_the_limit);
        assert!(model.at(10).is_none());
        assert_eq!(model.steps[0].rounds.len(), 3);
    }
}
