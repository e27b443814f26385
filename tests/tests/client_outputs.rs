//! What `client` makes of a run besides its report: gates and their exit codes, fairness, silence,
//! the seconds one by one, and the files of `--csv` and `--hdr`, which `client merge` adds up.
//!
//! The servers are std's sockets and threads (`client/fake.rs`), and know by themselves what the
//! client must have found.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

#[allow(dead_code, reason = "shared with the tests of `client load`")]
#[path = "client/fake.rs"]
mod fake;
#[allow(dead_code, reason = "shared with the tests of `client load`")]
#[path = "client/run.rs"]
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use fake::{answer, for_each_line, serve};
use run::{Ended, client, finish, scratch_file, signal, spawn};
use serde_json::Value;

const SOME: &[&str] = &["--connections", "4", "--messages", "10"];

/// Removes the file, if there is one, when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(purpose: &str) -> Scratch {
        Scratch(scratch_file(purpose))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn echo() -> String {
    answer(|request| request.line)
}

fn with(words: &[&str], more: &[&str]) -> Vec<String> {
    let all = words.iter().chain(more);
    all.map(|word| (*word).to_owned()).collect()
}

fn load(address: &str, words: &[&str], more: &[&str]) -> Ended {
    let words = with(words, more);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    client(address, &words)
}

/// `client words...`, to its end.
fn run_client(words: &[&str]) -> Ended {
    finish(spawn(Command::new(tests::binaries::client()).args(words)))
}

fn verdicts(report: &Value) -> Vec<&str> {
    let gates = report["gates"].as_array().unwrap();
    let verdicts = gates.iter().map(|gate| gate["verdict"].as_str().unwrap());
    verdicts.collect()
}

const HOLD: [&str; 12] = [
    "p50>1min",
    "p99>1min",
    "p99.9>=1min",
    "max>60s",
    "mean > 60000ms",
    "min<1ns",
    "service.p99>1min",
    "connect.p99>1min",
    "rate<0.0001",
    "failures>0",
    "silence>1min",
    "fairness<0.999",
];

const BREAK: [&str; 12] = [
    "p50>0ns",
    "p99>0ns",
    "p99.9>=1ns",
    "max>0s",
    "mean > 0ms",
    "min>0ns",
    "service.p99>0ns",
    "connect.p99>0ns",
    "rate>0",
    "failures<1",
    "silence<1min",
    "fairness>0.5",
];

#[test]
fn gates_that_hold_change_nothing() {
    // Goal: exit 0 and a verdict for each. Method: one gate on every metric, all far away.
    let gates: Vec<&str> = HOLD.iter().flat_map(|gate| ["--fail-if", *gate]).collect();
    let ended = load(&echo(), SOME, &gates);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(verdicts(&ended.json), ["met"; HOLD.len()]);
    for gate in HOLD {
        let line = format!("fail if {gate}: met");
        assert!(ended.stdout.contains(&line), "{line} in {}", ended.stdout);
    }
}

#[test]
fn each_gate_that_is_not_met_exits_with_three() {
    // Goal: every metric alone, among gates that hold, makes exit code 3 and is named. Method: one
    // run for each.
    let address = echo();
    for gate in BREAK {
        let ended = load(
            &address,
            SOME,
            &["--fail-if", gate, "--fail-if", "p99>1min"],
        );
        assert_eq!(
            ended.code,
            Some(3),
            "{gate}: {}{}",
            ended.stdout,
            ended.stderr
        );
        assert_eq!(verdicts(&ended.json), ["not_met", "met"], "{gate}");
        assert!(ended.json["gates"][0]["value"].is_number());
        let line = format!("fail if {gate}: NOT MET");
        assert!(ended.stdout.contains(&line), "{line} in {}", ended.stdout);
    }
}

