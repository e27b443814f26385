//! The echo server end to end: a process, clients of the standard library, and the kernel's own
//! accounts.
//!
//! Every test starts a server of its own on a free port, has a watchdog, and sees that all
//! descriptors were closed again. Man pages: proc(5), tcp(7), strace(1).
//!
//! Deliberately not here: speed, which is measured elsewhere, and the client program.

#![cfg(target_os = "linux")]

#[path = "server/client.rs"]
mod client;
#[path = "server/process.rs"]
#[expect(dead_code, reason = "models.rs uses the rest")]
mod process;

use client::{
    CHUNK_BYTES, connect, exchange, exchange_slowly, exchange_until_the_end, pattern, reset,
    unacknowledged, write_until_stuck,
};
use process::{Outcome, PATIENCE, Server, Watchdog, bare_command, command, eventually};
use runtime::poller::Kind;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn echoes_odd_sizes_to_a_slow_reader_over_every_poller() {
    // Goal: every byte comes back, whatever the size, the reader's pace and the poller. Method:
    // sizes around those of buffers, up to megabytes, all at once, each compared as a whole.
    let _watchdog = Watchdog::start(300);
    for kind in Kind::available() {
        let mut command = command(&[]);
        command.env("RUNTIME_POLLER", kind.name());
        let server = Server::spawn(command);
        let sizes = [
            0, 1, 2, 4095, 8191, 8192, 8193, 65_537, 1_000_003, 3_000_017,
        ];
        thread::scope(|scope| {
            for (seed, size) in (0..).zip(sizes) {
                let server = &server;
                scope.spawn(move || {
                    let bytes = pattern(seed, size);
                    let answer = exchange_slowly(&connect(server.address), &bytes);
                    assert!(
                        answer == bytes,
                        "{kind}: {size} bytes came back differently"
                    );
                });
            }
        });
        let outcome = server.stop();
        let total = sizes.iter().sum::<usize>() as u64;
        assert_eq!((outcome.count("in"), outcome.count("out")), (total, total));
        assert_eq!(outcome.count("served"), sizes.len() as u64);
        assert!(outcome.is_free_of_errors(), "{kind}: {}", outcome.output);
    }
}

#[test]
fn upper_changes_ascii_letters_only() {
    // Goal: `--upper` means a to z and nothing else. Method: sends each byte value.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--upper"]);
    let all: Vec<u8> = (0..=255).collect();
    let mut stream = connect(server.address);
    stream.write_all(&all).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, all.to_ascii_uppercase());
    drop(stream);
    server.stop();
}

#[test]
fn listens_on_names_and_ipv6() {
    // Goal: an address may be a name or of the other family. Method: an exchange on each.
    let _watchdog = Watchdog::start(60);
    let mut addresses = vec!["localhost:0"];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => addresses.push("[::1]:0"),
        Err(error) => println!("skipped: no IPv6 here ({error})"),
    }
    for address in addresses {
        let server = Server::start(&["--listen", address]);
        exchange(&connect(server.address), b"hello");
        server.stop();
    }
}

#[test]
fn holds_ten_thousand_connections() {
    // Goal: 10,000 at once are served, in bounded memory, and leave nothing behind. Method: opens
    // them all, sends one full buffer on each before any is closed, asks the kernel what the
    // server's memory and descriptors are then and after.
    const CONNECTIONS: usize = 10_000;
    const KIB_EACH_MAX: u64 = 32;
    if Kind::from_environment().unwrap() == Kind::Select {
        println!("skipped: select watches 1,000 connections at most");
        return;
    }
    let _watchdog = Watchdog::start(300);
    process::raise_own_descriptor_limit();
    let server = Server::start(&[]);
    let before_kib = server.resident_kib();
    let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(server.address)).collect();
    // All at once: what poll costs is a look at each connection whenever one of them has something.
    for (seed, mut stream) in (0..).zip(&streams) {
        stream.write_all(&pattern(seed, 8192)).unwrap();
    }
    for (seed, mut stream) in (0..).zip(&streams) {
        let mut answer = [0; 8192];
        stream.read_exact(&mut answer).unwrap();
        assert!(
            answer[..] == pattern(seed, 8192),
            "connection {seed} got something else"
        );
    }
    let each_kib = server.resident_kib().saturating_sub(before_kib) / CONNECTIONS as u64;
    println!("{each_kib} KiB resident for each connection, its buffer of 8 KiB included");
    assert!(
        each_kib <= KIB_EACH_MAX,
        "{each_kib} KiB for each connection"
    );
    assert!(server.descriptors() >= CONNECTIONS);
    drop(streams);
    let outcome = server.stop();
    assert_eq!(outcome.count("served"), CONNECTIONS as u64);
    assert_eq!(outcome.count("at once at most"), CONNECTIONS as u64);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

