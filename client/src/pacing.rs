//! When messages are sent.
//!
//! Application, above L4. Three ways. Without options each connection keeps `--depth` messages in
//! flight: a reply sends the next (a *closed* loop, in which a slow server is asked less often, and
//! so looks better than it is). `--think` pauses before that. `--rate` sends on a schedule,
//! whatever the server does (an *open* loop): the k-th message of all is due at k/rate, connection
//! by connection in turn, so the instants are computed from the beginning and do not drift. What
//! could not be sent in time, because `--depth` messages were in flight, is sent as soon as it can
//! be, and its response time counts from the instant at which it was due. Rests on proc(5)
//! (`timerslack_ns`) and poll(2).
//!
//! Deliberately not here: sleeping (`connection`).

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::arguments::{Extent, duration};
use crate::clock::nanoseconds;
use crate::load::{Border, Load};
use crate::measure::Summary;

/// The options of pacing.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pace {
    /// How many messages each connection has in flight: the next ones do not wait for a reply
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) depth: u32,

    /// Send N messages a second over all connections, whatever the server does (50k/s, 200, 0.5)
    ///
    /// Response times then count from when a message was due, so that a stall cannot hide; service
    /// times count from when it was sent.
    #[arg(long, value_name = "N/s", conflicts_with = "think", value_parser = rate)]
    pub(crate) rate: Option<Rate>,

    /// Pause this long between a reply and the next message
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) think: Option<Duration>,

    /// Make the connections one by one, evenly over this time, and not all at once
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ramp: Option<Duration>,

    /// Send for this long before the measured time begins
    #[arg(long, value_name = "TIME", conflicts_with = "messages", value_parser = duration)]
    pub(crate) warmup: Option<Duration>,
}

/// What one connection may have in flight: it is kept, to be compared with what comes.
const IN_FLIGHT_BYTES_MAX: u64 = 1 << 30;

impl Pace {
    /// What is wrong with the words together, where each alone is right.
    pub(crate) fn contradiction(&self, size_bytes: u32) -> Option<String> {
        let bytes = u64::from(self.depth) * u64::from(size_bytes);
        (bytes > IN_FLIGHT_BYTES_MAX).then(|| {
            format!(
                "--depth {} with --size {size_bytes} keeps {bytes} bytes in flight on each \
                 connection: at most {IN_FLIGHT_BYTES_MAX} are allowed",
                self.depth
            )
        })
    }
}

/// Messages a second, exactly: the schedule of an hour must not be off by a rounding.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_1000_s: u64,
}

/// Nanoseconds in 1000 s.
const PERIOD_NS: u128 = 1_000_000_000_000;
/// No client of ours sends more.
const PER_SECOND_MAX: f64 = 1e9;

impl Rate {
    /// As the search for the highest one sets it.
    pub(crate) fn whole(per_s: u64) -> Rate {
        Rate {
            per_1000_s: per_s * 1000,
        }
    }

    /// Without its fraction.
    pub(crate) fn whole_per_s(self) -> u64 {
        self.per_1000_s / 1000
    }

    pub(crate) fn per_s(self) -> f64 {
        self.per_1000_s as f64 / 1e3
    }

    /// How long after the beginning the message number `k` of all is due, rounded up.
    #[inline]
    fn due_ns(self, k: u64) -> u64 {
        let due_ns = (u128::from(k) * PERIOD_NS).div_ceil(u128::from(self.per_1000_s));
        u64::try_from(due_ns).unwrap_or(u64::MAX)
    }

    /// How many messages of all are due before `elapsed_ns` have passed.
    pub(crate) fn due_before(self, elapsed_ns: u64) -> u64 {
        let Some(last_ns) = elapsed_ns.checked_sub(1) else {
            return 0;
        };
        let last = u128::from(last_ns) * u128::from(self.per_1000_s) / PERIOD_NS;
        u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// `50k/s`, `50k`, `50000/s`, `0.5`.
fn rate(text: &str) -> Result<Rate, String> {
    let form = "write it as 50k/s, 2M/s, 200/s or 0.5/s";
    let number = text.strip_suffix("/s").unwrap_or(text);
    let (digits, factor) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 1e3),
        Some(b'M') => (&number[..number.len() - 1], 1e6),
        _ => (number, 1.0),
    };
    let value: f64 = digits
        .parse()
        .map_err(|_| format!("`{number}` is not a number; {form}"))?;
    let per_s = value * factor;
    if !(0.001..=PER_SECOND_MAX).contains(&per_s) {
        return Err(format!("it must be from 0.001/s to 1000M/s; {form}"));
    }
    Ok(Rate {
        per_1000_s: (per_s * 1e3).round() as u64,
    })
}

