//! `client` end to end, as a process, against servers that answer rightly, wrongly, late or not at
//! all.
//!
//! The servers are std's sockets and threads (`client/fake.rs`); every report that a run writes is
//! checked for balance besides what the test is about (`client/run.rs`).

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

#[path = "client/fake.rs"]
mod fake;
#[path = "client/run.rs"]
mod run;

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex, mpsc};

use fake::{Request, answer, for_each_line, serve, wrong_once};
use run::{client, client_after, finish, read_until, scratch_file, signal, spawn};

const SOME: &[&str] = &["--connections", "20", "--messages", "10"];

#[test]
fn a_right_server_is_right() {
    // Goal: an echo passes with everything counted. Method: every number of the report that is
    // certain.
    let ended = client(&answer(|request| request.line), SOME);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.json["outcome"], "complete");
    for (path, expected) in [
        ("connections/asked", 20),
        ("connections/closed", 20),
        ("messages/sent", 200),
        ("messages/answered", 200),
        ("window/answered", 200),
        ("window/bytes", 200 * 64),
        ("latency_ns/count", 200),
        ("connect/latency_ns/count", 20),
    ] {
        assert_eq!(ended.number(path), expected, "{path}");
    }
    assert!(ended.failures().is_empty());
    let times = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|key| format!("latency_ns/{key}"));
    assert!(times.map(|path| ended.number(&path)).is_sorted());
    assert!(
        ended
            .stdout
            .contains("200 sent = 200 answered + 0 failed + 0 in flight")
    );
    assert_eq!(ended.stderr, "", "--quiet shows no progress");
}

#[test]
fn four_hundred_connections_for_a_duration() {
    // Goal: the default number of connections, by time, with `load` spelled out. Method: a short
    // run; what it sends is the machine's affair, that it ends, balances and took its time is ours.
    let json = scratch_file("duration.json");
    let address = answer(|request| request.line);
    let mut command = Command::new(tests::binaries::client());
    command
        .args([
            "load",
            "--connect",
            &address,
            "--duration",
            "300ms",
            "--json",
        ])
        .arg(&json);
    let ended = finish(spawn(&mut command));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    assert_eq!(report["connections"]["closed"], 400);
    assert!(report["window"]["elapsed_s"].as_f64().unwrap() >= 0.3);
    assert!(report["messages"]["sent"].as_u64().unwrap() >= 400);
    assert_eq!(report["messages"]["sent"], report["messages"]["answered"]);
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    // Goal: a reply that comes in pieces is as right as one that comes whole. Method: every byte
    // alone.
    let address = serve(|stream| {
        for_each_line(&stream, |request, mut stream| {
            request
                .line
                .iter()
                .all(|byte| stream.write_all(&[*byte]).is_ok())
        });
    });
    let ended = client(&address, SOME);
    assert_eq!(
        (ended.code, ended.number("messages/answered")),
        (Some(0), 200),
        "{}",
        ended.stdout
    );
}

#[test]
fn large_messages_do_not_lock_up() {
    // Goal: messages beyond all socket buffers pass a server that answers while it reads. Method: 8
    // MB through an echo that reads nothing while it writes.
    let address = serve(|mut stream| {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            if stream.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    });
    let words = ["--connections", "2", "--messages", "2", "--size", "8000000"];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.number("window/bytes"), 4 * 8_000_000);
}

#[test]
fn sizes_from_one_byte() {
    // Goal: padding at the sizes around a message's own length. Method: all of them.
    let address = answer(|request| request.line);
    for size in 1..12 {
        let size = size.to_string();
        let ended = client(
            &address,
            &["--connections", "12", "--messages", "11", "--size", &size],
        );
        assert_eq!(ended.code, Some(0), "size {size}: {}", ended.stdout);
    }
}