#[test]
fn survives_having_no_descriptor_left() {
    // Goal: out of descriptors, the server neither spins nor forgets those who wait.
    // Method: 64 descriptors, 300 clients; the processor time of a second in which nothing can be
    // accepted; then each leaves when it has its answer.
    const CLIENTS: u64 = 300;
    let _watchdog = Watchdog::start(120);
    let mut command = command(&[]);
    process::limit_descriptors(&mut command, 64);
    let server = Server::spawn(command);
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    server.wait_for_log("cannot take more than");
    let ticks_before = server.processor_ticks();
    thread::park_timeout(Duration::from_secs(1));
    let ticks = server.processor_ticks() - ticks_before;
    assert!(
        ticks <= 20,
        "{ticks} hundredths of a second of processor time while it waited"
    );
    for stream in streams {
        exchange(&stream, b"let me in");
    }
    let outcome = server.stop();
    assert_eq!(
        (outcome.count("served"), outcome.count("refused")),
        (CLIENTS, 0)
    );
    let complaints = outcome.log.matches("cannot take more than").count();
    assert!(
        complaints <= 3,
        "logged {complaints} times:\n{}",
        outcome.log
    );
}

#[test]
fn stops_under_load_without_a_torn_answer() {
    // Goal: at SIGTERM every client has whole answers and then a clean end. Method: 50 clients
    // exchange messages all the time; the signal comes amid them; each tells how it ended.
    const CLIENTS: usize = 50;
    const ANSWERS_BEFORE_STOP: usize = 5_000;
    let _watchdog = Watchdog::start(120);
    for kind in Kind::available() {
        let mut command = command(&["--drain-timeout", "60s"]);
        command.env("RUNTIME_POLLER", kind.name());
        let server = Server::spawn(command);
        let answers = AtomicUsize::new(0);
        thread::scope(|scope| {
            for seed in 0..CLIENTS as u64 {
                let stream = connect(server.address);
                let answers = &answers;
                scope.spawn(move || exchange_until_the_end(&stream, &pattern(seed, 100), answers));
            }
            eventually("there is load", || {
                answers.load(Ordering::Relaxed) > ANSWERS_BEFORE_STOP
            });
            server.signal(libc::SIGTERM);
        });
        let outcome = server.wait();
        assert_eq!(
            outcome.status.code(),
            Some(0),
            "{kind}: {}{}",
            outcome.output,
            outcome.log
        );
        assert_eq!(
            outcome.count("served"),
            CLIENTS as u64,
            "{kind}: {}",
            outcome.output
        );
        assert_eq!(outcome.count("cut off"), 0, "{kind}: {}", outcome.output);
        assert_eq!(
            outcome.count("in"),
            outcome.count("out"),
            "{kind}: {}",
            outcome.output
        );
        let answered = (answers.into_inner() * 100) as u64;
        assert_eq!(
            outcome.count("out"),
            answered,
            "{kind}: answers are missing"
        );
    }
}

