//! `client load --hostile` end to end, as a process: each kind against the real server, whose other
//! clients it must not harm, and against servers that do to it what they should not.

#![cfg(target_os = "linux")]
// The server's process is looked into through /proc.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

#[allow(dead_code, reason = "shared with the tests of `client load`")]
#[path = "client/fake.rs"]
mod fake;
#[allow(dead_code, reason = "shared with the tests of the server")]
#[path = "server/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with the tests of `client load`")]
#[path = "client/run.rs"]
mod run;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;

use fake::serve;
use process::Server;
use run::{Ended, client, client_after, finish, scratch_file, signal, spawn};
use serde_json::Value;

const KINDS: [&str; 6] = ["reset", "half-close", "dribble", "deaf", "idle", "churn"];

/// The number at `key` of the kind in the report's section.
fn number(ended: &Ended, kind: &str, key: &str) -> u64 {
    let kinds = ended.json["hostile"].as_array().expect("a section");
    let line = kinds.iter().find(|line| line["kind"] == kind);
    let line = line.unwrap_or_else(|| panic!("no {kind} in {:#}", ended.json));
    line[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {line:#}"))
}

/// The measured ones have not noticed anything.
fn assert_unharmed(ended: &Ended, measured: u64) {
    assert!(ended.failures().is_empty(), "{:#}", ended.json);
    assert_eq!(ended.number("connections/asked"), measured);
    assert_eq!(ended.number("connections/closed"), measured);
    assert_eq!(ended.number("messages/in_flight"), 0);
}

#[test]
fn each_kind_alone_harms_nobody() {
    // Goal: every kind does what it is there for, the server answers the others all the while, and
    // has no connection left afterwards. Method: a run for each kind; its section, the measured
    // ones' books, and the server's.
    for kind in KINDS {
        let server = Server::start(&[]);
        let mix = format!("{kind}=30");
        let words = ["--connections", "10", "--size", "8", "--hostile", &mix];
        let run = |length| {
            let words = [&words[..], &["--duration", length]].concat();
            client(&server.address.to_string(), &words)
        };
        // What takes a second usually may take many on a busy machine.
        let mut ended = run("1500ms");
        for length in ["6s", "20s"] {
            if ended.code == Some(0) && number(&ended, kind, "acts") < 3 {
                ended = run(length);
            }
        }
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert_unharmed(&ended, 7);
        assert_eq!(ended.json["settings"]["hostile"], mix);
        assert_eq!(number(&ended, kind, "connections"), 3);
        let connects = number(&ended, kind, "connects");
        let acts = number(&ended, kind, "acts");
        assert!(acts >= 3, "{kind}: {acts} acts\n{}", ended.stdout);
        match kind {
            "reset" | "half-close" | "churn" => assert!(connects >= acts && connects > 3, "{kind}"),
            _ => assert_eq!(connects, 3, "{kind}"),
        }
        let (sent, received) = (
            number(&ended, kind, "sent_bytes"),
            number(&ended, kind, "received_bytes"),
        );
        match kind {
            "half-close" | "dribble" => assert!(received > 0 && received <= sent),
            "deaf" => assert!(sent > 100_000 && received == 0, "{sent} {received}"),
            "idle" | "churn" => assert_eq!((sent, received), (0, 0)),
            _ => assert!(sent > 0 && received <= sent, "{sent} {received}"),
        }
        for key in ["refused", "ended_by_server", "failures"] {
            assert_eq!(number(&ended, kind, key), 0, "{kind}: {key}");
        }
        assert!(ended.stdout.contains("\nhostile "), "{}", ended.stdout);
        server.stop();
    }
}

#[test]
fn all_kinds_at_once_harm_nobody() {
    // Goal: the same with all kinds, long messages and another case. Method: one run each.
    let mix = "reset=10,half-close=10,dribble=10,deaf=10,idle=10,churn=10";
    let common = ["--connections", "50", "--duration", "2s", "--hostile", mix];
    for (server, extra) in [
        (Server::start(&[]), ["--size", "200000"].as_slice()),
        (Server::start(&["--upper"]), &["--upper", "--size", "9"]),
    ] {
        let ended = client(&server.address.to_string(), &[&common, extra].concat());
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert_unharmed(&ended, 20);
        for kind in KINDS {
            assert_eq!(number(&ended, kind, "connections"), 5);
            assert_eq!(number(&ended, kind, "failures"), 0, "{:#}", ended.json);
        }
        assert!(number(&ended, "half-close", "acts") > 0);
        server.stop();
    }
}

#[test]
fn who_is_thrown_out_comes_again() {
    // Goal: a server that throws hostile ones out, or has no place for them, is no failure; they
    // are counted, and come again. Method: a server that ends who is hostile, one that accepts only
    // the others, one that waits for nobody.
    let strict = echo_but(|_| ());
    let full = Server::start(&["--max-connections", "3"]);
    let full_address = full.address.to_string();
    let words = ["--connections", "4", "--duration", "3s", "--timeout", "1s"];
    for (address, kind) in [
        (&strict, "half-close"),
        (&strict, "dribble"),
        (&strict, "deaf"),
        (&full_address, "half-close"),
        (&full_address, "dribble"),
    ] {
        let mix = format!("{kind}=25");
        let words = [&words[..], &["--size", "8", "--hostile", &mix]].concat();
        let ended = client(address, &words);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert_unharmed(&ended, 3);
        let thrown_out = number(&ended, kind, "ended_by_server");
        assert!(thrown_out >= 2, "{kind}: {}", ended.stdout);
        assert_eq!(number(&ended, kind, "failures"), 0, "{:#}", ended.json);
    }
    let impatient = Server::start(&["--idle-timeout", "50ms"]);
    let words = [
        "--connections",
        "4",
        "--duration",
        "1500ms",
        "--hostile",
        "idle=25",
    ];
    let ended = client(&impatient.address.to_string(), &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(number(&ended, "idle", "ended_by_server") >= 2);
    assert!(number(&ended, "idle", "connects") >= 2);
}

#[test]
fn refusals_are_counted() {
    // Goal: a connection that does not come up is no failure either. Method: a server that takes
    // one connection, then closes its listener, and serves that one.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut writer = stream.try_clone().unwrap();
        std::io::copy(&mut stream, &mut writer).unwrap();
        writer.shutdown(Shutdown::Both).unwrap();
    });
    let words = [
        "--connections",
        "2",
        "--duration",
        "1s",
        "--hostile",
        "churn=50",
    ];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_unharmed(&ended, 1);
    assert!(number(&ended, "churn", "refused") > 0);
    let first = ended.json["hostile"][0]["first_refusal"].as_str().unwrap();
    assert!(first.contains("ECONNREFUSED"), "{first}");
    assert!(
        ended
            .stdout
            .contains("refused, the first one: connection refused")
    );
}

/// Serves measured connections rightly, and the hostile one, whose number is 3, with `act`, which
/// gets the stream before anything of it was read.
fn echo_but(act: impl Fn(&TcpStream) + Send + Sync + 'static) -> String {
    serve(move |stream| {
        let mut first = [0];
        if matches!(stream.peek(&mut first), Ok(1)) && first == *b"3" {
            return act(&stream);
        }
        let mut writer = stream.try_clone().unwrap();
        // Who comes and goes is reset now and then.
        let _ = std::io::copy(&mut &stream, &mut writer);
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// One hostile connection of four meets the server, which does something wrong to it.
fn assert_caught(kind: &str, address: &str, expected: &str) {
    let mix = format!("{kind}=25");
    let words = [
        "--connections",
        "4",
        "--duration",
        "2s",
        "--timeout",
        "500ms",
    ];
    let words = [&words[..], &["--size", "8", "--hostile", &mix]].concat();
    let ended = client(address, &words);
    assert_eq!(
        ended.code,
        Some(1),
        "{kind}: {}{}",
        ended.stdout,
        ended.stderr
    );
    assert_unharmed(&ended, 3);
    assert!(number(&ended, kind, "failures") > 0);
    let first = ended.json["hostile"][0]["first_failure"].as_str().unwrap();
    assert!(first.contains(expected), "{kind}: {first}, not {expected}");
    assert!(ended.stdout.contains(first), "{}", ended.stdout);
}

/// Answers each line with what `answer` makes of it, until it makes nothing; then ends.
fn by_lines(stream: &TcpStream, mut answer: impl FnMut(usize, Vec<u8>) -> Option<Vec<u8>>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    for number in 0.. {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return;
        }
        let Some(answer) = answer(number, line) else {
            return;
        };
        if writer.write_all(&answer).is_err() {
            return;
        }
    }
}

#[test]
fn lost_answers_at_a_half_close_are_caught() {
    // Goal: a server that takes the end of the input for the end of the connection is caught.
    // Method: it answers the first line, reads to the end, and goes; or answers all but a byte.
    let loses_all = echo_but(|stream| {
        let mut lines = BufReader::new(stream).split(b'\n');
        let first = lines.next().unwrap().unwrap();
        let mut writer = stream;
        writer.write_all(&[&first[..], b"\n"].concat()).unwrap();
        assert!(lines.all(|line| line.is_ok()));
    });
    assert_caught(
        "half-close",
        &loses_all,
        "message 1: closed by the server, 0 of 128 bytes",
    );
    let loses_a_byte = echo_but(|mut stream| {
        let mut first = [0; 8];
        stream.read_exact(&mut first).unwrap();
        stream.write_all(&first).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        rest.pop();
        stream.write_all(&rest).unwrap();
    });
    let expected = "message 16: closed by the server, 127 of 128 bytes";
    assert_caught("half-close", &loses_a_byte, expected);
}

type Change = fn(Vec<u8>) -> Vec<u8>;

#[test]
fn wrong_answers_are_caught() {
    // Goal: changed, repeated, added and missing bytes, answers that never come, and bytes that
    // nobody asked for. Method: each, in the third answer, to each kind that checks.
    for kind in ["half-close", "dribble"] {
        let changes: [(Change, &str); 5] = [
            (
                |line| [b"#", &line[1..]].concat(),
                "message 2, byte 0: 1 byte was changed",
            ),
            (|line| [&line[..], &line].concat(), "message 2 came again"),
            (|line| [b"##", &line[..]].concat(), "2 that nobody sent"),
            (
                |line| line[..7].to_vec(),
                if kind == "dribble" {
                    "nothing for 500ms"
                } else {
                    "message 2"
                },
            ),
            (|_| b"1 1 abc\n".to_vec(), "message 2, byte 0"),
        ];
        for (change, expected) in changes {
            let address = echo_but(move |stream| {
                by_lines(stream, |number, line| {
                    Some(if number == 2 { change(line) } else { line })
                });
                let _ = stream.shutdown(Shutdown::Write);
            });
            assert_caught(kind, &address, expected);
        }
        let silent = echo_but(|stream| {
            by_lines(stream, |number, line| {
                Some(if number < 2 { line } else { Vec::new() })
            });
            let (_held, waits) = std::sync::mpsc::channel::<()>();
            let _ = waits.recv_timeout(run::DEADLINE);
        });
        assert_caught(kind, &silent, "nothing for 500ms");
    }
    let talks = serve(|stream| {
        // Who is idle says nothing; the others speak at once.
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        if stream.peek(&mut [0]).is_err() {
            let _ = (&stream).write_all(b"hello?");
        }
        stream.set_read_timeout(None).unwrap();
        let _ = std::io::copy(&mut &stream, &mut &stream);
        let _ = stream.shutdown(Shutdown::Write);
    });
    assert_caught("idle", &talks, "6 bytes that nobody asked for");
}

#[test]
fn senseless_mixes_are_usage_errors() {
    // Goal: exit code 2, with what is wrong. Method: one of each sort.
    for (mix, words) in [
        ("reset", "KIND=PERCENT"),
        (
            "rude=5",
            "there are reset, half-close, dribble, deaf, idle, churn",
        ),
        ("reset=60,idle=40", "leaves none to measure"),
        ("reset=60,idle=60", "120 %"),
        ("reset=5,reset=5", "named twice"),
        ("idle=0", "from 1 to 99"),
    ] {
        let ended = client(&fake::nobody(), &["--hostile", mix]);
        assert_eq!(ended.code, Some(2), "{mix}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{mix}: {}", ended.stderr);
    }
    let ended = client(
        &fake::nobody(),
        &["--connections", "1", "--hostile", "idle=1"],
    );
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("leaves none to measure"),
        "{}",
        ended.stderr
    );
}

#[test]
fn their_descriptors_and_ports_are_counted() {
    // Goal: what the hostile ones need is asked for before the run. Method: a limit below.
    let words = [
        "--connections",
        "50",
        "--hostile",
        "idle=90",
        "--connect",
        "127.0.0.1:9",
    ];
    let ended = client_after("ulimit -n 60", &words);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("50 connections need"),
        "{}",
        ended.stderr
    );
    {
        let words = [
            "--connections",
            "60000",
            "--messages",
            "1",
            "--hostile",
            "churn=1",
        ];
        let words = [&words[..], &["--connect", "127.0.0.1:9"]].concat();
        let ended = client_after("true", &words);
        assert_eq!(ended.code, Some(1));
        let wanted = "and 6000 more for hostile ones that come and go";
        assert!(ended.stderr.contains(wanted), "{}", ended.stderr);
    }
}

#[test]
fn an_interrupted_run_tells_of_them() {
    // Goal: Ctrl-C ends hostile ones with the others, and their section is printed. Method: SIGINT
    // to a long run once it progresses.
    let server = Server::start(&[]);
    let json = scratch_file("interrupted.json");
    let mut command = Command::new(tests::binaries::client());
    let address = server.address.to_string();
    command.args([
        "--connect",
        &address,
        "--connections",
        "20",
        "--duration",
        "10min",
    ]);
    command
        .args(["--hostile", "deaf=10,dribble=10,reset=10", "--json"])
        .arg(&json);
    let mut child = spawn(&mut command);
    run::read_until(child.stderr.take().unwrap(), "answered");
    signal(child.id(), libc::SIGINT);
    let ended = finish(child);
    assert_eq!(ended.code, Some(130), "{}", ended.stdout);
    assert!(ended.stdout.contains("\nhostile "), "{}", ended.stdout);
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    assert_eq!(report["outcome"], "interrupted");
    assert_eq!(report["hostile"].as_array().unwrap().len(), 3);
    assert_eq!(report["connections"]["open"], 14);
    server.stop();
}
