//! L1. Stacks, and the pools that hand them out.
//!
//! One slot of a slab (see `slab`), from the highest address down:
//!
//! ```text
//!   slot's end ─▶ ├────────────────────────────┤
//!                 │ label, 64 bytes            │  who runs here, for the overflow handler
//!                 │ colour, 0 to 1920 bytes    │  unused, differs from slot to slot
//!   top()      ─▶ ├────────────────────────────┤  a multiple of 16
//!                 │ frames grow down           │
//!                 │   ▼                        │  pages are filled at their first touch
//!                 │                            │
//!   bottom()   ─▶ ├────────────────────────────┤
//!                 │ guard page                 │  an access is an overflow: SIGSEGV
//!   slot's base ─▶└────────────────────────────┘
//! ```
//!
//! The colour: slots lie a power of two apart, so without it the hottest words of all stacks would
//! share a handful of sets of the first-level cache, which finds a line by its address within the
//! page. It stays within half a page: a context that parks in the remaining 2,112 bytes costs one
//! page, and with its share of the page table (a 4 KiB table for each 2 MiB) 4,352 bytes in all.
//!
//! A pool belongs to one OS thread. It hands out the stack that came back last, whose pages are
//! the warmest, without a system call; only a slot's first use costs one, for its guard.
//!
//! Man pages: mmap(2), madvise(2). Not here: what runs on a stack.

use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::panic::Location;
use std::ptr;

use super::overflow;
use super::slab::{Slab, Slot};
use crate::sys::memory::page_bytes;

/// A stack's slot unless something else is asked for; address space, not memory.
pub(crate) const DEFAULT_SLOT_BYTES: usize = 128 * 1024;

/// The smallest slot in pages: the guard, the page with the label, and some for calls.
const SLOT_PAGES_MIN: usize = 4;

/// The first slab of a pool and the largest one. Each is twice its predecessor: a program with one
/// coroutine maps little, and one with a million maps some 250 times.
const SLAB_BYTES_FIRST: usize = 32 << 20;
const SLAB_BYTES_MAX: usize = 512 << 20;

/// Neighbouring slots get different colours, of which each is two cache lines from the next.
const COLOURS: usize = 16;
const COLOUR_BYTES: usize = 128;

/// What is kept at a slot's end for the label.
const LABEL_BYTES: usize = 64;
const _: () = assert!(size_of::<Label>() <= LABEL_BYTES);

/// Who runs on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nobody yet. Zero, as fresh memory is.
    Nobody = 0,
    Coroutine = 1,
    GreenThread = 2,
}

/// What the overflow handler tells of a stack's user. It lies at the slot's very end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) kind: Kind,
    /// A green thread's number, for those without a name; otherwise zero.
    pub(crate) id: u64,
    /// The name, valid for as long as the label is set; null for none.
    pub(crate) name: *const str,
    /// Where it was spawned or created.
    pub(crate) spawned: Option<&'static Location<'static>>,
}

impl Label {
    const NOBODY: Label = Label {
        kind: Kind::Nobody,
        id: 0,
        name: Label::UNNAMED,
        spawned: None,
    };

    /// The name of those without one.
    pub(crate) const UNNAMED: *const str = ptr::slice_from_raw_parts(ptr::null::<u8>(), 0) as _;

    /// The label of a slot.
    pub(crate) fn of(slot: Slot) -> *mut Label {
        slot.base
            .as_ptr()
            .wrapping_add(slot.bytes - LABEL_BYTES)
            .cast()
    }
}

/// A stack: one slot of a slab, until it is given back to its pool.
///
/// Dropped instead, it stays unused until its pool has gone, whose last stack unmaps the slab.
pub(crate) struct Stack {
    slab: &'static Slab,
    index: usize,
    /// A slab counts its stacks without atomics, so they stay on their OS thread.
    not_send: PhantomData<*mut ()>,
}

impl Stack {
    fn base(&self) -> *mut u8 {
        self.slab
            .base()
            .wrapping_add(self.index * self.slab.slot_bytes())
    }

    /// Where frames begin: a multiple of 16, with only the stack below it.
    #[inline]
    pub(crate) fn top(&self) -> *mut u8 {
        let colour_bytes = self.index % COLOURS * COLOUR_BYTES;
        self.base()
            .wrapping_add(self.slab.slot_bytes() - LABEL_BYTES - colour_bytes)
    }

    /// The lowest usable address; the guard lies below it.
    #[inline]
    pub(crate) fn bottom(&self) -> *mut u8 {
        self.base().wrapping_add(page_bytes())
    }

