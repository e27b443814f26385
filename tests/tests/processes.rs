//! The server's models with several processes: nobody is left behind, and nobody is forgotten.
//!
//! What concerns every model is in `models.rs`. Here is what only processes can do: become zombies,
//! outlive their parent, be killed one by one, and be sent a signal all together.
//!
//! Man pages: proc(5), fork(2), waitpid(2), signal(7), setpgid(2), prctl(2), getrlimit(2)
//! (RLIMIT_NPROC). Deliberately not here: speed.

#![cfg(target_os = "linux")]

#[path = "server/client.rs"]
#[expect(dead_code, reason = "server.rs uses the rest")]
mod client;
#[path = "server/process.rs"]
#[expect(dead_code, reason = "server.rs uses the rest")]
mod process;
#[path = "server/relatives.rs"]
mod relatives;

use client::{connect, exchange, pattern, write_until_stuck};
use process::{Server, Watchdog, command, eventually};
use relatives::{
    children, os_threads, signal, signal_group, sleeps, wait_for_children, wait_until_gone,
};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::Duration;

const MODELS: [&str; 3] = ["fork", "prefork", "prefork-green"];

/// How many workers the tests ask for.
const WORKERS: usize = 3;

fn arguments(model: &str) -> Vec<&str> {
    let mut arguments = vec!["--model", model, "--drain-timeout", "100s"];
    if model != "fork" {
        arguments.extend(["--workers", "3"]);
    }
    arguments
}

/// A server that leads a group of processes of its own, as if it had been started by a shell.
fn start(model: &str) -> Server {
    let mut command = command(&arguments(model));
    command.env("RUST_LOG", "info").process_group(0);
    Server::spawn(command)
}

/// Connects, and waits until somebody serves the connection.
fn be_served(server: &Server, seed: u64) -> TcpStream {
    let stream = connect(server.address);
    exchange(&stream, &pattern(seed, 100));
    stream
}

/// Suspends the parent while `act` runs, so that it finds everything at once.
fn behind_its_back(server: &Server, act: impl FnOnce()) {
    server.signal(libc::SIGSTOP);
    eventually("the parent is suspended", || server.state() == 'T');
    act();
    server.signal(libc::SIGCONT);
}

/// Reads to the end, which has to come in order.
fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("the stream ends in order");
    bytes
}

/// Whether the server closes it, in order or not, without another byte.
fn is_lost(mut stream: &TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 1]), Ok(1..))
}