#[test]
fn a_stop_answers_what_was_sent_and_sends_the_idle_home() {
    // Goal: bytes that arrived before the signal are answered though their reader comes late, and
    // an idle connection ends at once. Method: sends until every buffer on the way is full, stops
    // the server, then reads.
    let _watchdog = Watchdog::start(120);
    let mut command = command(&["--drain-timeout", "100s"]);
    command.env("RUST_LOG", "info");
    let server = Server::spawn(command);
    let mut idle = connect(server.address);
    let mut late = connect(server.address);
    let sent = write_until_stuck(&late);
    let arrived = sent - unacknowledged(&late);
    server.signal(libc::SIGTERM);
    server.wait_for_log("no more is read");
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    let mut answer = Vec::new();
    late.read_to_end(&mut answer).unwrap();
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(0));
    assert_eq!(
        (outcome.count("served"), outcome.count("cut off")),
        (2, 0),
        "{}",
        outcome.output
    );
    // All that was sent, unless the peer's kernel waited too long to repeat a segment.
    println!("{} bytes of {sent} came back", answer.len());
    assert_eq!(outcome.count("in"), answer.len() as u64);
    assert!(answer.len() >= arrived, "{} of {arrived}", answer.len());
    let mut expected = pattern(1, CHUNK_BYTES).into_iter().cycle();
    assert!(answer.into_iter().all(|byte| Some(byte) == expected.next()));
}

#[test]
fn a_stop_takes_in_who_waits_in_the_queue() {
    // Goal: who had connected before the signal is served. Method: suspends the server, connects
    // and sends, and lets it find the signal and the connections at the same time.
    const CLIENTS: u64 = 20;
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--drain-timeout", "100s"]);
    server.signal(libc::SIGSTOP);
    eventually("the server is suspended", || server.state() == 'T');
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    for (seed, mut stream) in (0..).zip(&streams) {
        stream.write_all(&pattern(seed, 1000)).unwrap();
    }
    server.signal(libc::SIGTERM);
    server.signal(libc::SIGCONT);
    for (seed, mut stream) in (0..).zip(&streams) {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(seed, 1000));
    }
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(0));
    assert_eq!(outcome.count("served"), CLIENTS, "{}", outcome.output);
}

#[test]
fn the_drain_time_out_cuts_off_who_does_not_read() {
    // Goal: nobody keeps the server from ending. Method: a peer that takes no answers, and a short
    // time-out.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--drain-timeout", "300ms"]);
    let deaf = connect(server.address);
    write_until_stuck(&deaf);
    server.signal(libc::SIGTERM);
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(0));
    assert_eq!(outcome.count("cut off"), 1, "{}", outcome.output);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // Goal: impatience is honoured, and told from success. Method: a peer that takes no answers
    // holds up the graceful stop; then the other signal is sent.
    let _watchdog = Watchdog::start(60);
    let mut command = command(&["--drain-timeout", "1000s"]);
    command.env("RUST_LOG", "info");
    let server = Server::spawn(command);
    let deaf = connect(server.address);
    write_until_stuck(&deaf);
    server.signal(libc::SIGTERM);
    server.wait_for_log("no more is read");
    server.signal(libc::SIGINT);
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(128 + libc::SIGINT));
}

#[test]
fn resets_hurt_nobody_else() {
    // Goal: a reset in the middle of a message ends one connection. Method: many of them, before
    // and after the answer, beside a connection that goes on.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&[]);
    let bystander = connect(server.address);
    for round in 0..50 {
        let mut stream = connect(server.address);
        stream.write_all(&pattern(round, 3_000)).unwrap();
        if round % 2 == 0 {
            stream.read_exact(&mut [0; 1]).unwrap();
        }
        reset(stream);
        exchange(&bystander, b"still there");
    }
    drop(bystander);
    let outcome = server.stop();
    let resets = outcome.count("connection reset") + outcome.count("broken pipe");
    assert!(resets > 0, "{}", outcome.output);
}

#[test]
fn a_half_closed_peer_gets_every_answer() {
    // Goal: who has finished sending is still answered in full. Method: sends, ends, and only then
    // reads.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&[]);
    let mut stream = connect(server.address);
    let bytes = pattern(3, 200_000);
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == bytes);
    drop(stream);
    assert!(server.stop().is_free_of_errors());
}

