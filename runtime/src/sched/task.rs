//! L3. The control block of a green thread.
//!
//! One allocation holds what the scheduler must know of a green thread ([`Task`]) and, behind it,
//! the place for its result ([`Cell`](TaskCell)). Everything else, the closure included, lies on
//! its stack.
//!
//! ```text
//!   JoinHandle<T> ──┐                 ┌── run queue, waiting lists (plain pointers:
//!   Thread ─────────┤                 │   whoever is listed there has not finished)
//!                   ▼                 ▼
//!   TaskRef ──▶ ┌─────────────────────────────┐
//!   (counted)   │ owned by the worker:        │  cells, touched on its OS thread alone
//!               │   stack pointer, state ...  │
//!               ├─────────────────────────────┤
//!               │ shared by OS threads:       │  atomics and what never changes
//!               │   references, outcome ...   │
//!               ├─────────────────────────────┤
//!               │ result: Option<Result<T>>   │  the green thread's until it is done, then the
//!               └─────────────────────────────┘  handle's
//! ```
//!
//! Rests on: nothing but memory. Deliberately not here: who runs when (`worker`), waiting (`park`).

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use super::inbox::Inbox;
use super::interrupt::Pending;
use super::park::Parker;
use crate::context::{Stack, StackPointer};
use crate::timer::TimerKey;

/// Where a green thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has no stack yet.
    New,
    /// In the run queue.
    Ready,
    /// It has the processor.
    Running,
    /// Somebody has to wake it.
    Parked,
    /// It never runs again.
    Done,
}

/// What a parked green thread waits for; told by the deadlock report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Nothing: it runs or is ready.
    Nothing,
    Readable(RawFd),
    Writable(RawFd),
    Sleep,
    Unpark,
    /// The end of the green thread of this number.
    Join(u64),
    /// The end of a scope's threads.
    Scope,
    Message,
    Room,
    /// Work on another OS thread.
    Offload,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitsFor::Nothing => write!(formatter, "nothing"),
            WaitsFor::Readable(fd) => write!(formatter, "descriptor {fd} to become readable"),
            WaitsFor::Writable(fd) => write!(formatter, "descriptor {fd} to become writable"),
            WaitsFor::Sleep => write!(formatter, "time to pass"),
            WaitsFor::Unpark => write!(formatter, "an unpark"),
            WaitsFor::Join(id) => write!(formatter, "green thread {id} to end"),
            WaitsFor::Scope => write!(formatter, "the threads of its scope to end"),
            WaitsFor::Message => write!(formatter, "a message in a channel"),
            WaitsFor::Room => write!(formatter, "room in a channel"),
            WaitsFor::Offload => write!(formatter, "work on another OS thread"),
        }
    }
}

/// The part of the control block that does not depend on the result's type.
#[repr(C)]
pub(crate) struct Task {
    // What a switch touches comes first, in one cache line; the small fields share a word, so that
    // a million control blocks are not a third padding.
    pub(crate) stack_pointer: Cell<StackPointer>,
    /// The link of the run queue.
    pub(crate) next: Cell<*const Task>,
    /// The link of the one list of waiters that a parked green thread can be in.
    pub(crate) next_waiter: Cell<*const Task>,
    pub(crate) interrupt: Cell<Pending>,
    pub(crate) state: Cell<State>,
    /// Whether it is in a list of waiters.
    pub(crate) is_listed: Cell<bool>,
    /// The token of `thread::park`; any OS thread may touch it.
    pub(crate) token: AtomicBool,
    /// The alarm of the present wait; none once it has rung.
    pub(crate) alarm: Cell<Option<TimerKey>>,
    pub(crate) waits_for: Cell<WaitsFor>,
    /// Where its closure lies on its stack before the first run.
    pub(crate) closure: Cell<*mut u8>,
    /// Its place among the worker's green threads.
    pub(crate) place: Cell<usize>,
    pub(crate) stack: Cell<Option<Stack>>,

    // What any OS thread may touch.
    references: AtomicUsize,
    outcome: AtomicPtr<()>,
    pub(crate) inbox: &'static Inbox,
    pub(crate) id: u64,
    pub(crate) name: Option<Box<str>>,
    pub(crate) spawned: &'static Location<'static>,
    free: unsafe fn(NonNull<Task>),
}

