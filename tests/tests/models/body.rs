//! What is expected of every model, whatever it waits with.
//!
//! Test support for `models.rs`: each function starts a server in the model it is given, and sees
//! that nothing of it is left behind. Man pages: proc(5), tcp(7), signal(7).
//!
//! Deliberately not here: exceptions for single models (see `table`).

use crate::client::{
    connect, exchange, exchange_slowly, exchange_until_the_end, pattern, reset,
    shrink_receive_buffer, write_until_stuck,
};
use crate::process::{Outcome, Process, Server, eventually, limit_descriptors};
use crate::table::{MANY, Model};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Stops a server whose connections have all ended, and sees that it leaves nothing behind.
fn finish(server: Server) -> Outcome {
    server.wait_for_no_connection();
    server.signal(libc::SIGTERM);
    end(server, Some(0))
}

/// Waits for the end of a server and of every process it has now.
fn end(server: Server, code: Option<i32>) -> Outcome {
    let family = server.family();
    let outcome = server.wait();
    let Outcome {
        status,
        output,
        log,
    } = &outcome;
    assert_eq!(status.code(), code, "{output}{log}");
    assert!(!log.contains("panicked"), "{log}");
    let graceful = code == Some(0);
    let is_gone = |process: &Process| matches!(process.state(), 'X' | 'Z');
    if graceful {
        // Children that have ended in order were waited for.
        let left: Vec<&Process> = family
            .iter()
            .filter(|process| process.state() != 'X')
            .collect();
        assert!(left.is_empty(), "{left:?} outlive the server");
    }
    // Others are somebody else's zombies until that waits for them.
    eventually("every process has ended", || family.iter().all(is_gone));
    outcome
}