#[test]
fn a_peer_that_never_reads_costs_one_buffer() {
    // Goal: backpressure: what a peer does not take is not piled up. Method: peers write until
    // nobody takes more; the server's memory is compared with what it has accepted; another is
    // served.
    const PEERS: usize = 5;
    let _watchdog = Watchdog::start(120);
    let server = Server::start(&[]);
    let before_kib = server.resident_kib();
    let deaf: Vec<TcpStream> = (0..PEERS).map(|_| connect(server.address)).collect();
    let accepted_kib = deaf.iter().map(write_until_stuck).sum::<usize>() / 1024;
    let grown_kib = server.resident_kib() - before_kib;
    println!("{grown_kib} KiB more for {accepted_kib} KiB that nobody takes back");
    assert!(grown_kib < 1024, "{grown_kib} KiB more");
    exchange(&connect(server.address), &pattern(5, 50_000));
    drop(deaf);
    server.stop();
}

#[test]
fn the_idle_time_out_ends_the_silent_and_the_deaf() {
    // Goal: neither a peer that says nothing nor one that takes nothing stays. Method: one of each.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--idle-timeout", "250ms"]);
    let mut silent = connect(server.address);
    exchange(&silent, b"once");
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    let deaf = connect(server.address);
    client::shrink_receive_buffer(&deaf);
    let chunk = pattern(1, 64 << 10);
    while (&deaf).write(&chunk).is_ok() {}
    server.wait_for_no_connection();
    assert_eq!(server.stop().count("closed when idle"), 2);
}

#[test]
fn the_connection_limit_lets_others_wait() {
    // Goal: beyond the limit nobody is refused and nobody served. Method: a third of two stays
    // without an answer until one leaves.
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--max-connections", "2"]);
    let first = connect(server.address);
    let second = connect(server.address);
    exchange(&first, b"first");
    exchange(&second, b"second");
    let mut third = connect(server.address);
    third.write_all(b"third").unwrap();
    third
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut answer = [0; 5];
    let error = third.read(&mut answer).expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(first);
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    third.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"third");
    drop((second, third));
    let outcome = server.stop();
    assert_eq!(
        (outcome.count("served"), outcome.count("at once at most")),
        (3, 2)
    );
}

