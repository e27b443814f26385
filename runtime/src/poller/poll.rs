//! L1. The poll poller: a list of descriptors instead of a bit for every possible one.
//!
//! The registry is the very array that each wait hands to the kernel: a descriptor, what is asked
//! about it, and room for the answer. There is no greatest descriptor, and the work grows with
//! how many are watched, ready or not; the pollers with a registry in the kernel only pay for
//! those that are ready.
//!
//! Man pages: poll(2), ppoll(2). Not here: edge-triggering, which needs a kernel that remembers.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{
    Capabilities, Events, Interest, Kind, Poller, Readiness, Token, Trigger, check,
    check_not_empty, unknown,
};
use crate::sys::wait;

/// The bit by which the kernel tells that the peer has ended its half of a connection.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
const HALF_CLOSED: libc::c_short = libc::POLLRDHUP;
/// Elsewhere there is no such bit: readers find out by reading.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
const HALF_CLOSED: libc::c_short = 0;

/// The poller on POSIX's poll.
#[derive(Debug)]
pub(super) struct PollPoller {
    /// What each wait hands to the kernel, without gaps and in no order.
    entries: Vec<libc::pollfd>,
    /// The words of the descriptors, in the order of the entries.
    tokens: Vec<Token>,
    /// Where a descriptor's entry is, by descriptor: what makes every change O(1).
    places: Vec<Option<u32>>,
    /// With which entry the next report begins: where the last one broke off, so that the same do
    /// not always come first when the event buffer is too small for all.
    first: usize,
}

impl PollPoller {
    /// A poller that watches nothing.
    pub(super) fn new() -> PollPoller {
        PollPoller {
            entries: Vec::new(),
            tokens: Vec::new(),
            places: Vec::new(),
            first: 0,
        }
    }

    fn place_of(&self, fd: RawFd) -> Option<usize> {
        let place = *self.places.get(usize::try_from(fd).ok()?)?;
        place.map(|place| place as usize)
    }
}

impl Poller for PollPoller {
    fn kind(&self) -> Kind {
        Kind::Poll
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            edge_triggered: false,
            descriptor_limit: None,
            priority: true,
            half_close: HALF_CLOSED != 0,
        }
    }

    fn add(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        check(self, interest, trigger)?;
        check_not_empty(interest)?;
        wait::check_open(fd)?;
        if self.place_of(fd).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let slot = fd as usize;
        if slot >= self.places.len() {
            self.places.resize(slot + 1, None);
        }
        self.places[slot] = Some(self.entries.len() as u32);
        self.entries.push(entry(fd, interest));
        self.tokens.push(token);
        log::trace!(
            "poll: watch descriptor {fd} as token {} ({interest:?})",
            token.0
        );
        Ok(())
    }

    fn modify(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        check(self, interest, trigger)?;
        let place = self.place_of(fd).ok_or_else(unknown)?;
        self.entries[place] = entry(fd, interest);
        self.tokens[place] = token;
        log::trace!(
            "poll: descriptor {fd} is now token {} ({interest:?})",
            token.0
        );
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        log::trace!("poll: forget descriptor {fd}");
        if let Some(place) = self.place_of(fd) {
            // The last entry fills the gap.
            self.entries.swap_remove(place);
            self.tokens.swap_remove(place);
            self.places[fd as usize] = None;
            if let Some(moved) = self.entries.get(place) {
                self.places[descriptor(moved) as usize] = Some(place as u32);
            }
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let mut left = wait::poll(&mut self.entries, timeout)?;
        log::trace!(
            "poll: {left} of {} descriptors are ready",
            self.entries.len()
        );
        let count = self.entries.len();
        for place in (0..count).map(|step| (self.first + step) % count) {
            if left == 0 {
                break;
            }
            let answer = self.entries[place].revents;
            if answer == 0 {
                continue;
            }
            if events.is_full() {
                self.first = place;
                break;
            }
            left -= 1;
            events.push(self.tokens[place], readiness(answer));
        }
        Ok(())
    }
}

/// What to ask about `fd`. To keep a descriptor silent it is not enough to ask nothing, because
/// hang-ups and failures are told in any case: what the kernel does skip is a negative number.
fn entry(fd: RawFd, interest: Interest) -> libc::pollfd {
    let mut events = 0;
    if interest.contains(Interest::READABLE) {
        // Half-close is news for readers only: to a writer it would be told in every wait.
        events |= libc::POLLIN | HALF_CLOSED;
    }
    if interest.contains(Interest::WRITABLE) {
        events |= libc::POLLOUT;
    }
    if interest.contains(Interest::PRIORITY) {
        events |= libc::POLLPRI;
    }
    let fd = if interest.is_empty() { !fd } else { fd };
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// Whose entry this is, silent or not.
fn descriptor(entry: &libc::pollfd) -> RawFd {
    if entry.fd < 0 { !entry.fd } else { entry.fd }
}

/// What the kernel's answer means. `POLLNVAL`, a descriptor that was closed but not removed, is a
/// failure too: the next call on it says `EBADF`.
fn readiness(answer: libc::c_short) -> Readiness {
    let has = |flag| answer & flag != 0;
    let failed = libc::POLLERR | libc::POLLNVAL;
    Readiness::READABLE.when(has(libc::POLLIN | HALF_CLOSED))
        | Readiness::WRITABLE.when(has(libc::POLLOUT))
        | Readiness::CLOSED.when(has(HALF_CLOSED | libc::POLLHUP))
        | Readiness::ERROR.when(has(failed))
        | Readiness::BOTH.when(has(libc::POLLHUP | failed))
        | Readiness::PRIORITY.when(has(libc::POLLPRI))
}