#[test]
fn a_connection_is_a_process_and_leaves_no_zombie() {
    // Goal: fork: one child for each connection, each reaped, also when many end at once. Method:
    // counts the children while clients come, one leaves, and all leave.
    const CLIENTS: usize = 50;
    let _watchdog = Watchdog::start(120);
    let server = start("fork");
    let mut streams: Vec<TcpStream> = (0..CLIENTS as u64)
        .map(|seed| be_served(&server, seed))
        .collect();
    wait_for_children(&server, CLIENTS);
    streams.pop();
    wait_for_children(&server, CLIENTS - 1);
    drop(streams);
    wait_for_children(&server, 0);
    let outcome = server.stop();
    for number in [1, CLIENTS] {
        assert!(
            outcome
                .log
                .contains(&format!("connection {number} accepted from"))
        );
        assert!(
            outcome
                .log
                .contains(&format!("connection {number} ended: the peer had finished"))
        );
    }
    let served = (outcome.count("served"), outcome.count("at once at most"));
    assert_eq!(served, (CLIENTS as u64, CLIENTS as u64));
    assert_eq!(outcome.count("in"), 100 * CLIENTS as u64);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

#[test]
fn killed_children_are_reaped_and_counted() {
    // Goal: fork: deaths that come all at once, while others are served, are each noticed and in
    // the books. Method: kills most children while the parent is suspended, so that their signals
    // become one.
    const CLIENTS: usize = 20;
    const KILLED: usize = 15;
    let _watchdog = Watchdog::start(60);
    let server = start("fork");
    let streams: Vec<TcpStream> = (0..CLIENTS as u64)
        .map(|seed| be_served(&server, seed))
        .collect();
    let pids = wait_for_children(&server, CLIENTS);
    behind_its_back(&server, || {
        for pid in &pids[..KILLED] {
            signal(*pid, libc::SIGKILL);
        }
        eventually("they are zombies", || {
            children(&server)
                .iter()
                .filter(|child| child.state == 'Z')
                .count()
                == KILLED
        });
    });
    wait_for_children(&server, CLIENTS - KILLED);
    drop(streams);
    wait_for_children(&server, 0);
    let outcome = server.stop();
    assert_eq!(
        outcome.count("killed by SIGKILL"),
        KILLED as u64,
        "{}",
        outcome.output
    );
    assert_eq!(outcome.count("served"), CLIENTS as u64);
    // What the killed had counted went with them.
    assert_eq!(outcome.count("in"), 100 * (CLIENTS - KILLED) as u64);
}

#[test]
fn only_single_threaded_processes_fork() {
    // Goal: no fork copies a lock that another thread holds, and green threads are on one OS
    // thread. Method: counts the OS threads of each parent that is serving, and of green children.
    let _watchdog = Watchdog::start(60);
    for model in MODELS {
        let server = start(model);
        let _stream = be_served(&server, 1);
        assert_eq!(os_threads(server.pid().try_into().unwrap()), 1, "{model}");
        if model == "prefork-green" {
            let threads = wait_for_children(&server, WORKERS)
                .into_iter()
                .map(os_threads);
            assert_eq!(threads.collect::<Vec<_>>(), [1; WORKERS]);
        }
    }
}

#[test]
fn a_killed_worker_costs_its_own_connections_only() {
    // Goal: prefork-green: one process dies, the others do not notice, and it is replaced. Method:
    // kills one; each connection either goes on or is lost, and all that come later are served.
    const CLIENTS: u64 = 60;
    let _watchdog = Watchdog::start(60);
    let server = start("prefork-green");
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|seed| be_served(&server, seed)).collect();
    let before = wait_for_children(&server, WORKERS);
    for pid in &before {
        // With so many clients each process has some, and the log tells whose each is.
        server.wait_for_log(&format!("process {pid}: connection 1 accepted"));
    }
    signal(before[1], libc::SIGKILL);
    server.wait_for_log("it is replaced at once");
    let after = wait_for_children(&server, WORKERS);
    let common = BTreeSet::from_iter(&before)
        .intersection(&BTreeSet::from_iter(&after))
        .count();
    assert_eq!(common, WORKERS - 1, "{before:?} became {after:?}");
    let mut lost = 0;
    for mut stream in &streams {
        // The write may meet a reset; so does the read, then.
        let _ = stream.write_all(b"x");
        lost += u64::from(is_lost(stream));
    }
    assert!(
        (1..CLIENTS).contains(&lost),
        "{lost} of {CLIENTS} were lost"
    );
    for seed in 0..CLIENTS {
        be_served(&server, seed);
    }
    drop(streams);
    server.signal(libc::SIGTERM);
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.log);
    assert_eq!(outcome.count("killed by SIGKILL"), 1, "{}", outcome.output);
    assert_eq!(
        outcome.count("served"),
        2 * CLIENTS - lost,
        "{}",
        outcome.output
    );
}

#[test]
fn a_replacement_sleeps_until_somebody_comes() {
    // Goal: whoever takes over the socket of another process waits on it as that one did, and does
    // not look now and then, which lets clients wait. Method: every worker is replaced, by the end
    // it is asked for and by the one it is not; nobody wakes up for a while in which nobody comes.
    const WHILE: Duration = Duration::from_millis(300);
    let _watchdog = Watchdog::start(120);
    for model in ["prefork", "prefork-green"] {
        for end in [libc::SIGTERM, libc::SIGKILL] {
            let server = start(model);
            let before = wait_for_children(&server, WORKERS);
            for pid in &before {
                signal(*pid, end);
            }
            wait_until_gone(&before);
            let workers = wait_for_children(&server, WORKERS);
            for seed in 0..20 {
                be_served(&server, seed);
            }
            eventually(&format!("{model}: they sleep after {end}"), || {
                let count = sleeps(&workers);
                thread::park_timeout(WHILE);
                sleeps(&workers) == count
            });
        }
    }
}