/// What [`Task::outcome`] holds besides null and the parker of whoever joins. No allocation lies
/// at these addresses.
const DONE: *mut () = ptr::without_provenance_mut(2);
const DETACHED: *mut () = ptr::without_provenance_mut(4);

/// What a finished green thread leaves, as `std::thread::Result`.
pub(crate) type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// A control block with the place for its result.
#[repr(C)]
pub(crate) struct TaskCell<T> {
    task: Task,
    result: UnsafeCell<Option<Outcome<T>>>,
}

/// What a new green thread is made from.
pub(crate) struct Birth {
    pub(crate) name: Option<Box<str>>,
    pub(crate) spawned: &'static Location<'static>,
    pub(crate) inbox: &'static Inbox,
}

/// Numbers green threads through the life of the process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl<T> TaskCell<T> {
    /// A control block without a stack, and the one reference to it.
    pub(crate) fn create(birth: Birth) -> TaskRef {
        let task = Task {
            stack_pointer: Cell::new(ptr::null_mut()),
            next: Cell::new(ptr::null()),
            next_waiter: Cell::new(ptr::null()),
            is_listed: Cell::new(false),
            interrupt: Cell::new(Pending::NONE),
            state: Cell::new(State::New),
            waits_for: Cell::new(WaitsFor::Nothing),
            alarm: Cell::new(None),
            closure: Cell::new(ptr::null_mut()),
            place: Cell::new(usize::MAX),
            stack: Cell::new(None),
            references: AtomicUsize::new(1),
            outcome: AtomicPtr::new(ptr::null_mut()),
            token: AtomicBool::new(false),
            inbox: birth.inbox,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: birth.name,
            spawned: birth.spawned,
            free: TaskCell::<T>::free,
        };
        let cell = Box::new(TaskCell::<T> {
            task,
            result: UnsafeCell::new(None),
        });
        TaskRef(NonNull::from(Box::leak(cell)).cast())
    }

    /// Frees the whole block.
    ///
    /// # Safety
    ///
    /// `task` must be the first field of a leaked `TaskCell<T>` that nobody else refers to.
    unsafe fn free(task: NonNull<Task>) {
        // SAFETY: the block came from a box of this type (`create`), to which the caller holds
        // the last reference; `repr(C)` puts the task at the block's own address.
        drop(unsafe { Box::from_raw(task.cast::<TaskCell<T>>().as_ptr()) });
    }
}

impl Task {
    /// The place of the result.
    ///
    /// # Safety
    ///
    /// The task must have been created by `TaskCell::<T>::create` with this same `T`.
    unsafe fn result<T>(&self) -> *mut Option<Outcome<T>> {
        let cell = ptr::from_ref(self).cast::<TaskCell<T>>();
        // SAFETY: the caller vouches for the type, and the block lives as long as the task does.
        UnsafeCell::raw_get(unsafe { &raw const (*cell).result })
    }

    /// Stores the result and tells whoever waits for it.
    ///
    /// # Safety
    ///
    /// As for [`Task::result`]; called once, by the green thread itself or in its stead.
    pub(crate) unsafe fn complete<T>(&self, outcome: Outcome<T>) {
        // SAFETY: the caller vouches for the type.
        let place = unsafe { self.result::<T>() };
        // SAFETY: nobody else touches the place before `done` is stored below.
        unsafe { *place = Some(outcome) };
        // AcqRel: releases the result to `take`; acquires the joiner's parker (`await_end`).
        let before = self.outcome.swap(DONE, Ordering::AcqRel);
        if before == DETACHED {
            // SAFETY: the handle is gone, so nobody else will take the result.
            drop(unsafe { (*place).take() });
        } else if !before.is_null() {
            // SAFETY: it came from `await_end`, and the swap made it ours.
            unsafe { Parker::from_raw(before) }.unpark();
        }
    }

    /// Whether the result is there.
    pub(crate) fn is_done(&self) -> bool {
        // Acquire: pairs with the release in `complete`.
        self.outcome.load(Ordering::Acquire) == DONE
    }

    /// Leaves `parker` to be unparked at the end; it is dropped if the end has come already.
    pub(crate) fn await_end(&self, parker: Parker) {
        let parker = parker.into_raw();
        // AcqRel: releases the parker to `complete`; acquires the result if it is done.
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let before = self
            .outcome
            .compare_exchange(ptr::null_mut(), parker, order.0, order.1);
        if before.is_err() {
            // SAFETY: the exchange failed, so it never left this function.
            drop(unsafe { Parker::from_raw(parker) });
        }
    }

