//! What concerns single models of the server: io_uring, signal-driven I/O, the selector.
//!
//! What concerns every model is in `models.rs`. Here are the faults that only these can meet:
//! an io_uring that is refused, old or short of memory; a queue of signals that overflows, and
//! signals that are out of date; a poller other than the system's best.
//!
//! Man pages: strace(1) ("Tampering"), io_uring_setup(2), io_uring_enter(2), fcntl(2),
//! setrlimit(2). Deliberately not here: speed.

#![cfg(target_os = "linux")]

#[path = "server/client.rs"]
#[expect(dead_code, reason = "server.rs uses the rest")]
mod client;
#[path = "server/process.rs"]
#[expect(dead_code, reason = "server.rs uses the rest")]
mod process;

use client::{connect, exchange, exchange_slowly, pattern};
use process::{Server, Watchdog, bare_command, command, eventually};
use runtime::poller::Kind;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

/// A command for a server under strace, which tampers with its system calls; `None` where there is
/// no strace, or it may not trace.
fn tampered(model: &str, tampering: &[&str]) -> Option<Command> {
    let probe = bare_command("strace", &["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no strace, or it may not trace here");
        return None;
    }
    // -D: strace stands aside, and the server itself is our child, which gets our signals.
    let mut arguments = vec!["-D", "-o", "/dev/null"];
    arguments.extend(tampering.iter().flat_map(|what| ["-e", *what]));
    let mut command = bare_command("strace", &arguments);
    command.arg(tests::binaries::server());
    command.args(["--listen", "127.0.0.1:0", "--model", model]);
    Some(command)
}

/// Several clients at once, with more than a buffer each, to the end.
fn serve_some(server: &Server) {
    thread::scope(|scope| {
        for seed in 0..10 {
            scope.spawn(move || {
                let bytes = pattern(seed, 100_001);
                assert!(exchange_slowly(&connect(server.address), &bytes) == bytes);
            });
        }
    });
}

#[test]
fn a_refused_io_uring_is_explained() {
    // Goal: cause, remedy and a code that is not 0. Method: strace has the kernel refuse it in each
    // of the usual ways.
    let _watchdog = Watchdog::start(60);
    let cases: [(&str, &[&str]); 3] = [
        ("EPERM", &["kernel.io_uring_disabled", "seccomp", "--model"]),
        ("ENOSYS", &["5.11", "uname -r", "--model"]),
        ("ENOMEM", &["ulimit -l", "--model"]),
    ];
    for (error, words) in cases {
        let tampering = format!("inject=io_uring_setup:error={error}");
        let Some(mut command) = tampered("aio", &[&tampering]) else {
            return;
        };
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}: {said}");
        for word in words {
            assert!(said.contains(word), "{error}: {word:?} is not in {said}");
        }
    }
}

#[test]
fn an_older_io_uring_will_do() {
    // Goal: a kernel that does not know the newest flags serves as well. Method: strace refuses the
    // first of our ways to set it up, and the first two.
    let _watchdog = Watchdog::start(120);
    for attempts in ["1", "1..2"] {
        let tampering = format!("inject=io_uring_setup:error=EINVAL:when={attempts}");
        let Some(command) = tampered("aio", &[&tampering]) else {
            return;
        };
        let server = Server::spawn(command);
        serve_some(&server);
        assert!(server.stop().is_free_of_errors());
    }
}

#[test]
fn a_ring_that_takes_nothing_for_a_while_loses_nothing() {
    // Goal: no memory, too many completions and signals delay operations and no more. Method:
    // strace has every third call fail in each of these ways.
    let _watchdog = Watchdog::start(120);
    for error in ["EAGAIN", "EBUSY", "EINTR", "ETIME"] {
        let tampering = format!("inject=io_uring_enter:error={error}:when=2+3");
        let Some(command) = tampered("aio", &[&tampering]) else {
            return;
        };
        let server = Server::spawn(command);
        serve_some(&server);
        let outcome = server.stop();
        assert!(outcome.is_free_of_errors(), "{error}: {}", outcome.output);
        assert_eq!(outcome.count("out"), 10 * 100_001, "{error}");
    }
}

#[test]
fn what_a_send_leaves_over_is_sent_as_well() {
    // Goal: an operation may do less than it was told, and the rest is not forgotten. Method: a
    // buffer larger than the kernel's own, and a peer that reads slowly, so that no send can take
    // all of it at once.
    const BYTES: usize = 12_000_000;
    let _watchdog = Watchdog::start(120);
    let server = Server::start(&["--model", "aio", "--buffer", "8000000"]);
    let bytes = pattern(9, BYTES);
    assert!(exchange_slowly(&connect(server.address), &bytes) == bytes);
    assert_eq!(server.stop().count("out"), BYTES as u64);
}

/// The queue of signals of the server may hold `count` of them.
fn limit_signals(command: &mut Command, count: u64) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    let set = move || {
        // SAFETY: `limit` is a valid structure of its own.
        match unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(set) };
}