pub(crate) fn echoes_odd_sizes_to_slow_readers(model: Model) {
    // Goal: every byte comes back, whatever the size and the reader's pace. Method: sizes around
    // those of buffers, up to megabytes, all at once, each compared as a whole.
    let sizes = [0, 1, 2, 511, 512, 8191, 8193, 65_537, 1_000_003, 2_500_017];
    let server = model.start(&[]);
    thread::scope(|scope| {
        for (seed, size) in (0..).zip(sizes) {
            let server = &server;
            scope.spawn(move || {
                let bytes = pattern(seed, size);
                let answer = exchange_slowly(&connect(server.address), &bytes);
                assert!(answer == bytes, "{size} bytes came back differently");
            });
        }
    });
    let outcome = finish(server);
    let total = sizes.iter().sum::<usize>() as u64;
    assert_eq!((outcome.count("in"), outcome.count("out")), (total, total));
    assert_eq!(outcome.count("served"), sizes.len() as u64);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

pub(crate) fn serves_many_clients(model: Model) {
    // Goal: hundreds of clients are served, at once or, where the model cannot, in turn. Method:
    // a thread for each; if all can be there at once, none leaves before each has an answer.
    let server = model.start(&[]);
    let all_are_served = Barrier::new(MANY);
    thread::scope(|scope| {
        for seed in 0..MANY as u64 {
            let (server, all_are_served) = (&server, &all_are_served);
            let client = thread::Builder::new().stack_size(128 << 10);
            let started = client.spawn_scoped(scope, move || {
                let stream = connect(server.address);
                exchange(&stream, &pattern(seed, 1000));
                if model.at_once == MANY {
                    all_are_served.wait();
                    exchange(&stream, &pattern(seed, 3000));
                }
            });
            started.expect("a small thread");
        }
    });
    let outcome = finish(server);
    assert_eq!(outcome.count("served"), MANY as u64, "{}", outcome.output);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
    let (peak, most) = (outcome.count("at once at most"), model.at_once as u64);
    assert!(peak <= most, "{peak} at once, of {most}");
    assert!(model.at_once < MANY || peak == most, "{peak} of {most}");
}

pub(crate) fn survives_resets(model: Model) {
    // Goal: a reset in the middle of a message ends one connection and nothing else. Method: many
    // of them, before and after the answer, beside a connection that goes on where the model can.
    let server = model.start(&[]);
    let bystander = model
        .serves_beside_another()
        .then(|| connect(server.address));
    for round in 0..30 {
        let mut stream = connect(server.address);
        stream.write_all(&pattern(round, 3_000)).unwrap();
        if round % 2 == 0 {
            stream.read_exact(&mut [0; 1]).unwrap();
        }
        reset(stream);
        match &bystander {
            Some(bystander) => exchange(bystander, b"still there"),
            None => exchange(&connect(server.address), b"still there"),
        }
    }
    drop(bystander);
    let outcome = finish(server);
    let resets = outcome.count("connection reset") + outcome.count("broken pipe");
    assert!(resets > 0, "{}", outcome.output);
}

pub(crate) fn urgent_data_stays_out_of_the_stream(model: Model) {
    // Goal: a byte sent with MSG_OOB, which is no part of the stream, does not get into it, and
    // does not keep the server busy. Method: one amid a message; the processor time of a while in
    // which there is nothing to do.
    let server = model.start(&[]);
    let mut stream = connect(server.address);
    stream.write_all(b"before").unwrap();
    send_urgent(&stream, b'!');
    stream.write_all(b"after").unwrap();
    let mut answer = [0; 11];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"beforeafter");
    if model.sleeps {
        // Once more, as the last byte: nothing that is read behind it takes it out of the way.
        send_urgent(&stream, b'!');
        let ticks_before = server.processor_ticks();
        thread::park_timeout(Duration::from_millis(500));
        let ticks = server.processor_ticks() - ticks_before;
        assert!(ticks <= 10, "{ticks} hundredths of a second");
    }
    exchange(&stream, b"and more");
    drop(stream);
    let outcome = finish(server);
    assert_eq!(outcome.count("in"), 19, "{}", outcome.output);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

/// Sends one byte beside the stream.
fn send_urgent(stream: &TcpStream, byte: u8) {
    let fd = stream.as_raw_fd();
    // SAFETY: the pointer is to one byte that lives through the call.
    let sent = unsafe { libc::send(fd, (&raw const byte).cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

pub(crate) fn a_half_closed_peer_gets_every_answer_in_upper_case(model: Model) {
    // Goal: who has finished sending is still answered in full, and `--upper` means a to z and
    // nothing else. Method: sends every byte value many times, ends, and only then reads.
    let server = model.start(&["--upper"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let mut stream = connect(server.address);
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == bytes.to_ascii_uppercase());
    drop(stream);
    assert!(finish(server).is_free_of_errors());
}

pub(crate) fn a_deaf_peer_costs_one_buffer_and_is_cut_off(model: Model) {
    // Goal: what a peer does not take is not piled up, holds up nobody else, and does not keep the
    // server from ending. Method: peers write until nobody takes more; the server's memory is
    // compared with what it has accepted; others are served; then it is stopped.
    const KIB_EACH_MAX: u64 = 512;
    let peers = if model.serves_beside_another() { 4 } else { 1 };
    let server = model.start(&["--drain-timeout", "300ms"]);
    let before_kib = server.memory_kib();
    let deaf: Vec<TcpStream> = (0..peers).map(|_| connect(server.address)).collect();
    let accepted_bytes = thread::scope(|scope| {
        let writers: Vec<_> = deaf
            .iter()
            .map(|stream| scope.spawn(|| write_until_stuck(stream)))
            .collect();
        let counts = writers.into_iter().map(|writer| writer.join().unwrap());
        counts.sum::<usize>()
    });
    let grown_kib = server.memory_kib().saturating_sub(before_kib);
    let accepted_kib = accepted_bytes / 1024;
    println!("{grown_kib} KiB more for {accepted_kib} KiB that nobody takes back");
    assert!(grown_kib < KIB_EACH_MAX * peers, "{grown_kib} KiB more");
    if model.serves_beside_another() {
        exchange(&connect(server.address), &pattern(5, 50_000));
    }
    server.signal(libc::SIGTERM);
    let outcome = end(server, Some(0));
    assert_eq!(outcome.count("cut off"), peers, "{}", outcome.output);
}

pub(crate) fn stops_under_load_without_a_torn_answer(model: Model) {
    // Goal: at SIGTERM every client has whole answers and then a clean end. Method: clients
    // exchange messages all the time; the signal comes amid them; each tells how it ended.
    const CLIENTS: usize = 30;
    const ANSWERS_BEFORE_STOP: usize = 2_000;
    let server = model.start(&["--drain-timeout", "60s"]);
    let answers = AtomicUsize::new(0);
    let family = thread::scope(|scope| {
        for seed in 0..CLIENTS as u64 {
            let stream = connect(server.address);
            let answers = &answers;
            scope.spawn(move || exchange_until_the_end(&stream, &pattern(seed, 100), answers));
        }
        eventually("there is load", || {
            answers.load(Ordering::Relaxed) > ANSWERS_BEFORE_STOP
        });
        let family = server.family();
        server.signal(libc::SIGTERM);
        family
    });
    let outcome = end(server, Some(0));
    let left: Vec<Process> = family.into_iter().filter(|it| it.state() != 'X').collect();
    assert!(left.is_empty(), "{left:?} outlive the server");
    let Outcome { output, .. } = &outcome;
    assert!(output.starts_with("stopped by SIGTERM\n"), "{output}");
    assert_eq!(outcome.count("served"), CLIENTS as u64, "{output}");
    assert_eq!(outcome.count("cut off"), 0, "{output}");
    assert_eq!(outcome.count("in"), outcome.count("out"), "{output}");
    let answered = (answers.into_inner() * 100) as u64;
    assert_eq!(outcome.count("out"), answered, "answers are missing");
}

pub(crate) fn a_stop_takes_in_who_waits_in_the_queue(model: Model) {
    // Goal: who had connected before the signal is served. Method: suspends the server, connects
    // and sends, and lets it find the signal and the connections at the same time.
    const CLIENTS: u64 = 20;
    let server = model.start(&["--drain-timeout", "60s"]);
    let family = server.family();
    for process in &family {
        process.signal(libc::SIGSTOP);
    }
    eventually("the server is suspended", || {
        family.iter().all(|process| process.state() == 'T')
    });
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    for (seed, mut stream) in (0..).zip(&streams) {
        stream.write_all(&pattern(seed, 1000)).unwrap();
    }
    server.signal(libc::SIGTERM);
    for process in &family {
        process.signal(libc::SIGCONT);
    }
    for (seed, mut stream) in (0..).zip(&streams) {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(seed, 1000), "{} bytes", answer.len());
    }
    let outcome = end(server, Some(0));
    assert_eq!(outcome.count("served"), CLIENTS, "{}", outcome.output);
    assert!(outcome.is_free_of_errors(), "{}", outcome.output);
}

pub(crate) fn the_idle_time_out_ends_the_silent_and_the_deaf(model: Model) {
    // Goal: neither a peer that says nothing nor one that takes nothing stays. Method: one of each.
    let server = model.start(&["--idle-timeout", "200ms"]);
    let mut silent = connect(server.address);
    exchange(&silent, b"once");
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    let deaf = connect(server.address);
    shrink_receive_buffer(&deaf);
    let chunk = pattern(1, 64 << 10);
    while (&deaf).write(&chunk).is_ok() {}
    assert_eq!(finish(server).count("closed when idle"), 2);
}

pub(crate) fn who_has_spoken_in_time_is_not_idle(model: Model) {
    // Goal: a server that is late itself does not take that for its client's silence. Method: the
    // client speaks while the server is suspended, for longer than the time-out.
    let server = model.start(&["--idle-timeout", "1s"]);
    let mut stream = connect(server.address);
    exchange(&stream, b"once");
    let family = server.family();
    for process in &family {
        process.signal(libc::SIGSTOP);
    }
    eventually("the server is suspended", || {
        family.iter().all(|process| process.state() == 'T')
    });
    stream.write_all(b"again").unwrap();
    thread::park_timeout(Duration::from_millis(1_200));
    for process in &family {
        process.signal(libc::SIGCONT);
    }
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"again");
    drop(stream);
    assert_eq!(finish(server).count("closed when idle"), 0);
}

pub(crate) fn the_connection_limit_lets_others_wait(model: Model) {
    // Goal: beyond the limit nobody is refused and nobody served. Method: six clients of a server
    // that may have two; whoever has an answer stays until no more get one, then one of them
    // leaves, or both if those who wait may wait for the other.
    const LIMIT: usize = 2;
    let server = model.start(&["--max-connections", "2"]);
    let mut waiting: Vec<TcpStream> = (0..6).map(|_| connect(server.address)).collect();
    for mut stream in &waiting {
        stream.write_all(b"let me in").unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let clients = waiting.len();
    let mut served = Vec::new();
    while served.len() + waiting.len() > 0 {
        let mut answered = 0;
        eventually("somebody is served, or all are", || {
            answered += take_the_answered(&mut waiting, &mut served);
            answered > 0 || waiting.is_empty()
        });
        // Time for one too many.
        thread::park_timeout(Duration::from_millis(20));
        take_the_answered(&mut waiting, &mut served);
        assert!(served.len() <= LIMIT, "{} at once", served.len());
        let leave = if model.has_queues { served.len() } else { 1 };
        served.drain(..leave);
    }
    let outcome = finish(server);
    assert_eq!(
        outcome.count("served"),
        clients as u64,
        "{}",
        outcome.output
    );
    let peak = outcome.count("at once at most");
    assert!(peak <= LIMIT as u64, "{}", outcome.output);
}

/// Moves those who have an answer, and tells how many there were.
fn take_the_answered(waiting: &mut Vec<TcpStream>, served: &mut Vec<TcpStream>) -> usize {
    let has_answer = |stream: &mut TcpStream| match stream.peek(&mut [0; 1]) {
        Ok(count) => {
            assert!(count > 0, "it was sent away");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    };
    let before = served.len();
    served.extend(waiting.extract_if(.., has_answer));
    served.len() - before
}

pub(crate) fn survives_having_no_descriptor_left(model: Model) {
    // Goal: out of descriptors, the server neither spins nor forgets those who wait.
    // Method: 64 descriptors, 300 clients; the processor time of a while in which nothing can be
    // accepted; then each leaves when it has its answer.
    const CLIENTS: u64 = 300;
    const LOOK: Duration = Duration::from_millis(400);
    const TICKS_MAX: u64 = 12;
    let mut command = model.command(&[]);
    limit_descriptors(&mut command, 64);
    let server = Server::spawn(command);
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    if model.runs_out_of_descriptors {
        server.wait_for_log("cannot take more than");
    }
    if model.sleeps && model.runs_out_of_descriptors {
        let ticks_before = server.processor_ticks();
        thread::park_timeout(LOOK);
        let ticks = server.processor_ticks() - ticks_before;
        assert!(
            ticks <= TICKS_MAX,
            "{ticks} hundredths of a second in {LOOK:?}"
        );
    }
    for stream in streams {
        exchange(&stream, b"let me in");
    }
    let outcome = finish(server);
    let counts = (outcome.count("served"), outcome.count("refused"));
    assert_eq!(counts, (CLIENTS, 0), "{}", outcome.output);
    let complaints = outcome.log.matches("cannot take more than").count();
    assert!(
        complaints <= 6,
        "logged {complaints} times:\n{}",
        outcome.log
    );
}

pub(crate) fn impatience_leaves_no_process_behind(model: Model) {
    // Goal: however the server ends, its processes end with it. Method: a peer that takes no
    // answers holds up the graceful stop; then comes a second signal, or one that cannot be
    // caught. What happens in a single process is tested with the server itself.
    if !model.has_processes {
        println!("nothing to do: one process");
        return;
    }
    for (impatience, code) in [
        (libc::SIGINT, Some(128 + libc::SIGINT)),
        (libc::SIGKILL, None),
    ] {
        let mut command = model.command(&["--drain-timeout", "1000s"]);
        command.env("RUST_LOG", "info");
        let server = Server::spawn(command);
        let deaf = connect(server.address);
        write_until_stuck(&deaf);
        server.signal(libc::SIGTERM);
        server.wait_for_log("no more is read");
        assert!(server.family().len() > 1);
        server.signal(impatience);
        end(server, code);
    }
}
