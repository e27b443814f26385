//! `client load` on a schedule: `--rate`, `--think`, `--ramp`, `--warmup`.
//!
//! What can be counted is counted. Times are compared with lower bounds that hold on any machine,
//! and where a stall must show, with a stall that is many times what a busy machine does.

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

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fake::answer;
use run::{Ended, client};

/// An echo that does nothing for a while when this message has come.
fn stalling(at: u64, stall: Duration) -> String {
    answer(move |request| {
        if request.n == at {
            thread::sleep(stall);
        }
        request.line
    })
}

fn seconds(ended: &Ended, path: &str) -> f64 {
    let value = ended.json.pointer(path).and_then(serde_json::Value::as_f64);
    value.unwrap_or_else(|| panic!("no number {path} in {:#}", ended.json))
}

#[test]
fn a_rate_is_kept() {
    // Goal: as many messages as rate and time make, evenly over the connections. Method: counts
    // what arrives at a server that has nothing else to do.
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let theirs = Arc::clone(&counts);
    let address = answer(move |request| {
        *theirs
            .lock()
            .unwrap()
            .entry(request.connection)
            .or_insert(0) += 1;
        request.line
    });
    let words = [
        "--connections",
        "10",
        "--rate",
        "0.4k/s",
        "--duration",
        "2s",
    ];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let (sent, unsent) = (
        ended.number("messages/sent"),
        ended.number("schedule/unsent"),
    );
    assert_eq!(ended.number("schedule/due"), 800);
    assert_eq!(sent + unsent, 800);
    assert!(sent >= 720, "{:#}", ended.json);
    let counts = counts.lock().unwrap();
    assert_eq!(counts.values().sum::<u64>(), sent);
    let (least, most) = (
        counts.values().min().unwrap(),
        counts.values().max().unwrap(),
    );
    assert!(
        counts.len() == 10 && *most <= 80 && *least >= 64,
        "{counts:?}"
    );
    for part in ["400/s intended", "response", "service", "sent late"] {
        assert!(ended.stdout.contains(part), "{part} in {}", ended.stdout);
    }
}

#[test]
fn a_slow_rate_fills_its_time() {
    // Goal: a run is not over, and the rate not higher, because the last message was early. Method:
    // four messages, due in the first three quarters of the time; no timer is early.
    let address = answer(|request| request.line);
    let words = ["--connections", "3", "--rate", "4/s", "--duration", "1s"];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.number("schedule/due"), 4);
    assert!(seconds(&ended, "/window/elapsed_s") >= 1.0);
}

#[test]
fn a_rate_bounds_a_fixed_number_of_messages() {
    // Goal: a schedule of so many messages, which takes its time. Method: the last of 200 messages
    // at 1000/s is due after 199 ms, and no timer is early.
    let address = answer(|request| request.line);
    let words = ["--connections", "10", "--rate", "1k", "--messages", "20"];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.number("messages/answered"), 200);
    assert_eq!(ended.number("schedule/due"), 200);
    assert!(seconds(&ended, "/window/elapsed_s") >= 0.199);
}

#[test]
fn more_messages_than_can_be_counted_are_due_one_by_one() {
    // Goal: what is due follows the time where the number of messages has no end. Method: as many
    // on each of two connections as make 2^64, interrupted when some have come.
    let (tx, rx) = std::sync::mpsc::channel();
    let address = fake::answer(move |request| {
        if request.n == 5 {
            let _ = tx.send(());
        }
        request.line
    });
    let json = run::scratch_file("endless.json");
    let mut command = std::process::Command::new(tests::binaries::client());
    command
        .args(["--connect", &address, "--quiet", "--connections", "2"])
        .args(["--messages", "9223372036854775808", "--rate", "1k"])
        .arg("--json")
        .arg(&json);
    let child = run::spawn(&mut command);
    rx.recv_timeout(run::DEADLINE).unwrap();
    run::signal(child.id(), libc::SIGINT);
    let ended = run::finish(child);
    assert_eq!(ended.code, Some(130), "{}{}", ended.stdout, ended.stderr);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    let due = report["schedule"]["due"].as_u64().unwrap();
    assert!(due >= 10, "{report:#}");
}