    /// Takes the parker of an abandoned join back.
    pub(crate) fn withdraw(&self) {
        let parker = self.outcome.load(Ordering::Acquire);
        if parker.is_null() || parker == DONE || parker == DETACHED {
            return;
        }
        // AcqRel: pairs with the swap in `complete`; one of the two gets the parker.
        let order = (Ordering::AcqRel, Ordering::Acquire);
        if self
            .outcome
            .compare_exchange(parker, ptr::null_mut(), order.0, order.1)
            .is_ok()
        {
            // SAFETY: it came from `await_end`, and the exchange made it ours.
            drop(unsafe { Parker::from_raw(parker) });
        }
    }

    /// Takes the result of a finished green thread.
    ///
    /// # Safety
    ///
    /// As for [`Task::result`]; only the owner of the handle may call it.
    pub(crate) unsafe fn take<T>(&self) -> Option<Outcome<T>> {
        if !self.is_done() {
            return None;
        }
        // SAFETY: the caller vouches for the type.
        let place = unsafe { self.result::<T>() };
        // SAFETY: the green thread is done with it, and the handle is ours alone.
        unsafe { (*place).take() }
    }

    /// Gives up the result: it is dropped as soon as it is there.
    ///
    /// # Safety
    ///
    /// As for [`Task::take`]; the handle must not be used afterwards.
    pub(crate) unsafe fn detach<T>(&self) {
        // Looked at first, so that what is done stays done for those who ask. Otherwise AcqRel:
        // pairs with the swap in `complete`; the second of the two drops the result.
        if !self.is_done() {
            if self.outcome.swap(DETACHED, Ordering::AcqRel) != DONE {
                return;
            }
            self.outcome.store(DONE, Ordering::Relaxed);
        }
        // SAFETY: the caller vouches for the type.
        let place = unsafe { self.result::<T>() };
        // SAFETY: the green thread is done with it, and the handle is ours alone.
        drop(unsafe { (*place).take() });
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(formatter, "green thread {} '{name}'", self.id),
            None => write!(formatter, "green thread {}", self.id),
        }
    }
}

/// A counted reference to a control block.
///
/// Any OS thread may hold one. It may read what never changes and use the atomics; the cells
/// belong to the worker, on whose OS thread alone [`super::worker`] touches them.
pub(crate) struct TaskRef(NonNull<Task>);

// SAFETY: see the type: what is not safe to share is touched on the worker's OS thread only, and
// the result, which need not be `Send`, is never dropped by this type (`complete`, `detach`).
unsafe impl Send for TaskRef {}
// SAFETY: as for `Send`.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// Another reference to a task that is known to be alive.
    ///
    /// # Safety
    ///
    /// `task` must point to a control block that somebody holds a reference to.
    pub(crate) unsafe fn from_pointer(task: *const Task) -> TaskRef {
        // SAFETY: the caller promises that the block is alive.
        let task = unsafe { &*task };
        task.references.fetch_add(1, Ordering::Relaxed);
        TaskRef(NonNull::from(task))
    }

    /// The address, which names the green thread as long as somebody holds a reference.
    pub(crate) fn as_pointer(&self) -> *const Task {
        self.0.as_ptr()
    }

    /// The reference as a plain pointer, still counted.
    pub(crate) fn into_raw(self) -> *const Task {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// The reference that [`into_raw`](TaskRef::into_raw) made a pointer of.
    ///
    /// # Safety
    ///
    /// Once for each `into_raw`.
    pub(crate) unsafe fn from_raw(task: *const Task) -> TaskRef {
        // SAFETY: a reference is never null.
        TaskRef(unsafe { NonNull::new_unchecked(task.cast_mut()) })
    }
}

impl Deref for TaskRef {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        // SAFETY: the reference that is counted for `self` keeps the block alive.
        unsafe { self.0.as_ref() }
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Task::fmt(self, formatter)
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> TaskRef {
        self.references.fetch_add(1, Ordering::Relaxed);
        TaskRef(self.0)
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        // Release: whatever this owner did to the block happens before it is freed.
        if self.references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Acquire: pairs with the releases of all the other owners.
        fence(Ordering::Acquire);
        let free = self.free;
        // SAFETY: this was the last reference, and `free` was chosen for the block's type.
        unsafe { free(self.0) };
    }
}
