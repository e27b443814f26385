//! What the kernel calls io_uring: its structures and numbers by hand, its two system calls, and
//! what to tell a user for whom it is not to be had.
//!
//! Only what the ring uses is here; the names are ours, and each says which of the kernel's it is.
//!
//! Man pages: io_uring_setup(2), io_uring_enter(2); `linux/io_uring.h`. Deliberately not here: how
//! the structures are used (see `ring`), `io_uring_register`.

use super::mapping::Entry;
use log::debug;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// `IORING_OP_*`: what to do.
pub(super) const OP_POLL_ADD: u8 = 6;
pub(super) const OP_ACCEPT: u8 = 13;
pub(super) const OP_ASYNC_CANCEL: u8 = 14;
pub(super) const OP_SEND: u8 = 26;
pub(super) const OP_RECV: u8 = 27;

/// `IORING_OFF_*`: which part of the ring to map.
pub(super) const OFFSET_RINGS: libc::off_t = 0;
pub(super) const OFFSET_ENTRIES: libc::off_t = 0x1000_0000;

/// `IORING_SETUP_CQSIZE`: we say how many completions have room.
const SETUP_COMPLETIONS: u32 = 1 << 3;
/// `IORING_SETUP_CLAMP`: fewer will do, if it cannot be so many.
const SETUP_CLAMP: u32 = 1 << 4;
/// `IORING_SETUP_COOP_TASKRUN`, Linux 5.19: nobody is interrupted in order to complete something.
const SETUP_COOPERATIVE: u32 = 1 << 8;
/// `IORING_SETUP_SINGLE_ISSUER`, Linux 6.0: one thread uses the ring, so the kernel need not lock.
const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
/// `IORING_SETUP_DEFER_TASKRUN`, Linux 6.1: what is left to do for a completion is done when we
/// wait, all at once.
const SETUP_DEFERRED: u32 = 1 << 13;

/// The best first. A kernel refuses what it does not know.
const SETUPS: [u32; 3] = [
    SETUP_COOPERATIVE | SETUP_SINGLE_ISSUER | SETUP_DEFERRED,
    SETUP_COOPERATIVE,
    0,
];

/// `IORING_FEAT_SINGLE_MMAP`, `_NODROP` and `_EXT_ARG`: both rings in one mapping, no completion is
/// ever lost, and a wait can have a time-out. Linux 5.11 was the first to have all three.
const FEATURES_NEEDED: u32 = 1 | 1 << 1 | 1 << 8;

/// `IORING_ENTER_GETEVENTS`, `_EXT_ARG`.
const ENTER_WAIT: u32 = 1;
const ENTER_ARGUMENT: u32 = 1 << 3;

/// `struct io_uring_sqe`: an operation.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct SubmissionEntry {
    pub(super) operation: u8,
    pub(super) flags: u8,
    pub(super) priority: u16,
    pub(super) fd: i32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) count: u32,
    pub(super) operation_flags: u32,
    /// Comes back with the completion. The kernel calls it `user_data`.
    pub(super) name: u64,
    pub(super) unused: [u64; 3],
}

// SAFETY: numbers, each at a multiple of its size, and 64 bytes of them, as is asserted below.
unsafe impl Entry for SubmissionEntry {}

/// `struct io_uring_cqe`: what has become of an operation.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct CompletionEntry {
    pub(super) name: u64,
    /// What the system call of the same name would return, or the number of the error, negated.
    pub(super) result: i32,
    _flags: u32,
}

// SAFETY: numbers, each at a multiple of its size, and 16 bytes of them, as is asserted below.
unsafe impl Entry for CompletionEntry {}

/// `struct io_uring_params`: what is asked of a ring, and then how it lies in memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Parameters {
    pub(super) submissions: u32,
    pub(super) completions: u32,
    flags: u32,
    thread_processor: u32,
    thread_idle: u32,
    features: u32,
    thread_of: u32,
    unused: [u32; 3],
    pub(super) submission: SubmissionOffsets,
    pub(super) completion: CompletionOffsets,
}

/// `struct io_sqring_offsets`: where in the mapping the parts of the submission ring are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct SubmissionOffsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    mask: u32,
    length: u32,
    flags: u32,
    dropped: u32,
    pub(super) array: u32,
    unused: u32,
    address: u64,
}

/// `struct io_cqring_offsets`: the same of the completion ring.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct CompletionOffsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    mask: u32,
    length: u32,
    overflow: u32,
    pub(super) entries: u32,
    flags: u32,
    unused: u32,
    address: u64,
}

/// `struct __kernel_timespec`: the same on machines of 32 bits.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_getevents_arg`: how to wait.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct WaitArgument {
    signal_mask: u64,
    signal_mask_bytes: u32,
    unused: u32,
    timeout: u64,
}

