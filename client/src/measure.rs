//! What is measured: times, in histograms, and the client's own effort.
//!
//! Application, above L4. Rests on getrusage(2). Times are in nanoseconds with three
//! significant digits, up to an hour.
//!
//! Deliberately not here: counting (`load`, `failure`) and printing (`report`).

use std::mem::MaybeUninit;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longer times are counted as this long.
const NANOSECONDS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Above this share of its core the client cannot be said to wait for the server.
const CPU_SHARE_MAX: f64 = 0.9;
/// A loop that comes this much too late holds replies back that have long been there.
const LAG_MAX: Duration = Duration::from_millis(5);

/// Times of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Times {
        let histogram = Histogram::new_with_bounds(1, NANOSECONDS_MAX, SIGNIFICANT_DIGITS)
            .expect("the bounds are constants that the histogram takes");
        Times(histogram)
    }

    #[inline]
    pub(crate) fn record_ns(&mut self, time_ns: u64) {
        self.0.saturating_record(time_ns);
    }

    /// How many are longer.
    pub(crate) fn count_above(&self, time_ns: u64) -> u64 {
        self.0.count_between(time_ns + 1, u64::MAX)
    }

    /// Takes in what `other` has.
    pub(crate) fn add(&mut self, other: &Times) {
        let added = self.0.add(&other.0);
        added.expect("all histograms have the same bounds");
    }

    /// What was recorded elsewhere; nothing if it holds a time that is too long for us.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Times> {
        let mut times = Times::new();
        times.0.add(histogram).ok()?;
        Some(times)
    }

    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that this share of all does not exceed; nothing if nothing was recorded.
    pub(crate) fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile))
    }

    /// The numbers that are reported; nothing if nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let histogram = &self.0;
        if histogram.is_empty() {
            return None;
        }
        Some(Summary {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }

    /// Quantiles with their times, in ascending order, as far as there are samples to tell them;
    /// nothing if nothing was recorded.
    pub(crate) fn curve(&self) -> Option<Vec<(f64, u64)>> {
        let histogram = &self.0;
        let at = |quantile| (quantile, histogram.value_at_quantile(quantile));
        // Of a hundred samples one lies beyond p99, and none beyond p99.9.
        let told = |quantile: &f64| (1.0 - quantile) * histogram.len() as f64 >= 1.0 - 1e-9;
        let curve = CURVE.into_iter().filter(told).map(at);
        (!histogram.is_empty()).then(|| curve.collect())
    }
}

/// Where a curve has its points: ever closer to 1, as its axis is drawn.
const CURVE: [f64; 22] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995,
    0.99975, 0.9999, 0.99995, 0.999_975, 0.99999, 0.999_999,
];

/// A histogram in few numbers, in nanoseconds.
#[derive(Copy, Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// The CPU time that this process has used so far, in the kernel and outside.
// Not the process's CPU clock, which is finer: NetBSD's libc does not name it.
pub(crate) fn process_cpu_time() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to a local of the type that the call fills, and no copy of it is kept.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert!(result == 0, "getrusage refuses only a wrong `who`");
    // SAFETY: the call above succeeded, and so has filled all of it.
    let usage = unsafe { usage.assume_init() };
    duration_of(usage.ru_utime) + duration_of(usage.ru_stime)
}

fn duration_of(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}

/// Whether the client itself, which can use so many cores, set the pace, and not the server; if so,
/// why in words.
pub(crate) fn limit(cpu_share: f64, cores: u32, lag: Option<&Summary>) -> Option<String> {
    if cpu_share >= CPU_SHARE_MAX * f64::from(cores) {
        let percent = cpu_share * 100.0;
        return Some(match cores {
            1 => format!(
                "it used {percent:.0} % of its core: a faster one might get more from this server"
            ),
            _ => format!(
                "it used {percent:.0} % of a core, of the {cores} that there are: more of them \
                 might get more from this server"
            ),
        });
    }
    let late = Duration::from_nanos(lag?.p99);
    (late >= LAG_MAX).then(|| {
        let late_ms = late.as_secs_f64() * 1000.0;
        format!(
            "its loop came {late_ms:.1} ms late (p99), and so do the latencies: \
             its core is too busy"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_what_was_recorded() {
        // Goal: quantiles within three digits, exact count, nothing of nothing. Method: 1 to 1000
        // us.
        assert!(Times::new().summary().is_none());
        let mut times = Times::new();
        for micros in 1..=1000 {
            times.record_ns(micros * 1_000);
        }
        times.record_ns(u64::MAX);
        let summary = times.summary().unwrap();
        assert_eq!(summary.count, 1001);
        assert!(summary.p50.abs_diff(501_000) <= 501, "{summary:?}");
        assert!(summary.p99.abs_diff(991_000) <= 991, "{summary:?}");
        assert!(summary.max >= NANOSECONDS_MAX, "{summary:?}");
    }

    #[test]
    fn a_curve_goes_as_far_as_its_samples() {
        // Goal: points ascend, and none is told that no sample stands for. Method: 1 to 1000 us.
        assert!(Times::new().curve().is_none());
        let mut times = Times::new();
        for micros in 1..=1000 {
            times.record_ns(micros * 1_000);
        }
        let curve = times.curve().unwrap();
        assert!(curve.is_sorted());
        assert_eq!(curve.last().unwrap().0, 0.999);
        let (_, middle) = curve.iter().find(|(quantile, _)| *quantile == 0.5).unwrap();
        assert!(middle.abs_diff(500_000) <= 500, "{curve:?}");
    }

    #[test]
    fn the_clients_own_limit_is_told() {
        // Goal: each of the two reasons alone, and neither. Method: numbers on both sides of the
        // borders.
        let lag = |late: Duration| {
            let mut times = Times::new();
            times.record_ns(late.as_nanos() as u64);
            times.summary()
        };
        assert_eq!(limit(0.5, 1, lag(Duration::from_millis(1)).as_ref()), None);
        assert_eq!(limit(0.5, 1, None), None);
        assert_eq!(limit(1.7, 2, None), None);
        assert!(
            limit(1.9, 2, None)
                .unwrap()
                .contains("190 % of a core, of the 2")
        );
        assert!(limit(0.95, 1, None).unwrap().contains("95 %"));
        assert!(
            limit(0.5, 1, lag(Duration::from_millis(20)).as_ref())
                .unwrap()
                .contains("late")
        );
    }

    #[test]
    fn cpu_time_passes_with_work() {
        // Goal: the process's clock advances. Method: works until it does (the test's harness ends
        // a hang).
        let start = process_cpu_time();
        while process_cpu_time() == start {
            std::hint::spin_loop();
        }
    }
}
