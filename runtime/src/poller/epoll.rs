//! L1. The epoll poller: Linux keeps the registry, and a wait costs only what is ready.
//!
//! Each descriptor is told to the kernel once, with the caller's token as the word to report.
//! From then on the kernel appends it to a ready list whenever something happens to it, and a
//! wait takes from that list's head; what is level-triggered goes back to its tail, so that
//! nobody starves. This file therefore only translates, with one exception: a silent descriptor.
//!
//! Man pages: epoll(7), epoll_ctl(2), epoll_wait(2). Not here: `EPOLLONESHOT` (it would cost an
//! epoll_ctl per event) and `EPOLLEXCLUSIVE` (of several workers that share a listener all are
//! woken for a connection: the first to accept has it, and the others find nothing).

use std::collections::HashSet;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{
    Capabilities, Events, Interest, Kind, Poller, Readiness, Token, Trigger, check, check_not_empty,
};
use crate::sys::epoll::Epoll;

/// The poller on Linux's epoll.
#[derive(Debug)]
pub(super) struct EpollPoller {
    epoll: Epoll,
    /// What the kernel fills; kept because zeroing it for each wait would cost more than the wait.
    batch: Vec<libc::epoll_event>,
    /// Descriptors whose interest is empty. epoll reports hang-ups and failures even of those
    /// that ask for nothing, so to keep them silent they are taken out of the kernel's registry.
    silent: HashSet<RawFd>,
}

impl EpollPoller {
    /// A poller that watches nothing.
    pub(super) fn new() -> io::Result<EpollPoller> {
        let batch = vec![libc::epoll_event { events: 0, u64: 0 }; Events::CAPACITY_DEFAULT];
        Ok(EpollPoller {
            epoll: Epoll::new()?,
            batch,
            silent: HashSet::new(),
        })
    }
}

impl Poller for EpollPoller {
    fn kind(&self) -> Kind {
        Kind::Epoll
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            edge_triggered: true,
            descriptor_limit: None,
            priority: true,
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
        if self.silent.contains(&fd) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.epoll
            .control(libc::EPOLL_CTL_ADD, fd, flags(interest, trigger), token.0)?;
        log::trace!(
            "epoll: watch descriptor {fd} as token {} ({interest:?}, {trigger:?})",
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
        let flags = flags(interest, trigger);
        match (self.silent.contains(&fd), interest.is_empty()) {
            (false, false) => self
                .epoll
                .control(libc::EPOLL_CTL_MOD, fd, flags, token.0)?,
            (false, true) => {
                self.epoll.control(libc::EPOLL_CTL_DEL, fd, 0, 0)?;
                self.silent.insert(fd);
            }
            (true, false) => {
                self.epoll
                    .control(libc::EPOLL_CTL_ADD, fd, flags, token.0)?;
                self.silent.remove(&fd);
            }
            (true, true) => {}
        }
        log::trace!(
            "epoll: descriptor {fd} is now token {} ({interest:?}, {trigger:?})",
            token.0
        );
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        log::trace!("epoll: forget descriptor {fd}");
        if self.silent.remove(&fd) {
            return Ok(());
        }
        match self.epoll.control(libc::EPOLL_CTL_DEL, fd, 0, 0) {
            // Closing a descriptor has removed it; its number may by now be another file's, one
            // that is not watched (ENOENT) or even cannot be (EPERM).
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBADF | libc::ENOENT | libc::EPERM)
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let count_max = self.batch.len().min(events.capacity());
        let count = self.epoll.wait(&mut self.batch[..count_max], timeout)?;
        log::trace!("epoll: {count} events");
        for event in &self.batch[..count] {
            events.push(Token(event.u64), readiness(event.events));
        }
        Ok(())
    }
}

/// What to ask the kernel for.
fn flags(interest: Interest, trigger: Trigger) -> u32 {
    let mut flags = 0;
    if interest.contains(Interest::READABLE) {
        // The peer's half-close is news for readers only: to a level-triggered writer it would be
        // reported in every wait for as long as the connection lasts.
        flags |= libc::EPOLLIN | libc::EPOLLRDHUP;
    }
    if interest.contains(Interest::WRITABLE) {
        flags |= libc::EPOLLOUT;
    }
    if interest.contains(Interest::PRIORITY) {
        flags |= libc::EPOLLPRI;
    }
    if trigger == Trigger::Edge {
        flags |= libc::EPOLLET;
    }
    flags as u32
}

/// What the kernel's answer means.
#[inline]
fn readiness(flags: u32) -> Readiness {
    let has = |flag: i32| flags & flag as u32 != 0;
    Readiness::READABLE.when(has(libc::EPOLLIN | libc::EPOLLRDHUP))
        | Readiness::WRITABLE.when(has(libc::EPOLLOUT))
        | Readiness::CLOSED.when(has(libc::EPOLLRDHUP | libc::EPOLLHUP))
        | Readiness::ERROR.when(has(libc::EPOLLERR))
        | Readiness::BOTH.when(has(libc::EPOLLHUP | libc::EPOLLERR))
        | Readiness::PRIORITY.when(has(libc::EPOLLPRI))
}
