//! The file of `--hdr`: a HdrHistogram interval log (version 2), and what `client merge` needs.
//!
//! Application, above L4. Any tool that reads such logs reads these. Untagged lines are the
//! response times of one interval each; `Tag=service` their service times; `Tag=lateness`, with
//! `--rate`, how long after it was due each message was sent; the one `Tag=connect` the times of
//! connecting. Values are nanoseconds. Time stamps count from the beginning of the measured window,
//! so that logs of several machines fit together; `StartTime` tells when that was. Comment lines
//! hold what other tools pass over:
//!
//! ```text
//! #client-log 1
//! #settings {...}            what was asked for, as in --json
//! #[StartTime: 1760000000.000 (seconds since epoch)]
//! Tag=connect,0.000,0.021,...
//! 0.000,1.000,...
//! Tag=service,0.000,1.000,...
//! #report {...}              the rest of --json; without it the file is cut off
//! ```
//!
//! A log may have passed over networks and through hands, so reading trusts nothing: each histogram
//! carries a checksum, and the report tells how many replies there must be.
//!
//! Deliberately not here: adding logs up (`merge`).

use std::io::Read;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde_json::Value;

use crate::clock::nanoseconds;
use crate::measure::Times;
use crate::recorder::Interval;
use crate::report::{Measurements, Report};

const MARK: &str = "#client-log 1";
const SETTINGS: &str = "#settings ";
const REPORT: &str = "#report ";
const SERVICE: &str = "service";
const LATENESS: &str = "lateness";
const CONNECT: &str = "connect";

/// The log's own head on each compressed histogram: which kind it is, and its length.
const COMPRESSED_HEAD: [u8; 4] = 0x1c84_9314_u32.to_be_bytes();
/// The head of what was compressed; the counts follow, in as many bytes as it says.
const PLAIN_HEAD_BYTES: usize = 40;
const PLAIN_LENGTH_AT: usize = 4;
/// A histogram of ours takes a tenth of this; more is not unpacked for anybody.
const PLAIN_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Turns intervals into lines as they close, because compressed they take little memory; on an OS
/// thread of its own, so that no reply waits for that, and because compressing wants more stack
/// than a green thread has.
#[derive(Debug)]
pub(crate) struct Encoder {
    intervals: Sender<Interval>,
    thread: JoinHandle<Lines>,
}

impl Encoder {
    pub(crate) fn start() -> Encoder {
        let (intervals, rx) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut lines = Lines::default();
            for interval in rx {
                lines.push(&interval);
            }
            lines
        });
        Encoder { intervals, thread }
    }

    pub(crate) fn push(&self, interval: Interval) {
        // Who receives ends after us, or has panicked, which `finish` tells.
        let _ = self.intervals.send(interval);
    }

    /// Waits for the rest.
    pub(crate) fn finish(self) -> Lines {
        drop(self.intervals);
        match self.thread.join() {
            Ok(lines) => lines,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The lines of intervals.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, interval: &Interval) {
        let start = Duration::from_nanos(interval.start_ns);
        let elapsed = Duration::from_nanos(interval.end_ns.saturating_sub(interval.start_ns));
        self.line(None, start, elapsed, interval.response());
        self.line(Some(SERVICE), start, elapsed, interval.service());
        if let Some(lateness) = interval.lateness().filter(|times| !times.is_empty()) {
            self.line(Some(LATENESS), start, elapsed, lateness);
        }
    }

    fn line(&mut self, tag: Option<&str>, start: Duration, elapsed: Duration, times: &Times) {
        let mut serializer = V2DeflateSerializer::new();
        // A writer without comments and times of its own adds nothing but the line.
        IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.0, &mut serializer)
            .expect("writing to memory does not fail")
            .write_histogram(times.histogram(), start, elapsed, tag.and_then(Tag::new))
            .expect("a histogram of ours fits the format, and memory takes it");
    }
}

/// The whole file.
pub(crate) fn write(report: &Report, measured: Measurements) -> Vec<u8> {
    let settings = serde_json::to_string(&report.settings).expect(JSON);
    let mut file = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .add_comment(&MARK[1..])
        .add_comment(&format!("{}{settings}", &SETTINGS[1..]))
        .with_start_time(measured.started)
        .begin_log_with(&mut file, &mut serializer)
        .expect("writing to memory does not fail");
    file.extend_from_slice(
        b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
          \"Interval_Compressed_Histogram\"\n",
    );
    let mut connects = Lines::default();
    let elapsed = Duration::from_secs_f64(report.connect.elapsed_s);
    connects.line(Some(CONNECT), Duration::ZERO, elapsed, &measured.connect);
    file.extend_from_slice(&connects.0);
    file.extend_from_slice(&measured.timeline.into_lines().0);
    let report = serde_json::to_string(&report.for_log()).expect(JSON);
    file.extend_from_slice(format!("{REPORT}{report}\n").as_bytes());
    file
}