/// Where Linux is told how far it may delay a thread's timers to ring them together; 50 us by
/// default. Other systems have no such file.
const TIMER_SLACK_FILE: &str = "/proc/self/timerslack_ns";

/// Has the main thread, and those that it starts, woken when they are to be woken.
pub(crate) fn sharpen_timers() {
    if let Err(error) = fs::write(TIMER_SLACK_FILE, "1") {
        log::info!("timers stay as coarse as they are: {TIMER_SLACK_FILE}: {error}");
    }
}

/// Shorter waits end in time.
const LONG_NS: u64 = 20_000_000;

/// How long to wait at once for what is due in `left_ns`: who waits longer than `LONG_NS` is to
/// look again a little before.
///
/// Linux lets calls like poll(2) come late by a thousandth of what they wait for, and by a
/// two-hundredth in a process that is nice(2), whatever the timers' slack. That would be in all
/// response times.
pub(crate) fn wait_ns(left_ns: u64) -> u64 {
    if left_ns > LONG_NS {
        left_ns - left_ns / 128
    } else {
        left_ns
    }
}

/// When the next message of a connection may go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// At this instant, which may have passed.
    At(u64),
    /// There is no next one.
    Never,
}

/// Tells one connection when to send.
pub(crate) struct Pacer<'a> {
    load: &'a Load,
    way: Way,
    /// Nothing that is due later is sent.
    end_ns: u64,
}

enum Way {
    Closed,
    /// The replies' instants that no message has followed yet.
    Thinking {
        think_ns: u64,
        replied_ns: VecDeque<u64>,
    },
    Scheduled {
        rate: Rate,
        begun_ns: u64,
        connection: u64,
        connections: u64,
    },
}

impl<'a> Pacer<'a> {
    /// For connection `number` of a run that has started at `begun_ns`.
    pub(crate) fn new(load: &'a Load, number: u32, begun_ns: u64) -> Pacer<'a> {
        let settings = &load.settings;
        let pace = &settings.pace;
        let way = match (pace.rate, pace.think) {
            (Some(rate), _) => Way::Scheduled {
                rate,
                begun_ns,
                connection: number.into(),
                connections: load.slots.len() as u64,
            },
            (None, Some(think)) => Way::Thinking {
                think_ns: nanoseconds(think),
                replied_ns: VecDeque::with_capacity(pace.depth as usize),
            },
            (None, None) => Way::Closed,
        };
        Pacer {
            load,
            way,
            end_ns: load.end_ns(),
        }
    }

    /// When the connection's message number `n` is due, asked at `now_ns`.
    #[inline]
    pub(crate) fn due(&self, n: u64, now_ns: u64) -> Due {
        if self.load.is_enough(n) {
            return Due::Never;
        }
        let due_ns = match &self.way {
            Way::Closed => return Due::At(now_ns),
            Way::Thinking {
                think_ns,
                replied_ns,
            } => replied_ns.front().map_or(now_ns, |reply| reply + think_ns),
            Way::Scheduled {
                rate,
                begun_ns,
                connection,
                connections,
            } => begun_ns.saturating_add(rate.due_ns(n * connections + connection)),
        };
        if due_ns < self.end_ns {
            Due::At(due_ns)
        } else if now_ns < self.end_ns {
            // It has nothing more to send, but stays: the window ends for all at the same time.
            Due::At(self.end_ns)
        } else {
            Due::Never
        }
    }

    /// From when the response time of a message counts that was due then and goes now.
    #[inline]
    pub(crate) fn launch(&mut self, due_ns: u64, now_ns: u64) -> u64 {
        match &mut self.way {
            Way::Closed => now_ns,
            // A pause that lasts too long is our own fault, and nobody waits meanwhile.
            Way::Thinking { replied_ns, .. } => {
                replied_ns.pop_front();
                now_ns
            }
            Way::Scheduled { .. } => due_ns,
        }
    }

    /// So many replies came at `now_ns`.
    #[inline]
    pub(crate) fn replied(&mut self, replies: u64, now_ns: u64) {
        if let Way::Thinking { replied_ns, .. } = &mut self.way {
            for _ in 0..replies {
                replied_ns.push_back(now_ns);
            }
        }
    }
}

/// A message that is sent this long after it was due is called late. Less is the timers' grain.
const LATE_NS: u64 = 1_000_000;

/// How far the schedule was kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Schedule {
    pub(crate) intended_per_s: f64,
    /// Sent in the window.
    pub(crate) achieved_per_s: f64,
    /// Messages that were due before sending ended.
    pub(crate) due: u64,
    /// Of those, never sent: their connections were waiting, or had failed.
    pub(crate) unsent: u64,
    /// Answered, but sent more than a millisecond after they were due.
    pub(crate) late: u64,
    /// How long after it was due each message was sent.
    pub(crate) lateness_ns: Option<Summary>,
}

