//! L0. Memory for stacks: large lazily filled regions, guard pages, giving pages back.
//!
//! A [`Region`] is address space that costs nothing until it is touched. Guard pages are markers
//! in the page table where the kernel knows them (`MADV_GUARD_INSTALL`, Linux 6.13), because a
//! marker, unlike a page made inaccessible by `mprotect`, does not split the mapping: a million
//! guarded stacks then need a few hundred mappings, and the stock limit is 65,530. Older kernels
//! get `mprotect`. `RUNTIME_GUARD=mprotect` in the environment asks for that path on purpose, so
//! that tests reach it on a new kernel too.
//!
//! Man pages: mmap(2), madvise(2), mprotect(2), sysconf(3). Not here: which part of a region is
//! whose (see `context::slab`), and any use of files.

use std::io;
use std::ptr::{self, NonNull};
#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicU8;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::kernel;

/// madvise(2): turn pages into guard markers, which any access answers with SIGSEGV. The number
/// is the same on every Linux machine; the libc crate does not have it yet.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: i32 = 102;

/// Memory that is counted only once it is touched, where the system can say so.
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "netbsd"))]
const NO_RESERVE: i32 = libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "netbsd")))]
const NO_RESERVE: i32 = 0;

/// OpenBSD kills a process whose stack pointer leaves memory that was mapped for stacks. FreeBSD
/// has the same flag with another meaning (memory that grows by itself), so it must not get it.
#[cfg(any(target_os = "linux", target_os = "openbsd"))]
const FOR_STACKS: i32 = libc::MAP_STACK;
#[cfg(not(any(target_os = "linux", target_os = "openbsd")))]
const FOR_STACKS: i32 = 0;

/// Advice that takes pages away with their content. Elsewhere than on Linux the other constant
/// leaves the memory with us, and this one lets the system take it when it is short of any.
#[cfg(target_os = "linux")]
const FORGET: i32 = libc::MADV_DONTNEED;
#[cfg(not(target_os = "linux"))]
const FORGET: i32 = libc::MADV_FREE;

/// The size of a page: 4 KiB on x86-64, and up to 64 KiB on aarch64.
pub(crate) fn page_bytes() -> usize {
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    let known = PAGE_BYTES.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: sysconf reads nothing of ours.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_bytes = usize::try_from(answer).expect("the system must know its page size");
    PAGE_BYTES.store(page_bytes, Ordering::Relaxed);
    page_bytes
}

/// Readable and writable address space of our own, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Maps `bytes` of fresh zeros, of which none costs memory before it is touched.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the address space, its limit (`RLIMIT_AS`), the number of mappings or, under
    /// strict overcommit, the memory promised to all is used up.
    pub(crate) fn map(bytes: usize) -> io::Result<Region> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | NO_RESERVE | FOR_STACKS;
        // SAFETY: a mapping at an address of the kernel's choice overlays nothing.
        let address = unsafe { kernel::map_anonymous(ptr::null_mut(), bytes, protection, flags) }?;
        let base = ptr::with_exposed_provenance_mut::<u8>(address);
        let base = NonNull::new(base).expect("the kernel must not map the page at zero");
        let region = Region { base, bytes };
        region.refuse_huge_pages();
        Ok(region)
    }

    /// The region that was once taken apart into these two.
    ///
    /// # Safety
    ///
    /// They must come from a region that [`Region::map`] made and that was forgotten, not dropped.
    pub(crate) unsafe fn assume(base: NonNull<u8>, bytes: usize) -> Region {
        Region { base, bytes }
    }

    /// A huge page under the first touch would make every stack cost 2 MiB of memory. Since Linux
    /// 6.7 `MAP_STACK` says the same; before that it says nothing.
    fn refuse_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        {
            let base = self.base.as_ptr().cast();
            // SAFETY: the range is ours, and the advice changes no content. A kernel without
            // huge pages refuses it, which is what was wanted.
            let _ = unsafe { kernel::madvise(base, self.bytes, libc::MADV_NOHUGEPAGE) };
        }
    }

    /// The lowest address.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Makes any access to `bytes` from `offset` on fault; both are multiples of the page size.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory for page tables or, on the `mprotect` path, too many mappings.
    ///
    /// # Safety
    ///
    /// Nothing in that range may be in use, now or later.
    pub(crate) unsafe fn guard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let address = self.inside(offset, bytes);
        #[cfg(target_os = "linux")]
        if guard_method(address) == BY_MARKER {
            // SAFETY: the caller gives the range up, and it lies in this region.
            match unsafe { kernel::madvise(address.cast(), bytes, MADV_GUARD_INSTALL) } {
                Ok(_) => return Ok(()),
                // An older kernel, or memory locked by mlockall(2), which markers cannot be in.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    GUARD_METHOD.store(BY_PROTECTION, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        // SAFETY: as above.
        unsafe { kernel::mprotect(address.cast(), bytes, libc::PROT_NONE) }?;
        Ok(())
    }

    /// Gives the pages in the range back to the kernel. Their content is then arbitrary: zeros, or
    /// what it was. Guards in the range stay.
    ///
    /// # Safety
    ///
    /// The content of that range must not be needed any more.
    pub(crate) unsafe fn discard(&self, offset: usize, bytes: usize) {
        let address = self.inside(offset, bytes);
        // SAFETY: the caller gives the content up. What the kernel cannot take back (locked
        // memory) merely stays, so there is nothing to report.
        let _ = unsafe { kernel::madvise(address.cast(), bytes, FORGET) };
    }

    /// The address of a range, which must lie in the region.
    fn inside(&self, offset: usize, bytes: usize) -> *mut u8 {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "the range must lie in the region"
        );
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region is ours alone, and whoever held a part of it has let go before the
        // region is dropped (see `context::slab`).
        let result = unsafe { kernel::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(result.is_ok(), "our own mapping must be unmappable");
    }
}

/// How guards are made; decided at the first one, and again when the kernel refuses a marker.
#[cfg(target_os = "linux")]
static GUARD_METHOD: AtomicU8 = AtomicU8::new(UNDECIDED);
#[cfg(target_os = "linux")]
const UNDECIDED: u8 = 0;
#[cfg(target_os = "linux")]
const BY_MARKER: u8 = 1;
#[cfg(target_os = "linux")]
const BY_PROTECTION: u8 = 2;

#[cfg(target_os = "linux")]
fn guard_method(page: *mut u8) -> u8 {
    let known = GUARD_METHOD.load(Ordering::Relaxed);
    if known != UNDECIDED {
        return known;
    }
    let forced = std::env::var_os("RUNTIME_GUARD").is_some_and(|value| value == "mprotect");
    let method = if forced || ignores_advice(page) {
        BY_PROTECTION
    } else {
        BY_MARKER
    };
    GUARD_METHOD.store(method, Ordering::Relaxed);
    method
}

/// Whether the system says yes to any advice and does nothing, as qemu's user-mode emulation does:
/// then its yes to a guard marker would mean nothing either.
#[cfg(target_os = "linux")]
fn ignores_advice(page: *mut u8) -> bool {
    const NO_SUCH_ADVICE: i32 = i32::MAX;
    // SAFETY: the page is ours, and a kernel refuses advice that does not exist.
    unsafe { kernel::madvise(page.cast(), page_bytes(), NO_SUCH_ADVICE) }.is_ok()
}