#[test]
fn a_stall_cannot_hide() {
    // Goal: a stall is in the response times of all messages that were due in it, while the service
    // times, and those of a closed loop, know of one. Method: 1 s of 500/s lost at message 100.
    let stall = Duration::from_secs(1);
    let half_ns = stall.as_nanos() as u64 / 2;
    let words = ["--connections", "1", "--duration", "2s"];
    let open = client(
        &stalling(100, stall),
        &[&words[..], &["--rate", "500/s"]].concat(),
    );
    assert_eq!(open.code, Some(0), "{}{}", open.stdout, open.stderr);
    assert!(open.number("latency_ns/p99") > half_ns, "{:#}", open.json);
    assert!(open.number("service_ns/p99") < half_ns, "{:#}", open.json);
    assert!(open.number("service_ns/max") >= 2 * half_ns * 999 / 1000);
    // The backlog is sent as soon as it can be; half of what was due in the stall waited so long.
    assert!(open.number("schedule/late") > 400, "{:#}", open.json);
    assert!(open.number("messages/sent") > 700, "{:#}", open.json);
    assert!(open.number("window/longest_silence_ns") >= 2 * half_ns * 999 / 1000);

    let closed = client(&stalling(100, stall), &words);
    assert_eq!(closed.code, Some(0), "{}{}", closed.stdout, closed.stderr);
    assert!(
        closed.number("latency_ns/p99") < half_ns,
        "{:#}",
        closed.json
    );
    assert!(closed.json["schedule"].is_null());
}

#[test]
fn depth_lets_the_schedule_go_on_through_a_stall() {
    // Goal: with room in flight, sends are in time although replies are not. Method: the same stall
    // with room for all that is due in it: the service times know of it now.
    let stall = Duration::from_secs(1);
    let words = [
        "--connections",
        "1",
        "--duration",
        "2s",
        "--rate",
        "500/s",
        "--depth",
        "1000",
    ];
    let ended = client(&stalling(100, stall), &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.number("service_ns/p99") > 500_000_000,
        "{:#}",
        ended.json
    );
    assert!(ended.number("messages/sent") > 900, "{:#}", ended.json);
}

#[test]
fn what_was_never_sent_is_told() {
    // Goal: messages that were due and could not be sent are in the report. Method: a stall that
    // outlasts the run, at message 10 of one connection.
    let address = stalling(10, Duration::from_secs(2));
    let words = ["--connections", "1", "--rate", "100/s", "--duration", "1s"];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.number("messages/sent"), 11);
    assert_eq!(ended.number("schedule/due"), 100);
    assert_eq!(ended.number("schedule/unsent"), 89);
    assert!(ended.stdout.contains("89 never sent"), "{}", ended.stdout);
}

#[test]
fn thinking_takes_its_time() {
    // Goal: a pause between reply and next message, also with several in flight; and a run that
    // ends in a pause ends in time. Method: the pauses' sum is a lower bound; a pause of ten
    // minutes.
    let address = answer(|request| request.line);
    for (messages, depth, pauses_s) in [("5", "1", 0.2), ("9", "3", 0.1)] {
        let words = [
            "--connections",
            "4",
            "--think",
            "50ms",
            "--messages",
            messages,
            "--depth",
        ];
        let ended = client(&address, &[&words[..], &[depth]].concat());
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(seconds(&ended, "/window/elapsed_s") >= pauses_s);
        // The pause is ours, and not a time that the server took.
        assert!(
            ended.number("latency_ns/p50") < 50_000_000,
            "{:#}",
            ended.json
        );
    }
    let words = [
        "--connections",
        "4",
        "--think",
        "10min",
        "--duration",
        "200ms",
    ];
    let ended = client(&address, &words);
    assert_eq!((ended.code, ended.number("messages/sent")), (Some(0), 4));
}

#[test]
fn a_ramp_spreads_the_connections() {
    // Goal: connections are made one by one over the time, and sending waits for the last. Method:
    // the last of ten is due after nine tenths of the time; no timer is early.
    let address = answer(|request| request.line);
    let words = ["--connections", "10", "--messages", "3", "--ramp", "500ms"];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(seconds(&ended, "/connect/elapsed_s") >= 0.45);
    assert_eq!(ended.number("messages/answered"), 30);
    assert!(
        ended.stdout.contains("made over 500 ms"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_warm_up_is_not_measured() {
    // Goal: what is answered in the warm-up counts as answered, and nowhere else. Method: a server
    // that is slow for the first message of each connection, and a warm-up that is longer.
    let address = stalling(0, Duration::from_millis(200));
    let words = [
        "--connections",
        "4",
        "--warmup",
        "500ms",
        "--duration",
        "500ms",
    ];
    let ended = client(&address, &[&words[..], &["--rate", "1k/s"]].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let (all, measured) = (
        ended.number("messages/answered"),
        ended.number("latency_ns/count"),
    );
    assert!(
        measured < all && measured >= ended.number("window/answered"),
        "{:#}",
        ended.json
    );
    assert_eq!(ended.number("schedule/due"), 1000);
    assert!(ended.number("window/answered") <= 600, "{:#}", ended.json);
    assert!(
        ended.number("service_ns/max") < 200_000_000,
        "{:#}",
        ended.json
    );
    assert!(seconds(&ended, "/window/elapsed_s") >= 0.3);
    assert!(
        ended.stdout.contains("500 ms that are not measured"),
        "{}",
        ended.stdout
    );
}
