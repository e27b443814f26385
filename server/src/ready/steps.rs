//! The steps of a graceful stop, and when each is due: what they are for is told in `drain`.
//!
//! Where a thread would wait between two steps, a loop has to go on serving. So this says only what
//! is due and when, and is asked once a round.
//!
//! Deliberately not here: taking the steps (`service`).

use crate::drain::{GRACE, Phase};
use std::time::{Duration, Instant};

/// How far the stop has come.
#[derive(Debug)]
pub(super) struct Steps {
    timeout: Duration,
    phase: Phase,
    begin: Option<Instant>,
}

impl Steps {
    pub(super) fn new(timeout: Duration) -> Steps {
        Steps {
            timeout,
            phase: Phase::Serving,
            begin: None,
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.begin = Some(now);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begin.is_some()
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When the next step is due, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let after = match self.phase {
            Phase::Serving => self.timeout.min(GRACE),
            Phase::Finishing => self.timeout,
            Phase::CutOff => return None,
        };
        // A time-out of a million years has no end that a clock could show.
        self.begin?.checked_add(after)
    }

    /// Goes one step further if it is due, and tells which it is.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Phase> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.phase = match self.phase {
            Phase::Serving => Phase::Finishing,
            _ => Phase::CutOff,
        };
        Some(self.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_comes_in_its_time_and_once() {
        // Goal: the grace, then the time-out, then nothing more. Method: walks through it with a
        // clock of its own.
        let mut steps = Steps::new(Duration::from_secs(5));
        let begin = Instant::now();
        assert_eq!(steps.advance(begin + Duration::from_secs(9)), None);
        assert!(!steps.has_begun() && steps.deadline().is_none());
        steps.begin(begin);
        assert!(steps.has_begun());
        assert_eq!(steps.advance(begin), None);
        assert_eq!(steps.deadline(), Some(begin + GRACE));
        assert_eq!(steps.advance(begin + GRACE), Some(Phase::Finishing));
        assert_eq!(steps.advance(begin + GRACE), None);
        assert_eq!(steps.deadline(), Some(begin + steps.timeout()));
        let end = begin + Duration::from_secs(5);
        assert_eq!(steps.advance(end), Some(Phase::CutOff));
        assert_eq!(steps.advance(end), None);
        assert_eq!((steps.deadline(), steps.phase()), (None, Phase::CutOff));
    }

    #[test]
    fn the_time_out_bounds_the_grace_and_may_be_endless() {
        // Goal: the extremes of --drain-timeout. Method: none at all, and the longest.
        let begin = Instant::now();
        let mut hasty = Steps::new(Duration::ZERO);
        hasty.begin(begin);
        assert_eq!(hasty.advance(begin), Some(Phase::Finishing));
        assert_eq!(hasty.advance(begin), Some(Phase::CutOff));
        let mut patient = Steps::new(Duration::MAX);
        patient.begin(begin);
        assert_eq!(patient.advance(begin + GRACE), Some(Phase::Finishing));
        assert_eq!(patient.deadline(), None);
    }
}
