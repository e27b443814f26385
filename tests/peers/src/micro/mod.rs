//! The small operations: switch, yield, spawn and join, channel hand-over, memory of a parked one.
//!
//! One file an operation, and in each file the same job once for every peer, in the same order.
//! Every function runs `count` operations and returns how long they took, set-up not counted.
//! All of it happens in child processes that are pinned to one processor. Outside the layers.
//! Deliberately not here: statistics. A child prints one number; `report` takes the medians.

pub(crate) mod channel;
pub(crate) mod memory;
pub(crate) mod spawning;
pub(crate) mod switch;
pub(crate) mod yielding;

use std::io;
use std::time::Duration;

/// What a peer that has no such operation answers.
pub(crate) fn unsupported() -> io::Error {
    io::Error::other("this peer has no such operation")
}

/// Repeats `run` with growing counts until it takes about `length`, and returns ns per operation.
///
/// It begins with `count_min`. The shorter runs before the last one warm up the processor, the
/// allocator and the runtime.
pub(crate) fn settle(
    length: Duration,
    count_min: u64,
    mut run: impl FnMut(u64) -> io::Result<Duration>,
) -> io::Result<f64> {
    let mut count = count_min;
    loop {
        let elapsed = run(count)?;
        let per_operation_ns = elapsed.as_nanos() as f64 / count as f64;
        if elapsed * 10 >= length * 9 {
            return Ok(per_operation_ns);
        }
        let wanted = length.as_nanos() as f64 / per_operation_ns.max(0.01);
        // At most tenfold, since the first counts are too short to be extrapolated from.
        count = (wanted as u64).clamp(count + 1, count * 10);
    }
}
