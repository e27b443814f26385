//! Connections that misbehave while the others are measured: how many of which kind, and their
//! start and end.
//!
//! Application on L4. Each one is a green thread of the supervisor's OS thread, whatever the style
//! of the measured ones. It does its one thing again and again, from when the measured connections
//! begin to send (the warm-up included) until the last of them has ended; then it is killed where
//! it waits. Every kind has a file of its own. They are no part of the measured connections' books:
//! they have their own.
//!
//! What ends in order by our own wish leaves a port in TIME_WAIT behind for a minute (tcp(7)), so
//! kinds that do so are slow enough for the ports to last; `limits` counts them.
//!
//! Deliberately not here: what each kind does (its file), and what is common to them (`peer`).

mod book;
mod churn;
mod deaf;
mod dribble;
mod half_close;
mod idle;
mod peer;
mod report;
mod reset;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::load::Load;
use crate::thread::{self, JoinHandle, Killed};

pub(crate) use book::Book;
pub(crate) use report::{Line, lines, write};

use peer::Peer;

/// How long the kernel keeps a port after an end in order.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// The options about misbehaving connections.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "hostile-options")]
pub(crate) struct Options {
    /// Let this percentage of the connections misbehave while the others are measured: reset (in
    /// mid-message), half-close (and read to the end), dribble (byte by byte), deaf (never reads),
    /// idle (only holds), churn (connects and leaves)
    #[arg(long = "hostile", value_name = "KIND=PERCENT,...", value_parser = parse)]
    mix: Option<Mix>,
}

/// How a connection misbehaves.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Reset,
    HalfClose,
    Dribble,
    Deaf,
    Idle,
    Churn,
}

impl Kind {
    fn run(self, peer: &Peer) -> ! {
        match self {
            Kind::Reset => reset::run(peer),
            Kind::HalfClose => half_close::run(peer),
            Kind::Dribble => dribble::run(peer),
            Kind::Deaf => deaf::run(peer),
            Kind::Idle => idle::run(peer),
            Kind::Churn => churn::run(peer),
        }
    }

    /// How many new connections a second all of the kind may make together. Those that end in order
    /// leave six thousand ports in TIME_WAIT, of some 28 thousand that there are; a reset leaves
    /// none, and is bounded so that the machine has something left for the measured ones.
    fn connects_per_s_max(self) -> u32 {
        if self.lingers() { 100 } else { 1000 }
    }

    /// Whether its ends leave ports in TIME_WAIT.
    fn lingers(self) -> bool {
        matches!(self, Kind::HalfClose | Kind::Churn)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        // `pad` and not `write_str`: the report aligns the kinds in a column.
        formatter.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// One kind's share of all connections.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Share {
    kind: Kind,
    percent: u32,
}

/// Which kinds there are, and how many of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix(Vec<Share>);

impl Options {
    /// How many of `connections` are of which kind. A kind that is named has one at least.
    fn counts(&self, connections: u32) -> Vec<(Kind, u32)> {
        let shares = self.mix.iter().flat_map(|mix| &mix.0);
        let count = |percent: u32| {
            let count = (u64::from(connections) * u64::from(percent)).div_ceil(100);
            count.try_into().unwrap_or(u32::MAX)
        };
        shares
            .map(|share| (share.kind, count(share.percent)))
            .collect()
    }

    /// How many of `connections` misbehave.
    pub(crate) fn count(&self, connections: u32) -> u32 {
        let counts = self.counts(connections);
        counts.iter().map(|(_, count)| count).sum()
    }

    /// How many ports may be in TIME_WAIT at once in a run of this `length`, if it has one.
    pub(crate) fn lingering_ports(&self, connections: u32, length: Option<Duration>) -> u32 {
        let counts = self.counts(connections);
        let kinds = counts.iter().filter(|(kind, _)| kind.lingers());
        let rate: u32 = kinds.map(|(kind, _)| kind.connects_per_s_max()).sum();
        let length = length.map_or(TIME_WAIT, |length| length.min(TIME_WAIT));
        (f64::from(rate) * length.as_secs_f64()).ceil() as u32
    }

    /// What is wrong with a mix that leaves nobody to measure.
    pub(crate) fn contradiction(&self, connections: u32) -> Option<String> {
        let hostile = self.count(connections);
        (hostile >= connections).then(|| {
            format!(
                "--hostile takes {hostile} of {connections} connections, which leaves none to \
                 measure: ask for more --connections or a smaller percentage"
            )
        })
    }