#[test]
fn upper_case_is_checked() {
    // Goal: --upper wants upper case, and without it nothing else than the case that was sent.
    // Method: all four combinations.
    let same = answer(|request| request.line);
    let upper = answer(|request| request.line.to_ascii_uppercase());
    let with = |address: &str| client(address, &[SOME, &["--upper"]].concat());
    assert_eq!(client(&same, SOME).code, Some(0));
    assert_eq!(with(&upper).code, Some(0));
    for ended in [client(&upper, SOME), with(&same)] {
        assert_eq!(ended.code, Some(1));
        assert_eq!(ended.failures(), [("verify", "wrong case", 20, 20)]);
        assert!(
            ended.first_failure().contains("--upper"),
            "{}",
            ended.first_failure()
        );
    }
}

#[test]
fn changed_bytes_are_caught() {
    // Goal: one changed byte fails one message of one connection. Method: changes it in header and
    // filler.
    for at in [0, 30, 63] {
        let address = wrong_once(move |mut line| {
            line[at] ^= 1;
            line
        });
        let ended = client(&address, SOME);
        ended.assert_one_failed("verify", "corrupt bytes");
        let expected = format!("connection 3, message 5, byte {at}:");
        assert!(
            ended.first_failure().starts_with(&expected),
            "{}",
            ended.first_failure()
        );
    }
}

#[test]
fn dropped_bytes_are_caught() {
    // Goal: bytes left out of a reply are named missing. Method: leaves some out, from the start
    // and inside.
    for range in [0..1, 10..15, 20..60] {
        let bytes = range.len();
        let address = wrong_once(move |mut line| {
            line.drain(range.clone());
            line
        });
        let ended = client(&address, SOME);
        ended.assert_one_failed("verify", "missing bytes");
        let expected = format!("{bytes} left out");
        assert!(
            ended.first_failure().contains(&expected),
            "{}",
            ended.first_failure()
        );
    }
}

#[test]
fn a_dropped_end_and_a_dropped_reply_are_caught() {
    // Goal: what never comes ends by --timeout and says how much had come. Method: keeps back the
    // end of a reply, and all of it.
    let words = [SOME, &["--timeout", "300ms"]].concat();
    let end = wrong_once(|line| line[..60].to_vec());
    let ended = client(&end, &words);
    ended.assert_one_failed("receive", "timed out in mid-reply");
    assert!(
        ended.first_failure().contains("60 of 64 bytes"),
        "{}",
        ended.first_failure()
    );
    let all = wrong_once(|_| Vec::new());
    client(&all, &words).assert_one_failed("receive", "timed out");
}

#[test]
fn a_short_timeout_is_looked_for_often() {
    // Goal: a reply that took several times as long as it may is not found right because nobody
    // looked meanwhile. Method: one reply that takes 40 ms, and another run if the client was too
    // late to look.
    let address = answer(|request| {
        std::thread::sleep(std::time::Duration::from_millis(40));
        request.line
    });
    let words = ["--connections", "1", "--messages", "1", "--timeout", "10ms"];
    let is_caught = |_| {
        let ended = client(&address, &words);
        ended.code == Some(1) && ended.failures() == [("receive", "timed out", 1, 1)]
    };
    assert!((0..20).any(is_caught));
}

#[test]
fn repeated_replies_are_caught() {
    // Goal: a reply that comes twice, at once or instead of the next. Method: both.
    let twice = wrong_once(|line| [&line[..], &line].concat());
    let ended = client(&twice, SOME);
    // The second copy may come together with the first, or be found in place of the next reply.
    let (phase, cause, ..) = ended.failures()[0];
    assert_eq!(
        (ended.code, phase, cause),
        (Some(1), "verify", "repeated bytes")
    );
    assert!(
        ended.first_failure().contains("message 5 came again"),
        "{}",
        ended.first_failure()
    );

    let last = Mutex::new(Vec::new());
    let instead = answer(
        move |Request {
                  connection,
                  n,
                  line,
              }| match (connection, n) {
            (3, 4) => {
                *last.lock().unwrap() = line.clone();
                line
            }
            (3, 5) => last.lock().unwrap().clone(),
            _ => line,
        },
    );
    client(&instead, SOME).assert_one_failed("verify", "repeated bytes");
}