/// Suspends the server while `act` runs, so that it finds everything at once.
fn behind_its_back(server: &Server, act: impl FnOnce()) {
    server.signal(libc::SIGSTOP);
    // Who is traced is suspended in a way of its own.
    eventually("the server is suspended", || {
        matches!(server.state(), 'T' | 't')
    });
    act();
    server.signal(libc::SIGCONT);
}

#[test]
fn an_overflow_of_the_queue_of_signals_is_recovered_from() {
    // Goal: no connection is forgotten whose signal was lost, nor who comes. Method: queues of a
    // few signals, and of none at all; many clients connect, send and end at once, while the server
    // is suspended.
    const CLIENTS: u64 = 100;
    let _watchdog = Watchdog::start(120);
    for room in [0, 5] {
        let mut command = command(&["--model", "signal"]);
        limit_signals(&mut command, room);
        let server = Server::spawn(command);
        let early: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
        for (seed, stream) in (0..).zip(&early) {
            exchange(stream, &pattern(seed, 100));
        }
        let mut late = Vec::new();
        behind_its_back(&server, || {
            for (seed, mut stream) in (0..).zip(&early) {
                stream.write_all(&pattern(seed, 20_000)).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            }
            late.extend((0..CLIENTS).map(|_| connect(server.address)));
        });
        for (seed, mut stream) in (0..).zip(&early) {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer == pattern(seed, 20_000));
        }
        for (seed, stream) in (0..).zip(&late) {
            exchange(stream, &pattern(seed, 100));
        }
        drop((early, late));
        let outcome = server.stop();
        assert_eq!(outcome.count("served"), 2 * CLIENTS);
        assert!(outcome.is_free_of_errors(), "{}", outcome.output);
        assert_eq!(outcome.log.matches("ulimit -i").count(), 1);
    }
}

#[test]
fn a_signal_amid_the_recovery_from_an_overflow_does_no_harm() {
    // Goal: the look at all sockets, which a signal with a handler can interrupt though it does not
    // wait, is not an error of the server. Method: a queue that holds nothing, so that every event
    // needs that look, of which strace interrupts every second.
    let _watchdog = Watchdog::start(120);
    let Some(mut command) = tampered("signal", &["inject=poll:error=EINTR:when=1+2"]) else {
        return;
    };
    limit_signals(&mut command, 0);
    let server = Server::spawn(command);
    serve_some(&server);
    let outcome = server.stop();
    assert_eq!(outcome.count("out"), 10 * 100_001, "{}", outcome.output);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

#[test]
fn signals_of_the_past_and_of_strangers_do_no_harm() {
    // Goal: a signal about a socket whose number has a successor, or that was sent by hand, makes
    // nobody read what is not there or end too early. Method: while the server is suspended,
    // connections send and end, and others take their place, whose numbers will be the same.
    const CLIENTS: u64 = 50;
    let _watchdog = Watchdog::start(120);
    let server = Server::start(&["--model", "signal"]);
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    for round in 0..5 {
        for (seed, stream) in (0..).zip(&streams) {
            exchange(stream, &pattern(seed, 100));
        }
        behind_its_back(&server, || {
            for (seed, mut stream) in (0..).zip(streams.drain(..)) {
                stream.write_all(&pattern(seed, 1 + round)).unwrap();
                // Then it is dropped, and its answer may find nobody.
                stream.shutdown(Shutdown::Write).unwrap();
            }
            streams.extend((0..CLIENTS).map(|_| connect(server.address)));
            for _ in 0..10 {
                server.signal(libc::SIGRTMIN());
                server.signal(libc::SIGIO);
            }
        });
    }
    for (seed, stream) in (0..).zip(&streams) {
        exchange(stream, &pattern(seed, 100));
    }
    drop(streams);
    assert_eq!(server.stop().count("served"), 6 * CLIENTS);
}

/// A server of green threads that can have a few stacks and no more, and `count` clients of it.
/// `None`: see [`tampered`].
fn without_stacks(count: usize) -> Option<(Server, Vec<TcpStream>)> {
    // Whoever makes a stack guards it by this call; one that was used before has its guard.
    let server = Server::spawn(tampered("green", &["inject=madvise:error=ENOMEM:when=8+"])?);
    let streams = (0..count).map(|_| connect(server.address)).collect();
    server.wait_for_log("cannot take more than");
    Some((server, streams))
}

#[test]
fn who_finds_no_stack_waits_for_one() {
    // Goal: out of memory for green threads, nobody is turned away. Method: more clients than
    // stacks, who leave with their answer.
    const CLIENTS: u64 = 20;
    let _watchdog = Watchdog::start(120);
    let Some((server, streams)) = without_stacks(CLIENTS as usize) else {
        return;
    };
    for stream in streams {
        exchange(&stream, b"let me in");
    }
    let outcome = server.stop();
    let counts = (outcome.count("served"), outcome.count("refused"));
    assert_eq!(counts, (CLIENTS, 0), "{}", outcome.output);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

#[test]
fn a_stop_does_not_wait_for_stacks() {
    // Goal: a queue of clients for whom there is no memory does not hold up the stop. Method: they
    // stay until the end; whoever is accepted and turned away is in the books.
    let _watchdog = Watchdog::start(120);
    let Some((server, _streams)) = without_stacks(20) else {
        return;
    };
    server.signal(libc::SIGTERM);
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.log);
    // The one that waited for a stack, and the first from the queue.
    assert_eq!(outcome.count("refused"), 2, "{}", outcome.output);
}

#[test]
fn who_left_the_queue_does_not_take_others_along() {
    // Goal: at a stop, everybody is taken in who waits behind a connection that was aborted there.
    // Method: the server is suspended while clients connect and the stop comes, and strace has
    // every second accept fail like that.
    const CLIENTS: u64 = 10;
    let _watchdog = Watchdog::start(120);
    for model in ["aio", "green"] {
        let Some(command) = tampered(model, &["inject=accept4:error=ECONNABORTED:when=1+2"]) else {
            return;
        };
        let server = Server::spawn(command);
        let mut streams = Vec::new();
        behind_its_back(&server, || {
            streams.extend((0..CLIENTS).map(|_| connect(server.address)));
            server.signal(libc::SIGTERM);
        });
        for (seed, mut stream) in (0..).zip(&streams) {
            stream.write_all(&pattern(seed, 100)).unwrap();
            let mut answer = [0; 100];
            stream.read_exact(&mut answer).unwrap();
            assert!(answer[..] == pattern(seed, 100), "{model}");
        }
        drop(streams);
        let outcome = server.wait();
        assert_eq!(
            outcome.count("served"),
            CLIENTS,
            "{model}: {}",
            outcome.output
        );
    }
}

#[test]
fn a_broken_listener_ends_the_server() {
    // Goal: an error that no accept will ever get over is told, and ends the server, though the
    // listener stays ready. Method: strace has every accept fail in such a way, but for the one
    // that finds nobody at the start.
    let _watchdog = Watchdog::start(60);
    for (model, attempts) in [("selector", "1+"), ("signal", "2+")] {
        let tampering = format!("inject=accept4:error=EINVAL:when={attempts}");
        let Some(mut command) = tampered(model, &[&tampering]) else {
            return;
        };
        // It reports the listener before anything else, every time.
        command.env("RUNTIME_POLLER", "poll");
        let server = Server::spawn(command);
        let _nobody = connect(server.address);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(1), "{model}: {}", outcome.log);
        assert!(outcome.output.contains("stopped by a failure"), "{model}");
        assert!(outcome.log.contains("Invalid argument"), "{}", outcome.log);
    }
}

