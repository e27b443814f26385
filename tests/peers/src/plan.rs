//! Which comparisons there are, with which goals, and the alternating rounds that carry them out.
//!
//! Outside the layers. Rounds alternate: every round measures each peer once, and each round begins
//! with another peer, so that a machine that slows down meanwhile slows all of them alike.
//! Deliberately not here: how one number is measured.

use std::fs;
use std::io;
use std::time::Duration;

use crate::child::{self, Failure};
use crate::report::{Better, Goal, Report, Row};
use crate::{Options, Part, Peer, echo, machine, system_calls};

/// The processors of this run: one for what is measured, another for the load if there is one.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Places {
    pub(crate) measured: usize,
    pub(crate) load: usize,
}

/// Samples of one peer: for each round the numbers that one measurement gave.
pub(crate) type Samples = Result<Vec<Vec<f64>>, Failure>;

/// Runs everything that was asked for and prints the table.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let processors = machine::processors();
    // Described before this process, and with it what it counts, is pinned to one processor.
    let mut report = Report::new(machine::describe());
    let places = Places {
        measured: processors[0],
        load: *processors
            .last()
            .expect("a process may run on at least one processor"),
    };
    machine::pin(places.load)?;
    if processors.len() == 1 {
        report.note("only one processor: load and server share it".to_owned());
    }
    if wanted(options, Part::Echo) {
        echo::run(options, places, &mut report)?;
    }
    if wanted(options, Part::Syscalls) {
        system_calls::run(options, places, &mut report)?;
    }
    for comparison in comparisons(options.quick) {
        if wanted(options, comparison.part) {
            compare(options, places, &comparison, &mut report);
        }
    }
    report.print();
    if let Some(path) = &options.json {
        fs::write(path, report.json())?;
    }
    report.check()
}

fn wanted(options: &Options, part: Part) -> bool {
    options.only.is_empty() || options.only.contains(&part)
}

/// Ours first, then those of `peers` that the command line did not rule out.
pub(crate) fn chosen(options: &Options, peers: &[Peer]) -> Vec<Peer> {
    let asked = |peer: &&Peer| options.peers.is_empty() || options.peers.contains(peer);
    std::iter::once(Peer::Ours)
        .chain(peers.iter().filter(asked).copied())
        .collect()
}

/// Measures all peers `rounds` times in turn. Who fails once is not asked again.
pub(crate) fn alternate(
    what: &str,
    peers: &[Peer],
    rounds: u32,
    mut measure: impl FnMut(Peer) -> Result<Vec<f64>, Failure>,
) -> Vec<(Peer, Samples)> {
    let mut all: Vec<(Peer, Samples)> = peers.iter().map(|&peer| (peer, Ok(Vec::new()))).collect();
    for round in 0..rounds {
        eprintln!("{what}: round {} of {rounds}", round + 1);
        let count = all.len();
        for offset in 0..count {
            let (peer, samples) = &mut all[(round as usize + offset) % count];
            if let Ok(list) = samples {
                match measure(*peer) {
                    Ok(numbers) => list.push(numbers),
                    Err(failure) => *samples = Err(failure),
                }
            }
        }
    }
    all
}

/// One line of the plan for the small operations.
struct Comparison {
    part: Part,
    what: String,
    unit: &'static str,
    /// Handed to the child: how many green threads, or how large a batch.
    parameter: u64,
    peers: &'static [Peer],
    goals: &'static [(Peer, Goal)],
    rounds: u32,
    limit: Duration,
}

fn comparisons(quick: bool) -> Vec<Comparison> {
    use Part::{Channel, Spawn, Switch, Yield};
    use Peer::{Corosensei, May, Ours, Threads, Tokio};
    let limit = Duration::from_secs(20);
    let rounds = if quick { 2 } else { 11 };
    let timed = |part, what: &str, parameter, peers, goals| Comparison {
        part,
        what: what.to_owned(),
        unit: "ns",
        parameter,
        peers,
        goals,
        rounds,
        limit,
    };
    let mut list = vec![
        timed(
            Switch,
            "switch to a coroutine and back",
            0,
            &[Corosensei],
            &[(Corosensei, Goal::Ratio(1.5))],
        ),
        timed(
            Yield,
            "yield, 2 green threads",
            2,
            &[Tokio, May, Threads],
            &[(Ours, Goal::Absolute(10.0))],
        ),
        timed(
            Yield,
            "yield, 1,000 green threads",
            1_000,
            &[Tokio, May],
            &[],
        ),
        timed(
            Spawn,
            "spawn + join, one at a time",
            1,
            &[Tokio, May, Threads],
            &[(Ours, Goal::Absolute(150.0))],
        ),
        timed(
            Spawn,
            "spawn + join, 1,000 at a time",
            1_000,
            &[Tokio, May, Threads],
            &[],
        ),
        timed(Channel, "channel hand-over", 0, &[Tokio, May, Threads], &[]),
    ];
    list.extend(memories(quick));
    list
}

/// The memory of parked green threads, by how many there are.
fn memories(quick: bool) -> Vec<Comparison> {
    use Peer::{Corosensei, May, Ours, Threads, Tokio};
    let sizes: &[u64] = if quick {
        &[10_000, 100_000]
    } else {
        &[10_000, 100_000, 1_000_000]
    };
    let memory = |count: u64| Comparison {
        part: Part::Memory,
        what: format!("memory, {} parked", grouped(count)),
        unit: "bytes each",
        parameter: count,
        // More OS threads than this are more than most systems allow.
        peers: match count {
            10_000 => &[Tokio, May, Corosensei, Threads],
            _ => &[Tokio, May, Corosensei],
        },
        goals: if count == 1_000_000 {
            &[(Ours, Goal::Absolute(4_600.0))]
        } else {
            &[]
        },
        // Counted and not timed, so that one round tells as much as many.
        rounds: 1,
        limit: Duration::from_secs(if quick { 15 } else { 60 }),
    };
    sizes.iter().copied().map(memory).collect()
}

/// A number with a comma after every three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn compare(options: &Options, places: Places, comparison: &Comparison, report: &mut Report) {
    let peers = chosen(options, comparison.peers);
    let rounds = if comparison.rounds == 1 {
        1
    } else {
        options.rounds.unwrap_or(comparison.rounds)
    };
    let length_ms = if options.quick { "10" } else { "60" };
    let all = alternate(&comparison.what, &peers, rounds, |peer| {
        let (part, peer) = (comparison.part.word(), peer.word());
        let parameter = comparison.parameter.to_string();
        let command = child::own_command(&["measure", &part, &peer, &parameter, length_ms])?;
        child::numbers(command, places.measured, comparison.limit)
    });
    report.add(
        &Row {
            part: comparison.part,
            what: comparison.what.clone(),
            unit: comparison.unit,
            better: Better::Less,
            column: 0,
            goals: comparison.goals,
        },
        &all,
    );
}
