//! L3. The driver: carries out I/O operations for whoever calls.
//!
//! This one is a *readiness* driver. It makes the call; if the kernel would have to wait, the
//! green thread parks until the poller reports the descriptor, and the call is made again.
//! A plain OS thread, and a green thread that unwinds from a panic, block in ppoll(2) instead.
//!
//! What makes it fast: a descriptor is registered once, edge-triggered where the poller can, when
//! it first has to wait; and readiness is remembered. A call that took less than it could have
//! has drained the socket, so the next one parks without asking the kernel in vain. An echo thus
//! costs two system calls a message.
//!
//! Man pages: epoll(7) ("edge-triggered", and why a short read ends the reading), poll(2).
//! Deliberately not here: what the calls are (`net` passes them in), closing.

mod registry;
mod source;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(crate) use registry::Registry;
pub(crate) use source::Source;

use super::inbox::{Inbox, Message};
use super::worker::Worker;
use crate::selector::Key;
use crate::sys::clock::Moment;
pub(crate) use crate::sys::wait::Direction;
use crate::sys::wait::wait_one;
use source::Home;

/// The worker of the calling green thread, unless it unwinds and must not be switched away.
fn worker_for_waiting<'a>() -> Option<&'a Worker> {
    Worker::current().filter(|_| !std::thread::panicking())
}

/// Makes a non-blocking call until it does something else than `WouldBlock`, waiting in between.
///
/// `drained` tells of a result that the call took or filled all there was, so that the next one
/// need not be tried before the descriptor is reported again.
///
/// # Errors
///
/// What the call reports, `TimedOut` when `deadline` passes first, and what registering the
/// descriptor reports, for instance when `select` cannot watch so large a number.
#[inline]
pub(crate) fn perform<T>(
    fd: BorrowedFd<'_>,
    source: &Source,
    direction: Direction,
    deadline: Option<Moment>,
    drained: impl Fn(&T) -> bool,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let Some(worker) = worker_for_waiting() else {
        return perform_alone(fd, direction, deadline, call);
    };
    worker.count_operation();
    let key = match source.home(worker, direction) {
        Home::Here(key, true) => key,
        Home::Here(key, false) => {
            worker.registry.wait(worker, key, direction, deadline)?;
            key
        }
        Home::Nowhere => match attempt(&mut call)? {
            Some(value) => return Ok(value),
            None => {
                let Some(key) = source.settle(worker, fd, direction)? else {
                    return perform_as_guest(worker, fd, direction, deadline, call);
                };
                worker.registry.wait(worker, key, direction, deadline)?;
                key
            }
        },
        Home::Elsewhere => return perform_as_guest(worker, fd, direction, deadline, call),
    };
    loop {
        match attempt(&mut call)? {
            Some(value) => {
                if drained(&value) {
                    worker.registry.note_drained(key, direction);
                }
                return Ok(value);
            }
            None => {
                worker.registry.note_refused(key, direction);
                worker.registry.wait(worker, key, direction, deadline)?;
            }
        }
    }
}

/// Makes the call; `None` means that it would block.
#[inline]
fn attempt<T>(call: &mut impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    match crate::sys::retry_interrupted(&mut *call) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`perform`] for those who cannot be switched away: the OS thread waits.
#[cold]
fn perform_alone<T>(
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<Moment>,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        if let Some(value) = attempt(&mut call)? {
            return Ok(value);
        }
        if !wait_one(fd.as_raw_fd(), direction, deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// [`perform`] on a socket that another worker has registered: it is registered here only while
/// the call lasts. Correct but slower; sockets that are used by one worker never come here.
#[cold]
fn perform_as_guest<T>(
    worker: &Worker,
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<Moment>,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    if let Some(value) = attempt(&mut call)? {
        return Ok(value);
    }
    let visit = worker.registry.visit(worker, fd, direction)?;
    loop {
        if let Some(value) = attempt(&mut call)? {
            return Ok(value);
        }
        worker.registry.note_refused(visit.key(), direction);
        worker
            .registry
            .wait(worker, visit.key(), direction, deadline)?;
    }
}

/// Waits until a descriptor is ready; `false` when the deadline passes first.
///
/// # Errors
///
/// What registering it reports.
pub(crate) fn wait_ready(
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Option<Moment>,
) -> io::Result<bool> {
    let Some(worker) = worker_for_waiting() else {
        return wait_one(fd.as_raw_fd(), direction, deadline);
    };
    if wait_one(fd.as_raw_fd(), direction, Some(Moment(0)))? {
        return Ok(true);
    }
    let visit = worker.registry.visit(worker, fd, direction)?;
    worker.registry.note_refused(visit.key(), direction);
    // Whoever unparks the green thread for another reason ends a wait, too.
    while worker.registry.is_ready(visit.key(), direction) == Some(false) {
        let waited = worker
            .registry
            .wait(worker, visit.key(), direction, deadline);
        match waited {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// To be called before a descriptor is closed: whoever still waits for it is woken with an error,
/// and no event of it reaches a successor of the same number.
pub(crate) fn forget(source: &Source) {
    let Some((number, key)) = source.unsettle() else {
        return;
    };
    match Worker::of_this_thread() {
        Some(worker) if worker.inbox.number() == number => worker.registry.forget(worker, key),
        _ => forget_elsewhere(number, key),
    }
}

#[cold]
fn forget_elsewhere(number: u32, key: Key) {
    if let Some(inbox) = Inbox::of_worker(number) {
        let worker = number;
        inbox.send_or_drop(Message::Forget { worker, key });
    }
}
