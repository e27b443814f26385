//! Starting a green thread and joining it: one at a time, or a batch started before the first join.
//!
//! Outside the layers. A batch of one is what code that waits for each result pays; a large batch
//! has all of them alive at once, so that no peer can use one stack or one allocation over again.
//! One batch goes before the measured ones, to touch all memory for the first time.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::Peer;

/// Spawns and joins `count` green threads, `batch` of them at a time.
pub(crate) fn run(peer: Peer, batch: u64, count: u64) -> io::Result<Duration> {
    let rounds = count.div_ceil(batch);
    let elapsed = match peer {
        Peer::Ours => ours(batch, rounds),
        Peer::Tokio => tokio(batch, rounds)?,
        Peer::May => may(batch, rounds)?,
        Peer::Threads => os_threads(batch, rounds)?,
        _ => return Err(super::unsupported()),
    };
    Ok(elapsed)
}

fn ours(batch: u64, rounds: u64) -> Duration {
    ::runtime::run(move || {
        let mut running = Vec::with_capacity(batch as usize);
        let mut start = Instant::now();
        for round in 0..=rounds {
            if round == 1 {
                start = Instant::now();
            }
            running.extend((0..batch).map(|number| ::runtime::thread::spawn(move || number)));
            for one in running.drain(..) {
                std::hint::black_box(one.join().expect("an empty green thread does not panic"));
            }
        }
        start.elapsed()
    })
}

fn tokio(batch: u64, rounds: u64) -> io::Result<Duration> {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Inside a task, not in block_on's own future, as green threads are spawned by green threads.
    let main = runtime.spawn(async move {
        let mut running = Vec::with_capacity(batch as usize);
        let mut start = Instant::now();
        for round in 0..=rounds {
            if round == 1 {
                start = Instant::now();
            }
            running.extend((0..batch).map(|number| ::tokio::spawn(async move { number })));
            for one in running.drain(..) {
                std::hint::black_box(one.await.expect("an empty task does not panic"));
            }
        }
        start.elapsed()
    });
    runtime.block_on(main).map_err(io::Error::other)
}

fn may(batch: u64, rounds: u64) -> io::Result<Duration> {
    ::may::config().set_workers(1);
    let main = ::may::go!(move || {
        let mut running = Vec::with_capacity(batch as usize);
        let mut start = Instant::now();
        for round in 0..=rounds {
            if round == 1 {
                start = Instant::now();
            }
            running.extend((0..batch).map(|number| ::may::go!(move || number)));
            for one in running.drain(..) {
                std::hint::black_box(one.join().expect("an empty coroutine does not panic"));
            }
        }
        start.elapsed()
    });
    main.join()
        .map_err(|_| io::Error::other("a coroutine panicked"))
}

fn os_threads(batch: u64, rounds: u64) -> io::Result<Duration> {
    let mut running = Vec::with_capacity(batch as usize);
    let mut start = Instant::now();
    for round in 0..=rounds {
        if round == 1 {
            start = Instant::now();
        }
        running.extend((0..batch).map(|number| thread::spawn(move || number)));
        for one in running.drain(..) {
            let number = one
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))?;
            std::hint::black_box(number);
        }
    }
    Ok(start.elapsed())
}
