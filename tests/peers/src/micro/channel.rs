//! Handing a value over: two green threads that send one number to and fro over two channels.
//!
//! Outside the layers. Unbounded channels, as `std::sync::mpsc::channel` makes them.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Peer;

/// Hands a value over `count` times, half of them in each direction.
pub(crate) fn run(peer: Peer, count: u64) -> io::Result<Duration> {
    let rounds = count.div_ceil(2);
    match peer {
        Peer::Ours => Ok(ours(rounds)),
        Peer::Tokio => tokio(rounds),
        Peer::May => may(rounds),
        Peer::Threads => os_threads(rounds),
        _ => Err(super::unsupported()),
    }
}

/// What each end expects while both live.
const OPEN: &str = "both ends of the channel live until the last round";

fn ours(rounds: u64) -> Duration {
    ::runtime::run(move || {
        let (to_there, from_here) = ::runtime::sync::mpsc::channel();
        let (to_here, from_there) = ::runtime::sync::mpsc::channel();
        let start = Instant::now();
        let other = ::runtime::thread::spawn(move || {
            for _ in 0..rounds {
                let number: u64 = from_here.recv().expect(OPEN);
                to_here.send(number + 1).expect(OPEN);
            }
        });
        let mut number = 0;
        for _ in 0..rounds {
            to_there.send(number).expect(OPEN);
            number = from_there.recv().expect(OPEN);
        }
        assert_eq!(number, rounds, "each round adds one");
        other.join().expect("the other end does not panic");
        start.elapsed()
    })
}

fn tokio(rounds: u64) -> io::Result<Duration> {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let main = runtime.spawn(async move {
        let (to_there, mut from_here) = ::tokio::sync::mpsc::unbounded_channel();
        let (to_here, mut from_there) = ::tokio::sync::mpsc::unbounded_channel();
        let start = Instant::now();
        let other = ::tokio::spawn(async move {
            for _ in 0..rounds {
                let number: u64 = from_here.recv().await.expect(OPEN);
                to_here.send(number + 1).expect(OPEN);
            }
        });
        let mut number = 0;
        for _ in 0..rounds {
            to_there.send(number).expect(OPEN);
            number = from_there.recv().await.expect(OPEN);
        }
        assert_eq!(number, rounds, "each round adds one");
        other.await.expect("the other end does not panic");
        start.elapsed()
    });
    runtime.block_on(main).map_err(io::Error::other)
}

fn may(rounds: u64) -> io::Result<Duration> {
    ::may::config().set_workers(1);
    let main = ::may::go!(move || {
        let (to_there, from_here) = ::may::sync::mpsc::channel();
        let (to_here, from_there) = ::may::sync::mpsc::channel();
        let start = Instant::now();
        let other = ::may::go!(move || {
            for _ in 0..rounds {
                let number: u64 = from_here.recv().expect(OPEN);
                to_here.send(number + 1).expect(OPEN);
            }
        });
        let mut number = 0;
        for _ in 0..rounds {
            to_there.send(number).expect(OPEN);
            number = from_there.recv().expect(OPEN);
        }
        assert_eq!(number, rounds, "each round adds one");
        other.join().expect("the other end does not panic");
        start.elapsed()
    });
    main.join()
        .map_err(|_| io::Error::other("a coroutine panicked"))
}

fn os_threads(rounds: u64) -> io::Result<Duration> {
    let (to_there, from_here) = mpsc::channel();
    let (to_here, from_there) = mpsc::channel();
    let start = Instant::now();
    let other = thread::spawn(move || {
        for _ in 0..rounds {
            let number: u64 = from_here.recv().expect(OPEN);
            to_here.send(number + 1).expect(OPEN);
        }
    });
    let mut number = 0;
    for _ in 0..rounds {
        to_there.send(number).expect(OPEN);
        number = from_there.recv().expect(OPEN);
    }
    assert_eq!(number, rounds, "each round adds one");
    other
        .join()
        .map_err(|_| io::Error::other("a thread panicked"))?;
    Ok(start.elapsed())
}
