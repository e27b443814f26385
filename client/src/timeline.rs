//! The run cut into intervals: how the rate and the times went from second to second.
//!
//! Application, above L4. An average over ten seconds hides the one in which nothing came; here it
//! has a row of its own. Rows are kept as numbers, so that an hour costs little; the histograms of
//! an interval are kept only if `--hdr` wants them, in the log's compressed form.
//!
//! Deliberately not here: when an interval ends (`load`), and how rows are shown (`print`).

use serde::{Deserialize, Serialize};

use crate::hdr_log::{Encoder, Lines};
use crate::measure::Summary;
use crate::recorder::Interval;

/// An interval in few numbers.
#[derive(Copy, Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) start_s: f64,
    pub(crate) elapsed_s: f64,
    pub(crate) answered: u64,
    pub(crate) requests_per_s: f64,
    /// Nothing in an interval in which nothing came.
    pub(crate) latency_ns: Option<Summary>,
    pub(crate) service_ns: Option<Summary>,
}

/// All intervals so far.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    rows: Vec<Row>,
    /// Where `--hdr` wants them.
    encoder: Option<Encoder>,
}

impl Timeline {
    pub(crate) fn new(keeps_histograms: bool) -> Timeline {
        Timeline {
            rows: Vec::new(),
            encoder: keeps_histograms.then(Encoder::start),
        }
    }

    /// Adds an interval, whose time counts from the beginning of the window.
    pub(crate) fn push(&mut self, interval: Interval) {
        let (response, service) = (interval.response(), interval.service());
        // An empty interval is nothing to divide by.
        let elapsed_ns = interval.end_ns.saturating_sub(interval.start_ns).max(1);
        let elapsed_s = elapsed_ns as f64 / 1e9;
        let answered = response.histogram().len();
        self.rows.push(Row {
            start_s: interval.start_ns as f64 / 1e9,
            elapsed_s,
            answered,
            requests_per_s: answered as f64 / elapsed_s,
            latency_ns: response.summary(),
            service_ns: service.summary(),
        });
        if let Some(encoder) = &self.encoder {
            encoder.push(interval);
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What `--hdr` writes of them; nothing if it was not known that it would.
    pub(crate) fn into_lines(self) -> Lines {
        self.encoder.map_or_else(Lines::default, Encoder::finish)
    }
}

/// Several rows as one, for a table that fits the eye: the worst that each figure came to.
///
/// Percentiles cannot be added up; but a table of the worst hides no second.
pub(crate) fn worst(rows: &[Row]) -> Option<Row> {
    let (first, last) = (rows.first()?, rows.last()?);
    let lowest = |rate: f64, row: &Row| rate.min(row.requests_per_s);
    Some(Row {
        start_s: first.start_s,
        elapsed_s: last.start_s + last.elapsed_s - first.start_s,
        answered: rows.iter().map(|row| row.answered).sum(),
        requests_per_s: rows.iter().fold(f64::INFINITY, lowest),
        latency_ns: worst_of(rows.iter().filter_map(|row| row.latency_ns)),
        service_ns: worst_of(rows.iter().filter_map(|row| row.service_ns)),
    })
}

fn worst_of(summaries: impl Iterator<Item = Summary>) -> Option<Summary> {
    summaries.reduce(|left, right| Summary {
        count: left.count + right.count,
        min: left.min.max(right.min),
        mean: left.mean.max(right.mean),
        p50: left.p50.max(right.p50),
        p90: left.p90.max(right.p90),
        p99: left.p99.max(right.p99),
        p99_9: left.p99_9.max(right.p99_9),
        max: left.max.max(right.max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Times;

    fn interval(start_s: u64, ms: &[u64]) -> Interval {
        let start_ns = start_s * 1_000_000_000;
        let mut times = Times::new();
        for ms in ms {
            times.record_ns(ms * 1_000_000);
        }
        Interval::of(start_ns, start_ns + 500_000_000, times, Times::new())
    }

    #[test]
    fn a_row_tells_its_interval() {
        // Goal: rate and times of an interval, and a silent one kept as a row. Method: known
        // intervals.
        let mut timeline = Timeline::new(false);
        timeline.push(interval(0, &[1, 2, 3]));
        timeline.push(interval(1, &[]));
        let [busy, silent] = timeline.rows() else {
            panic!("{timeline:?}");
        };
        assert_eq!((busy.answered, busy.requests_per_s), (3, 6.0));
        assert!(busy.latency_ns.unwrap().max >= 3_000_000);
        assert_eq!((silent.start_s, silent.answered), (1.0, 0));
        assert!(silent.latency_ns.is_none());
    }

    #[test]
    fn the_worst_of_rows_hides_none() {
        // Goal: a slow and a silent second show in the row that stands for many. Method: one of
        // each among good ones.
        let mut timeline = Timeline::new(false);
        for (second, ms) in [&[1, 1][..], &[1, 900], &[], &[1, 1]]
            .into_iter()
            .enumerate()
        {
            timeline.push(interval(second as u64, ms));
        }
        let row = worst(timeline.rows()).unwrap();
        assert_eq!((row.start_s, row.elapsed_s), (0.0, 3.5));
        assert_eq!((row.answered, row.requests_per_s), (6, 0.0));
        assert!(row.latency_ns.unwrap().max >= 900_000_000);
        assert!(worst(&[]).is_none());
    }
}
