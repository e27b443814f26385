//! The table of ratios and the same as JSON.
//!
//! Outside the layers. A ratio is ours divided by the peer's, of the medians of all rounds; beside
//! it stand the quartiles of the ratios of the single rounds, which tell how far to believe it.
//! Deliberately not here: means. One disturbed round would move them.

use std::env;
use std::io;

use serde_json::{Value, json};

use crate::plan::Samples;
use crate::{Part, Peer};

/// Which way is better.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Better {
    Less,
    More,
}

/// What is to be reached at most.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Goal {
    /// Ours divided by the peer's.
    Ratio(f64),
    /// Ours, in the row's unit.
    Absolute(f64),
}

/// What one group of lines is about.
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// Which of the numbers of a measurement.
    pub(crate) column: usize,
    /// Goals by peer; those of `Ours` are about our own number.
    pub(crate) goals: &'static [(Peer, Goal)],
}

/// One line of the table: ours beside one peer.
struct Line {
    part: Part,
    what: String,
    unit: &'static str,
    better: Better,
    peer: Peer,
    ours: Result<Vec<f64>, String>,
    theirs: Result<Vec<f64>, String>,
    goals: Vec<Goal>,
}

/// All lines of a run.
pub(crate) struct Report {
    machine: String,
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Report {
    /// An empty report about runs on the machine described.
    pub(crate) fn new(machine: String) -> Report {
        Report {
            machine,
            lines: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a remark for under the table.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Adds one line for each peer; the first of `all` is ours.
    pub(crate) fn add(&mut self, row: &Row, all: &[(Peer, Samples)]) {
        let column = |samples: &Samples| match samples {
            Ok(rounds) => Ok(rounds.iter().map(|numbers| numbers[row.column]).collect()),
            Err(failure) => Err(failure.to_string()),
        };
        let ours: Result<Vec<f64>, String> = column(&all[0].1);
        // Ours has a line of its own only when there is nobody to compare it with.
        let compared = if all.len() > 1 { &all[1..] } else { all };
        for (index, (peer, samples)) in compared.iter().enumerate() {
            let mine =
                |goal: &&(Peer, Goal)| goal.0 == *peer || (index == 0 && goal.0 == Peer::Ours);
            self.lines.push(Line {
                part: row.part,
                what: row.what.clone(),
                unit: row.unit,
                better: row.better,
                peer: *peer,
                ours: ours.clone(),
                theirs: column(samples),
                goals: row.goals.iter().filter(mine).map(|goal| goal.1).collect(),
            });
        }
    }

    /// Prints command, machine and table.
    pub(crate) fn print(&self) {
        println!("command: {}", command());
        println!("machine: {}", self.machine);
        println!("ratio: ours / peer's, of medians; in brackets the quartiles of single rounds");
        println!();
        let mut table = vec![
            [
                "what", "unit", "ours", "peer", "peer's", "ratio", "", "goal",
            ]
            .map(str::to_owned),
        ];
        let mut previous = "";
        for line in &self.lines {
            let mut cells = line.cells();
            if line.what == previous {
                // Once is enough; the eye then finds where the next comparison begins.
                cells[0].clear();
                cells[1].clear();
            }
            previous = &line.what;
            table.push(cells);
        }
        print_table(&table);
        for line in &self.lines {
            if let Err(reason) = &line.theirs {
                println!("- {}, {}: {reason}", line.what, line.peer.label());
            }
        }
        for note in &self.notes {
            println!("- {note}");
        }
    }

    /// Everything, with all samples, as JSON.
    pub(crate) fn json(&self) -> String {
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        let document = json!({
            "command": command(),
            "machine": self.machine,
            "notes": self.notes,
            "comparisons": lines,
        });
        format!("{document:#}\n")
    }

    /// An error if ours gave no number somewhere: that is a defect and not a result.
    pub(crate) fn check(&self) -> io::Result<()> {
        for line in &self.lines {
            if let Err(reason) = &line.ours {
                return Err(io::Error::other(format!("{}, ours: {reason}", line.what)));
            }
        }
        Ok(())
    }
}

impl Line {
    fn ratio(&self) -> Option<f64> {
        Some(median(self.ours.as_ref().ok()?) / median(self.theirs.as_ref().ok()?))
    }

    /// The first and the third quartile of the single rounds' ratios.
    fn range(&self) -> Option<(f64, f64)> {
        let (ours, theirs) = (self.ours.as_ref().ok()?, self.theirs.as_ref().ok()?);
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        (ratios.len() > 2).then(|| (quantile(&ratios, 0.25), quantile(&ratios, 0.75)))
    }

    /// What the goal is, and whether it is met.
    fn goal(&self, goal: Goal) -> (String, Option<bool>) {
        let sign = if self.better == Better::Less {
            '≤'
        } else {
            '≥'
        };
        let (what, limit, reached) = match goal {
            Goal::Ratio(limit) => (
                "ratio",
                format!("{limit:.2}"),
                self.ratio().map(|r| (r, limit)),
            ),
            Goal::Absolute(limit) => {
                let ours = self
                    .ours
                    .as_ref()
                    .ok()
                    .map(|samples| (median(samples), limit));
                ("ours", number(limit), ours)
            }
        };
        let met = reached.map(|(value, limit)| match self.better {
            Better::Less => value <= limit,
            Better::More => value >= limit,
        });
        (format!("{what} {sign} {limit}"), met)
    }

    fn cells(&self) -> [String; 8] {
        let shown = |samples: &Result<Vec<f64>, String>| match samples {
            Ok(samples) => number(median(samples)),
            Err(_) => "did not finish".to_owned(),
        };
        let goals = self.goals.iter().map(|&goal| match self.goal(goal) {
            (text, Some(true)) => format!("{text}: met"),
            (text, Some(false)) => format!("{text}: MISSED"),
            (text, None) => format!("{text}: not measured"),
        });
        let unit = match self.better {
            Better::Less => self.unit.to_owned(),
            Better::More => format!("{} (more is better)", self.unit),
        };
        let alone = self.peer == Peer::Ours;
        [
            self.what.clone(),
            unit,
            shown(&self.ours),
            if alone {
                String::new()
            } else {
                self.peer.label().to_owned()
            },
            if alone {
                String::new()
            } else {
                shown(&self.theirs)
            },
            if alone { None } else { self.ratio() }.map_or(String::new(), ratio),
            if alone { None } else { self.range() }.map_or(String::new(), |(low, high)| {
                format!("({} - {})", ratio(low), ratio(high))
            }),
            goals.collect::<Vec<_>>().join(", "),
        ]
    }

    fn json(&self) -> Value {
        let samples = |samples: &Result<Vec<f64>, String>| match samples {
            Ok(samples) => json!({ "median": median(samples), "samples": samples }),
            Err(reason) => json!({ "did_not_finish": reason }),
        };
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|&goal| self.goal(goal))
            .map(|(text, met)| json!({ "goal": text, "met": met }))
            .collect();
        json!({
            "part": self.part.word(),
            "what": self.what,
            "unit": self.unit,
            "less_is_better": self.better == Better::Less,
            "ours": samples(&self.ours),
            "peer": self.peer.word(),
            "theirs": samples(&self.theirs),
            "ratio": self.ratio(),
            "ratio_quartiles": self.range(),
            "goals": goals,
        })
    }
}

fn command() -> String {
    let arguments: Vec<String> = env::args().skip(1).collect();
    format!("bench {}", arguments.join(" "))
        .trim_end()
        .to_owned()
}

/// The value under which the given share of the samples lies.
fn quantile(samples: &[f64], share: f64) -> f64 {
    assert!(
        !samples.is_empty(),
        "whoever did not fail has at least one sample"
    );
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (
        sorted[position.floor() as usize],
        sorted[position.ceil() as usize],
    );
    below + (above - below) * position.fract()
}

fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Three significant digits or more.
fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => crate::plan::grouped(value.round() as u64),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn ratio(value: f64) -> String {
    if value < 0.1 {
        format!("{value:.4}")
    } else {
        format!("{value:.2}")
    }
}

/// Prints rows with all columns as wide as their widest cell; numbers to the right.
fn print_table(rows: &[[String; 8]]) {
    const RIGHT: [bool; 8] = [false, false, true, false, true, true, false, false];
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 8] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for (index, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(widths)
            .zip(RIGHT)
            .map(|((cell, width), right)| {
                if right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        if index == 0 {
            println!(
                "{}",
                "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1))
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: medians of odd and even counts, and quartiles between samples. Method: known lists.
    #[test]
    fn quantiles_lie_between_the_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
    }

    // Goal: a failed peer leaves its line, and a missed goal is named. Method: a line by hand.
    #[test]
    fn failures_and_goals_are_shown() {
        let mut line = Line {
            part: Part::Yield,
            what: "yield".to_owned(),
            unit: "ns",
            better: Better::Less,
            peer: Peer::May,
            ours: Ok(vec![12.0]),
            theirs: Err("did not finish in 1 s".to_owned()),
            goals: vec![Goal::Absolute(10.0), Goal::Ratio(1.0)],
        };
        let cells = line.cells();
        assert_eq!(cells[4], "did not finish");
        assert_eq!(cells[7], "ours ≤ 10.0: MISSED, ratio ≤ 1.00: not measured");
        line.theirs = Ok(vec![24.0]);
        assert_eq!(line.cells()[5], "0.50");
    }
}