#[test]
fn added_bytes_are_caught() {
    // Goal: bytes that nobody sent, before and inside a reply. Method: puts some in.
    for at in [0, 17] {
        let address = wrong_once(move |mut line| {
            line.splice(at..at, *b"###");
            line
        });
        let ended = client(&address, SOME);
        ended.assert_one_failed("verify", "extra bytes");
        assert!(
            ended.first_failure().contains("3 that nobody sent"),
            "{}",
            ended.first_failure()
        );
    }
}

#[test]
fn bytes_after_the_last_reply_are_caught() {
    // Goal: a stream that goes on after the last reply fails its connection, though all messages
    // were answered. Method: adds bytes, and a reply of long ago, when the client has half-closed.
    for (last, cause) in [(&b"##"[..], "extra bytes"), (b"3 2\n", "repeated bytes")] {
        let address = serve(move |stream| {
            let mut connection = 0;
            for_each_line(&stream, |request, mut stream| {
                connection = request.connection;
                stream.write_all(&request.line).is_ok()
            });
            fake::end_with(&stream, if connection == 3 { last } else { b"" });
        });
        let ended = client(&address, &[SOME, &["--size", "1"]].concat());
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        assert_eq!(
            ended.failures(),
            [("verify", cause, 1, 0)],
            "{:#}",
            ended.json
        );
        assert_eq!(ended.number("messages/answered"), 200);
        assert_eq!(ended.number("connections/broken"), 1);
    }
}

#[test]
fn swapped_replies_name_their_owner() {
    // Goal: two connections that get one another's replies both fail, and the report says whose
    // bytes came.
    // Method: the server lets connections 1 and 2 meet at message 4 and exchanges their lines.
    for size in ["1", "64", "5000"] {
        let meeting = Barrier::new(2);
        let lines = Mutex::new([Vec::new(), Vec::new()]);
        let address = answer(
            move |Request {
                      connection,
                      n,
                      line,
                  }| {
                if !matches!((connection, n), (1 | 2, 4)) {
                    return line;
                }
                let own = connection as usize - 1;
                lines.lock().unwrap()[own] = line;
                meeting.wait();
                lines.lock().unwrap()[1 - own].clone()
            },
        );
        let ended = client(&address, &[SOME, &["--size", size]].concat());
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        assert_eq!(
            ended.failures(),
            [("verify", "bytes of another connection", 2, 2)]
        );
        let first = ended.first_failure();
        let either = |own, other| {
            first.starts_with(&format!("connection {own}, message 4"))
                && first.contains(&format!("belong to connection {other}, message 4"))
        };
        assert!(either(1, 2) || either(2, 1), "{first}");
    }
}

#[test]
fn a_piece_of_anothers_reply_names_its_owner() {
    // Goal: a swap within replies is traced, too. Method: exchanges the second halves of two.
    let meeting = Barrier::new(2);
    let lines = Mutex::new([Vec::new(), Vec::new()]);
    let address = answer(
        move |Request {
                  connection,
                  n,
                  line,
              }| {
            if !matches!((connection, n), (1 | 2, 4)) {
                return line;
            }
            let own = connection as usize - 1;
            lines.lock().unwrap()[own] = line.clone();
            meeting.wait();
            let lines = lines.lock().unwrap();
            [&line[..1000], &lines[1 - own][1000..]].concat()
        },
    );
    let ended = client(&address, &[SOME, &["--size", "2000"]].concat());
    assert_eq!(
        ended.failures(),
        [("verify", "bytes of another connection", 2, 2)]
    );
    assert!(
        ended.first_failure().contains("byte 1000"),
        "{}",
        ended.first_failure()
    );
}

#[test]
fn a_server_that_does_not_read_is_told() {
    // Goal: a send that cannot go on ends by --timeout, in the send phase. Method: a server that
    // never reads.
    let kept = Mutex::new(Vec::new());
    let address = serve(move |stream| kept.lock().unwrap().push(stream));
    let words = [
        "--connections",
        "1",
        "--messages",
        "1",
        "--size",
        "60000000",
        "--timeout",
        "1s",
    ];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.failures(),
        [("send", "timed out", 1, 1)],
        "{:#}",
        ended.json
    );
}

