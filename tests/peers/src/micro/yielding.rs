//! Yielding through the scheduler: a number of green threads that do nothing but yield.
//!
//! The clock starts when all have been spawned, before the first of them has run; only OS threads
//! run at once, so theirs starts earlier. Those yield through the kernel's scheduler, for
//! comparison. Outside the layers.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::Peer;

/// Yields `count` times altogether, spread over `threads` green threads.
pub(crate) fn run(peer: Peer, threads: u64, count: u64) -> io::Result<Duration> {
    let each = count.div_ceil(threads);
    match peer {
        Peer::Ours => Ok(ours(threads, each)),
        Peer::Tokio => tokio(threads, each),
        Peer::May => may(threads, each),
        Peer::Threads => os_threads(threads, each),
        _ => Err(super::unsupported()),
    }
}

fn ours(threads: u64, each: u64) -> Duration {
    ::runtime::run(move || {
        let work = move || (0..each).for_each(|_| ::runtime::thread::yield_now());
        let running: Vec<_> = (0..threads)
            .map(|_| ::runtime::thread::spawn(work))
            .collect();
        let start = Instant::now();
        for one in running {
            one.join().expect("a yielding green thread does not panic");
        }
        start.elapsed()
    })
}

fn tokio(threads: u64, each: u64) -> io::Result<Duration> {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(async move {
        let work = || async move {
            for _ in 0..each {
                ::tokio::task::yield_now().await;
            }
        };
        let running: Vec<_> = (0..threads).map(|_| ::tokio::spawn(work())).collect();
        let start = Instant::now();
        for one in running {
            one.await.expect("a yielding task does not panic");
        }
        start.elapsed()
    }))
}

fn may(threads: u64, each: u64) -> io::Result<Duration> {
    ::may::config().set_workers(1);
    let main = ::may::go!(move || {
        let work = move || (0..each).for_each(|_| ::may::coroutine::yield_now());
        let running: Vec<_> = (0..threads).map(|_| ::may::go!(work)).collect();
        let start = Instant::now();
        for one in running {
            one.join().expect("a yielding coroutine does not panic");
        }
        start.elapsed()
    });
    main.join()
        .map_err(|_| io::Error::other("a coroutine panicked"))
}

fn os_threads(threads: u64, each: u64) -> io::Result<Duration> {
    let start = Instant::now();
    let work = move || (0..each).for_each(|_| thread::yield_now());
    let running: Vec<_> = (0..threads).map(|_| thread::spawn(work)).collect();
    for one in running {
        one.join()
            .map_err(|_| io::Error::other("a thread panicked"))?;
    }
    Ok(start.elapsed())
}
