//! L3. The worker: one OS thread, its green threads, and who runs next.
//!
//! ```text
//!            ┌────────────────────── hub (the OS thread's own stack) ─────────────────────┐
//!            │ read mail ─▶ ring alarms ─▶ ask the poller ─▶ switch to the first ready    │
//!            └───────▲──────────────────────────────────────────────────────┬─────────────┘
//!                    │ nobody is ready, or the round is over                ▼
//!               green thread ──▶ green thread ──▶ green thread ──▶ ... (straight switches)
//! ```
//!
//! A green thread that suspends switches straight to the next ready one; the hub is visited only
//! when there is none, or after a round of switches, so that neither sockets, timers nor
//! messages wait long behind green threads that keep each other busy.
//!
//! A green thread never leaves its worker. All that is not atomic in here is touched on the
//! worker's OS thread alone, and no borrow of a cell is held while user code runs or a switch
//! happens.
//!
//! Rests on: nothing of the system's. Deliberately not here: how green threads begin and end
//! (`birth`), what the hub does (`hub`), I/O (`driver`), what workers say to each other (`inbox`).

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;

use slab::Slab;

use super::driver::Registry;
use super::hub::DEADLOCK_PATIENCE;
use super::inbox::Inbox;
use super::interrupt::{self, Pending};
use super::random::Random;
use super::report;
use super::run_queue::RunQueue;
use super::task::{State, Task, TaskRef, WaitsFor};
use crate::context::{StackPointer, StackPools, switch};
use crate::poller::Kind;
use crate::sys::clock::Moment;
use crate::sys::wait::{Direction, wait_one};
use crate::timer::{TimerKey, Wheel};

/// So many I/O calls may succeed at once before their green thread lets the others run.
const OPERATIONS_MAX: u32 = 128;

/// What happens when a timer is due.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// A park's deadline. The green thread cancels the alarm when it is woken otherwise.
    Wake(*const Task),
    /// A time-out. The green thread cancels it before it leaves the frame that set it.
    Interrupt(*const Task, Pending),
}

/// See the file's head.
pub(crate) struct Worker {
    running: Cell<*const Task>,
    pub(super) switches_left: Cell<u32>,
    operations_left: Cell<u32>,
    pub(super) ready: RunQueue,
    pub(super) hub: Cell<StackPointer>,
    /// Where a finished green thread's last switch saves what nobody will resume.
    discarded: Cell<StackPointer>,
    pub(super) timers: RefCell<Wheel<Alarm>>,
    pub(super) stacks: RefCell<StackPools>,
    /// When the memory of unused stacks goes back, if too many stay unused until then.
    pub(super) trim_due: Cell<Option<Moment>>,
    pub(super) tasks: RefCell<Slab<TaskRef>>,
    pub(super) registry: Registry,
    pub(crate) inbox: &'static Inbox,
    /// The inboxes of all workers of this run, this one's among them.
    pub(crate) crew: Arc<[&'static Inbox]>,
    pub(crate) stack_bytes: usize,
    /// The green thread whose end ends the run; null on the workers that do not have it.
    pub(super) main: Cell<*const Task>,
    pub(super) stopping: Cell<bool>,
    /// While stopping: how many rounds remain until everybody who is left is killed once more.
    pub(super) rounds_to_kill: Cell<usize>,
    pub(super) deadlock_told: Cell<bool>,
}

/// What a worker is made from.
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) inbox: &'static Inbox,
    pub(crate) crew: Arc<[&'static Inbox]>,
    pub(crate) stack_bytes: usize,
}

/// Logs a step of the scheduler's own.
macro_rules! log_step {
    ($worker:expr, $($record:tt)+) => {
        if log::log_enabled!(log::Level::Trace) {
            $worker.aside(|| log::trace!($($record)+));
        }
    };
}
pub(super) use log_step;

