//! How many connections a loop may hold: the limit it is given, and the limits of the system.
//!
//! At either limit the loop stops watching its listener, until a connection ends. New ones are not
//! refused meanwhile: the kernel has completed their handshake, and they wait in the listen queue
//! with whatever they send. After a shortage the pause also ends by itself (see `accept_error`).
//!
//! Man pages: accept(2). Deliberately not here: the connections themselves (`service`).

use crate::accept_error::{Fault, PAUSE_MAX, Shortages};
use log::info;
use std::io;
use std::num::NonZeroUsize;
use std::time::Instant;

/// Decides whether the next connection may be accepted.
#[derive(Debug)]
pub(super) struct Limits {
    limit: Option<NonZeroUsize>,
    open: usize,
    /// Until when the system may still lack what it lacked.
    pause_end: Option<Instant>,
    shortages: Shortages,
}

impl Limits {
    pub(super) fn new(limit: Option<NonZeroUsize>) -> Limits {
        Limits {
            limit,
            open: 0,
            pause_end: None,
            shortages: Shortages::default(),
        }
    }

    /// How many connections there are.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn may_accept(&self) -> bool {
        self.pause_end.is_none() && self.has_room()
    }

    /// When the pause is over, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pause_end
    }

    /// One more.
    pub(super) fn enter(&mut self) {
        self.open += 1;
        if !self.has_room() {
            info!(
                "{} connections, which is the limit: the next wait until one ends",
                self.open
            );
        }
    }

    /// One less, which may have freed what was lacking.
    pub(super) fn leave(&mut self) {
        self.open -= 1;
        self.pause_end = None;
    }

    /// Accepts nobody for a while, because of `error`.
    pub(super) fn pause(&mut self, error: &io::Error, now: Instant) {
        self.shortages.note(self.open, error);
        self.pause_end = Some(now + PAUSE_MAX);
    }

    /// Ends a pause that has been long enough.
    pub(super) fn tick(&mut self, now: Instant) {
        self.pause_end = self.pause_end.filter(|end| now < *end);
    }

    /// Decides whether accepting can go on after `error`, and when.
    ///
    /// # Errors
    ///
    /// `error` itself, if no accept can succeed any more.
    pub(super) fn recover_from(&mut self, error: io::Error, now: Instant) -> io::Result<()> {
        match Fault::of(&error) {
            Fault::Peer => {}
            Fault::Shortage => self.pause(&error, now),
            Fault::Listener => return Err(error),
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.open < limit.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_who_is_there() {
        // Goal: room is what the limit leaves. Method: fills it, and lets one go.
        let mut limits = Limits::new(NonZeroUsize::new(2));
        limits.enter();
        assert!(limits.may_accept());
        limits.enter();
        assert!(!limits.may_accept());
        limits.leave();
        assert!(limits.may_accept());
        assert_eq!(limits.open(), 1);
    }

    #[test]
    fn a_pause_ends_with_a_connection_or_in_time() {
        // Goal: a shortage neither spins nor lasts. Method: two pauses, ended in either way, and
        // the errors that are none.
        let mut limits = Limits::new(None);
        let now = Instant::now();
        let error = |code| io::Error::from_raw_os_error(code);
        limits.enter();
        limits.recover_from(error(libc::ECONNABORTED), now).unwrap();
        assert!(limits.may_accept());
        limits.recover_from(error(libc::EMFILE), now).unwrap();
        assert!(!limits.may_accept());
        limits.leave();
        assert!(limits.may_accept());
        limits.recover_from(error(libc::ENOMEM), now).unwrap();
        limits.tick(now);
        assert!(!limits.may_accept());
        assert_eq!(limits.deadline(), Some(now + PAUSE_MAX));
        limits.tick(now + PAUSE_MAX);
        assert!(limits.may_accept() && limits.deadline().is_none());
        assert!(limits.recover_from(error(libc::EBADF), now).is_err());
    }
}
