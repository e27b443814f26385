//! Memory that is shared with the kernel: the rings, and how they are read and written.
//!
//! The kernel reads and writes this memory, too, even while we look. So there are never references
//! to it, but to its counters, which are atomic on both sides; entries are copied in and out. Every
//! access is checked against the size of the mapping: offsets come from the kernel, and a mistake
//! of ours in them would otherwise be silent.
//!
//! Man pages: mmap(2), io_uring_setup(2). Deliberately not here: what lies where (see `kernel`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

/// A part of an io_uring, mapped as long as this lives.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes` of the ring from `offset` on.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, if address space is limited (`RLIMIT_AS`).
    pub(super) fn new(
        ring: BorrowedFd<'_>,
        bytes: usize,
        offset: libc::off_t,
    ) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // All pages are needed, so they may as well be there from the start.
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let fd = ring.as_raw_fd();
        // SAFETY: a mapping at an address of the kernel's choice overlays nothing.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast()).expect("the kernel must not map the page at zero");
        Ok(Mapping { base, bytes })
    }

    /// The counter at `offset`.
    pub(super) fn counter(&self, offset: usize) -> &AtomicU32 {
        let counter = self.place::<u32>(offset);
        // SAFETY: `place` has checked size and alignment, the mapping lives as long as `self`, and
        // whoever else uses a counter, here or in the kernel, does so atomically.
        unsafe { AtomicU32::from_ptr(counter.as_ptr()) }
    }

    /// A copy of the entry at `offset`. It is the caller's turn with it: the other side has moved
    /// its counter past it.
    pub(super) fn read<T: Entry>(&self, offset: usize) -> T {
        // SAFETY: `place` has checked size and alignment, and an `Entry` may be any bytes. The
        // kernel does not write to it before our own counter has moved.
        unsafe { self.place::<T>(offset).read() }
    }

    /// Overwrites the entry at `offset`. It is the caller's turn with it.
    pub(super) fn write<T: Entry>(&mut self, offset: usize, entry: T) {
        // SAFETY: `place` has checked size and alignment. The kernel does not read it before our
        // own counter has moved.
        unsafe { self.place::<T>(offset).write(entry) }
    }

    fn place<T>(&self, offset: usize) -> NonNull<T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.bytes) && offset.is_multiple_of(align_of::<T>()),
            "the ring must have something at {offset}"
        );
        // SAFETY: `offset` lies within the mapping, as has just been checked.
        unsafe { self.base.byte_add(offset) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing can refer to it any more: references to its
        // counters borrow it.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "a mapping of our own can be unmapped");
    }
}

/// What consists of plain numbers without gaps, so that any bytes are one.
///
/// # Safety
///
/// That must be so.
pub(super) unsafe trait Entry: Copy {}