thread_local! {
    /// The worker of this OS thread. Green threads do not move between OS threads, so even an
    /// address that the compiler keeps across a switch stays right.
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

impl Worker {
    /// A worker without green threads.
    ///
    /// # Errors
    ///
    /// What opening the poller reports, and `InvalidInput` for a bad `RUNTIME_SEED`.
    pub(crate) fn new(plan: Plan) -> std::io::Result<Worker> {
        let registry = Registry::new(plan.kind, plan.inbox.waker_fd())?;
        Ok(Worker {
            running: Cell::new(ptr::null()),
            switches_left: Cell::new(0),
            operations_left: Cell::new(0),
            ready: RunQueue::new(Random::from_environment()?),
            hub: Cell::new(ptr::null_mut()),
            discarded: Cell::new(ptr::null_mut()),
            timers: RefCell::new(Wheel::new(Moment::now().0)),
            stacks: RefCell::new(StackPools::new()),
            trim_due: Cell::new(None),
            tasks: RefCell::new(Slab::new()),
            registry,
            inbox: plan.inbox,
            crew: plan.crew,
            stack_bytes: plan.stack_bytes,
            main: Cell::new(ptr::null()),
            stopping: Cell::new(false),
            rounds_to_kill: Cell::new(0),
            deadlock_told: Cell::new(false),
        })
    }

    /// The worker of this OS thread, whoever runs on it.
    #[inline(always)]
    pub(crate) fn of_this_thread<'a>() -> Option<&'a Worker> {
        // SAFETY: the pointer is set exactly while `run` borrows the worker, and everything that
        // can call this on the OS thread runs inside of that.
        unsafe { WORKER.get().as_ref() }
    }

    /// The worker of the green thread that calls this; `None` on a plain OS thread.
    #[inline(always)]
    pub(crate) fn current<'a>() -> Option<&'a Worker> {
        Worker::of_this_thread().filter(|worker| !worker.running.get().is_null())
    }

    /// The green thread that calls this.
    #[inline(always)]
    pub(crate) fn running(&self) -> &Task {
        let task = self.running.get();
        assert!(!task.is_null(), "only a green thread may call this");
        // SAFETY: a running green thread has not ended, so the worker's own reference to it
        // (`tasks`) keeps it alive.
        unsafe { &*task }
    }

    /// As [`running`](Worker::running), counted.
    pub(crate) fn running_ref(&self) -> TaskRef {
        // SAFETY: as in `running`.
        unsafe { TaskRef::from_pointer(self.running()) }
    }

    /// Calls what may call the user's code, a logger, in the middle of a step. It must not be
    /// switched away from there, or others would find the step half done, so until it returns this
    /// is a plain OS thread to it, which blocks.
    #[inline]
    pub(super) fn aside<T>(&self, action: impl FnOnce() -> T) -> T {
        struct Back<'a>(&'a Cell<*const Task>, *const Task);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let _back = Back(&self.running, self.running.replace(ptr::null()));
        action()
    }

    /// Whether the end of `task` ends the run.
    pub(super) fn is_main(&self, task: &Task) -> bool {
        ptr::eq(task, self.main.get())
    }

    /// Whether this worker's green threads are being unwound.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    // ---- switching ------------------------------------------------------------------------

    /// Leaves the running context for the next ready green thread, or for the hub.
    ///
    /// # Safety
    ///
    /// `save` must stay valid until that context is resumed, which the caller must have arranged
    /// for unless it is never to run again.
    #[inline(always)]
    unsafe fn switch_away(&self, save: *mut StackPointer) {
        let left = self.switches_left.get();
        let next = if left == 0 {
            ptr::null()
        } else {
            self.ready.pick()
        };
        // SAFETY: what the run queue hands out is alive.
        let Some(task) = (unsafe { next.as_ref() }) else {
            self.running.set(ptr::null());
            // SAFETY: the hub saved itself there when it last switched away.
            unsafe { switch(save, self.hub.get(), 0) };
            return;
        };
        self.switches_left.set(left - 1);
        // SAFETY: the caller vouches for `save`.
        unsafe { self.switch_to(save, task) };
    }

    /// Gives the processor to a green thread that was just picked.
    ///
    /// # Safety
    ///
    /// As for `switch_away`; `task` must have come from the run queue.
    #[inline(always)]
    pub(super) unsafe fn switch_to(&self, save: *mut StackPointer, task: &Task) {
        task.state.set(State::Running);
        self.running.set(task);
        self.operations_left.set(OPERATIONS_MAX);
        // SAFETY: a ready green thread is suspended at its stack pointer, in `switch_away` or, when
        // new, where `birth` prepared it; taking it out of the queue made it ours to resume.
        unsafe {
            switch(
                save,
                task.stack_pointer.get(),
                ptr::from_ref(task).expose_provenance(),
            )
        };
    }

    /// Lets all other ready green threads run first. A suspension point.
    #[inline]
    pub(crate) fn yield_now(&self) {
        if std::thread::panicking() {
            return;
        }
        let task = self.running();
        interrupt::deliver(task);
        let left = self.switches_left.get();
        if left != 0 && self.ready.is_empty() {
            self.switches_left.set(left - 1);
            return;
        }
        task.state.set(State::Ready);
        // SAFETY: it was running, so it is in no queue; it lives until it has been picked and run.
        unsafe { self.ready.push(task) };
        // SAFETY: the place is part of the control block, and the queue will resume it.
        unsafe { self.switch_away(task.stack_pointer.as_ptr()) };
        interrupt::deliver(task);
    }

    /// Parks the running green thread until it is woken or the deadline passes (`true`). A
    /// suspension point; see `park` for the rules.
    pub(crate) fn suspend(&self, deadline: Option<Moment>, waits_for: WaitsFor) -> bool {
        let task = self.running();
        if !std::thread::panicking() {
            interrupt::deliver(task);
        }
        let rang = self.suspend_through_interrupts(deadline, waits_for);
        if !std::thread::panicking() {
            interrupt::deliver(task);
        }
        rang
    }

    /// As [`suspend`](Worker::suspend), but an interrupt only wakes, and is delivered later.
    pub(crate) fn suspend_through_interrupts(
        &self,
        deadline: Option<Moment>,
        waits_for: WaitsFor,
    ) -> bool {
        if std::thread::panicking() {
            return self.wait_alone(deadline);
        }
        let task = self.running();
        if let Some(deadline) = deadline {
            task.alarm
                .set(Some(self.set_alarm(deadline, Alarm::Wake(task))));
        }
        log_step!(self, "{task} parks: it waits for {waits_for}");
        task.waits_for.set(waits_for);
        task.state.set(State::Parked);
        // SAFETY: the place is part of the control block. It is resumed only after `wake`.
        unsafe { self.switch_away(task.stack_pointer.as_ptr()) };
        if deadline.is_none() {
            return false;
        }
        match task.alarm.take() {
            Some(key) => {
                self.cancel_alarm(key);
                false
            }
            None => true,
        }
    }

    /// Makes a parked green thread of this worker ready; does nothing to any other.
    #[inline]
    pub(crate) fn wake(&self, task: &Task) {
        if task.state.get() != State::Parked {
            return;
        }
        let waited_for = task.waits_for.replace(WaitsFor::Nothing);
        self.make_ready(task);
        log_step!(self, "{task} is ready: its wait for {waited_for} is over");
    }

    /// Queues a green thread that is new or was parked.
    pub(super) fn make_ready(&self, task: &Task) {
        task.state.set(State::Ready);
        // SAFETY: a parked or new green thread is in no run queue, and lives until it has run.
        unsafe { self.ready.push(task) };
    }

    /// Leaves the stack of a green thread that has ended, for ever.
    pub(super) fn leave_for_good(&self) -> ! {
        // SAFETY: nobody resumes what is saved there.
        unsafe { self.switch_away(self.discarded.as_ptr()) };
        unreachable!("a green thread that has ended must not be resumed");
    }

    /// Makes the next switch go to the hub.
    pub(super) fn end_round(&self) {
        self.switches_left.set(0);
    }

    /// Counts an I/O call of the running green thread, and lets the others run when it has made
    /// many in a row: one that always finds data must not starve them.
    #[inline]
    pub(crate) fn count_operation(&self) {
        self.ready.prefetch_next();
        match self.operations_left.get() {
            0 => {
                self.operations_left.set(OPERATIONS_MAX);
                self.yield_now();
            }
            left => self.operations_left.set(left - 1),
        }
    }

    /// Waits in a destructor that runs because of a panic.
    ///
    /// std counts panics per OS thread, so while this one unwinds, another green thread would see
    /// itself panicking, too, and poison every lock it releases. None may run; the OS thread
    /// blocks until a message comes from elsewhere or the deadline passes.
    #[cold]
    fn wait_alone(&self, deadline: Option<Moment>) -> bool {
        let patience = Moment::after(DEADLOCK_PATIENCE);
        while self.inbox.go_to_sleep() {
            let until = if self.deadlock_told.get() {
                deadline
            } else {
                deadline.or(patience)
            };
            let woken = wait_one(self.inbox.waker_fd(), Direction::Read, until);
            self.inbox.wake_up();
            match woken {
                Ok(true) => break,
                Ok(false) if deadline.is_some() => return true,
                Ok(false) => {
                    self.deadlock_told.set(true);
                    report::unwinding_waits(self.running());
                }
                Err(error) => panic!("the worker's own waker must be pollable: {error}"),
            }
        }
        self.inbox.drain();
        self.read_mail();
        false
    }

    // ---- timers ---------------------------------------------------------------------------

    pub(crate) fn set_alarm(&self, deadline: Moment, alarm: Alarm) -> TimerKey {
        self.timers.borrow_mut().insert(deadline.0, alarm)
    }

    pub(crate) fn cancel_alarm(&self, key: TimerKey) {
        self.timers.borrow_mut().cancel(key);
    }

    // ---- the OS thread --------------------------------------------------------------------

    /// Makes this worker the OS thread's own while `action` runs.
    pub(crate) fn enter<T>(&self, action: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                WORKER.set(ptr::null());
            }
        }
        assert!(
            WORKER.get().is_null(),
            "an OS thread has one worker at a time"
        );
        WORKER.set(self);
        let _leave = Leave;
        action()
    }
}
