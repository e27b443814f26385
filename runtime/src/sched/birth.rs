//! L3. How a green thread begins and ends.
//!
//! The closure moves to the top of the new stack, and the first switch calls [`root`], which runs
//! it, catches its panic, stores its result and gives the stack back:
//!
//! ```text
//!   slot's end ─▶ label (who runs here), colour
//!                 ├──────────────────────┤ ◀─ Stack::top
//!                 │ the closure          │
//!                 ├──────────────────────┤ ◀─ a multiple of 16: where frames begin
//!                 │ root ▶ closure ▶ ... │
//! ```
//!
//! Nothing of the green thread is left on its stack when `root` hands it back, while still running
//! on it: nobody else can take it before the switch away, for there is one OS thread.
//!
//! Deliberately not here: the public names (`thread`).

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use super::interrupt::{self, Killed, Pending};
use super::task::{Birth, State, Task, TaskCell, TaskRef};
use super::worker::{Worker, log_step};
use crate::context::{self, Label, Stack};

/// Closures larger than this, or than a sixteenth of their stack, move to the heap: without
/// optimisation `root` moves them some five times, and any stack must have room for that.
const CLOSURE_BYTES_MAX: usize = 2048;
const CLOSURE_SHARE: usize = 16;
/// What a stack pointer and every closure on a stack is aligned to.
const ALIGNMENT: usize = 16;

/// Starts a green thread on this worker.
///
/// # Errors
///
/// What taking a stack reports; the closure is then dropped.
///
/// # Safety
///
/// The caller must see to it that the green thread ends before anything that `F` or `T` borrows
/// does.
pub(crate) unsafe fn spawn<F, T>(
    worker: &Worker,
    birth: Birth,
    stack_bytes: usize,
    closure: F,
) -> io::Result<TaskRef>
where
    F: FnOnce() -> T,
{
    let task = TaskCell::<T>::create(birth);
    // SAFETY: the task was created for this type; the caller vouches for what is borrowed.
    unsafe { start::<F, T>(worker, &task, stack_bytes, closure) }?;
    Ok(task)
}

/// Gives a new task a stack and the closure to run on it, and makes it ready.
///
/// # Errors
///
/// As [`spawn`].
///
/// # Safety
///
/// As for [`spawn`]; `task` must have been created for `T` and never started.
pub(crate) unsafe fn start<F, T>(
    worker: &Worker,
    task: &TaskRef,
    stack_bytes: usize,
    closure: F,
) -> io::Result<()>
where
    F: FnOnce() -> T,
{
    let stack = worker.stacks.borrow_mut().take(stack_bytes)?;
    let closure_bytes_max = CLOSURE_BYTES_MAX.min(stack.slot_bytes() / CLOSURE_SHARE);
    if size_of::<F>() > closure_bytes_max || align_of::<F>() > ALIGNMENT {
        let boxed: Box<dyn FnOnce() -> T + '_> = Box::new(closure);
        // SAFETY: the caller's promises, and a box is small.
        unsafe { furnish::<_, T>(task, stack, boxed) };
    } else {
        // SAFETY: the caller's promises, and the closure is small.
        unsafe { furnish::<_, T>(task, stack, closure) };
    }
    task.place
        .set(worker.tasks.borrow_mut().insert(task.clone()));
    if worker.is_stopping() {
        task.interrupt.set(Pending::KILL);
    }
    log_step!(worker, "{task} is born, spawned at {}", task.spawned);
    worker.make_ready(task);
    Ok(())
}

/// Puts the closure and the first frame on the stack.
///
/// # Safety
///
/// As for [`start`]; `F` must be no larger than [`CLOSURE_BYTES_MAX`] and no more aligned than
/// [`ALIGNMENT`].
unsafe fn furnish<F, T>(task: &Task, stack: Stack, closure: F)
where
    F: FnOnce() -> T,
{
    let room = size_of::<F>().next_multiple_of(ALIGNMENT);
    let place = stack.top().wrapping_sub(room);
    // SAFETY: the stack is unused and larger than the closure, and its top is aligned.
    unsafe { place.cast::<F>().write(closure) };
    // SAFETY: what lies below `place` is the unused stack, and `place` is a multiple of 16.
    let stack_pointer = unsafe { context::prepare(place, root::<F, T>) };
    let name = task.name.as_deref().map_or(Label::UNNAMED, ptr::from_ref);
    let label = Label {
        kind: context::Kind::GreenThread,
        id: task.id,
        name,
        spawned: Some(task.spawned),
    };
    // SAFETY: the name belongs to the task, which keeps the stack until it ends.
    unsafe { stack.set_label(label) };
    task.closure.set(place);
    task.stack_pointer.set(stack_pointer);
    task.stack.set(Some(stack));
}

