//! `client load --style` end to end, as a process: each style against servers that answer rightly,
//! wrongly, late or not at all. What is found wrong must not depend on who drives the connections.

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

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier, Mutex};

use fake::{Request, answer, serve, wrong_once};
use run::{Ended, client, finish, read_until, scratch_file, signal, spawn};

const STYLES: [&str; 3] = ["green", "threads", "select"];

/// The words that the select style says in each message.
const WORDS: &str = "This is the message. It will be sent in parts.";

/// Twenty connections, ten messages each, in this style and with these words besides.
fn some(style: &str, address: &str, words: &[&str]) -> Ended {
    let common = ["--connections", "20", "--messages", "10", "--style", style];
    client(address, &[&common, words].concat())
}

fn assert_clean(style: &str, ended: &Ended, messages: u64) {
    let said = format!("{style}: {}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(0), "{said}");
    assert_eq!(ended.json["settings"]["style"], style);
    assert_eq!(ended.number("messages/sent"), messages, "{said}");
    assert_eq!(ended.number("messages/answered"), messages, "{said}");
    assert_eq!(ended.number("latency_ns/count"), messages, "{said}");
    assert!(ended.failures().is_empty());
}

#[test]
fn right_servers_are_right() {
    // Goal: every style passes with every option that changes what is sent or when, and all is
    // counted. Method: an echo, one that shouts, and messages from a byte to beyond all buffers.
    let echo = answer(|request| request.line);
    let upper = answer(|request| request.line.to_ascii_uppercase());
    for style in STYLES {
        let options: [&[&str]; 7] = [
            &[],
            &["--size", "1"],
            &["--depth", "7"],
            &["--depth", "7", "--size", "20000"],
            &["--think", "2ms"],
            &["--rate", "5k/s", "--depth", "3"],
            &["--ramp", "100ms"],
        ];
        for words in options {
            let ended = some(style, &echo, words);
            assert_clean(style, &ended, 200);
            assert_eq!(ended.number("connections/closed"), 20);
        }
        // More than both sides' buffers hold, and the server answers whole lines.
        let large = [
            "--connections",
            "2",
            "--messages",
            "3",
            "--size",
            "16000000",
        ];
        let ended = client(&echo, &[&large[..], &["--style", style]].concat());
        assert_clean(style, &ended, 6);
        assert_clean(style, &some(style, &upper, &["--upper"]), 200);
        let common = [
            "--connections",
            "20",
            "--duration",
            "300ms",
            "--style",
            style,
        ];
        let ended = client(&echo, &[&common[..], &["--warmup", "100ms"]].concat());
        assert_eq!(ended.code, Some(0), "{style}: {}", ended.stdout);
        assert!(ended.json["window"]["elapsed_s"].as_f64().unwrap() >= 0.3);
        assert!(ended.number("messages/answered") > 20);
    }
}

#[test]
fn select_sends_in_parts() {
    // Goal: the select style says its words, to the size that was asked for, each part in a call of
    // its own; the others say nothing. Method: the lines that come, and where the stream is cut:
    // a part is sent when the one before has been taken, so a server that takes its time sees them
    // apart.
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let address = answer(move |request| {
        seen.lock().unwrap().push(request.line.clone());
        request.line
    });
    for (style, worded) in [("green", false), ("threads", false), ("select", true)] {
        let ended = some(style, &address, &["--size", "80"]);
        assert_clean(style, &ended, 200);
        for line in lines.lock().unwrap().drain(..) {
            let line = String::from_utf8(line).unwrap();
            assert_eq!(line.len(), 80, "{line}");
            let rest = line.splitn(3, ' ').nth(2).unwrap();
            assert_eq!(rest.starts_with(WORDS), worded, "{line}");
        }
    }
}

#[test]
fn each_part_is_a_call() {
    // Goal: three sends for each message. Method: strace(1) counts them, where it is there.
    let Ok(version) = Command::new("strace").arg("-V").output() else {
        println!("skipped: there is no strace");
        return;
    };
    assert!(version.status.success());
    let address = answer(|request| request.line);
    let trace = scratch_file("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=sendto", "-o"]).arg(&trace);
    command.arg(tests::binaries::client());
    command.args([
        "--connect",
        &address,
        "--style",
        "select",
        "--connections",
        "2",
    ]);
    let ended = finish(spawn(command.args(["--messages", "5"])));
    let text = std::fs::read_to_string(&trace).unwrap();
    std::fs::remove_file(&trace).unwrap();
    if ended.code != Some(0) && text.is_empty() {
        println!("skipped: strace may not trace here: {}", ended.stderr);
        return;
    }
    for (part, words) in [
        (0, "This is the message. \""),
        (1, "\"It will be sent \""),
        (2, "\"in parts."),
    ] {
        let calls = text.lines().filter(|line| line.contains(words)).count();
        assert_eq!(calls, 10, "part {part}: {text}");
    }
}

