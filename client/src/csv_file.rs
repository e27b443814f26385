//! The file of `--csv`: a row for each second, and a last one for all of them.
//!
//! Application, above L4. Rests on RFC 4180. All rows have all columns; what a row has nothing to
//! say about is empty. The columns are a promise, as the keys of `--json` are: there may come more
//! on the right.
//!
//! Deliberately not here: failures by kind and all that is no number (`report`).

use crate::measure::Summary;
use crate::report::Report;
use crate::timeline::Row;

/// What a row is about.
const SECOND: &str = "second";
const TOTAL: &str = "total";

/// The columns; each of the two kinds of times has those of `TIMES` after its name.
const BEFORE_TIMES: [&str; 5] = ["row", "start_s", "elapsed_s", "answered", "requests_per_s"];
const TIMES: [&str; 7] = ["min", "mean", "p50", "p90", "p99", "p99_9", "max"];
const AFTER_TIMES: [&str; 4] = [
    "failed_connections",
    "longest_silence_ns",
    "fairness",
    "lag_p99_ns",
];

/// The whole file.
pub(crate) fn write(report: &Report) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |record: &[String]| {
        let written = writer.write_record(record);
        written.expect("all rows have the same columns, and memory takes them");
    };
    write(&header());
    for row in &report.timeline {
        write(&second(row));
    }
    write(&total(report));
    writer.into_inner().expect("memory takes what is written")
}

fn header() -> Vec<String> {
    let mut header = BEFORE_TIMES.map(str::to_owned).to_vec();
    for kind in ["latency", "service"] {
        header.extend(TIMES.map(|name| format!("{kind}_{name}_ns")));
    }
    header.extend(AFTER_TIMES.map(str::to_owned));
    header
}

fn second(row: &Row) -> Vec<String> {
    let mut record = vec![
        SECOND.to_owned(),
        row.start_s.to_string(),
        row.elapsed_s.to_string(),
        row.answered.to_string(),
        row.requests_per_s.to_string(),
    ];
    record.extend(times(row.latency_ns));
    record.extend(times(row.service_ns));
    record.extend(AFTER_TIMES.map(|_| String::new()));
    record
}

fn total(report: &Report) -> Vec<String> {
    let window = report.window.as_ref();
    let failures: u64 = report.failures.iter().map(|kind| kind.connections).sum();
    let lag = report.client.as_ref().and_then(|client| client.lag_ns);
    let mut record = vec![
        TOTAL.to_owned(),
        "0".to_owned(),
        text(window.map(|window| window.elapsed_s)),
        text(window.map(|window| window.answered)),
        text(window.map(|window| window.requests_per_s)),
    ];
    record.extend(times(report.latency_ns));
    record.extend(times(report.service_ns));
    record.extend([
        failures.to_string(),
        text(window.and_then(|window| window.longest_silence_ns)),
        text(report.fairness.map(|fairness| fairness.jain)),
        text(lag.map(|lag| lag.p99)),
    ]);
    record
}

fn times(summary: Option<Summary>) -> [String; TIMES.len()] {
    let Some(summary) = summary else {
        return TIMES.map(|_| String::new());
    };
    [
        summary.min.to_string(),
        summary.mean.to_string(),
        summary.p50.to_string(),
        summary.p90.to_string(),
        summary.p99.to_string(),
        summary.p99_9.to_string(),
        summary.max.to_string(),
    ]
}

fn text(number: Option<impl ToString>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}