    /// The size of the slot, guard included.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slab.slot_bytes()
    }

    /// Whether the other one is in the next slot below.
    fn is_next_to(&self, below: &Stack) -> bool {
        ptr::eq(self.slab, below.slab) && self.index == below.index + 1
    }

    /// Says who runs here from now on, until the stack is given back.
    ///
    /// # Safety
    ///
    /// The name must stay valid until the stack is labelled anew or given back.
    pub(crate) unsafe fn set_label(&self, label: Label) {
        let slot = self
            .base()
            .wrapping_add(self.slab.slot_bytes() - LABEL_BYTES);
        // SAFETY: the label's place is ours as long as the stack is, mapped and aligned to 64; no
        // reference to it exists, since the handler reads it only when this thread has overflowed.
        unsafe { slot.cast::<Label>().write(label) };
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = self.bottom()..self.top();
        formatter
            .debug_struct("Stack")
            .field("bounds", &bounds)
            .finish()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.slab.release();
    }
}

/// Stacks of one size for one OS thread.
#[derive(Debug)]
pub(crate) struct StackPool {
    slot_bytes: usize,
    /// Given back, the last on top. Has room for every stack that exists, so that giving back
    /// never allocates.
    free: Vec<Stack>,
    /// Free ones whose memory has gone back to the system, the lowest address on top.
    trimmed: Vec<Stack>,
    slabs: Vec<&'static Slab>,
    /// How many slots of the newest slab have been used so far.
    used: usize,
}

impl StackPool {
    /// A pool of stacks in slots of `stack_bytes`, rounded up to a power of two. The guard page and
    /// the label are part of the slot. Nothing is mapped before the first stack is taken.
    pub(crate) fn new(stack_bytes: usize) -> StackPool {
        let slot_bytes = slot_bytes(stack_bytes);
        StackPool {
            slot_bytes,
            free: Vec::new(),
            trimmed: Vec::new(),
            slabs: Vec::new(),
            used: 0,
        }
    }

    /// A stack that nobody uses. Its content is arbitrary, its label says nobody.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::OutOfMemory`] when the kernel has no room for another, with the limits that
    /// may be the reason.
    #[inline]
    pub(crate) fn take(&mut self) -> io::Result<Stack> {
        match self.free.pop() {
            Some(stack) => Ok(stack),
            None => self.take_empty(),
        }
    }

    /// A stack without memory: one that was trimmed, or a slot never used before.
    #[cold]
    fn take_empty(&mut self) -> io::Result<Stack> {
        self.trimmed.pop().map_or_else(|| self.carve(), Ok)
    }

    /// Takes a stack back for the next to use.
    ///
    /// # Panics
    ///
    /// When it is not of this pool's size.
    #[inline]
    pub(crate) fn give_back(&mut self, stack: Stack) {
        assert!(
            stack.slot_bytes() == self.slot_bytes,
            "a stack must go back to its own pool"
        );
        // SAFETY: a label without a name has no name to outlive.
        unsafe { stack.set_label(Label::NOBODY) };
        self.free.push(stack);
    }

    /// Uses a slot for the first time.
    fn carve(&mut self) -> io::Result<Stack> {
        let slab = match self.slabs.last() {
            Some(slab) if self.used < slab.slots() => *slab,
            _ => self.grow()?,
        };
        let offset = self.used * self.slot_bytes;
        // SAFETY: the slot has never been handed out, and its lowest page lies below every
        // `bottom()`.
        let guarded = unsafe { slab.region().guard(offset, page_bytes()) };
        guarded.map_err(|error| self.refused("a guard page", error))?;
        let stack = Stack {
            slab,
            index: self.used,
            not_send: PhantomData,
        };
        slab.adopt(self.used);
        self.used += 1;
        Ok(stack)
    }