    /// The mix in the words of the command line.
    pub(crate) fn words(&self) -> Option<String> {
        self.mix.as_ref().map(ToString::to_string)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Share { kind, percent }) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            write!(formatter, "{comma}{kind}={percent}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Mix, String> {
    let mut shares: Vec<Share> = Vec::new();
    for part in text.split(',') {
        let form = "write it as KIND=PERCENT, for example reset=5";
        let (kind, percent) = part.split_once('=').ok_or(format!("`{part}`: {form}"))?;
        let kind = Kind::from_str(kind, false).map_err(|_| {
            let known = Kind::value_variants().iter().map(ToString::to_string);
            let known = known.collect::<Vec<_>>().join(", ");
            format!("`{kind}` is not a kind; there are {known}")
        })?;
        let percent = match percent.strip_suffix('%').unwrap_or(percent).parse() {
            Ok(percent @ 1..=99) => percent,
            _ => {
                return Err(format!(
                    "`{percent}` is not a percentage from 1 to 99; {form}"
                ));
            }
        };
        if shares.iter().any(|share| share.kind == kind) {
            return Err(format!("{kind} is named twice"));
        }
        shares.push(Share { kind, percent });
    }
    let sum: u32 = shares.iter().map(|share| share.percent).sum();
    if sum >= 100 {
        return Err(format!(
            "together that is {sum} %, which leaves none to measure"
        ));
    }
    Ok(Mix(shares))
}

/// All misbehaving connections of a run.
pub(crate) struct Gang(Vec<JoinHandle<()>>);

/// Starts them; they wait until the measured connections begin to send.
pub(crate) fn start(load: &Arc<Load>) -> Gang {
    let mut gang = Vec::new();
    // The measured ones have the first numbers.
    let mut number = load.slots.len() as u32;
    for (share, (kind, count)) in load.hostile.counts().enumerate() {
        let pause = peer::pause(kind, count);
        for position in 0..count {
            let peer = Peer::new(Arc::clone(load), share, number, pause);
            number += 1;
            let spawned = thread::Builder::new()
                .name(format!("{kind} {number}"))
                .spawn(move || {
                    peer.load.wait_for_start();
                    // Evenly over the pause, and not all of them at the same moment.
                    thread::sleep(pause * position / count);
                    kind.run(&peer)
                });
            match spawned {
                Ok(handle) => gang.push(handle),
                Err(error) => load.hostile.enter(share, |tally| {
                    tally.fail(format!(
                        "{kind} {number} has no room for its stack: {error}"
                    ));
                }),
            }
        }
    }
    Gang(gang)
}

impl Gang {
    /// Ends them where they wait.
    pub(crate) fn stop(self) {
        for handle in &self.0 {
            handle.kill();
        }
        for handle in self.0 {
            if let Err(panic) = handle.join()
                && !panic.is::<Killed>()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        Options {
            mix: Some(parse(text).unwrap()),
        }
    }

    #[test]
    fn a_mix_is_what_was_written() {
        // Goal: kinds and percentages in their order, and back to words. Method: one of each kind.
        let text = "reset=1,half-close=2,dribble=3,deaf=4,idle=5,churn=6";
        assert_eq!(options(text).words().as_deref(), Some(text));
        assert_eq!(options("idle=50%").words().as_deref(), Some("idle=50"));
        assert_eq!(Options::default().words(), None);
    }

    #[test]
    fn senseless_mixes_are_refused() {
        // Goal: each is told. Method: one of each sort.
        for (text, words) in [
            ("", "KIND=PERCENT"),
            ("reset", "KIND=PERCENT"),
            ("rest=5", "there are reset, half-close,"),
            ("reset=0", "from 1 to 99"),
            ("reset=100", "from 1 to 99"),
            ("reset=-5", "from 1 to 99"),
            ("reset=x", "from 1 to 99"),
            ("reset=5,", "KIND=PERCENT"),
            ("reset=5,reset=5", "named twice"),
            ("reset=50,idle=50", "together that is 100 %"),
            ("reset=60,idle=60", "together that is 120 %"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_kind_that_is_named_is_there() {
        // Goal: numbers are rounded up, and somebody is left to be measured. Method: small and
        // large runs.
        let mix = options("reset=5,idle=10");
        assert_eq!(mix.counts(400), [(Kind::Reset, 20), (Kind::Idle, 40)]);
        assert_eq!(mix.counts(7), [(Kind::Reset, 1), (Kind::Idle, 1)]);
        assert_eq!(mix.count(1_000_000), 150_000);
        assert!(mix.contradiction(3).is_none());
        assert!(mix.contradiction(2).unwrap().contains("leaves none"));
        assert!(Options::default().contradiction(1).is_none());
    }

    #[test]
    fn ports_that_linger_are_counted() {
        // Goal: only kinds that end in order keep ports, for a minute at most. Method: some runs.
        let second = Some(Duration::from_secs(1));
        assert_eq!(options("reset=5,idle=5").lingering_ports(400, None), 0);
        assert_eq!(options("churn=5").lingering_ports(400, second), 100);
        assert_eq!(options("churn=5").lingering_ports(400, None), 6_000);
        let both = options("churn=5,half-close=5");
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(both.lingering_ports(400, hour), 12_000);
    }
}