#[test]
fn resets_and_early_ends_are_told_apart() {
    // Goal: reset, end before and end within a reply are different causes. Method: does each to
    // message 5 of connection 3.
    let ending = |end: fn(std::net::TcpStream, Vec<u8>)| {
        serve(move |stream| {
            let mut last = None;
            for_each_line(&stream, |request, mut stream| {
                if (request.connection, request.n) == (3, 5) {
                    last = Some(request.line);
                    return false;
                }
                stream.write_all(&request.line).is_ok()
            });
            if let Some(line) = last {
                end(stream, line);
            }
        })
    };
    let ended = client(&ending(|stream, _| fake::reset(stream)), SOME);
    assert_eq!(ended.code, Some(1));
    ended.assert_one_failed("receive", "connection reset by peer (ECONNRESET)");

    let ended = client(&ending(|stream, _| drop(stream)), SOME);
    ended.assert_one_failed("receive", "closed by the server");

    let halfway = ending(|stream, line| fake::end_with(&stream, &line[..30]));
    let ended = client(&halfway, SOME);
    ended.assert_one_failed("receive", "closed by the server in mid-reply");
    assert!(
        ended.first_failure().contains("30 of 64 bytes"),
        "{}",
        ended.first_failure()
    );
}

#[test]
fn a_server_that_never_ends_is_told() {
    // Goal: a connection that stays open after both have said all is a failure of the close phase,
    // and of no message.
    // Method: the server keeps its side open.
    let kept = Mutex::new(Vec::new());
    let address = serve(move |stream| {
        for_each_line(&stream, |request, mut stream| {
            stream.write_all(&request.line).is_ok()
        });
        kept.lock().unwrap().push(stream);
    });
    let ended = client(&address, &[SOME, &["--timeout", "300ms"]].concat());
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.failures(), [("close", "timed out", 20, 0)]);
    assert_eq!(ended.number("messages/answered"), 200);
}

#[test]
fn a_missing_server_is_said_clearly() {
    // Goal: nobody there: the address and the remedy on standard error, exit 1, a report all the
    // same.
    // Method: a port that was just given back.
    let address = fake::nobody();
    let ended = client(&address, SOME);
    assert_eq!(ended.code, Some(1));
    for part in [
        "error:",
        &address,
        "ECONNREFUSED",
        &format!("server --listen {address}"),
    ] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    assert_eq!(ended.json["outcome"], "not_started");
    assert_eq!(ended.number("connections/failed"), 20);
    assert_eq!(ended.number("messages/sent"), 0);
}

#[test]
fn an_unknown_name_is_said_clearly() {
    // Goal: the resolve phase fails by its own name. Method: a name that no one can have (RFC
    // 6761).
    let ended = client("no-such-host.invalid:80", SOME);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.failures()[0].0, "resolve");
    assert!(
        ended.stderr.contains("no-such-host.invalid"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_name_is_resolved() {
    // Goal: a name works as well as an address, also if not all its addresses answer. Method:
    // localhost, of which the server takes IPv4 alone.
    let address = answer(|request| request.line);
    let port = address.rsplit(':').next().unwrap();
    let ended = client(&format!("localhost:{port}"), SOME);
    assert_eq!(
        (ended.code, ended.number("messages/answered")),
        (Some(0), 200),
        "{}",
        ended.stderr
    );
}

#[test]
fn connections_that_do_not_come_up_are_counted_and_the_others_go_on() {
    // Goal: connect time-outs beside connections that work out. Method: a listener with almost no
    // backlog, which accepts nobody, so that those who came up wait for their reply in vain.
    let (_listener, address) = fake::full_listener();
    let words = [
        "--connections",
        "8",
        "--messages",
        "1",
        "--connect-timeout",
        "300ms",
        "--timeout",
        "300ms",
    ];
    let ended = client(&address, &words);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let (connected, failed) = (
        ended.number("connections/connected"),
        ended.number("connections/failed"),
    );
    assert!(connected > 0 && failed > 0, "{:#}", ended.json);
    assert_eq!(
        ended.failures(),
        [
            ("connect", "timed out", failed, 0),
            ("receive", "timed out", connected, connected)
        ]
    );
}

/// A client under load, when the server has seen it work.
fn client_at_work(words: &[&str]) -> std::process::Child {
    let (tx, rx) = mpsc::channel();
    let address = answer(move |request| {
        if request.n == 50 {
            let _ = tx.send(());
        }
        request.line
    });
    let mut command = Command::new(tests::binaries::client());
    command.args([
        "--connect",
        &address,
        "--quiet",
        "--connections",
        "20",
        "--duration",
        "10min",
    ]);
    let child = spawn(command.args(words));
    rx.recv_timeout(run::DEADLINE).expect("the client sends");
    child
}

#[test]
fn control_c_prints_the_report_so_far() {
    // Goal: SIGINT ends the run with a balanced report and 130, SIGTERM with 143. Method: sends
    // them under load.
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let json = scratch_file("interrupted.json");
        let child = client_at_work(&["--json", json.to_str().unwrap()]);
        signal(child.id(), number);
        let ended = finish(child);
        assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("(interrupted)"), "{}", ended.stdout);
        let text = std::fs::read(&json).unwrap();
        std::fs::remove_file(&json).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(report["outcome"], "interrupted");
        let message = |key: &str| report["messages"][key].as_u64().unwrap();
        assert!(message("answered") >= 50);
        assert_eq!(message("sent"), message("answered") + message("in_flight"));
        assert_eq!(report["connections"]["open"], 20);
    }
}

