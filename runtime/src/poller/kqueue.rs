//! L1. The kqueue poller: the BSDs and macOS keep the registry, as Linux does for epoll.
//!
//! Where epoll has one registration for a descriptor with a mask of what to watch, kqueue has one
//! for each thing to watch, called a filter; adding one that exists silently changes it. This
//! file therefore remembers which filters each descriptor has, and with that also gives the
//! contract's answers to additions of known descriptors and changes of unknown ones.
//!
//! Man pages: kqueue(2). Not here: one call for all changes of a round (kevent takes a list;
//! descriptors are registered once in their lives, so it would save little and blur refusals).

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{
    Capabilities, Events, Interest, Kind, Poller, Readiness, Token, Trigger, check,
    check_not_empty, unknown,
};
use crate::sys::kqueue::{Batch, Filter, HAS_EXCEPTIONAL, Kqueue, Notice};

/// The filter for each interest.
const FILTERS: [(Interest, Filter); 3] = [
    (Interest::READABLE, Filter::Read),
    (Interest::WRITABLE, Filter::Write),
    (Interest::PRIORITY, Filter::Exceptional),
];

/// What is known about a descriptor.
#[derive(Clone, Copy, Debug)]
struct Known {
    token: Token,
    interest: Interest,
    trigger: Trigger,
}

/// The poller on the BSDs' kqueue.
#[derive(Debug)]
pub(super) struct KqueuePoller {
    kqueue: Kqueue,
    /// What the kernel fills.
    batch: Batch,
    /// The known descriptors, by descriptor. Notices name the descriptor, and their token is
    /// looked up here: kqueue's own word for the user is too narrow for it on 32-bit systems.
    known: Vec<Option<Known>>,
}

impl KqueuePoller {
    /// A poller that watches nothing.
    pub(super) fn new() -> io::Result<KqueuePoller> {
        let batch = Batch::new(Events::CAPACITY_DEFAULT);
        Ok(KqueuePoller {
            kqueue: Kqueue::new()?,
            batch,
            known: Vec::new(),
        })
    }

    fn known(&self, fd: RawFd) -> Option<Known> {
        *self.known.get(usize::try_from(fd).ok()?)?
    }

    /// Adds the filters for all of `interest`, or none of them.
    fn add_filters(&self, fd: RawFd, interest: Interest, trigger: Trigger) -> io::Result<()> {
        for (part, filter) in FILTERS {
            if !interest.contains(part) {
                continue;
            }
            if let Err(error) = self.kqueue.add(fd, filter, trigger == Trigger::Edge) {
                self.delete_filters(fd, interest);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the filters for `interest`. The kernel's refusals do not matter: a filter that is
    /// not there (`ENOENT`, or `EBADF` after a close) is what is wanted.
    fn delete_filters(&self, fd: RawFd, interest: Interest) {
        for (part, filter) in FILTERS {
            if interest.contains(part)
                && let Err(error) = self.kqueue.delete(fd, filter)
            {
                log::trace!("kqueue: {filter:?} of descriptor {fd} is gone already: {error}");
            }
        }
    }
}

impl Poller for KqueuePoller {
    fn kind(&self) -> Kind {
        Kind::Kqueue
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            edge_triggered: true,
            descriptor_limit: None,
            priority: HAS_EXCEPTIONAL,
            half_close: true,
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
        if self.known(fd).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.add_filters(fd, interest, trigger)?;
        let slot = fd as usize; // The kernel has refused negative numbers (EBADF).
        if slot >= self.known.len() {
            self.known.resize(slot + 1, None);
        }
        self.known[slot] = Some(Known {
            token,
            interest,
            trigger,
        });
        log::trace!(
            "kqueue: watch descriptor {fd} as token {} ({interest:?}, {trigger:?})",
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
        let before = self.known(fd).ok_or_else(unknown)?;
        // A filter that exists keeps its trigger when it is added again, so it is deleted first;
        // a new one also looks at once whether there is something to report.
        self.delete_filters(fd, before.interest);
        if let Err(error) = self.add_filters(fd, interest, trigger) {
            if let Err(again) = self.add_filters(fd, before.interest, before.trigger) {
                log::warn!("kqueue: descriptor {fd} could not be restored: {again}");
            }
            return Err(error);
        }
        self.known[fd as usize] = Some(Known {
            token,
            interest,
            trigger,
        });
        log::trace!(
            "kqueue: descriptor {fd} is now token {} ({interest:?}, {trigger:?})",
            token.0
        );
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        log::trace!("kqueue: forget descriptor {fd}");
        if let Some(known) = self.known(fd) {
            self.delete_filters(fd, known.interest);
            self.known[fd as usize] = None;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let count = self
            .kqueue
            .wait(&mut self.batch, events.capacity(), timeout)?;
        log::trace!("kqueue: {count} notices");
        for notice in self.batch.notices(count) {
            if let Some(known) = self.known(notice.fd) {
                events.push(known.token, readiness(notice));
            }
        }
        Ok(())
    }
}

/// What the kernel's notice means. The end of a writing filter is no more than "writing answers at
/// once": this side may have shut it down itself, and the peer may well go on sending.
fn readiness(notice: Notice) -> Readiness {
    let base = match notice.filter {
        Filter::Read => Readiness::READABLE | Readiness::CLOSED.when(notice.end),
        Filter::Write => Readiness::WRITABLE,
        Filter::Exceptional => Readiness::PRIORITY,
    };
    base | (Readiness::BOTH | Readiness::ERROR).when(notice.error != 0)
}
