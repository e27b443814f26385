//! L1. Slabs: the large mappings that stacks are cut from, and the list of them all.
//!
//! ```text
//!   base                                                              base + slots * slot_bytes
//!   ├─────┬──────────────────────┬─────┬──────────────────────┬─ ... ─┤
//!   │guard│ slot 0         label │guard│ slot 1         label │       │
//!   └─────┴──────────────────────┴─────┴──────────────────────┴─ ... ─┘
//! ```
//!
//! A slab is private to the OS thread whose pool mapped it. The list is global, because the signal
//! handler must find the slot of any faulting address without a lock and without allocating: its
//! nodes are leaked, never unlinked, and used again for the next mapping.
//!
//! Man pages: mmap(2), signal-safety(7). Not here: which slots are free (see `stack`).

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

use crate::sys::memory::{Region, page_bytes};
use crate::sys::valgrind::StackId;

/// One mapping of equal slots. Lives for ever once made; `base` is null while it maps nothing.
#[derive(Debug)]
pub(crate) struct Slab {
    /// Published last and withdrawn first, so that a handler which sees it sees the rest.
    base: AtomicPtr<u8>,
    bytes: AtomicUsize,
    slot_bytes: AtomicUsize,
    next: AtomicPtr<Slab>,
    /// Whether a pool holds this node.
    claimed: AtomicBool,
    owner: Owner,
}

/// What only the claiming thread touches.
#[derive(Debug)]
struct Owner {
    /// How many `Stack` values point here, free or taken.
    stacks: Cell<usize>,
    /// Whether the pool is gone, so that the last stack unmaps the slab.
    condemned: Cell<bool>,
    /// Stacks that valgrind was told of; always empty without it.
    known: RefCell<Vec<StackId>>,
}

// SAFETY: everything but `owner` is atomic, and `owner` is touched only by the thread that has
// claimed the node; `claim` and `unmap` hand it from one to the next by `claimed`.
unsafe impl Sync for Slab {}

/// The newest node; the others follow by `next`.
static NODES: AtomicPtr<Slab> = AtomicPtr::new(ptr::null_mut());

/// The slot that an address lies in, as the signal handler asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) base: NonNull<u8>,
    pub(crate) bytes: usize,
}

