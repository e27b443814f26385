//! Which kind of guard pages stacks have here, and how many stacks therefore fit into a process.
//!
//! Man pages: madvise(2). Not here: how the runtime decides (`sys::memory`).

/// Whether guards are marks in the page table and cost no mapping (Linux 6.13), by trying one on
/// pages of its own. An emulator takes any advice and follows none.
pub fn are_markers() -> bool {
    #[cfg(target_os = "linux")]
    {
        const MADV_GUARD_INSTALL: i32 = 102;
        const BYTES: usize = 65_536;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let pages = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
        assert!(pages != libc::MAP_FAILED, "64 KiB must be there");
        // SAFETY: the pages are ours, and nobody uses them.
        let taken = unsafe { libc::madvise(pages, BYTES, MADV_GUARD_INSTALL) } == 0;
        // SAFETY: as above; this is their end.
        unsafe { libc::munmap(pages, BYTES) };
        taken && std::env::var_os("TESTS_RUNNER").is_none()
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// `wanted`, or as many stacks as fit where each guard is a mapping; says so if that is less.
pub fn stacks_that_fit(wanted: usize) -> usize {
    const MAPPINGS_SAFE: usize = 10_000;
    if wanted <= MAPPINGS_SAFE || are_markers() {
        return wanted;
    }
    eprintln!("only {MAPPINGS_SAFE} of {wanted} stacks: each guard costs a mapping here");
    MAPPINGS_SAFE
}
