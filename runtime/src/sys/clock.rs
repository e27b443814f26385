//! L0. The one clock: monotonic nanoseconds, and deadlines on it.
//!
//! Every deadline of the runtime is an absolute point on this clock, so that a wait which is
//! interrupted or repeated never becomes longer. `clock_gettime` is asked through libc, because
//! only libc knows the vDSO, where the answer costs no system call.
//!
//! Man pages: clock_gettime(2), vdso(7). Not here: timers (see `timer`), wall-clock time.

use std::time::Duration;

/// A point in time: nanoseconds on the system's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// This moment.
    pub(crate) fn now() -> Moment {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid place for the answer, and the monotonic clock always exists.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        assert!(result == 0, "the monotonic clock must be readable");
        Moment(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The moment `duration` from now, or `None` where that is beyond the clock's 584 years,
    /// which every caller reads as "no deadline".
    pub(crate) fn after(duration: Duration) -> Option<Moment> {
        let nanoseconds = u64::try_from(duration.as_nanos()).ok()?;
        Moment::now().0.checked_add(nanoseconds).map(Moment)
    }

    /// How long from `now` until this moment; zero once it has passed.
    pub(crate) fn since(self, now: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }
}
