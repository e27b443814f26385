//! L0. Waiting: for a bounded time, through signals, on one descriptor or on a few.
//!
//! Every wait of the runtime passes through [`bounded`], the one place that recomputes what is
//! left of a timeout when a signal cuts the wait short. [`wait_one`] is how a plain OS thread,
//! which has no scheduler to park in, blocks on its descriptor.
//!
//! Man pages: ppoll(2), signal(7) for which calls `SA_RESTART` does not restart (all of these).
//! Not here: watching many descriptors for long (see `poller`), which deadline to wait for.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::clock::Moment;
use super::{kernel, retry_interrupted};

/// Which way the bytes go that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Bytes, or a connection, are to come in.
    Read,
    /// There is to be room for bytes to go out, or a connection attempt is to end.
    Write,
}

/// The longest time a kernel is asked to wait for at once. Some refuse more (macOS answers
/// `EINVAL` above 100,000,000 seconds); a longer wait is made of several.
const SLICE_MAX: Duration = Duration::from_secs(10_000_000);

/// Makes `call`, a wait, until it answers other than zero or `timeout` has really passed.
///
/// `call` is told what is left to wait (`None`: for ever) and answers how many descriptors are
/// ready. It is repeated after a signal, with what is left by then; and after a zero that came
/// early, whatever the reason, because everybody above relies on zero meaning "time is up".
/// A zero timeout is a mere question: no clock is read for it.
pub(crate) fn bounded(
    timeout: Option<Duration>,
    mut call: impl FnMut(Option<Duration>) -> io::Result<usize>,
) -> io::Result<usize> {
    let Some(timeout) = timeout else {
        return retry_interrupted(|| call(None));
    };
    if timeout.is_zero() {
        return retry_interrupted(|| call(Some(Duration::ZERO)));
    }
    // Beyond the clock's range there is no deadline, and the timeout never passes.
    let deadline = Moment::after(timeout);
    let mut left = timeout;
    loop {
        match call(Some(left.min(SLICE_MAX))) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                log::trace!("a signal interrupted the wait; waiting for the rest of the time");
            }
            answer => return answer,
        }
        let Some(deadline) = deadline else { continue };
        left = deadline.since(Moment::now());
        if left.is_zero() {
            return Ok(0);
        }
    }
}

/// `duration` as the kernel's own type; the caller keeps it below [`SLICE_MAX`].
pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: duration.subsec_nanos() as libc::c_long,
    }
}

/// Waits as ppoll(2) does, through signals: how many of `entries` have something to say.
/// Zero means that `timeout` passed.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    bounded(timeout, |left| {
        // The raw call writes what was left back into its timeout, hence the mutable place.
        let mut left = left.map(timespec);
        let left = left
            .as_mut()
            .map_or(std::ptr::null_mut(), |left| &raw mut *left);
        // SAFETY: the kernel reads and writes exactly this slice, and `left` outlives the call.
        unsafe { kernel::ppoll(entries.as_mut_ptr(), entries.len(), left) }
    })
}

/// Fails with `EBADF` unless `fd` is open: for pollers that keep their registry themselves and
/// want to refuse at once, as the kernel's registries do.
pub(crate) fn check_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: the command only reads a flag of the descriptor, whosever it is.
    unsafe { kernel::fcntl(fd, libc::F_GETFD, 0) }?;
    Ok(())
}

/// Blocks this OS thread until `fd` is ready for `direction`, or has failed, which the call that
/// is made next will tell. `false` means that `deadline` passed first.
///
/// # Errors
///
/// `EBADF` where `fd` is not open: ppoll itself only sets `POLLNVAL`, which is easily overlooked.
pub(crate) fn wait_one(
    fd: RawFd,
    direction: Direction,
    deadline: Option<Moment>,
) -> io::Result<bool> {
    let events = match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    let mut entry = [libc::pollfd {
        fd,
        events,
        revents: 0,
    }];
    let timeout = deadline.map(|deadline| deadline.since(Moment::now()));
    let ready = poll(&mut entry, timeout)? != 0;
    if entry[0].revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn waits_end_with_readiness_or_with_the_deadline() {
        // Goal: each of wait_one's answers. Method: a pipe, before and after a byte is in it.
        let (reader, mut writer) = io::pipe().unwrap();
        let past = Some(Moment::now());
        assert!(!wait_one(reader.as_raw_fd(), Direction::Read, past).unwrap());
        assert!(wait_one(writer.as_raw_fd(), Direction::Write, past).unwrap());
        writer.write_all(b"x").unwrap();
        assert!(wait_one(reader.as_raw_fd(), Direction::Read, None).unwrap());
        let number = 1_000_000;
        let error = wait_one(number, Direction::Read, None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn a_deadline_is_never_early() {
        // Goal: no wait ends before its deadline. Method: odd nanosecond counts, compared on the
        // runtime's own clock.
        let (reader, _writer) = io::pipe().unwrap();
        for nanoseconds in [1, 999, 1_001, 999_999, 1_000_001, 3_141_592] {
            let deadline = Moment::after(Duration::from_nanos(nanoseconds));
            assert!(!wait_one(reader.as_raw_fd(), Direction::Read, deadline).unwrap());
            assert!(Moment::now() >= deadline.unwrap());
        }
    }

    #[test]
    fn interruptions_and_early_zeros_use_up_the_same_time() {
        // Goal: the timeout is one, however often the wait is cut. Method: a call that fails
        // with EINTR and answers zero by turns, and notes what it was told is left.
        let told = Cell::new(Duration::MAX);
        let calls = Cell::new(0);
        let timeout = Duration::from_millis(3);
        let deadline = Moment::after(timeout).unwrap();
        let answer = bounded(Some(timeout), |left| {
            let left = left.unwrap();
            assert!(left <= told.get() && left <= timeout);
            told.set(left);
            calls.set(calls.get() + 1);
            match calls.get() % 2 {
                0 => Ok(0),
                _ => Err(io::Error::from_raw_os_error(libc::EINTR)),
            }
        });
        assert_eq!(answer.unwrap(), 0);
        assert!(Moment::now() >= deadline && calls.get() > 1);
    }

    #[test]
    fn timeouts_beyond_the_clock_never_pass() {
        // Goal: Duration::MAX neither overflows nor ends. Method: two empty answers, then a full.
        let mut answers = [0, 0, 7].into_iter();
        let answer = bounded(Some(Duration::MAX), |left| {
            assert_eq!(left, Some(SLICE_MAX));
            Ok(answers.next().unwrap())
        });
        assert_eq!(answer.unwrap(), 7);
    }
}
