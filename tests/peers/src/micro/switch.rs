//! Resuming a coroutine that suspends itself again: two switches, no scheduler.
//!
//! Outside the layers.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use crate::Peer;

/// Switches to a coroutine and back `count` times.
pub(crate) fn run(peer: Peer, count: u64) -> io::Result<Duration> {
    match peer {
        Peer::Ours => Ok(ours(count)),
        Peer::Corosensei => Ok(corosensei(count)),
        _ => Err(super::unsupported()),
    }
}

fn ours(count: u64) -> Duration {
    let mut coroutine =
        ::runtime::coroutine::Coroutine::<u64, u64, ()>::new(|suspender, mut input: u64| {
            loop {
                input = suspender.suspend(input);
            }
        });
    let start = Instant::now();
    for number in 0..count {
        black_box(coroutine.resume(black_box(number)));
    }
    start.elapsed()
}

fn corosensei(count: u64) -> Duration {
    let mut coroutine =
        ::corosensei::Coroutine::<u64, u64, ()>::new(|suspender, mut input: u64| {
            loop {
                input = suspender.suspend(input);
            }
        });
    let start = Instant::now();
    for number in 0..count {
        black_box(coroutine.resume(black_box(number)));
    }
    start.elapsed()
}