#[test]
fn the_selector_stands_on_every_poller() {
    // Goal: callbacks come over each poller, and select never meets a descriptor that it cannot
    // watch. Method: exchanges over each, and more clients than select has room for.
    const CROWD: usize = 1_100;
    let _watchdog = Watchdog::start(120);
    process::raise_own_descriptor_limit();
    for kind in Kind::available() {
        let server = Server::start(&["--model", "selector", "--poller", kind.name()]);
        serve_some(&server);
        let crowd: Vec<TcpStream> = (0..CROWD).map(|_| connect(server.address)).collect();
        for mut stream in crowd {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
        }
        let outcome = server.stop();
        assert_eq!(outcome.count("served"), CROWD as u64 + 10, "{kind}");
        assert!(outcome.is_free_of_errors(), "{kind}: {}", outcome.output);
    }
}

/// Leaves the server `count` open descriptors that it knows nothing of.
fn leave_descriptors(command: &mut Command, count: u32) {
    let open = move || {
        for _ in 0..count {
            // SAFETY: the call touches no memory, and closes nothing.
            if unsafe { libc::dup(0) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only, which are async-signal-safe.
    unsafe { command.pre_exec(open) };
}

#[test]
fn select_has_room_for_fewer_beside_other_descriptors() {
    // Goal: select never meets a descriptor that it cannot watch, whoever else has the small ones,
    // and nobody is turned away: those for whom there is none wait. Method: whoever starts the
    // server leaves it hundreds, or it has many workers, which each need some.
    const CROWD: usize = 300;
    let _watchdog = Watchdog::start(120);
    process::raise_own_descriptor_limit();
    let cases: [&[&str]; 4] = [
        &["--model", "select"],
        &["--model", "selector", "--poller", "select"],
        &["--model", "green", "--poller", "select"],
        &["--workers", "64", "--poller", "select"],
    ];
    for arguments in cases {
        let mut command = command(arguments);
        leave_descriptors(&mut command, 750);
        let server = Server::spawn(command);
        let crowd: Vec<TcpStream> = (0..CROWD).map(|_| connect(server.address)).collect();
        for stream in crowd {
            exchange(&stream, b"small numbers only");
        }
        server.signal(libc::SIGTERM);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{arguments:?}");
        let counts = (outcome.count("served"), outcome.count("refused"));
        assert_eq!(counts, (CROWD as u64, 0), "{arguments:?}");
        assert!(
            outcome.is_free_of_errors(),
            "{arguments:?}: {}",
            outcome.output
        );
    }
}