const JSON: &str = "a report of ours can be written as JSON";

/// A log that was read.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) report: Report,
    pub(crate) started: SystemTime,
    pub(crate) connect: Times,
    pub(crate) intervals: Vec<Interval>,
}

/// Reads a whole file.
///
/// # Errors
///
/// In words, what is wrong with it, with the line.
pub(crate) fn read(file: &[u8]) -> Result<Log, String> {
    if file.is_empty() {
        return Err("line 1: the file is empty".to_owned());
    }
    let mut reader = Reader::default();
    let mut number = 0;
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        number += 1;
        reader
            .line(number, line)
            .map_err(|error| format!("line {number}: {error}"))?;
    }
    reader
        .finish()
        .map_err(|error| format!("line {number}: {error}"))
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    settings: Option<Value>,
    started: Option<SystemTime>,
    connect: Option<Times>,
    /// Response times whose service times must follow.
    open: Option<(Duration, Duration, Times)>,
    intervals: Vec<Interval>,
    report: Option<Report>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|_| "not a line of text".to_owned())?;
        let Some(text) = text.strip_suffix('\n') else {
            return Err("the line is cut off".to_owned());
        };
        let text = text.trim_end_matches('\r');
        if number == 1 {
            let reason = format!("not a log of `client --hdr`, which begins with {MARK}");
            return (text == MARK).then_some(()).ok_or(reason);
        }
        if self.report.is_some() {
            return Err("the report must be the last line".to_owned());
        }
        if let Some(json) = text.strip_prefix(SETTINGS) {
            let settings = serde_json::from_str(json);
            let settings = settings.map_err(|error| format!("damaged settings: {error}"))?;
            self.settings = Some(settings);
            return Ok(());
        }
        if let Some(json) = text.strip_prefix(REPORT) {
            let report = serde_json::from_str(json);
            self.report = Some(report.map_err(|error| format!("a damaged report: {error}"))?);
            return self.check_pair();
        }
        match IntervalLogIterator::new(line).next() {
            None | Some(Ok(LogEntry::BaseTime(_))) => Ok(()),
            Some(Ok(LogEntry::StartTime(since))) => {
                self.started = SystemTime::UNIX_EPOCH.checked_add(since);
                Ok(())
            }
            Some(Ok(LogEntry::Interval(interval))) => self.interval(&interval),
            Some(Err(_)) => Err("neither a comment nor an interval".to_owned()),
        }
    }

    fn interval(&mut self, line: &IntervalLogHistogram<'_>) -> Result<(), String> {
        let times = decode(line.encoded_histogram())?;
        let (start, elapsed) = (line.start_timestamp(), line.duration());
        match line.tag().as_deref() {
            None => {
                self.check_pair()?;
                self.open = Some((start, elapsed, times));
            }
            Some(SERVICE) => match self.open.take() {
                Some((begun, elapsed, response)) if begun == start => {
                    let (start_ns, end_ns) = (nanoseconds(start), nanoseconds(start + elapsed));
                    let interval = Interval::of(start_ns, end_ns, response, times);
                    self.intervals.push(interval);
                }
                _ => return Err("service times without their response times".to_owned()),
            },
            Some(LATENESS) => match self.intervals.last_mut() {
                Some(last) if self.open.is_none() && last.start_ns == nanoseconds(start) => {
                    last.add_lateness(&times);
                }
                _ => return Err("lateness of no interval".to_owned()),
            },
            Some(CONNECT) if self.connect.is_none() => self.connect = Some(times),
            Some(tag) => return Err(format!("`Tag={tag}` is not expected here")),
        }
        Ok(())
    }

    fn check_pair(&self) -> Result<(), String> {
        match self.open {
            Some(_) => Err("the response times before are without service times".to_owned()),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Log, String> {
        let report = self
            .report
            .ok_or("the file is cut off: no report ends it")?;
        if serde_json::to_value(&report.settings).ok() != self.settings {
            return Err("the report is of other settings than the log".to_owned());
        }
        let replies = |interval: &Interval| interval.response().histogram().len();
        let found: u64 = self.intervals.iter().map(replies).sum();
        let expected = report.latency_ns.map_or(0, |summary| summary.count);
        if found != expected {
            return Err(format!(
                "the report is of {expected} replies and the intervals hold {found}: a line is \
                 missing or too much"
            ));
        }
        Ok(Log {
            report,
            started: self.started.ok_or("there is no StartTime")?,
            connect: self.connect.ok_or("there is no line of `Tag=connect`")?,
            intervals: self.intervals,
        })
    }
}

/// The histogram of a line. It is unpacked to its end, where the checksum is.
fn decode(text: &str) -> Result<Times, String> {
    let damaged = |what: &str| format!("the histogram is damaged: {what}");
    let packed = STANDARD
        .decode(text)
        .map_err(|error| damaged(&error.to_string()))?;
    let (head, packed) = packed
        .split_at_checked(2 * COMPRESSED_HEAD.len())
        .ok_or_else(|| damaged("it is too short"))?;
    if !head.starts_with(&COMPRESSED_HEAD) {
        return Err(damaged("it is not of version 2, compressed"));
    }
    let mut plain = Vec::new();
    let unpacked = ZlibDecoder::new(packed)
        .take(PLAIN_BYTES_MAX)
        .read_to_end(&mut plain);
    unpacked.map_err(|error| damaged(&error.to_string()))?;
    // What the deserializer is told to make room for must be there.
    let length = plain.get(PLAIN_LENGTH_AT..PLAIN_LENGTH_AT + 4);
    let length = length.and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
    if length.map(|length| length as usize + PLAIN_HEAD_BYTES) != Some(plain.len()) {
        return Err(damaged("its length is wrong"));
    }
    let histogram: Histogram<u64> = Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|error| damaged(&error.to_string()))?;
    Times::of(&histogram).ok_or_else(|| damaged("its times are longer than any of ours"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Serializer;

    fn times(microseconds: impl Iterator<Item = u64>) -> Times {
        let mut times = Times::new();
        for time in microseconds {
            times.record_ns(time * 1000);
        }
        times
    }

    /// The line of an interval as it is written, and its histogram alone.
    fn line_of(times: &Times) -> (String, String) {
        let mut lines = Lines::default();
        let (start, elapsed) = (Duration::from_millis(1500), Duration::from_secs(1));
        lines.line(Some(SERVICE), start, elapsed, times);
        let line = String::from_utf8(lines.0).unwrap();
        let histogram = line.trim_end().rsplit(',').next().unwrap().to_owned();
        (line, histogram)
    }

    #[test]
    fn what_was_written_is_read() {
        // Goal: nothing is lost on the way, the empty included. Method: few, many and no times,
        // compared as wholes.
        for count in [0, 1, 1000, 100_000] {
            let written = times((0..count).map(|n| n * n % 777_777));
            let (line, histogram) = line_of(&written);
            assert!(line.starts_with("Tag=service,1.500,1.000,"), "{line}");
            let read = decode(&histogram).unwrap();
            assert!(read.histogram() == written.histogram(), "{count}");
        }
    }

    #[test]
    fn every_changed_letter_is_found() {
        // Goal: damage anywhere is told and never taken for other times, nor does it make us ask
        // for memory without end. Method: changes each letter of a histogram, and cuts it short.
        let (_, good) = line_of(&times((0..1000).map(|n| n * n)));
        for at in 0..good.len() {
            let other = if good.as_bytes()[at] == b'Q' {
                "R"
            } else {
                "Q"
            };
            let bad = format!("{}{other}{}", &good[..at], &good[at + 1..]);
            if let Ok(read) = decode(&bad) {
                // The length in front is not covered, nor needed.
                let original = decode(&good).unwrap();
                assert!(read.histogram() == original.histogram(), "letter {at}");
            }
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn other_histograms_are_not_ours() {
        // Goal: what another tool may write is refused in words. Method: one without compression,
        // and one of longer times than ours can be.
        let mut plain = Vec::new();
        let mut serializer = hdrhistogram::serialization::V2Serializer::new();
        let mut long = Histogram::<u64>::new_with_bounds(1, 1 << 60, 3).unwrap();
        long.record(1 << 59).unwrap();
        let written = serializer.serialize(&long, &mut plain);
        assert!(written.is_ok());
        assert!(
            decode(&STANDARD.encode(&plain))
                .unwrap_err()
                .contains("version")
        );
        let mut packed = Vec::new();
        let written = V2DeflateSerializer::new().serialize(&long, &mut packed);
        assert!(written.is_ok());
        assert!(
            decode(&STANDARD.encode(&packed))
                .unwrap_err()
                .contains("longer")
        );
    }

    #[test]
    fn an_encoder_takes_all_intervals_in_turn() {
        // Goal: lines come in the order of the intervals, three for a scheduled one. Method: two.
        let encoder = Encoder::start();
        for second in 0..2 {
            let start_ns = second * 1_000_000_000;
            let end_ns = start_ns + 1_000_000_000;
            let mut interval = Interval::of(start_ns, end_ns, times(1..3), times(1..2));
            interval.add_lateness(&times(1..2));
            encoder.push(interval);
        }
        let text = String::from_utf8(encoder.finish().0).unwrap();
        let starts: Vec<&str> = text
            .lines()
            .map(|line| &line[..line.len().min(14)])
            .collect();
        let begins = |at: usize, text: &str| starts[at].starts_with(text);
        assert_eq!(starts.len(), 6);
        assert!(
            begins(0, "0.000,1.000,") && begins(1, "Tag=service,0.") && begins(2, "Tag=lateness,0")
        );
        assert!(
            begins(3, "1.000,1.000,") && begins(4, "Tag=service,1.") && begins(5, "Tag=lateness,1")
        );
    }
}