#[test]
fn who_waits_for_a_dead_worker_is_served_by_the_next() {
    // Goal: prefork: the listen queue of a process outlives it. Method: suspends all workers, fills
    // their queues, kills them all, and expects every answer.
    const CLIENTS: u64 = 30;
    let _watchdog = Watchdog::start(60);
    for model in ["prefork", "prefork-green"] {
        let server = start(model);
        let workers = wait_for_children(&server, WORKERS);
        for pid in &workers {
            signal(*pid, libc::SIGSTOP);
        }
        eventually("they are suspended", || {
            children(&server).iter().all(|child| child.state == 'T')
        });
        let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
        for (seed, mut stream) in (0..).zip(&streams) {
            stream.write_all(&pattern(seed, 1000)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for pid in &workers {
            signal(*pid, libc::SIGKILL);
        }
        for (seed, stream) in (0..).zip(&streams) {
            assert!(read_to_end(stream) == pattern(seed, 1000), "{model}");
        }
        server.signal(libc::SIGTERM);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{model}: {}", outcome.log);
        let counts = (outcome.count("served"), outcome.count("killed by SIGKILL"));
        assert_eq!(
            counts,
            (CLIENTS, WORKERS as u64),
            "{model}: {}",
            outcome.output
        );
    }
}

#[test]
fn one_worker_can_be_asked_to_leave() {
    // Goal: SIGTERM to a worker ends it as it would end a server, and another comes. Method: sends
    // it to every worker, one of which has a client that has sent and not yet read.
    let _watchdog = Watchdog::start(60);
    for model in ["prefork", "prefork-green"] {
        let server = start(model);
        let before = wait_for_children(&server, WORKERS);
        let mut stream = be_served(&server, 1);
        stream.write_all(&pattern(2, 5000)).unwrap();
        for pid in &before {
            signal(*pid, libc::SIGTERM);
        }
        assert!(read_to_end(&stream) == pattern(2, 5000), "{model}");
        wait_until_gone(&before);
        wait_for_children(&server, WORKERS);
        be_served(&server, 3);
        let outcome = server.stop();
        assert_eq!(outcome.count("served"), 2, "{model}: {}", outcome.output);
        assert!(outcome.is_free_of_errors(), "{model}: {}", outcome.output);
    }
}

#[test]
fn ctrl_c_is_one_graceful_stop() {
    // Goal: a signal to the whole group, as a terminal sends it, is not taken for two. Method: it
    // comes while answers are owed; all of them arrive.
    let _watchdog = Watchdog::start(60);
    for model in MODELS {
        let server = start(model);
        // What is in the queues of prefork is served one after the other.
        let clients = if model == "prefork" { 1 } else { 10 };
        let streams: Vec<TcpStream> = (0..clients).map(|seed| be_served(&server, seed)).collect();
        let pids: Vec<i32> = children(&server).iter().map(|child| child.pid).collect();
        for (seed, mut stream) in (0..).zip(&streams) {
            stream.write_all(&pattern(seed, 100_000)).unwrap();
        }
        signal_group(&server, libc::SIGINT);
        for (seed, stream) in (0..).zip(&streams) {
            assert!(read_to_end(stream) == pattern(seed, 100_000), "{model}");
        }
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{model}: {}", outcome.log);
        assert!(
            outcome.output.starts_with("stopped by SIGINT\n"),
            "{}",
            outcome.output
        );
        assert_eq!(
            outcome.count("served"),
            clients,
            "{model}: {}",
            outcome.output
        );
        assert!(outcome.is_free_of_errors(), "{model}: {}", outcome.output);
        wait_until_gone(&pids);
    }
}

#[test]
fn inherited_masks_do_not_make_deaf() {
    // Goal: a server hears of a stop, and a parent of its children, even if whoever started it has
    // blocked the signals that tell. Method: a server with all signals blocked; a client comes and
    // goes, then comes the stop.
    let _watchdog = Watchdog::start(60);
    for model in ["green", "fork", "prefork", "prefork-green"] {
        let mut command = command(&["--model", model]);
        block_all_signals(&mut command);
        let server = Server::spawn(command);
        drop(be_served(&server, 1));
        let outcome = server.stop();
        assert_eq!(outcome.count("served"), 1, "{model}: {}", outcome.output);
        assert!(outcome.is_free_of_errors(), "{model}: {}", outcome.output);
    }
}

/// Starts the program with every signal blocked.
fn block_all_signals(command: &mut std::process::Command) {
    let block = || {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the set is ours, and this call initialises it.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: the set was initialised, and null asks for no answer.
        match unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes two calls, which are async-signal-safe.
    unsafe { command.pre_exec(block) };
}

#[test]
fn nobody_can_connect_while_the_last_are_seen_out() {
    // Goal: no process keeps open the listener of another, in whose queue clients would wait for
    // nothing. Method: a peer that takes no answers holds up the stop; others try to connect.
    let _watchdog = Watchdog::start(60);
    for model in ["fork", "prefork-green"] {
        let server = start(model);
        let deaf = be_served(&server, 1);
        write_until_stuck(&deaf);
        server.signal(libc::SIGTERM);
        server.wait_for_log("no more is read");
        for _ in 0..20 {
            assert!(TcpStream::connect(server.address).is_err(), "{model}");
        }
        drop(deaf);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{model}: {}", outcome.log);
    }
}

#[test]
fn who_does_not_stop_is_killed() {
    // Goal: a process that hangs does not keep the server from ending. Method: suspends one, which
    // then can do nothing about the stop, with a short drain time-out.
    let _watchdog = Watchdog::start(60);
    for model in MODELS {
        let mut command = command(&["--model", model, "--drain-timeout", "100ms"]);
        command.env("RUST_LOG", "warn");
        let server = Server::spawn(command);
        let stream = be_served(&server, 1);
        let pids: Vec<i32> = children(&server).iter().map(|child| child.pid).collect();
        signal(pids[0], libc::SIGSTOP);
        eventually("it is suspended", || children(&server)[0].state == 'T');
        server.signal(libc::SIGTERM);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{model}: {}", outcome.log);
        assert!(
            outcome
                .log
                .contains("1 processes do not stop: they are killed")
        );
        assert_eq!(
            outcome.count("killed by SIGKILL"),
            1,
            "{model}: {}",
            outcome.output
        );
        wait_until_gone(&pids);
        drop(stream);
    }
}

#[test]
fn a_second_signal_ends_everybody() {
    // Goal: impatience reaches the children, too. Method: a peer that takes no answers holds up the
    // stop; the second signal is sent to the group, and in another run to the parent alone.
    let _watchdog = Watchdog::start(120);
    for model in MODELS {
        for whole_group in [true, false] {
            let server = start(model);
            let deaf = be_served(&server, 1);
            write_until_stuck(&deaf);
            let pids: Vec<i32> = children(&server).iter().map(|child| child.pid).collect();
            server.signal(libc::SIGTERM);
            server.wait_for_log("no more is read");
            match whole_group {
                true => signal_group(&server, libc::SIGINT),
                false => server.signal(libc::SIGINT),
            }
            let outcome = server.wait();
            assert_eq!(outcome.status.code(), Some(128 + libc::SIGINT), "{model}");
            wait_until_gone(&pids);
        }
    }
}

#[test]
fn nobody_outlives_a_killed_parent() {
    // Goal: when the parent cannot tell its children anything any more, they end. Method: SIGKILL,
    // while each model has a client.
    let _watchdog = Watchdog::start(60);
    for model in MODELS {
        let server = start(model);
        let stream = be_served(&server, 1);
        let pids: Vec<i32> = children(&server).iter().map(|child| child.pid).collect();
        assert!(!pids.is_empty());
        let address = server.address;
        server.signal(libc::SIGKILL);
        wait_until_gone(&pids);
        assert!(is_lost(&stream), "{model}");
        // The second OS thread of a blocking server may end a moment after the first.
        eventually("the port is free", || TcpStream::connect(address).is_err());
        drop(server);
    }
}

#[test]
fn a_crash_loop_is_slowed_down_told_and_ended() {
    // Goal: workers that die young do not keep a processor busy, and not for ever. Method: kills
    // each worker of a server as soon as it lives, until the server gives up.
    let _watchdog = Watchdog::start(120);
    let mut command = command(&["--model", "prefork-green", "--workers", "1"]);
    command.env("RUST_LOG", "warn");
    let server = Server::spawn(command);
    let mut killed = BTreeSet::new();
    eventually("the server gives up", || {
        for child in children(&server) {
            if child.state != 'Z' && killed.insert(child.pid) {
                signal(child.pid, libc::SIGKILL);
            }
        }
        server.log().contains("no other is tried")
    });
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.log);
    assert!(
        outcome.output.starts_with("stopped by a failure\n"),
        "{}",
        outcome.output
    );
    assert_eq!(outcome.count("killed by SIGKILL"), killed.len() as u64);
    assert!(killed.len() < 20, "{} workers were born", killed.len());
    for delay in ["replaced at once", "replaced in 100ms", "replaced in 3.2s"] {
        assert_eq!(outcome.log.matches(delay).count(), 1, "{}", outcome.log);
    }
}

#[test]
fn a_crash_loop_of_all_ends_with_all_in_the_books() {
    // Goal: nobody is forgotten who dies at the same time as the one with whom the server gives up.
    // Method: all workers are killed while their parent is suspended, again and again.
    let _watchdog = Watchdog::start(120);
    let server = start("prefork-green");
    let mut killed = 0;
    while !server.log().contains("no other is tried") {
        let alive = children(&server);
        if alive.len() < WORKERS || alive.iter().any(|child| child.state == 'Z') {
            thread::park_timeout(Duration::from_millis(5));
            continue;
        }
        behind_its_back(&server, || {
            for child in &alive {
                signal(child.pid, libc::SIGKILL);
            }
            killed += alive.len() as u64;
            eventually("they are zombies", || {
                children(&server).iter().all(|child| child.state == 'Z')
            });
        });
    }
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.log);
    assert_eq!(
        outcome.count("killed by SIGKILL"),
        killed,
        "{}",
        outcome.log
    );
}

#[test]
fn who_finds_no_process_waits_for_one() {
    // Goal: fork and threads: out of processes, which to the kernel are the same, nobody is turned
    // away. Method: a user who may have three more, five clients; each leaves when it has its
    // answer.
    const CLIENTS: u64 = 5;
    if !can_become_another_user() {
        return;
    }
    let _watchdog = Watchdog::start(60);
    for model in ["fork", "threads"] {
        let mut command = command(&["--model", model, "--drain-timeout", "100s"]);
        limit_processes(&mut command, 4);
        let server = Server::spawn(command);
        let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
        server.wait_for_log("cannot take more than");
        for stream in streams {
            exchange(&stream, b"let me in");
        }
        let outcome = server.stop();
        let counts = (outcome.count("served"), outcome.count("refused"));
        assert_eq!(counts, (CLIENTS, 0), "{model}: {}", outcome.output);
        if model == "threads" {
            // Two of the four are the server's own.
            assert!(
                outcome.log.contains("more than 2 connections"),
                "{}",
                outcome.log
            );
        }
        assert!(outcome.is_free_of_errors(), "{model}: {}", outcome.output);
    }
}

#[test]
fn who_finds_no_process_until_the_end_is_in_the_books() {
    // Goal: fork and threads: who was accepted and could not be served is not forgotten. Method: a
    // user who may have room for one client; the stop comes while another waits, and the first
    // stays until that has been sent away.
    if !can_become_another_user() {
        return;
    }
    let _watchdog = Watchdog::start(60);
    for (model, processes) in [("fork", 3), ("threads", 3)] {
        let mut command = command(&["--model", model, "--drain-timeout", "500ms"]);
        limit_processes(&mut command, processes);
        let server = Server::spawn(command);
        let deaf = be_served(&server, 1);
        write_until_stuck(&deaf);
        let waiting = connect(server.address);
        server.wait_for_log("cannot take more than");
        server.signal(libc::SIGTERM);
        assert!(is_lost(&waiting), "{model}");
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{model}: {}", outcome.log);
        let counts = (outcome.count("served"), outcome.count("refused"));
        assert_eq!(counts, (1, 1), "{model}: {}", outcome.output);
    }
}

#[test]
fn nobody_is_cut_off_who_is_not_there() {
    // Goal: a stop that allows no time does not alarm anybody when there is nothing to lose.
    // Method: workers without clients.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--model", "prefork", "--drain-timeout", "0s"]);
    let outcome = server.stop();
    assert!(!outcome.log.contains("cut off"), "{}", outcome.log);
}

/// Whether [`limit_processes`] can do what it is for; says so if not.
fn can_become_another_user() -> bool {
    // SAFETY: geteuid touches no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        println!("skipped: only root can become a user who has no other process");
    }
    is_root
}

/// Lets the program run as a user whom nobody else is, and who may have `count` OS threads.
fn limit_processes(command: &mut std::process::Command, count: u64) {
    let user = 61_000 + std::process::id() % 1000;
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    let become_user = move || {
        // SAFETY: `limit` is a valid structure of its own.
        let limited = unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &limit) };
        // SAFETY: setuid touches no memory.
        match (limited, unsafe { libc::setuid(user) }) {
            (0, 0) => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes two system calls, which are async-signal-safe.
    unsafe { command.pre_exec(become_user) };
}