impl Schedule {
    /// Nothing without `--rate`.
    pub(crate) fn of(load: &Load, start: &Border, end: &Border) -> Option<Schedule> {
        let rate = load.settings.pace.rate?;
        let begun_ns = load.started_ns()?;
        let due = rate.due_before(end.at_ns.min(load.end_ns()) - begun_ns);
        let due = match load.extent() {
            Extent::Messages(each) => due.min(each.saturating_mul(load.slots.len() as u64)),
            Extent::Duration(_) => due,
        };
        let elapsed_s = Duration::from_nanos((end.at_ns - start.at_ns).max(1)).as_secs_f64();
        let (late, lateness_ns) = load.recorder.with_total(|total| {
            let lateness = total.lateness()?;
            Some((lateness.count_above(LATE_NS), lateness.summary()))
        })?;
        Some(Schedule {
            intended_per_s: rate.per_s(),
            achieved_per_s: (end.sent - start.sent) as f64 / elapsed_s,
            due,
            unsent: due.saturating_sub(load.totals().sent),
            late,
            lateness_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_every_form() {
        // Goal: the number, its unit and its multiples; nonsense is refused. Method: one of each.
        for (text, per_1000_s) in [
            ("50k/s", 50_000_000),
            ("50000/s", 50_000_000),
            ("1.5k", 1_500_000),
            ("2M/s", 2_000_000_000),
            ("0.5", 500),
            ("0.001/s", 1),
        ] {
            assert_eq!(rate(text), Ok(Rate { per_1000_s }), "{text}");
        }
        for text in ["", "/s", "k/s", "0", "-1", "1/min", "inf", "nan", "2000M/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_schedule_does_not_drift() {
        // Goal: the k-th instant is exact to the nanosecond at any distance, and never early.
        // Method: odd rates, compared with exact fractions.
        for per_1000_s in [1, 3_000, 7_777_777, 50_000_000, 999_999_999_999] {
            let rate = Rate { per_1000_s };
            for k in [0, 1, 2, 1_000, 123_456_789, 10_000_000_000] {
                let exact = u128::from(k) * PERIOD_NS;
                let due_ns = u128::from(rate.due_ns(k));
                if due_ns == u128::from(u64::MAX) {
                    continue;
                }
                let scaled = due_ns * u128::from(per_1000_s);
                assert!(scaled >= exact && scaled - exact < u128::from(per_1000_s));
            }
        }
    }

    #[test]
    fn long_waits_end_in_time() {
        // Goal: however long the wait and however coarse the kernel, the end is late by no more
        // than a short wait's share, after few looks, and no wait is nothing. Method: a kernel that
        // is as late as it may be.
        for left_ns in [1, LONG_NS, LONG_NS + 1, 1_000_000_000, 86_400_000_000_000] {
            for share in [200, 1000] {
                let (mut now_ns, mut looks) = (0, 0);
                while now_ns < left_ns {
                    let wait_ns = wait_ns(left_ns - now_ns);
                    assert!(wait_ns > 0);
                    now_ns += wait_ns + wait_ns / share;
                    looks += 1;
                }
                assert!(now_ns - left_ns <= LONG_NS / share, "{left_ns}: {now_ns}");
                assert!(looks <= 7, "{left_ns}: {looks}");
            }
        }
    }

    #[test]
    fn counting_what_is_due_agrees_with_the_instants() {
        // Goal: `due_before` is how many instants lie before. Method: counts them at every border.
        for per_1000_s in [3_000, 7_777, 1_000_000, 333_333_333] {
            let rate = Rate { per_1000_s };
            let instants: Vec<_> = (0..1_000).map(|k| rate.due_ns(k)).collect();
            for due_ns in &instants {
                for elapsed_ns in [*due_ns, due_ns + 1] {
                    let before = instants.partition_point(|due_ns| *due_ns < elapsed_ns);
                    assert_eq!(rate.due_before(elapsed_ns), before as u64, "{elapsed_ns}");
                }
            }
        }
    }
}