// The kernel checks none of this.
const _: () = assert!(size_of::<SubmissionEntry>() == 64);
const _: () = assert!(size_of::<CompletionEntry>() == 16);
const _: () = assert!(size_of::<Parameters>() == 120);
const _: () = assert!(size_of::<WaitArgument>() == 24);

impl Parameters {
    /// The size of the mapping that holds both rings.
    pub(super) fn rings_bytes(&self) -> usize {
        let submission = self.submission.array as usize + 4 * self.submissions as usize;
        let completion = self.completion.entries as usize
            + size_of::<CompletionEntry>() * self.completions as usize;
        submission.max(completion)
    }

    /// The size of the mapping that holds the submission entries.
    pub(super) fn entries_bytes(&self) -> usize {
        size_of::<SubmissionEntry>() * self.submissions as usize
    }
}

impl From<Duration> for Timespec {
    fn from(duration: Duration) -> Timespec {
        Timespec {
            // More than the kernel can count is as good as for ever.
            seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(duration.subsec_nanos()),
        }
    }
}

/// The events of poll(2) as io_uring wants them: with their halves exchanged where the first byte
/// is the highest.
pub(super) fn poll_mask(events: libc::c_short) -> u32 {
    let mask = u32::from(events as u16);
    if cfg!(target_endian = "big") {
        mask.rotate_left(16)
    } else {
        mask
    }
}

/// Makes a ring, with the best way of working that the kernel knows.
///
/// # Errors
///
/// The message tells why there is none, and what can be done about it.
pub(super) fn setup(submissions: u32, completions: u32) -> io::Result<(OwnedFd, Parameters)> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in SETUPS {
        let mut parameters = Parameters {
            completions,
            flags: flags | SETUP_COMPLETIONS | SETUP_CLAMP,
            ..Parameters::default()
        };
        // SAFETY: the kernel reads and writes `parameters`, which has the size and the layout that
        // it expects, and nothing else.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_setup, submissions, &raw mut parameters) };
        if result >= 0 {
            // SAFETY: the descriptor is new, so nobody else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(result as RawFd) };
            debug!(
                "a ring of {} submissions and {} completions, with flags {flags:#x}",
                parameters.submissions, parameters.completions
            );
            return match parameters.features & FEATURES_NEEDED {
                FEATURES_NEEDED => Ok((fd, parameters)),
                _ => Err(explain(&io::Error::from_raw_os_error(libc::ENOSYS))),
            };
        }
        refused = io::Error::last_os_error();
        if refused.raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(explain(&refused))
}

/// Hands over `count` submissions and waits until there are `wanted` completions or the time is
/// over.
///
/// # Errors
///
/// What io_uring_enter(2) lists. Submissions that were not taken remain in the ring.
pub(super) fn enter(
    ring: BorrowedFd<'_>,
    count: u32,
    wanted: u32,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let time = timeout.map(Timespec::from);
    let argument = WaitArgument {
        signal_mask: 0,
        signal_mask_bytes: 0,
        unused: 0,
        timeout: time.as_ref().map_or(0, |time| &raw const *time as u64),
    };
    // SAFETY: the kernel reads `argument` and the time it points to during the call only. What it
    // does to the memory of operations is between them and the `Ring`, which owns it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            count,
            wanted,
            ENTER_WAIT | ENTER_ARGUMENT,
            &raw const argument,
            size_of::<WaitArgument>(),
        )
    };
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Says in words why there is no ring. The error alone would not tell a sandbox that
/// forbids the call from an administrator who has turned it off.
pub(super) fn explain(error: &io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "this system forbids it. `sysctl kernel.io_uring_disabled` must print 0 (with 1 only \
             privileged processes may use it, with 2 nobody may). In a container it is as a rule \
             the seccomp profile that forbids it: with docker or podman, \
             `--security-opt seccomp=unconfined` or a profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register"
        }
        Some(libc::ENOSYS) => {
            "this kernel has none, or one that is too old, or a sandbox hides it. Linux 5.11 or \
             newer is needed (`uname -r`)"
        }
        Some(libc::ENOMEM) => {
            "there is no memory for it. Before Linux 5.12 a ring counts as locked memory: \
             `ulimit -l` tells how many KiB of that a process may have"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "there is no descriptor left. `ulimit -n` tells how many a process may have"
        }
        _ => "the kernel does not say why",
    };
    let message = format!(
        "cannot use io_uring ({error}): {remedy}. Every other --model works without it; `epoll` \
         resembles it most"
    );
    io::Error::new(error.kind(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_remedy() {
        // Goal: whoever is refused knows what to do. Method: one error of each sort, and the word
        // without which its message would be of no help.
        for (code, word) in [
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::EPERM, "seccomp"),
            (libc::ENOSYS, "5.11"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EMFILE, "ulimit -n"),
            (libc::EINVAL, "--model"),
        ] {
            let message = explain(&io::Error::from_raw_os_error(code)).to_string();
            assert!(message.contains(word), "{word:?} is not in {message}");
        }
    }
}