#[test]
fn wrong_answers_are_caught() {
    // Goal: corrupted, dropped, repeated and added bytes fail one message of one connection, in
    // every style alike. Method: each once; the filler is far behind.
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let changes: [(Change, &str); 6] = [
        (|line| with(line, |line| line[0] ^= 1), "corrupt bytes"),
        (|line| with(line, |line| line[90] ^= 1), "corrupt bytes"),
        (
            |line| with(line, |line| drop(line.drain(80..85))),
            "missing bytes",
        ),
        (
            |line| with(line, |line| drop(line.splice(17..17, *b"###"))),
            "extra bytes",
        ),
        (|line| [&line[..], b"#"].concat(), "extra bytes"),
        (|line| line.to_ascii_uppercase(), "wrong case"),
    ];
    for style in STYLES {
        for (change, cause) in changes {
            let ended = some(style, &wrong_once(change), &["--size", "100"]);
            ended.assert_one_failed("verify", cause);
        }
        let twice = wrong_once(|line| [&line[..], &line].concat());
        let ended = some(style, &twice, &["--size", "100"]);
        // The second copy may come together with the first, or in place of the next reply.
        let (phase, cause, ..) = ended.failures()[0];
        assert_eq!(
            (ended.code, phase, cause),
            (Some(1), "verify", "repeated bytes")
        );
        assert!(ended.first_failure().contains("message 5 came again"));
    }
}

fn with(mut line: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut line);
    line
}

#[test]
fn swapped_replies_name_their_owner() {
    // Goal: two connections that get one another's replies both fail, and the report says whose
    // bytes came. Method: the server lets connections 1 and 2 meet at message 4.
    for style in STYLES {
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
                let own = (connection - 1) as usize;
                lines.lock().unwrap()[own] = line;
                meeting.wait();
                lines.lock().unwrap()[1 - own].clone()
            },
        );
        let ended = some(style, &address, &[]);
        assert_eq!(ended.code, Some(1));
        let expected = [("verify", "bytes of another connection", 2, 2)];
        assert_eq!(ended.failures(), expected, "{style}: {:#}", ended.json);
        assert!(
            ended.first_failure().contains(", message 4"),
            "{style}: {}",
            ended.first_failure()
        );
    }
}

#[test]
fn what_never_comes_is_timed_out() {
    // Goal: an answer, its end, or the end of the stream that does not come ends by --timeout, and
    // is told apart. Method: a server that keeps each back.
    for style in STYLES {
        let words = ["--timeout", "400ms"];
        let all = wrong_once(|_| Vec::new());
        some(style, &all, &words).assert_one_failed("receive", "timed out");
        let end = wrong_once(|line| line[..60].to_vec());
        let ended = some(style, &end, &words);
        ended.assert_one_failed("receive", "timed out in mid-reply");
        let stays = serve(|mut stream| {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                stream.write_all(&piece[..count]).unwrap();
            }
            let (_held, waits) = std::sync::mpsc::channel::<()>();
            let _ = waits.recv_timeout(run::DEADLINE);
        });
        let ended = some(style, &stays, &words);
        assert_eq!(ended.failures(), [("close", "timed out", 20, 0)], "{style}");
        assert_eq!(ended.number("messages/answered"), 200);
    }
}

#[test]
fn who_was_stopped_himself_blames_nobody() {
    // Goal: replies that came while the client could not read them are not late. Method: a right
    // server, and a client that is stopped (signal(7), SIGSTOP) for longer than its time-out.
    for style in STYLES {
        let (tx, rx) = std::sync::mpsc::channel();
        let address = answer(move |request| {
            if request.n == 10 {
                let _ = tx.send(());
            }
            request.line
        });
        let mut command = Command::new(tests::binaries::client());
        command
            .args(["--connect", &address, "--quiet", "--style", style])
            .args(["--connections", "20", "--duration", "2s"])
            .args(["--timeout", "1s"]);
        let child = spawn(&mut command);
        rx.recv_timeout(run::DEADLINE).unwrap();
        signal(child.id(), libc::SIGSTOP);
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        signal(child.id(), libc::SIGCONT);
        let ended = finish(child);
        let said = [ended.stdout, ended.stderr].concat();
        assert_eq!(ended.code, Some(0), "{style}: {said}");
    }
}

#[test]
fn ends_and_refusals_are_told_apart() {
    // Goal: the server's end, its reset, bytes after the last reply, nobody there. Method: each.
    for style in STYLES {
        let ends = wrong_once_stream(drop);
        let ended = some(style, &ends, &[]);
        ended.assert_one_failed("receive", "closed by the server");
        let resets = wrong_once_stream(fake::reset);
        let ended = some(style, &resets, &[]);
        let (phase, cause, ..) = ended.failures()[0];
        assert_eq!(phase, "receive", "{style}: {:#}", ended.json);
        assert!(cause.contains("(ECONNRESET)"), "{style}: {cause}");
        let adds = serve(|stream| {
            fake::for_each_line(&stream, |request, mut stream| {
                stream.write_all(&request.line).is_ok()
            });
            fake::end_with(&stream, b"##");
        });
        let ended = some(style, &adds, &[]);
        assert_eq!(
            ended.failures(),
            [("verify", "extra bytes", 20, 0)],
            "{style}"
        );
        let ended = some(style, &fake::nobody(), &[]);
        assert_eq!(
            (ended.code, &ended.json["outcome"]),
            (Some(1), &"not_started".into())
        );
        assert!(
            ended.stderr.contains("nobody listens there"),
            "{style}: {}",
            ended.stderr
        );
    }
}