#[test]
fn control_c_works_while_connecting() {
    // Goal: the run can be interrupted before it has begun. Method: a listener that takes nobody;
    // the client is known to be at it when one connection has arrived.
    let (listener, address) = fake::full_listener();
    let mut command = Command::new(tests::binaries::client());
    let child = spawn(command.args([
        "--connect",
        &address,
        "--quiet",
        "--connect-timeout",
        "10min",
    ]));
    let first = listener.accept().unwrap();
    signal(child.id(), libc::SIGINT);
    let ended = finish(child);
    assert_eq!(ended.code, Some(130), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("not yet up"), "{}", ended.stdout);
    drop(first);
}

#[test]
fn a_second_control_c_ends_at_once() {
    // Goal: who does not want the report need not wait for it. Method: the report goes into a pipe
    // that nobody reads, so the client hangs after the first signal; its printed report tells that
    // it got there.
    let pipe = scratch_file("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut child = client_at_work(&["--json", pipe.to_str().unwrap()]);
    let stdout = child.stdout.take().unwrap();
    signal(child.id(), libc::SIGINT);
    read_until(stdout, "failures");
    signal(child.id(), libc::SIGINT);
    assert_eq!(finish(child).code, Some(130));
    std::fs::remove_file(&pipe).unwrap();
}

#[test]
fn limits_are_told_before_the_run() {
    // Goal: too few descriptors or ports, or a poller that has room for less, stop the run before a
    // connection is made, with the remedy; a soft limit is raised without a word. Method: the shell
    // sets the limits.
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    let address = serve(move |stream| {
        let _ = tx.lock().unwrap().send(());
        for_each_line(&stream, |request, mut stream| {
            stream.write_all(&request.line).is_ok()
        });
    });
    let words = [
        "--connect",
        &address,
        "--quiet",
        "--connections",
        "100",
        "--messages",
        "1",
    ];
    let hard = client_after("ulimit -n 64", &words);
    assert_eq!(hard.code, Some(1), "{}{}", hard.stdout, hard.stderr);
    assert!(hard.stderr.contains("ulimit -n 132"), "{}", hard.stderr);
    let many = client_after(":", &["--connect", &address, "--connections", "100000"]);
    assert_eq!(many.code, Some(1));
    if cfg!(target_os = "linux") {
        assert!(many.stderr.contains("local ports"), "{}", many.stderr);
    }
    let select = client_after(
        "export RUNTIME_POLLER=select",
        &["--connect", &address, "--connections", "993"],
    );
    assert_eq!(select.code, Some(1), "{}", select.stderr);
    assert!(select.stderr.contains("at most 992"), "{}", select.stderr);
    assert!(
        rx.try_recv().is_err(),
        "a connection was made in spite of the limits"
    );
    let soft = client_after("ulimit -S -n 64", &words);
    assert_eq!(soft.code, Some(0), "{}{}", soft.stdout, soft.stderr);
}

#[test]
fn a_report_that_cannot_be_written_stops_the_run() {
    // Goal: a wrong --json is found before ten minutes of load, not after. Method: a missing
    // directory.
    let (tx, rx) = mpsc::channel::<()>();
    let tx = Mutex::new(tx);
    let address = serve(move |_| tx.lock().unwrap().send(()).unwrap());
    let mut command = Command::new(tests::binaries::client());
    command.args([
        "--connect",
        &address,
        "--json",
        "/no/such/directory/report.json",
    ]);
    let ended = finish(spawn(&mut command));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("--json /no/such/directory"),
        "{}",
        ended.stderr
    );
    assert!(rx.try_recv().is_err(), "a connection was made all the same");
}

