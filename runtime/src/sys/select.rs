//! L0. select(2) and its bit sets, with the bounds that C leaves to the caller.
//!
//! A descriptor set is an array of `FD_SETSIZE` bits. C's macros write past its end when they are
//! given a greater descriptor; here that is an assertion, and [`LIMIT`] is for asking first.
//!
//! Man pages: select(2), and FD_SET(3). Not here: which descriptors to ask about (see
//! `poller::select`).

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{kernel, wait};

/// The first descriptor number that a set has no bit for.
pub(crate) const LIMIT: RawFd = libc::FD_SETSIZE as RawFd;

/// A set of descriptors below [`LIMIT`].
#[derive(Clone, Copy)]
pub(crate) struct DescriptorSet {
    bits: libc::fd_set,
}

impl DescriptorSet {
    /// A set without members.
    pub(crate) fn new() -> DescriptorSet {
        // SAFETY: a descriptor set is an array of integers, for which zeros are valid.
        let bits = unsafe { std::mem::zeroed() };
        DescriptorSet { bits }
    }

    /// Makes `fd` a member, or no member.
    pub(crate) fn set(&mut self, fd: RawFd, member: bool) {
        assert!(
            (0..LIMIT).contains(&fd),
            "a descriptor set must have a bit for descriptor {fd}"
        );
        if member {
            // SAFETY: the bit exists, as has just been asserted.
            unsafe { libc::FD_SET(fd, &raw mut self.bits) };
        } else {
            // SAFETY: the bit exists, as has just been asserted.
            unsafe { libc::FD_CLR(fd, &raw mut self.bits) };
        }
    }

    /// Whether `fd` is a member.
    pub(crate) fn contains(&self, fd: RawFd) -> bool {
        assert!(
            (0..LIMIT).contains(&fd),
            "a descriptor set must have a bit for descriptor {fd}"
        );
        // SAFETY: the bit exists, as has just been asserted.
        unsafe { libc::FD_ISSET(fd, &raw const self.bits) }
    }
}

impl fmt::Debug for DescriptorSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries((0..LIMIT).filter(|&fd| self.contains(fd)))
            .finish()
    }
}

/// The three questions of select, and in the same shape its three answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sets {
    /// Who is (to be) readable.
    pub(crate) readable: DescriptorSet,
    /// Who is (to be) writable.
    pub(crate) writable: DescriptorSet,
    /// Who has (or is to have) something exceptional to tell.
    pub(crate) exceptional: DescriptorSet,
}

impl Sets {
    /// Three sets without members.
    pub(crate) fn new() -> Sets {
        let empty = DescriptorSet::new();
        Sets {
            readable: empty,
            writable: empty,
            exceptional: empty,
        }
    }

    /// Whether `fd` is a member of any.
    pub(crate) fn any_contains(&self, fd: RawFd) -> bool {
        self.readable.contains(fd) || self.writable.contains(fd) || self.exceptional.contains(fd)
    }
}

/// Waits, through signals, until one of the first `count` descriptors is what `asked` asks:
/// which are. All sets are empty when `timeout` passed first.
pub(crate) fn select(count: RawFd, asked: &Sets, timeout: Option<Duration>) -> io::Result<Sets> {
    let mut answer = Sets::new();
    let ready = wait::bounded(timeout, |left| {
        // The kernel writes its answer over the question, so each attempt asks with a copy.
        answer = *asked;
        let mut left = left.map(wait::timespec);
        let left = left
            .as_mut()
            .map_or(std::ptr::null_mut(), |left| &raw mut *left);
        let readable = &raw mut answer.readable.bits;
        let writable = &raw mut answer.writable.bits;
        let exceptional = &raw mut answer.exceptional.bits;
        // SAFETY: all pointers are to places that outlive the call, and `count` is at most the
        // number of bits in a set, because no greater descriptor could become a member.
        unsafe { kernel::pselect(count.min(LIMIT), readable, writable, exceptional, left) }
    })?;
    // When a signal came last, the question still stands where the answer should.
    Ok(if ready == 0 { Sets::new() } else { answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_and_go_up_to_the_limit() {
        // Goal: the bounds of a set. Method: its first and last bit, and those beyond, refused.
        let mut set = DescriptorSet::new();
        for fd in [0, LIMIT - 1] {
            set.set(fd, true);
            assert!(set.contains(fd));
        }
        assert_eq!(format!("{set:?}"), format!("{{0, {}}}", LIMIT - 1));
        set.set(0, false);
        assert!(!set.contains(0) && set.contains(LIMIT - 1));
        for fd in [-1, LIMIT] {
            assert!(std::panic::catch_unwind(move || set.contains(fd)).is_err());
        }
    }
}
