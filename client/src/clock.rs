//! The run's clock: nanoseconds since it began, in one word, so that they can be kept in atomics.
//!
//! Application, above L4. Rests on clock_gettime(2), through std.
//!
//! Deliberately not here: waiting (the runtime does it) and what is measured (`recorder`).

use std::time::{Duration, Instant};

/// Everything in a run is timed by this.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Clock {
    begun: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            begun: Instant::now(),
        }
    }

    /// Nanoseconds since the beginning; never zero, which stands for "not at all" in the books.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        nanoseconds(self.begun.elapsed()).max(1)
    }
}

/// What does not fit is longer than five centuries.
#[inline]
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