#[test]
fn an_old_report_is_replaced_whole() {
    // Goal: the report takes the place of an older one, and nothing is left beside it. Method: a
    // longer file in a directory of its own.
    let directory = scratch_file("directory");
    std::fs::create_dir(&directory).unwrap();
    let json = directory.join("report.json");
    std::fs::write(&json, "x".repeat(100_000)).unwrap();
    let address = answer(|request| request.line);
    let mut command = Command::new(tests::binaries::client());
    command.args([
        "--connect",
        &address,
        "--connections",
        "2",
        "--messages",
        "1",
        "--quiet",
        "--json",
    ]);
    let ended = finish(spawn(command.arg(&json)));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["messages"]["sent"], 2);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn usage_errors_exit_with_two() {
    // Goal: wrong words are told from failures by the exit code. Method: a few.
    for words in [
        &["--connections", "none"][..],
        &["--messages", "1", "--duration", "1s"],
        &["what"],
    ] {
        let mut command = Command::new(tests::binaries::client());
        let ended = finish(spawn(command.args(words)));
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.stderr);
    }
}

#[test]
fn progress_goes_to_standard_error() {
    // Goal: without a terminal, a line now and then on standard error, none in the report. Method:
    // a server that holds the last reply back until a line of progress has been seen.
    let seen = Arc::new(Barrier::new(2));
    let hold = Arc::clone(&seen);
    let address = answer(move |request| {
        if request.n == 9 {
            hold.wait();
        }
        request.line
    });
    let mut command = Command::new(tests::binaries::client());
    command.args([
        "--connect",
        &address,
        "--connections",
        "1",
        "--messages",
        "10",
    ]);
    let mut child = spawn(&mut command);
    let lines = read_until(child.stderr.take().unwrap(), "/s\n");
    assert!(lines.contains("9 answered"), "{lines}");
    seen.wait();
    let ended = finish(child);
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.stdout.starts_with("1 connections to "),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_two_programs_work_together() {
    // Goal: client and server, both on green threads, over every form of message that they agree
    // on. Method: a server each way; the default 400 connections; small and large messages.
    let _watchdog = tests::watchdog::Watchdog::new(2 * run::DEADLINE);
    for (server_words, client_words) in [(&[][..], &[][..]), (&["--upper"], &["--upper"])] {
        let mut command = Command::new(tests::binaries::server());
        let mut server = spawn(command.args(["--listen", "127.0.0.1:0"]).args(server_words));
        let said = read_line(server.stdout.as_mut().unwrap());
        let address = said.rsplit(' ').next().unwrap().trim();
        for words in [
            ["--messages", "20", "--size", "64"],
            ["--messages", "2", "--size", "50000"],
        ] {
            let ended = client(address, &[&words, client_words].concat());
            assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
            assert_eq!(ended.number("connections/closed"), 400);
        }
        signal(server.id(), libc::SIGTERM);
        let ended = finish(server);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    }
}

/// The first line of a program's output; not a byte more is taken from it.
fn read_line(from: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte[0] != b'\n' {
        from.read_exact(&mut byte)
            .expect("the program says something before it ends");
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