/// An echo that ends connection 3 in this way instead of answering its message 5.
fn wrong_once_stream(end: fn(std::net::TcpStream)) -> String {
    serve(move |stream| {
        let mut is_chosen = false;
        fake::for_each_line(&stream, |request, mut stream| {
            is_chosen = (request.connection, request.n) == (3, 5);
            !is_chosen && stream.write_all(&request.line).is_ok()
        });
        if is_chosen {
            end(stream);
        }
    })
}

#[test]
fn an_interrupted_run_balances() {
    // Goal: Ctrl-C closes the books in the middle of the run. Method: SIGINT once it progresses.
    let address = answer(|request| request.line);
    for style in STYLES {
        let json = scratch_file("interrupted.json");
        let mut command = Command::new(tests::binaries::client());
        command.args([
            "--connect",
            &address,
            "--connections",
            "20",
            "--duration",
            "10min",
        ]);
        command.args(["--style", style, "--json"]).arg(&json);
        let mut child = spawn(&mut command);
        read_until(child.stderr.take().unwrap(), "answered");
        signal(child.id(), libc::SIGINT);
        let ended = finish(child);
        assert_eq!(ended.code, Some(130), "{style}: {}", ended.stdout);
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        std::fs::remove_file(&json).unwrap();
        assert_eq!(report["outcome"], "interrupted");
        let messages = &report["messages"];
        let number = |key: &str| messages[key].as_u64().unwrap();
        let accounted = number("answered") + number("failed") + number("in_flight");
        assert_eq!(number("sent"), accounted);
        assert!(number("answered") > 0);
    }
}

#[test]
fn what_a_style_cannot_do_is_told() {
    // Goal: more connections than select has room for, and a style that is none, are usage errors
    // that name the way out; the most that select takes, it can. Method: the border.
    let ended = client(
        &fake::nobody(),
        &["--style", "select", "--connections", "993"],
    );
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--style green"), "{}", ended.stderr);
    let address = answer(|request| request.line);
    let words = [
        "--style",
        "select",
        "--connections",
        "992",
        "--messages",
        "2",
    ];
    assert_clean("select", &client(&address, &words), 992 * 2);
    let ended = client(&fake::nobody(), &["--style", "fibers"]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("green, threads, select"),
        "{}",
        ended.stderr
    );
}

#[test]
fn threads_that_cannot_be_made_are_told() {
    // Goal: connections without an OS thread fail alone, with the remedy. Method: a limit of
    // threads (getrlimit(2), RLIMIT_NPROC), which holds for everybody but root, who therefore
    // becomes somebody else first.
    let address = answer(|request| request.line);
    let mut command = Command::new(tests::binaries::client());
    command.args(["--connect", &address, "--quiet", "--style", "threads"]);
    command.args(["--connections", "200", "--messages", "1"]);
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65_534);
    }
    let limit_threads = || {
        let limit = libc::rlimit {
            rlim_cur: 60,
            rlim_max: 60,
        };
        // SAFETY: the pointer is to a local of the right type.
        match unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(limit_threads) };
    command.stdin(Stdio::null());
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = match spawned {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            println!("skipped: nobody but root may run the client here");
            return;
        }
        other => other.unwrap(),
    };
    let ended = finish(child);
    let said = [ended.stdout, ended.stderr].concat();
    assert_eq!(ended.code, Some(1), "{said}");
    assert!(
        said.contains("no OS thread: resource temporarily unavailable (EAGAIN)"),
        "{said}"
    );
    assert!(
        said.contains("ulimit -u") && said.contains("--style green"),
        "{said}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn threads_that_the_system_would_not_survive_are_refused() {
    // Goal: where there is no memory mapping left for a thread, std ends the process; so the run
    // does not start, and the remedy is named. Method: connections with two threads each, because
    // their messages are large, for which the system has too few mappings.
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: u32 = limit.trim().parse().unwrap();
    let connections = limit / 8;
    if connections > 1_000_000 {
        println!("skipped: the system allows {limit} mappings");
        return;
    }
    let connections = connections.to_string();
    let words = ["--style", "threads", "--connections", &connections];
    let ended = client(
        &fake::nobody(),
        &[&words[..], &["--size", "20000"]].concat(),
    );
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("sysctl -w vm.max_map_count=")
            && ended.stderr.contains("--style green"),
        "{}",
        ended.stderr
    );
}