#[test]
fn a_gate_without_samples_is_not_met() {
    // Goal: no reply is no pass, whichever way the gate looks. Method: a server that never answers,
    // whose failures a gate allows.
    let address = answer(|_| Vec::new());
    for gate in [
        "p99>1min",
        "p99<1min",
        "rate<1",
        "silence>1min",
        "fairness<0.1",
    ] {
        let gates = [
            "--timeout",
            "100ms",
            "--fail-if",
            "failures>4",
            "--fail-if",
            gate,
        ];
        let ended = load(&address, SOME, &gates);
        assert_eq!(ended.code, Some(3), "{gate}: {}", ended.stdout);
        assert_eq!(verdicts(&ended.json), ["met", "no_samples"], "{gate}");
        assert!(
            ended.stdout.contains("nothing was measured"),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn failures_come_before_gates_unless_a_gate_counts_them() {
    // Goal: the precedence of 1 and 3, and what a gate on failures does to it. Method: one
    // connection of four is answered wrongly.
    let address = answer(|mut request| {
        if (request.connection, request.n) == (2, 3) {
            request.line[0] ^= 1;
        }
        request.line
    });
    for (gates, code) in [
        (&["--fail-if", "p99>0ns"][..], 1),
        (&["--fail-if", "p99>1min"], 1),
        (&["--fail-if", "failures>1"], 0),
        (&["--fail-if", "failures>0"], 3),
        (&["--fail-if", "failures>1", "--fail-if", "p99>0ns"], 3),
    ] {
        let ended = load(&address, SOME, gates);
        assert_eq!(ended.code, Some(code), "{gates:?}: {}", ended.stdout);
        assert_eq!(ended.failures(), [("verify", "corrupt bytes", 1, 1)]);
    }
    // Nobody there is no matter of how many.
    let ended = load(&fake::nobody(), SOME, &["--fail-if", "failures>100"]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn control_c_keeps_gates_and_files() {
    // Goal: 130 whatever the gates say, and all files are there, whole, and of one moment, also
    // where the connections work on. Method: interrupts a run that has no end, in every style, when
    // the server has seen some of it.
    for style in ["green", "threads", "select"] {
        let (tx, rx) = std::sync::mpsc::channel();
        let address = answer(move |request| {
            if (request.connection, request.n) == (0, 50) {
                let _ = tx.send(());
            }
            request.line
        });
        let [json, csv, hdr] = ["i.json", "i.csv", "i.hdr"].map(Scratch::new);
        let mut command = Command::new(tests::binaries::client());
        command
            .args(["--connect", &address, "--quiet", "--connections", "4"])
            .args(["--duration", "1h", "--fail-if", "p99>0ns", "--style", style])
            .args(["--json", json.path(), "--csv", csv.path()])
            .args(["--hdr", hdr.path()]);
        let child = spawn(&mut command);
        rx.recv_timeout(run::DEADLINE).unwrap();
        signal(child.id(), libc::SIGINT);
        let ended = finish(child);
        assert_eq!(ended.code, Some(130), "{}{}", ended.stdout, ended.stderr);
        let report = json.json();
        assert_eq!(report["outcome"], "interrupted");
        assert_eq!(verdicts(&report), ["not_met"]);
        let answered = report["messages"]["answered"].as_u64().unwrap();
        let in_window = report["window"]["answered"].as_u64().unwrap();
        assert!(in_window <= answered, "{style}: {report:#}");
        assert_eq!(report["fairness"]["answered"], answered, "{style}");
        assert!(csv_rows(&csv.0).len() >= 2);
        let merged = run_client(&["merge", hdr.path()]);
        assert_eq!(merged.code, Some(0), "{}{}", merged.stdout, merged.stderr);
        assert!(merged.stdout.contains("(interrupted)"), "{}", merged.stdout);
    }
}

#[test]
fn wrong_gates_are_usage_errors_with_place_and_list() {
    // Goal: exit 2 before any connection, a mark under the mistake, and what there is. Method: a
    // few mistakes; the parser's own tests have all of them.
    for (gate, mark) in [
        ("p99>5", "\n         ^\n"),
        ("latency>5ms", "\n    ^\n"),
        ("p99=5ms", "\n       ^\n"),
    ] {
        for command in [&["load"][..], &["merge", "x.hdr"]] {
            let ended = run_client(&[command, &["--fail-if", gate]].concat());
            assert_eq!(ended.code, Some(2), "{}", ended.stderr);
            for part in [mark, "p99.9", "fairness", "silence"] {
                assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
            }
        }
    }
}

/// What the server itself has counted.
#[derive(Default)]
struct Counts {
    answered: [u64; 4],
    /// Connections other than 0 that have ended.
    ended: usize,
}

#[test]
fn unfair_servers_are_found_out() {
    // Goal: least, most and Jain's index are those of what the server has done. Method: connection
    // 0 is answered once for every 25 answers to the others, and when those have ended.
    let counts = Arc::new((Mutex::new(Counts::default()), Condvar::new()));
    let shared = Arc::clone(&counts);
    let address = serve(move |stream| {
        let (counts, changed) = &*shared;
        let mut own = None;
        for_each_line(&stream, |request, mut stream| {
            let connection = request.connection as usize;
            own = Some(connection);
            let mut all = counts.lock().unwrap();
            while connection == 0
                && all.ended < 3
                && all.answered[1..].iter().sum::<u64>() < 25 * (request.n + 1)
            {
                all = changed.wait(all).unwrap();
            }
            all.answered[connection] += 1;
            changed.notify_all();
            drop(all);
            stream.write_all(&request.line).is_ok()
        });
        if own != Some(0) {
            counts.lock().unwrap().ended += 1;
            changed.notify_all();
        }
    });
    let words = ["--connections", "4", "--duration", "500ms"];
    let ended = load(&address, &words, &["--fail-if", "fairness<0.9"]);
    assert_eq!(ended.code, Some(3), "{}{}", ended.stdout, ended.stderr);
    let answered = counts.0.lock().unwrap().answered;
    let (sum, squares): (f64, f64) = answered.iter().fold((0.0, 0.0), |(sum, squares), count| {
        let count = *count as f64;
        (sum + count, squares + count * count)
    });
    let fairness = &ended.json["fairness"];
    assert_eq!(fairness["least"], answered[0], "{fairness}");
    assert_eq!(fairness["most"], *answered.iter().max().unwrap());
    assert_eq!(fairness["connections"], 4);
    let jain = fairness["jain"].as_f64().unwrap();
    assert!(
        (jain - sum * sum / (4.0 * squares)).abs() < 1e-9,
        "{fairness}"
    );
    assert!(ended.stdout.contains("Jain's index 0."), "{}", ended.stdout);
}

#[test]
fn who_was_thrown_out_early_counts_in_fairness() {
    // Goal: connections that came up and broke before their first message are part of the index.
    // Method: a server that ends all but the first, and a rate at which most have not sent by then.
    let accepted = Mutex::new(0);
    let address = serve(move |stream| {
        let number = {
            let mut accepted = accepted.lock().unwrap();
            *accepted += 1;
            *accepted
        };
        if number == 1 {
            for_each_line(&stream, |request, mut stream| {
                stream.write_all(&request.line).is_ok()
            });
        }
    });
    let words = ["--connections", "4", "--rate", "4", "--messages", "1"];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.number("connections/connected"), 4);
    assert_eq!(ended.number("fairness/connections"), 4, "{:#}", ended.json);
    assert_eq!(ended.json["fairness"]["jain"], 0.25, "{:#}", ended.json);
}

#[test]
fn a_pause_shows_as_silence_and_in_its_seconds() {
    // Goal: what an average hides is found: the silence has its length, and a second without a
    // reply has its row. Method: the server stops for longer than two seconds, so that one row at
    // least lies within.
    const PAUSE: Duration = Duration::from_millis(2500);
    let answers = Mutex::new(0);
    let address = answer(move |request| {
        let mut answers = answers.lock().unwrap();
        *answers += 1;
        if *answers == 100 {
            // Not to wait for something: this is the server's fault that the client must find.
            std::thread::sleep(PAUSE);
        }
        request.line
    });
    let words = ["--connections", "4", "--messages", "50"];
    let ended = load(
        &address,
        &words,
        &["--fail-if", "silence>2s", "--fail-if", "max<2s"],
    );
    assert_eq!(ended.code, Some(3), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(verdicts(&ended.json), ["not_met", "met"]);
    let rows = ended.json["timeline"].as_array().unwrap();
    let answered = rows.iter().map(|row| row["answered"].as_u64().unwrap());
    assert_eq!(answered.sum::<u64>(), 200);
    let end = |row: &Value| row["start_s"].as_f64().unwrap() + row["elapsed_s"].as_f64().unwrap();
    let window_s = ended.json["window"]["elapsed_s"].as_f64().unwrap();
    let beyond_s = end(rows.last().unwrap()) - window_s;
    assert!(
        beyond_s.abs() < 1e-6,
        "the rows end {beyond_s} s after the window"
    );
    let silent = rows
        .iter()
        .find(|row| row["answered"] == 0)
        .expect("a silent second");
    assert!(silent["latency_ns"].is_null());
    assert_eq!(silent["requests_per_s"], 0.0);
    assert!(ended.stdout.contains("no reply"), "{}", ended.stdout);
}

fn csv_rows(path: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.records().map(Result::unwrap).collect()
}

#[test]
fn the_csv_says_what_the_report_says() {
    // Goal: a row for each second and one for all, with the documented columns. Method: a run of
    // more than a second, read back by another program's parser, compared with its JSON.
    let csv = Scratch::new("run.csv");
    let words = [
        "--connections",
        "2",
        "--duration",
        "1200ms",
        "--csv",
        csv.path(),
    ];
    let ended = client(&echo(), &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let mut reader = csv::Reader::from_path(&csv.0).unwrap();
    let header = reader.headers().unwrap().clone();
    let names: Vec<&str> = header.iter().collect();
    let start = ["row", "start_s", "elapsed_s", "answered", "requests_per_s"];
    assert_eq!(names[..5], start);
    assert_eq!(names.len(), 5 + 7 + 7 + 4);
    let rows = csv_rows(&csv.0);
    let (total, seconds) = rows.split_last().unwrap();
    let cell = |row: &csv::StringRecord, name: &str| {
        let at = names.iter().position(|column| *column == name);
        row[at.unwrap_or_else(|| panic!("no column {name}"))].to_owned()
    };
    let number = |row: &csv::StringRecord, name: &str| cell(row, name).parse::<f64>().unwrap();
    let timeline = ended.json["timeline"].as_array().unwrap();
    assert_eq!(seconds.len(), timeline.len());
    assert!(seconds.len() >= 2, "{rows:?}");
    for (row, told) in seconds.iter().zip(timeline) {
        assert_eq!(cell(row, "row"), "second");
        let start_s = told["start_s"].as_f64().unwrap();
        assert!((number(row, "start_s") - start_s).abs() < 1e-9, "{row:?}");
        assert_eq!(number(row, "answered"), told["answered"].as_f64().unwrap());
        let p99 = told["latency_ns"]["p99"].as_f64();
        assert_eq!(cell(row, "latency_p99_ns").parse().ok(), p99);
        assert_eq!(cell(row, "fairness"), "");
    }
    assert_eq!(cell(total, "row"), "total");
    for (column, pointer) in [
        ("answered", "/window/answered"),
        ("requests_per_s", "/window/requests_per_s"),
        ("latency_mean_ns", "/latency_ns/mean"),
        ("latency_p99_9_ns", "/latency_ns/p99_9"),
        ("service_max_ns", "/service_ns/max"),
        ("longest_silence_ns", "/window/longest_silence_ns"),
        ("fairness", "/fairness/jain"),
        ("lag_p99_ns", "/client/lag_ns/p99"),
    ] {
        let told = ended.json.pointer(pointer).and_then(Value::as_f64).unwrap();
        // serde_json may read the last digit differently.
        let difference = (number(total, column) - told).abs();
        assert!(difference <= 1e-12 * told, "{column}: {told}");
    }
    assert_eq!(number(total, "failed_connections"), 0.0);
}

/// A run with a log, and its report.
fn logged(address: &str, words: &[&str], log: &Scratch) -> Value {
    let ended = load(address, words, &["--hdr", log.path()]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended.json
}

/// `client merge words...`, which succeeds.
fn merge(words: &[&str]) -> Ended {
    let ended = run_client(&[&["merge"], words].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended
}

/// Three runs of different servers and speed: their logs and their reports.
fn three_runs() -> ([Scratch; 3], [Value; 3]) {
    let slow = answer(|request| {
        // The times must differ; by how much does not matter.
        std::thread::sleep(Duration::from_millis(2));
        request.line
    });
    let words = ["--connections", "3", "--messages", "20"];
    let logs = ["1.hdr", "2.hdr", "3.hdr"].map(Scratch::new);
    let [first, second, third] = &logs;
    let reports = [
        logged(&echo(), &words, first),
        logged(&slow, &words, second),
        logged(&echo(), &words, third),
    ];
    (logs, reports)
}

#[test]
fn merged_logs_are_the_sum_of_their_runs() {
    // Goal: counts and rates add up, and times are those of all. Method: compares with the reports
    // of three runs.
    let (logs, reports) = three_runs();
    let json = Scratch::new("all.json");
    let [first, second, third] = logs.each_ref().map(Scratch::path);
    let words = ["--json", json.path(), "--fail-if", "p99>1min"];
    let ended = merge(&[&[first, second, third], &words[..]].concat());
    let begin = "3 runs merged: 9 connections";
    assert!(ended.stdout.starts_with(begin), "{}", ended.stdout);
    let json = json.json();
    for pointer in [
        "/connections/asked",
        "/connections/closed",
        "/messages/sent",
        "/messages/answered",
        "/window/answered",
        "/window/requests_per_s",
        "/latency_ns/count",
        "/service_ns/count",
        "/connect/latency_ns/count",
        "/fairness/connections",
        "/fairness/answered",
    ] {
        let merged = json.pointer(pointer).and_then(Value::as_f64).unwrap();
        let numbers = reports.iter().map(|report| report.pointer(pointer));
        let expected: f64 = numbers
            .map(|number| number.unwrap().as_f64().unwrap())
            .sum();
        let difference = (merged - expected).abs();
        assert!(
            difference < 1e-6 * expected,
            "{pointer}: {merged}, {expected}"
        );
    }
    let latencies = |key: &'static str| {
        let reports = reports.iter();
        reports.map(move |report| report["latency_ns"][key].as_u64().unwrap())
    };
    assert_eq!(json["latency_ns"]["min"], latencies("min").min().unwrap());
    assert_eq!(json["latency_ns"]["max"], latencies("max").max().unwrap());
    assert_eq!(json["runs"].as_array().unwrap().len(), 3);
    assert!(json["window"]["longest_silence_ns"].is_null());
    assert_eq!(verdicts(&json), ["met"]);
    assert_eq!(answered_in_seconds(&json), 180);
}

fn answered_in_seconds(report: &Value) -> u64 {
    let rows = report["timeline"].as_array().unwrap().iter();
    rows.map(|row| row["answered"].as_u64().unwrap()).sum()
}

#[test]
fn merging_in_steps_is_merging_at_once() {
    // Goal: a log that is a sum is as good as its parts, and one run comes out as it went in.
    // Method: three logs at once, two and then the third, and one alone.
    let (logs, reports) = three_runs();
    let [first, second, third] = logs.each_ref().map(Scratch::path);
    let two = Scratch::new("two.hdr");
    let [all, steps, one] = ["all.json", "steps.json", "one.json"].map(Scratch::new);
    merge(&[first, second, third, "--json", all.path()]);
    merge(&[first, second, "--hdr", two.path()]);
    merge(&[two.path(), third, "--json", steps.path()]);
    merge(&[first, "--json", one.path()]);
    let [all, steps, one] = [all, steps, one].each_ref().map(Scratch::json);
    for key in [
        "latency_ns",
        "service_ns",
        "connections",
        "messages",
        "failures",
        "runs",
    ] {
        assert_eq!(all[key], steps[key], "{key}");
    }
    assert_eq!(answered_in_seconds(&steps), 180);
    for key in [
        "latency_ns",
        "service_ns",
        "messages",
        "window",
        "fairness",
        "settings",
    ] {
        assert_eq!(one[key], reports[0][key], "{key}");
    }
}

#[test]
fn merged_failures_and_gates_decide_the_exit_code() {
    // Goal: the codes of a merge are those of a run. Method: one clean run and one with a failure;
    // gates that hold and that do not.
    let logs = ["clean.hdr", "failed.hdr"].map(Scratch::new);
    let [clean, failed] = logs.each_ref().map(Scratch::path);
    logged(&echo(), SOME, &logs[0]);
    let wrong = answer(|mut request| {
        request.line[0] ^= u8::from((request.connection, request.n) == (1, 1));
        request.line
    });
    assert_eq!(load(&wrong, SOME, &["--hdr", failed]).code, Some(1));
    let code = |words: &[&str]| run_client(&[&["merge"], words].concat()).code;
    assert_eq!(code(&[clean]), Some(0));
    assert_eq!(code(&[clean, failed]), Some(1));
    assert_eq!(code(&[clean, failed, "--fail-if", "failures>1"]), Some(0));
    assert_eq!(code(&[clean, "--fail-if", "p99>0ns"]), Some(3));
    // Two runs cannot tell how long the server was silent.
    assert_eq!(
        code(&[
            clean,
            failed,
            "--fail-if",
            "silence>60min",
            "--fail-if",
            "failures>1"
        ]),
        Some(3)
    );
}

/// The merge of `files` fails, says all `parts`, and writes nothing.
fn assert_refused(files: &[&str], parts: &[&str]) {
    let out = Scratch::new("out.json");
    let ended = run_client(&[&["merge"], files, &["--json", out.path()]].concat());
    assert_eq!(
        ended.code,
        Some(1),
        "{parts:?}: {}{}",
        ended.stdout,
        ended.stderr
    );
    for part in parts {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    assert!(
        !out.0.exists() && ended.stdout.is_empty(),
        "{}",
        ended.stdout
    );
}

#[test]
fn runs_that_do_not_belong_together_are_refused() {
    // Goal: different settings and a run given twice are named. Method: each, and a missing file.
    let address = echo();
    let [good, other] = ["good.hdr", "other.hdr"].map(Scratch::new);
    logged(&address, SOME, &good);
    logged(&address, &[SOME, &["--size", "100"]].concat(), &other);
    let (good, other) = (good.path(), other.path());
    assert_refused(
        &[good, other],
        &["size_bytes is 64 in", good, "and 100 here", other],
    );
    assert_refused(&[good, good], &["also in", good]);
    assert_refused(&[good, "/no/such/file.hdr"], &["/no/such/file.hdr"]);
}

#[test]
fn damaged_logs_are_refused_with_the_line() {
    // Goal: every kind of damage is found, with file and line. Method: spoils a log in each way.
    let [good, bad] = ["good.hdr", "bad.hdr"].map(Scratch::new);
    logged(&echo(), SOME, &good);
    let text = String::from_utf8(good.bytes()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let spoilt = |number: usize, line: &str| {
        [&lines[..number - 1], &[line], &lines[number..]]
            .concat()
            .concat()
    };
    let last = lines.len();
    let connect = lines
        .iter()
        .position(|line| line.starts_with("Tag=connect"));
    let connect = connect.unwrap() + 1;
    let histogram = lines[connect - 1];
    let at = histogram.len() - 20;
    let changed = if &histogram[at..=at] == "A" { "B" } else { "A" };
    let flipped = format!("{}{changed}{}", &histogram[..at], &histogram[at + 1..]);
    for (content, place, what) in [
        (String::new(), 1, "empty"),
        ("hello\n".to_owned(), 1, "not a log"),
        (spoilt(last, ""), last - 1, "cut off"),
        (text[..text.len() - 1].to_owned(), last, "cut off"),
        (spoilt(connect, &flipped), connect, "damaged"),
        (spoilt(connect, "1.0,2.0\n"), connect, "neither"),
        (spoilt(last, "#report {}\n"), last, "damaged report"),
        (spoilt(2, "#settings {}\n"), last, "other settings"),
        (
            spoilt(connect + 1, ""),
            connect + 1,
            "without their response times",
        ),
        (spoilt(connect + 2, ""), last - 1, "without service times"),
        (spoilt(connect, ""), last - 1, "Tag=connect"),
    ] {
        std::fs::write(&bad.0, content).unwrap();
        let line = format!("line {place}: ");
        assert_refused(&[bad.path()], &[bad.path(), &line, what]);
        assert_refused(&[good.path(), bad.path()], &[bad.path(), &line]);
    }
    // Both lines of an interval are gone: every line is right, but the sum is not.
    let without_interval = [&lines[..connect], &lines[connect + 2..]].concat();
    std::fs::write(&bad.0, without_interval.concat()).unwrap();
    assert_refused(&[bad.path()], &[bad.path(), "of 40 replies"]);
}

#[test]
fn files_that_cannot_be_written_stop_the_run() {
    // Goal: told before the first connection, for each option. Method: a directory that is not
    // there, a directory itself, a name that no file can have, and one file for two options, also
    // under another name and behind a link.
    let (tx, rx) = std::sync::mpsc::channel::<()>();
    let tx = Mutex::new(tx);
    let address = serve(move |_| tx.lock().unwrap().send(()).unwrap());
    let [same, link] = ["same", "link"].map(Scratch::new);
    std::os::unix::fs::symlink(&same.0, &link.0).unwrap();
    let detour = format!("/tmp/..{}", same.path());
    let long = format!("/tmp/{}", "a".repeat(300));
    for words in [
        &["--csv", "/no/such/directory/a"][..],
        &["--hdr", "/no/such/directory/a"],
        &["--hdr", "/tmp"],
        &["--json", &long],
        &["--hdr", same.path(), "--csv", same.path()],
        &["--hdr", same.path(), "--csv", &detour],
    ] {
        let ended = run_client(&[&["--connect", &address, "--messages", "1"], words].concat());
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let named = ended.stderr.contains(words[0]) && ended.stderr.contains(words[1]);
        assert!(named, "{words:?}: {}", ended.stderr);
    }
    // A link is another name only where it leads somewhere.
    std::fs::write(&same.0, "").unwrap();
    let ended = run_client(&["--hdr", same.path(), "--csv", link.path()]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(link.path()), "{}", ended.stderr);
    assert!(rx.try_recv().is_err(), "a connection was made all the same");
}

#[test]
fn standard_output_is_written_to_wherever_it_leads() {
    // Goal: /dev/stdout is never replaced, neither a pipe nor a file nor the link itself. Method:
    // the table comes after the report through a pipe, and through the shell into a file, to
    // which somebody else has written before.
    let table = |text: &str| {
        let from = text
            .find("\nrow,start_s,elapsed_s,answered,")
            .expect("the table's header");
        assert!(text[from..].contains("\ntotal,0,"), "{text}");
        assert!(text[..from].contains("failures     none"), "{text}");
    };
    let address = echo();
    let ended = load(&address, SOME, &["--csv", "/dev/stdout"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    table(&ended.stdout);
    let file = Scratch::new("stdout");
    let script = format!("exec > {}; echo before; exec \"$0\" \"$@\"", file.path());
    let client = tests::binaries::client();
    let words = [
        "--connect",
        &address,
        "--messages",
        "1",
        "--csv",
        "/dev/stdout",
    ];
    let ended = finish(spawn(
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(client)
            .args(words),
    ));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let text = String::from_utf8(file.bytes()).unwrap();
    assert!(text.starts_with("before\n"), "{text}");
    table(&text);
    let link = std::fs::symlink_metadata("/dev/stdout");
    assert!(
        link.is_ok_and(|link| !link.is_file()),
        "the system's own link was replaced"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_printed_is_a_failure() {
    // Goal: nobody takes a lost report for a good one; who closes the pipe has seen enough. Method:
    // the device that is always full, and a pipe that is closed before the report comes.
    let address = echo();
    let words = [&["--quiet", "--connect", &address], SOME].concat();
    let ended = run::client_after("exec >/dev/full", &words);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("no space left"), "{}", ended.stderr);
    let mut child = spawn(Command::new(tests::binaries::client()).args(&words));
    drop(child.stdout.take());
    let ended = finish(child);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_link_stays_and_its_file_is_replaced() {
    // Goal: who points a link at today's report keeps the link. Method: a link to a longer file.
    let [target, link] = ["target", "link"].map(Scratch::new);
    std::fs::write(&target.0, "x".repeat(100_000)).unwrap();
    std::os::unix::fs::symlink(&target.0, &link.0).unwrap();
    let ended = load(&echo(), SOME, &["--csv", link.path()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(std::fs::symlink_metadata(&link.0).unwrap().is_symlink());
    assert_eq!(csv_rows(&target.0).last().unwrap()[0], *"total");
}

const SHORT_PROBES: &[&str] = &[
    "--connections",
    "1",
    "--duration",
    "300ms",
    "--warmup",
    "100ms",
];

#[test]
fn the_highest_rate_is_found() {
    // Goal: the answer is the highest rate that held, all probes are told, and a probe in which
    // something fails has not held, fast as it was. Method: a server that sends more than it should
    // at the end of a connection that has had more than a hundred answers.
    let address = serve(|stream| {
        let mut answered = 0;
        for_each_line(&stream, |request, mut stream| {
            answered += 1;
            stream.write_all(&request.line).is_ok()
        });
        fake::end_with(&stream, if answered > 100 { b"##" } else { b"" });
    });
    let ended = load(
        &address,
        SHORT_PROBES,
        &["--find-max", "p99<1min", "--rate", "100"],
    );
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let found = &ended.json["find_max"];
    let (held, broken) = (found["held_per_s"].as_u64(), found["broken_per_s"].as_u64());
    let (held, broken) = (
        held.expect("a rate holds"),
        broken.expect("not every rate holds"),
    );
    assert!(
        held < broken && broken - held <= (held / 20).max(1),
        "{found:#}"
    );
    let probes = found["probes"].as_array().unwrap();
    let rates = |kind: bool| {
        let probes = probes.iter().filter(move |probe| probe["held"] == kind);
        probes.map(|probe| probe["rate_per_s"].as_u64().unwrap())
    };
    assert_eq!(
        (rates(true).max(), rates(false).min()),
        (Some(held), Some(broken)),
        "{found:#}"
    );
    assert_eq!(rates(true).chain(rates(false)).count(), probes.len());
    let failed = probes.iter().find(|probe| probe["failures"] == 1);
    assert_eq!(
        failed.expect("one has reached the hundredth")["held"],
        false
    );
    assert_eq!(
        ended.json["settings"]["rate_per_s"].as_f64(),
        Some(held as f64)
    );
    assert_eq!(
        ended.stdout.matches("\nprobe ").count() + 1,
        probes.len(),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("highest rate "), "{}", ended.stdout);
}

#[test]
fn no_rate_that_holds_is_exit_code_three() {
    // Goal: a search that finds nothing says so. Method: what no reply can be.
    let ended = load(
        &echo(),
        SHORT_PROBES,
        &["--find-max", "p99<1ns", "--rate", "40"],
    );
    assert_eq!(ended.code, Some(3), "{}{}", ended.stdout, ended.stderr);
    let found = &ended.json["find_max"];
    assert!(found["held_per_s"].is_null());
    assert_eq!(found["broken_per_s"], 10);
    assert_eq!(found["probes"].as_array().unwrap().len(), 3);
    assert!(
        ended.stdout.contains("highest rate none"),
        "{}",
        ended.stdout
    );
    // Nobody there is not a slow server.
    let ended = load(&fake::nobody(), SHORT_PROBES, &["--find-max", "p99<1s"]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.json["outcome"], "not_started");
}

#[test]
fn control_c_keeps_what_a_search_has_found() {
    // Goal: the probes so far are told. Method: interrupts when the third probe has connected.
    let (tx, rx) = std::sync::mpsc::channel();
    let tx = Mutex::new(tx);
    let address = serve(move |stream| {
        let _ = tx.lock().unwrap().send(());
        for_each_line(&stream, |request, mut stream| {
            stream.write_all(&request.line).is_ok()
        });
    });
    let json = Scratch::new("search.json");
    let mut command = Command::new(tests::binaries::client());
    command
        .args(["--connect", &address, "--quiet", "--rate", "20"])
        .args(SHORT_PROBES)
        .args(["--find-max", "p99<1min", "--json", json.path()]);
    let child = spawn(&mut command);
    for _ in 0..3 {
        rx.recv_timeout(run::DEADLINE).unwrap();
    }
    signal(child.id(), libc::SIGINT);
    let ended = finish(child);
    assert_eq!(ended.code, Some(130), "{}{}", ended.stdout, ended.stderr);
    let report = json.json();
    // Whatever the report of the best probe is about, the search did not come to its end.
    assert_eq!(report["outcome"], "interrupted");
    assert!(ended.stdout.contains("(interrupted)"), "{}", ended.stdout);
    let probes = report["find_max"]["probes"].as_array().unwrap();
    assert!(probes.len() >= 2, "{report:#}");
    // The one that was cut short is none of them.
    let told = |probe: &Value| probe["value"].is_number();
    assert!(probes.iter().all(told), "{report:#}");
    assert!(ended.stdout.contains("\nhighest rate "), "{}", ended.stdout);
}

#[test]
fn a_search_that_kills_the_server_is_a_failure() {
    // Goal: a server that is gone is no limit found: the search breaks off, tells what it knows and
    // exits with 1. Method: a listener that is closed while the second probe is connected, so that
    // the third meets nobody.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                for_each_line(&stream, |request, mut stream| {
                    stream.write_all(&request.line).is_ok()
                });
            });
        }
    });
    let words = ["--rate", "20", "--find-max", "p99<1min"];
    let ended = client(&address, &[SHORT_PROBES, &words].concat());
    server.join().unwrap();
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let found = &ended.json["find_max"];
    assert_eq!(found["held_per_s"], 40, "{found:#}");
    assert!(found["broken_per_s"].is_null(), "{found:#}");
    assert_eq!(found["probes"].as_array().unwrap().len(), 3, "{found:#}");
    assert!(
        ended
            .stdout
            .contains("\nthe search broke off: no connection"),
        "{}",
        ended.stdout
    );
}

#[test]
fn searches_that_make_no_sense_are_usage_errors() {
    // Goal: exit 2 with what would be right. Method: the wrong way round, the rate itself, and
    // options that leave nothing to search.
    for (words, part) in [
        (&["--find-max", "p99>5ms"][..], "p99<5ms"),
        (&["--find-max", "rate>5k"], "the rate is what is searched"),
        (&["--find-max", "p99<5"], "unit"),
        (&["--find-max", "p99<5ms", "--messages", "5"], "--messages"),
        (&["--find-max", "p99<5ms", "--think", "5ms"], "--think"),
    ] {
        let ended = run_client(words);
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
}