impl Slab {
    /// Maps `slots` slots of `slot_bytes` each and puts them on the list.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no room (see [`Region::map`]).
    pub(crate) fn map(slots: usize, slot_bytes: usize) -> io::Result<&'static Slab> {
        let Some(bytes) = slots.checked_mul(slot_bytes) else {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        };
        let region = ManuallyDrop::new(Region::map(bytes)?);
        let slab = Slab::claim();
        slab.owner.stacks.set(0);
        slab.owner.condemned.set(false);
        slab.bytes.store(bytes, Ordering::Relaxed);
        slab.slot_bytes.store(slot_bytes, Ordering::Relaxed);
        // Release pairs with the Acquire in `find`: who sees the base sees the sizes.
        slab.base.store(region.base().as_ptr(), Ordering::Release);
        Ok(slab)
    }

    /// A node that maps nothing: one used before, or a new one.
    fn claim() -> &'static Slab {
        let mut known = Slab::first();
        while let Some(slab) = known {
            // Acquire pairs with the Release in `unmap`: the last owner is done with the node.
            if !slab.claimed.swap(true, Ordering::Acquire) {
                return slab;
            }
            known = slab.following();
        }
        let slab: &'static Slab = Box::leak(Box::new(Slab {
            base: AtomicPtr::new(ptr::null_mut()),
            bytes: AtomicUsize::new(0),
            slot_bytes: AtomicUsize::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            claimed: AtomicBool::new(true),
            owner: Owner {
                stacks: Cell::new(0),
                condemned: Cell::new(false),
                known: RefCell::new(Vec::new()),
            },
        }));
        let mut head = NODES.load(Ordering::Relaxed);
        loop {
            slab.next.store(head, Ordering::Relaxed);
            let node = ptr::from_ref(slab).cast_mut();
            // Release pairs with the Acquire in `first`: who finds the node finds it complete.
            match NODES.compare_exchange(head, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return slab,
                Err(newer) => head = newer,
            }
        }
    }

    fn first() -> Option<&'static Slab> {
        // SAFETY: the list holds only leaked nodes. Acquire pairs with the Release in `claim`.
        unsafe { NODES.load(Ordering::Acquire).as_ref() }
    }

    fn following(&self) -> Option<&'static Slab> {
        // SAFETY: as in `first`; the link was set before the node was published.
        unsafe { self.next.load(Ordering::Relaxed).as_ref() }
    }

    /// The slot in which `address` lies, or `None` if it is no stack of ours.
    ///
    /// Async-signal-safe: it walks the list and takes no lock.
    pub(crate) fn find(address: usize) -> Option<Slot> {
        let mut next = Slab::first();
        while let Some(slab) = next {
            // Acquire pairs with the Release in `map`.
            let base = slab.base.load(Ordering::Acquire);
            let bytes = slab.bytes.load(Ordering::Relaxed);
            let slot_bytes = slab.slot_bytes.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            // A node may be given a new mapping while we look. An address in use is in a mapping
            // that stays, so a node whose base has changed is not the one that we look for.
            let stable = slab.base.load(Ordering::Relaxed) == base;
            let offset = address.wrapping_sub(base.addr());
            if stable && !base.is_null() && offset < bytes {
                let slot_base = base.wrapping_add(offset / slot_bytes * slot_bytes);
                return NonNull::new(slot_base).map(|base| Slot {
                    base,
                    bytes: slot_bytes,
                });
            }
            next = slab.following();
        }
        None
    }

    /// The lowest address, which the caller's stack or pool keeps mapped.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Relaxed)
    }

    /// The size of each slot.
    #[inline]
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes.load(Ordering::Relaxed)
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) / self.slot_bytes()
    }

    /// The mapping, lent out for calls on parts of it.
    pub(crate) fn region(&self) -> ManuallyDrop<Region> {
        let base = NonNull::new(self.base()).expect("a slab in use must be mapped");
        // SAFETY: `map` forgot this very region, and `ManuallyDrop` keeps it from being unmapped.
        ManuallyDrop::new(unsafe { Region::assume(base, self.bytes.load(Ordering::Relaxed)) })
    }

    /// Counts a new stack, in the slot with this number.
    pub(crate) fn adopt(&self, index: usize) {
        self.owner.stacks.set(self.owner.stacks.get() + 1);
        let base = self.base().addr() + index * self.slot_bytes();
        let stack = base + page_bytes()..base + self.slot_bytes();
        if let Some(id) = StackId::announce(stack) {
            self.owner.known.borrow_mut().push(id);
        }
    }

    /// How many stacks exist, free ones included.
    pub(crate) fn stacks(&self) -> usize {
        self.owner.stacks.get()
    }

    /// Counts a stack that ends; the last one of a pool that has gone takes the mapping with it.
    pub(crate) fn release(&self) {
        self.owner.stacks.set(self.owner.stacks.get() - 1);
        self.unmap_if_unused();
    }

    /// The pool lets go of the slab: the last of its stacks unmaps it.
    pub(crate) fn condemn(&self) {
        self.owner.condemned.set(true);
    }

    /// Whether the pool has let go.
    pub(crate) fn is_condemned(&self) -> bool {
        self.owner.condemned.get()
    }

    /// Unmaps a condemned slab without stacks.
    pub(crate) fn unmap_if_unused(&self) {
        if !self.owner.condemned.get() || self.owner.stacks.get() > 0 {
            return;
        }
        self.owner
            .known
            .take()
            .into_iter()
            .for_each(StackId::forget);
        let mut region = self.region();
        self.base.store(ptr::null_mut(), Ordering::Relaxed);
        // Orders the withdrawal before what the next mapping stores; pairs with the fence in
        // `find`.
        fence(Ordering::Release);
        // SAFETY: no pool and no stack points here any more, and the region is not used again.
        unsafe { ManuallyDrop::drop(&mut region) };
        // Release pairs with the Acquire in `claim`.
        self.claimed.store(false, Ordering::Release);
    }
}
