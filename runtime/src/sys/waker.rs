//! L0. The waker: makes a descriptor readable, so that a poller in its wait returns.
//!
//! On Linux it is an eventfd, a counter behind a descriptor: one word of kernel memory, one
//! descriptor, and one read empties it however often it was written. Elsewhere it is a pipe that
//! blocks neither side. Both remember a wake-up that comes before the wait: that is the point.
//!
//! Man pages: eventfd(2), pipe(2), signal-safety(7). Not here: when a wake-up may be saved because
//! nobody sleeps (the scheduler and the reactor each know that of themselves).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;

use super::{kernel, retry_interrupted};

/// Wakes whoever watches [`AsRawFd::as_raw_fd`] for reading.
///
/// Any thread may wake, and so may a signal handler: `wake` is a single write.
#[derive(Debug)]
pub(crate) struct Waker {
    /// What is watched and drained; with an eventfd also what is written.
    watched: OwnedFd,
    /// The pipe's other end, where there is no eventfd.
    written: Option<OwnedFd>,
}

impl Waker {
    /// A waker that nobody has woken yet.
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Waker> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { kernel::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let watched = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Waker {
            watched,
            written: None,
        })
    }

    /// A waker that nobody has woken yet.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Waker> {
        Waker::on_a_pipe()
    }

    /// The portable waker. std's pipes close on exec already; both ends also must not block,
    /// neither a writer that finds the pipe full nor a reader that finds it drained.
    #[cfg(any(test, not(target_os = "linux")))]
    fn on_a_pipe() -> io::Result<Waker> {
        let (reader, writer) = io::pipe()?;
        for end in [reader.as_raw_fd(), writer.as_raw_fd()] {
            // SAFETY: the command reads the flags of a descriptor that is ours.
            let flags = unsafe { kernel::fcntl(end, libc::F_GETFL, 0) }?;
            // SAFETY: the command sets flags of a pipe that nobody else has seen.
            unsafe { kernel::fcntl(end, libc::F_SETFL, flags as i32 | libc::O_NONBLOCK) }?;
        }
        Ok(Waker {
            watched: reader.into(),
            written: Some(writer.into()),
        })
    }

    /// Makes the watched descriptor readable. Many wake-ups before a drain count as one.
    pub(crate) fn wake(&self) {
        // An eventfd wants exactly eight bytes, which it adds to its counter; a pipe takes any.
        let one = 1u64.to_ne_bytes();
        let fd = self.written.as_ref().unwrap_or(&self.watched).as_raw_fd();
        let result = retry_interrupted(|| {
            // SAFETY: the kernel reads the eight bytes of `one`.
            unsafe { kernel::write(fd, one.as_ptr().cast(), one.len()) }
        });
        // A full pipe (or counter) is readable as it is.
        let woken = result.is_ok() || would_block(&result);
        assert!(woken, "a waker's descriptor must stay writable: {result:?}");
    }

    /// Takes all wake-ups back, so that the descriptor is readable only after the next one.
    ///
    /// Drain first and look for work afterwards: in the other order a wake-up that comes between
    /// the two is lost together with its work.
    pub(crate) fn drain(&self) {
        let mut words = [0u8; 512];
        loop {
            let result = retry_interrupted(|| {
                // SAFETY: the kernel writes at most the length of `words`.
                unsafe {
                    kernel::read(
                        self.watched.as_raw_fd(),
                        words.as_mut_ptr().cast(),
                        words.len(),
                    )
                }
            });
            // One read empties an eventfd, and a short one has emptied the pipe.
            match result {
                Ok(length) if length == words.len() => continue,
                Ok(_) => return,
                Err(_) if would_block(&result) => return,
                Err(error) => panic!("a waker's descriptor must stay readable: {error}"),
            }
        }
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.watched.as_raw_fd()
    }
}

/// Whether `result` says "nothing can be done without blocking".
fn would_block(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Moment;
    use crate::sys::wait::{Direction, wait_one};

    fn readable(waker: &Waker) -> bool {
        wait_one(waker.as_raw_fd(), Direction::Read, Some(Moment::now())).unwrap()
    }

    #[test]
    fn wake_ups_are_remembered_merged_and_drained() {
        // Goal: the life of both kinds of waker. Method: more wake-ups than a pipe has room for.
        for waker in [Waker::new().unwrap(), Waker::on_a_pipe().unwrap()] {
            assert!(!readable(&waker));
            waker.drain();
            waker.wake();
            assert!(readable(&waker) && readable(&waker));
            waker.drain();
            assert!(!readable(&waker));
            for _ in 0..100_000 {
                waker.wake();
            }
            assert!(readable(&waker));
            waker.drain();
            assert!(!readable(&waker));
        }
    }

    #[test]
    fn another_thread_ends_the_wait() {
        // Goal: a wake-up from elsewhere is seen. Method: wait without a deadline.
        for waker in [Waker::new().unwrap(), Waker::on_a_pipe().unwrap()] {
            std::thread::scope(|scope| {
                scope.spawn(|| waker.wake());
                assert!(wait_one(waker.as_raw_fd(), Direction::Read, None).unwrap());
            });
        }
    }
}