/// Where every green thread begins, with its control block as the argument.
///
/// # Safety
///
/// Called by the first switch to a context that [`furnish`] made for the same types.
unsafe extern "C" fn root<F, T>(argument: usize) -> !
where
    F: FnOnce() -> T,
{
    let task = ptr::with_exposed_provenance::<Task>(argument);
    // SAFETY: the worker passes the control block that it runs, alive until `bury`.
    let task = unsafe { &*task };
    // SAFETY: `furnish` put it there, and this is the only read.
    let closure = unsafe { task.closure.get().cast::<F>().read() };
    let outcome = panic::catch_unwind(AssertUnwindSafe(move || {
        if task.interrupt.get() != Pending::NONE {
            // Killed before it began: the closure is dropped and not unwound, so that destructors
            // may wait, and may panic.
            drop(closure);
            interrupt::deliver(task);
            unreachable!("a pending interrupt must be delivered");
        }
        closure()
    }));
    if let Err(payload) = &outcome {
        let how = if payload.is::<Killed>() {
            "was killed"
        } else {
            "panicked"
        };
        aside(|| log::debug!("{task}, spawned at {}, {how}", task.spawned));
    }
    let stored = panic::catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the task was created for `T`, and this is its only completion.
        unsafe { task.complete::<T>(outcome) };
    }));
    if let Err(payload) = stored {
        aside(|| log::error!("the result of {task} panicked while it was dropped"));
        std::mem::forget(payload);
    }
    bury(task)
}

/// Logs at the root of a green thread, where no interrupt may be delivered: nobody catches it.
#[cold]
fn aside(record: impl FnOnce()) {
    if let Some(worker) = Worker::current() {
        worker.aside(record);
    }
}

/// Takes a finished green thread off the worker's books and switches away from its stack.
fn bury(task: &Task) -> ! {
    let Some(worker) = Worker::current() else {
        unreachable!("a green thread must run on a worker");
    };
    log_step!(worker, "{task} has ended");
    task.state.set(State::Done);
    if worker.is_main(task) {
        worker.end_round();
    }
    if let Some(stack) = task.stack.take() {
        worker.stacks.borrow_mut().give_back(stack);
    }
    let own = worker.tasks.borrow_mut().remove(task.place.get());
    // From here on `task` may be gone.
    drop(own);
    worker.leave_for_good()
}

/// A green thread on its way to another worker. Dropped before it could start, it has ended as if
/// killed, so nobody waits for it in vain.
pub(crate) struct Emigrant<F, T>
where
    F: FnOnce() -> T,
{
    task: TaskRef,
    stack_bytes: usize,
    closure: Option<F>,
}

impl<F, T> Emigrant<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    /// A green thread for the worker whose inbox `birth` names.
    pub(crate) fn new(birth: Birth, stack_bytes: usize, closure: F) -> Emigrant<F, T> {
        let task = TaskCell::<T>::create(birth);
        Emigrant {
            task,
            stack_bytes,
            closure: Some(closure),
        }
    }

    /// The control block.
    pub(crate) fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Starts it where it has arrived.
    pub(crate) fn arrive(mut self, worker: &Worker) {
        let Some(closure) = self.closure.take() else {
            unreachable!("an emigrant must arrive only once");
        };
        // A refusal drops the closure here, in the hub, which no panic of a destructor may end.
        let started = panic::catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the task was created for `T` in `new`, `'static` borrows nothing.
            unsafe { start::<F, T>(worker, &self.task, self.stack_bytes, closure) }
        }));
        let payload: Box<dyn Any + Send> = match started {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                log::error!("{} could not start: {error}", self.task);
                Box::new(error)
            }
            Err(payload) => payload,
        };
        // SAFETY: as above; it has not started, so nothing else completes it.
        unsafe { self.task.complete::<T>(Err(payload)) };
    }
}

impl<F, T> Drop for Emigrant<F, T>
where
    F: FnOnce() -> T,
{
    fn drop(&mut self) {
        let Some(closure) = self.closure.take() else {
            return;
        };
        // A destructor that panics must not keep the joiner waiting; as a panic of the green
        // thread it comes out of the join.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(closure)));
        let payload = dropped.err().unwrap_or_else(|| Box::new(Killed));
        // SAFETY: the task was created for `T`, and never started.
        unsafe { self.task.complete::<T>(Err(payload)) };
    }
}
