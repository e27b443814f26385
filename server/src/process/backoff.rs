//! When a worker that has died is replaced: at once, unless that has just been of no use.
//!
//! A worker that dies as soon as it lives would otherwise be replaced thousands of times a second.
//! So each replacement in a row waits twice as long as the one before it. When the last of them has
//! died as well, whatever kills them is not going away, and the server gives up.
//!
//! Deliberately not here: the workers (see `models::prefork`).

use std::time::Duration;

/// A worker that lived for this long did not die of starting.
const LIFE_MIN: Duration = Duration::from_secs(5);

/// How long the second of a row waits. The first is replaced at once: accidents happen.
const DELAY_FIRST: Duration = Duration::from_millis(100);

/// Deaths in a row with which the server gives up: the delays have added up to six seconds.
pub(crate) const DEATHS_MAX: u32 = 8;

/// How often one worker's place has failed in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// Notes a death after `life`, and tells how long the replacement is to wait. `None` means
    /// that there should be no other.
    pub(crate) fn after(&mut self, life: Duration) -> Option<Duration> {
        if life >= LIFE_MIN {
            self.deaths = 0;
        }
        self.deaths += 1;
        match self.deaths {
            1 => Some(Duration::ZERO),
            DEATHS_MAX.. => None,
            deaths => Some(DELAY_FIRST * (1 << (deaths - 2))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_deaths_is_slowed_down_and_ends() {
        // Goal: the promise of the header. Method: dies at once as often as it may.
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (1..DEATHS_MAX)
            .map_while(|_| backoff.after(Duration::ZERO))
            .collect();
        assert_eq!(delays[..3], [0, 100, 200].map(Duration::from_millis));
        assert_eq!(
            delays.iter().sum::<Duration>(),
            Duration::from_millis(6_300)
        );
        assert_eq!(backoff.after(Duration::ZERO), None);
    }

    #[test]
    fn a_life_ends_the_row() {
        // Goal: who has lived is replaced at once, whatever was before. Method: a row, then a life.
        let mut backoff = Backoff::default();
        for _ in 1..DEATHS_MAX {
            backoff.after(Duration::ZERO);
        }
        assert_eq!(backoff.after(LIFE_MIN), Some(Duration::ZERO));
        assert_eq!(backoff.after(Duration::ZERO), Some(DELAY_FIRST));
    }
}