    /// Maps another slab; a smaller one than planned where the limits are tight.
    fn grow(&mut self) -> io::Result<&'static Slab> {
        overflow::report_here().map_err(|error| self.refused("a signal stack", error))?;
        let planned_bytes = match self.slabs.last() {
            None => SLAB_BYTES_FIRST,
            Some(slab) => (slab.slots() * self.slot_bytes * 2).min(SLAB_BYTES_MAX),
        };
        let mut slots = (planned_bytes / self.slot_bytes).max(1);
        let slab = loop {
            match Slab::map(slots, self.slot_bytes) {
                Ok(slab) => break slab,
                Err(_) if slots > 1 => slots /= 2,
                Err(error) => return Err(self.refused("a mapping", error)),
            }
        };
        self.slabs.push(slab);
        self.used = 0;
        self.free.reserve(self.slots());
        Ok(slab)
    }

    /// Names the limits that may be the reason, and what to do about them.
    #[cold]
    fn refused(&self, what: &str, error: io::Error) -> io::Error {
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return error;
        }
        let stacks: usize = self.slabs.iter().map(|slab| slab.stacks()).sum();
        let message = format!(
            "no room for another stack: the system refused {what} for {} KiB, and this OS thread \
             has {stacks} such stacks already; raise vm.max_map_count (sysctl) and the address \
             space limit (ulimit -v), check vm.overcommit_memory, or ask for smaller stacks",
            self.slot_bytes / 1024
        );
        io::Error::new(io::ErrorKind::OutOfMemory, message)
    }

    /// How many stacks its slabs can hold.
    fn slots(&self) -> usize {
        self.slabs.iter().map(|slab| slab.slots()).sum()
    }

    /// Gives the memory of every free stack back to the system. Slabs without a taken stack are
    /// unmapped; in the others the pages are discarded and the guards stay.
    pub(crate) fn trim(&mut self) {
        if self.free.is_empty() {
            return;
        }
        sort(&mut self.free);
        for run in self.free.chunk_by(|above, below| above.is_next_to(below)) {
            let lowest = &run[run.len() - 1];
            let offset = lowest.index * self.slot_bytes;
            let region = lowest.slab.region();
            // SAFETY: the slots of a run lie side by side, and nobody uses them.
            unsafe { region.discard(offset, run.len() * self.slot_bytes) };
        }
        self.trimmed.append(&mut self.free);
        sort(&mut self.trimmed);
        self.unmap_unused_slabs();
    }

    /// Unmaps the slabs whose stacks are all trimmed.
    fn unmap_unused_slabs(&mut self) {
        for run in self.trimmed.chunk_by(|a, b| ptr::eq(a.slab, b.slab)) {
            if run.len() == run[0].slab.stacks() {
                run[0].slab.condemn();
            }
        }
        if self.slabs.last().is_some_and(|slab| slab.is_condemned()) {
            // Every older slab has been used up before the newest one was mapped.
            self.used = usize::MAX;
        }
        self.slabs.retain(|slab| !slab.is_condemned());
        // The last stack of a condemned slab unmaps it, so nobody looks at it after this.
        self.trimmed.retain(|stack| !stack.slab.is_condemned());
        self.trimmed.shrink_to_fit();
        self.free.shrink_to(self.slots());
    }
}

/// Highest addresses first, so that the lowest are on top, to be taken first: the pages in use then
/// lie together and need the fewest page tables.
fn sort(stacks: &mut [Stack]) {
    // Not the unstable sort, as most of the input is sorted already, which only this one uses.
    stacks.sort_by_key(|stack| Reverse((stack.slab.base(), stack.index)));
}

impl Drop for StackPool {
    fn drop(&mut self) {
        self.free.clear();
        self.trimmed.clear();
        for slab in &self.slabs {
            slab.condemn();
            slab.unmap_if_unused();
        }
    }
}

/// The slot for a stack of `stack_bytes`; beyond the address space, a size that no kernel maps.
fn slot_bytes(stack_bytes: usize) -> usize {
    let wanted_bytes = stack_bytes.max(SLOT_PAGES_MIN * page_bytes());
    wanted_bytes
        .checked_next_power_of_two()
        .unwrap_or(1 << (usize::BITS - 1))
}

/// The pools of one OS thread, one for each size that was asked for.
#[derive(Debug, Default)]
pub(crate) struct StackPools {
    pools: Vec<StackPool>,
}

impl StackPools {
    /// No pools yet.
    pub(crate) const fn new() -> StackPools {
        StackPools { pools: Vec::new() }
    }

    /// A stack of the size; see [`StackPool::new`] and [`StackPool::take`].
    ///
    /// # Errors
    ///
    /// As [`StackPool::take`].
    pub(crate) fn take(&mut self, stack_bytes: usize) -> io::Result<Stack> {
        self.pool(slot_bytes(stack_bytes)).take()
    }

    /// Takes a stack of any size back.
    pub(crate) fn give_back(&mut self, stack: Stack) {
        self.pool(stack.slot_bytes()).give_back(stack);
    }

    /// How many free stacks still hold memory, which [`StackPools::trim`] would give back.
    pub(crate) fn free_stacks(&self) -> usize {
        self.pools.iter().map(|pool| pool.free.len()).sum()
    }

    /// Trims every pool; see [`StackPool::trim`].
    pub(crate) fn trim(&mut self) {
        self.pools.iter_mut().for_each(StackPool::trim);
    }

    fn pool(&mut self, slot_bytes: usize) -> &mut StackPool {
        let known = self
            .pools
            .iter()
            .position(|pool| pool.slot_bytes == slot_bytes);
        let index = known.unwrap_or_else(|| {
            self.pools.push(StackPool::new(slot_bytes));
            self.pools.len() - 1
        });
        &mut self.pools[index]
    }
}