#[test]
fn several_workers_share_the_work() {
    // Goal: more OS threads change nothing for clients. Method: many exchanges at once, then a stop
    // amid open connections.
    const CLIENTS: u64 = 60;
    let _watchdog = Watchdog::start(60);
    let server = Server::start(&["--workers", "3", "--max-connections", "100"]);
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    for (seed, stream) in (0..).zip(&streams) {
        exchange(stream, &pattern(seed, 20_000));
    }
    server.signal(libc::SIGTERM);
    for mut stream in &streams {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(0));
    assert_eq!(outcome.count("served"), CLIENTS, "{}", outcome.output);
    assert_eq!(outcome.count("out"), CLIENTS * 20_000);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

#[test]
fn select_never_meets_a_descriptor_it_cannot_watch() {
    // Goal: over `select`, whose descriptors end at 1023, more clients than that wait instead of
    // failing. Method: 1,100 of them, each of which leaves with its answer.
    const CLIENTS: u64 = 1_100;
    let _watchdog = Watchdog::start(120);
    process::raise_own_descriptor_limit();
    let server = Server::start(&["--poller", "select"]);
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    for stream in streams {
        exchange(&stream, b"small numbers only");
    }
    let outcome = server.stop();
    assert_eq!(outcome.count("served"), CLIENTS, "{}", outcome.output);
    assert_eq!(outcome.count("at once at most"), 1_000);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

#[test]
fn its_port_is_free_again_at_once() {
    // Goal: a server can be replaced. Method: stops one that closes its connection first, which
    // leaves the port in TIME_WAIT, and starts the next on it.
    let _watchdog = Watchdog::start(60);
    let first = Server::start(&[]);
    let address = first.address.to_string();
    let mut stream = connect(first.address);
    exchange(&stream, b"first");
    first.signal(libc::SIGTERM);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(first.wait().status.code(), Some(0));
    drop(stream);
    let second = Server::start(&["--listen", &address]);
    exchange(&connect(second.address), b"second");
    second.stop();
}

#[test]
fn what_cannot_be_listened_on_is_explained() {
    // Goal: cause, remedy and a code that is not 0. Method: one bad address of each sort.
    let _watchdog = Watchdog::start(60);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
    let cases: [(&str, i32, &[&str]); 5] = [
        (&taken.0.to_string(), 1, &["in use", "ss -ltnp", "--listen"]),
        ("203.0.113.1:0", 1, &["no such address", "ip address"]),
        (
            "no-such-name.invalid:80",
            1,
            &["no-such-name.invalid", "--listen"],
        ),
        ("127.0.0.1", 2, &["port is missing", "127.0.0.1:8080"]),
        ("127.0.0.1:70000", 2, &["0 to 65535"]),
    ];
    for (address, code, words) in cases {
        let outcome = refusal(command(&["--listen", address]));
        assert_eq!(
            outcome.status.code(),
            Some(code),
            "{address}: {}",
            outcome.log
        );
        for word in words {
            assert!(
                outcome.log.contains(word),
                "{address}: {word:?} is not in {}",
                outcome.log
            );
        }
        assert_eq!(outcome.output, "", "{address}");
    }
}

#[test]
fn an_error_that_nobody_reads_has_its_code() {
    // Goal: whoever closes the standard error still learns from the code what happened. Method: an
    // address that cannot be had, and a pipe whose other end is closed.
    let _watchdog = Watchdog::start(60);
    let (_, unread) = std::io::pipe().unwrap();
    let mut command = command(&["--listen", "203.0.113.1:0"]);
    command.stdout(Stdio::null()).stderr(unread);
    assert_eq!(command.status().unwrap().code(), Some(1));
}

#[test]
fn a_poller_that_there_is_not_is_explained() {
    // Goal: as above, before an address is told to anybody. Method: in each model with a poller a
    // wrong name, and one of another system.
    let _watchdog = Watchdog::start(60);
    for model in ["green", "green-workers", "prefork-green", "selector"] {
        for name in ["slect", "kqueue"] {
            let mut by_environment = command(&["--model", model]);
            by_environment.env("RUNTIME_POLLER", name);
            let by_option = command(&["--model", model, "--poller", name]);
            for (command, code) in [(by_environment, 1), (by_option, 2)] {
                let outcome = refusal(command);
                let said = format!("{model}, {name}: {}", outcome.log);
                assert_eq!(outcome.status.code(), Some(code), "{said}");
                assert!(outcome.log.contains("epoll, poll, select"), "{said}");
                assert_eq!(outcome.output, "", "{said}");
            }
        }
    }
}

#[test]
fn a_port_that_needs_a_privilege_is_explained() {
    // Goal: as above. Method: the same, as a user without privileges, where this test may become
    // one.
    let _watchdog = Watchdog::start(60);
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let needs_privilege = first_free.is_ok_and(|port| port.trim().parse().unwrap_or(0) > 81);
    // SAFETY: geteuid cannot fail and touches nothing.
    if unsafe { libc::geteuid() } != 0 || !needs_privilege {
        println!("skipped: only root can lose a privilege, and port 81 must need one");
        return;
    }
    let mut command = command(&["--listen", "127.0.0.1:81"]);
    command.uid(65_534);
    if let Err(error) = command.status() {
        println!("skipped: another user cannot run the server from here ({error})");
        return;
    }
    let outcome = refusal(command);
    assert_eq!(outcome.status.code(), Some(1));
    assert!(
        outcome.log.contains("CAP_NET_BIND_SERVICE"),
        "{}",
        outcome.log
    );
}

/// Runs a server that is expected to end by itself.
fn refusal(mut command: Command) -> Outcome {
    let output = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    Outcome {
        status: output.status,
        output: text(output.stdout),
        log: text(output.stderr),
    }
}

#[test]
fn the_log_tells_connections() {
    // Goal: RUST_LOG=info tells who came and what became of them. Method: one connection, and a
    // look.
    let _watchdog = Watchdog::start(60);
    let mut command = command(&[]);
    command.env("RUST_LOG", "info");
    let server = Server::spawn(command);
    let stream = connect(server.address);
    let own = stream.local_addr().unwrap();
    exchange(&stream, b"seven b");
    drop(stream);
    let log = server.stop().log;
    assert!(
        log.contains(&format!("connection 1 accepted from {own}")),
        "{log}"
    );
    assert!(log.contains("connection 1 ended: the peer had finished; 7 bytes in, 7 bytes out"));
}

#[test]
fn a_message_takes_two_system_calls() {
    // Goal: recv and send, nothing else for each message; waiting is shared, registration done
    // once. Method: see below.
    expect_two_system_calls(["--poller", "epoll"]);
}

#[test]
fn a_message_takes_the_epoll_model_two_system_calls() {
    // Goal: what green threads are compared with is no slower than it could be. Method: see below.
    expect_two_system_calls(["--model", "epoll"]);
}

/// Has strace count for a server that echoes a known number of messages on a few connections.
fn expect_two_system_calls(arguments: [&str; 2]) {
    const CONNECTIONS: u64 = 20;
    const MESSAGES: u64 = 200;
    let _watchdog = Watchdog::start(120);
    let Some(counts) = count_system_calls(arguments, |address| {
        let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(address)).collect();
        for round in 0..MESSAGES {
            let message = pattern(round, 64);
            for mut stream in &streams {
                stream.write_all(&message).expect("the server takes it");
            }
            for mut stream in &streams {
                stream.read_exact(&mut [0; 64]).expect("the server answers");
            }
        }
    }) else {
        return;
    };
    let messages = CONNECTIONS * MESSAGES;
    let count = |names: &[&str]| -> u64 {
        let of = |name: &&str| {
            counts
                .iter()
                .find(|(known, _)| known == name)
                .map_or(0, |it| it.1)
        };
        names.iter().map(of).sum()
    };
    // What is not for a message: starting up, accepting, the last read of each connection, waiting.
    let around = 20 * CONNECTIONS + 200;
    let received = count(&["recvfrom", "recvmsg", "read", "readv"]);
    let sent = count(&["sendto", "sendmsg", "write", "writev"]);
    let waited = count(&["epoll_wait", "epoll_pwait", "epoll_pwait2"]);
    assert!(
        (messages..messages + around).contains(&received),
        "{received}: {counts:?}"
    );
    assert!(
        (messages..messages + around).contains(&sent),
        "{sent}: {counts:?}"
    );
    assert!(count(&["epoll_ctl"]) <= 3 * CONNECTIONS + 20, "{counts:?}");
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    assert!(
        all - received - sent - waited < around,
        "something else is called: {counts:?}"
    );
}

/// Has strace count the system calls of a server while `load` is on it.
fn count_system_calls(
    arguments: [&str; 2],
    load: impl FnOnce(SocketAddr),
) -> Option<Vec<(String, u64)>> {
    let name = format!("server-strace-{}-{}", std::process::id(), arguments[0]);
    let file = std::env::temp_dir().join(name);
    let file_name = file.to_str().expect("a plain path");
    let program = tests::binaries::server();
    let program = program.to_str().expect("a plain path");
    if let Err(error) = bare_command("strace", &["-V"]).output() {
        println!("skipped: no strace ({error})");
        return None;
    }
    // -D: strace stands aside, and the server itself is our child, which gets our signals.
    let arguments = [
        "-D",
        "-f",
        "-c",
        "-o",
        file_name,
        program,
        arguments[0],
        arguments[1],
        "--listen",
        "127.0.0.1:0",
    ];
    let probe = bare_command("strace", &["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("skipped: strace may not trace here");
        return None;
    }
    let server = Server::spawn(bare_command("strace", &arguments));
    load(server.address);
    server.stop();
    let mut table = String::new();
    eventually("strace has written its table", || {
        table = std::fs::read_to_string(&file).unwrap_or_default();
        table.contains("total")
    });
    let _ = std::fs::remove_file(&file);
    // Columns: % time, seconds, usecs/call, calls, perhaps errors, syscall.
    let rows = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let name = *columns.last().filter(|name| **name != "total")?;
        Some((name.to_owned(), columns.get(3)?.parse().ok()?))
    });
    Some(rows.collect())
}
