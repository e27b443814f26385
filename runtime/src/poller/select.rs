//! L1. The select poller: the oldest question to the kernel, and the easiest to understand.
//!
//! The registry is three bit sets, of who is to be readable, writable, exceptional. Each wait
//! hands copies of all three to the kernel, which clears the bits that are not (yet) so, and
//! then looks through all bits for the answer. Both sides' work grows with the greatest
//! descriptor, and there are only `FD_SETSIZE` bits: that is why the other pollers exist.
//!
//! Man pages: select(2). Not here: hang-ups and failures, which select does not tell apart from
//! being readable and writable; edge-triggering.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{
    Capabilities, Events, Interest, Kind, Poller, Readiness, Token, Trigger, check,
    check_not_empty, unknown,
};
use crate::sys::select::{DescriptorSet, LIMIT, Sets, select};
use crate::sys::wait;

/// The poller on POSIX's select.
#[derive(Debug)]
pub(super) struct SelectPoller {
    /// What each wait asks.
    asked: Sets,
    /// The words of the known descriptors, by descriptor.
    tokens: Vec<Option<Token>>,
    /// With which descriptor the next report begins: where the last one broke off, so that those
    /// with small numbers do not always come first when the event buffer is too small for all.
    first: usize,
}

impl SelectPoller {
    /// A poller that watches nothing.
    pub(super) fn new() -> SelectPoller {
        SelectPoller {
            asked: Sets::new(),
            tokens: Vec::new(),
            first: 0,
        }
    }

    fn is_known(&self, fd: RawFd) -> bool {
        usize::try_from(fd).is_ok_and(|place| self.tokens.get(place).is_some_and(Option::is_some))
    }

    /// Sorts out the descriptors that are not open: one such makes select refuse them all, and it
    /// does not say which. Answers what is left to ask, and who was sorted out.
    fn without_closed(&self) -> (Sets, DescriptorSet) {
        let (mut asked, mut closed) = (self.asked, DescriptorSet::new());
        for fd in 0..self.tokens.len() as RawFd {
            if asked.any_contains(fd) && wait::check_open(fd).is_err() {
                log::debug!("select: descriptor {fd} was closed but not removed");
                ask(&mut asked, fd, Interest::EMPTY);
                closed.set(fd, true);
            }
        }
        (asked, closed)
    }
}

impl Poller for SelectPoller {
    fn kind(&self) -> Kind {
        Kind::Select
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            edge_triggered: false,
            descriptor_limit: Some(LIMIT),
            priority: true,
            half_close: false,
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
        if fd >= LIMIT {
            let message = format!(
                "select cannot watch descriptor {fd}: it has room for those below {LIMIT} \
                 (FD_SETSIZE); use another poller (such as RUNTIME_POLLER=poll), or keep fewer \
                 descriptors open"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        wait::check_open(fd)?;
        if self.is_known(fd) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let place = fd as usize;
        if place >= self.tokens.len() {
            self.tokens.resize(place + 1, None);
        }
        self.tokens[place] = Some(token);
        ask(&mut self.asked, fd, interest);
        log::trace!(
            "select: watch descriptor {fd} as token {} ({interest:?})",
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
        if !self.is_known(fd) {
            return Err(unknown());
        }
        self.tokens[fd as usize] = Some(token);
        ask(&mut self.asked, fd, interest);
        log::trace!(
            "select: descriptor {fd} is now token {} ({interest:?})",
            token.0
        );
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        log::trace!("select: forget descriptor {fd}");
        if self.is_known(fd) {
            ask(&mut self.asked, fd, Interest::EMPTY);
            self.tokens[fd as usize] = None;
            // Cut off the unused end, which every wait would look through.
            let used = self
                .tokens
                .iter()
                .rposition(Option::is_some)
                .map_or(0, |last| last + 1);
            self.tokens.truncate(used);
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let count = self.tokens.len();
        let mut closed = DescriptorSet::new();
        let mut found = select(count as RawFd, &self.asked, timeout);
        if let Err(error) = &found
            && error.raw_os_error() == Some(libc::EBADF)
        {
            // There is news for sure, so the others are only looked at.
            let asked;
            (asked, closed) = self.without_closed();
            found = select(count as RawFd, &asked, Some(Duration::ZERO));
        }
        let found = found?;
        for place in (0..count).map(|step| (self.first + step) % count) {
            let Some(token) = self.tokens[place] else {
                continue;
            };
            if events.is_full() {
                self.first = place;
                break;
            }
            let fd = place as RawFd;
            let readiness = Readiness::READABLE.when(found.readable.contains(fd))
                | Readiness::WRITABLE.when(found.writable.contains(fd))
                | Readiness::PRIORITY.when(found.exceptional.contains(fd))
                | (Readiness::BOTH | Readiness::ERROR).when(closed.contains(fd));
            events.push(token, readiness);
        }
        log::trace!("select: {} events", events.len());
        Ok(())
    }
}

/// Puts what is asked about one descriptor into the sets.
fn ask(sets: &mut Sets, fd: RawFd, interest: Interest) {
    let Sets {
        readable,
        writable,
        exceptional,
    } = sets;
    readable.set(fd, interest.contains(Interest::READABLE));
    writable.set(fd, interest.contains(Interest::WRITABLE));
    exceptional.set(fd, interest.contains(Interest::PRIORITY));
}
