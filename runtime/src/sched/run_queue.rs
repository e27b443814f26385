//! L3. The run queue: the green threads of a worker that are ready, in the order in which they
//! became so.
//!
//! A linked list through the control blocks: adding never allocates and therefore never fails. The
//! one function that says who runs next is [`RunQueue::pick`]. In debug builds with `RUNTIME_SEED`
//! set it chooses at random among the first few, so that orders which tests never see by
//! themselves are seen, and seen again with the same seed.
//!
//! Deliberately not here: priorities. First come, first served; nobody starves.

use std::cell::Cell;
use std::ptr;

use super::random::Random;
use super::task::Task;
use crate::context;

/// How far from the front a shuffled choice may lie.
const SHUFFLE_WINDOW: u64 = 8;

/// A first-in, first-out queue of control blocks, none of which is in it twice.
pub(crate) struct RunQueue {
    head: Cell<*const Task>,
    tail: Cell<*const Task>,
    shuffle: Option<Random>,
}

impl RunQueue {
    pub(crate) fn new(shuffle: Option<Random>) -> RunQueue {
        RunQueue {
            head: Cell::new(ptr::null()),
            tail: Cell::new(ptr::null()),
            shuffle,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_null()
    }

    /// Adds a green thread at the end.
    ///
    /// # Safety
    ///
    /// `task` must be in no run queue, and stay alive until it is picked.
    #[inline]
    pub(crate) unsafe fn push(&self, task: &Task) {
        task.next.set(ptr::null());
        let tail = self.tail.replace(task);
        if tail.is_null() {
            self.head.set(task);
        } else {
            // SAFETY: what is in the queue is alive, as `push` demands.
            unsafe { &*tail }.next.set(task);
        }
    }

    /// Takes out who runs next; null when nobody is ready.
    #[inline]
    pub(crate) fn pick(&self) -> *const Task {
        if cfg!(debug_assertions) {
            self.shuffle_front();
        }
        let head = self.head.get();
        if !head.is_null() {
            // SAFETY: what is in the queue is alive, as `push` demands.
            let next = unsafe { &*head }.next.get();
            self.head.set(next);
            if next.is_null() {
                self.tail.set(ptr::null());
            } else {
                // `prefetch_next` will look into it, or the next pick.
                context::prefetch_line(next.cast());
                context::prefetch_line(next.cast::<u8>().wrapping_add(context::LINE_BYTES));
            }
        }
        head
    }

    /// Has the processor fetch the stack of whoever runs next, unless it is changed until then.
    ///
    /// To be called before a system call. That takes long enough for the fetch, and evicts enough
    /// of the caches that the next green thread would find little of itself there otherwise.
    #[inline]
    pub(crate) fn prefetch_next(&self) {
        // SAFETY: what is in the queue is alive, as `push` demands.
        if let Some(next) = unsafe { self.head.get().as_ref() } {
            context::prefetch(next.stack_pointer.get());
        }
    }

    /// Moves a few green threads from the front to the end, as the seed says.
    fn shuffle_front(&self) {
        let Some(random) = &self.shuffle else { return };
        for _ in 0..random.below(SHUFFLE_WINDOW) {
            let head = self.head.get();
            if head == self.tail.get() {
                return;
            }
            // SAFETY: it is not null, since it differs from the tail, and alive, as `push` demands.
            let first = unsafe { &*head };
            self.head.set(first.next.get());
            // SAFETY: it has just been taken out, and lives as long as before.
            unsafe { self.push(first) };
        }
    }
}
