//! L3. The hub: what a worker does when no green thread has the processor.
//!
//! It runs on the OS thread's own stack and repeats one round: read mail, ring alarms, ask the
//! poller, switch to the first ready green thread. The round ends when control comes back here,
//! because nobody is ready or [`ROUND_SWITCHES`] switches have gone by.
//!
//! Rests on: nothing of the system's. Deliberately not here: the switching (`worker`).

use std::ptr;
use std::time::Duration;

use super::inbox::Message;
use super::interrupt::{self, Pending};
use super::report;
use super::task::{State, TaskRef};
use super::worker::{Alarm, Worker};
use crate::sys::clock::Moment;

/// So many switches go by before the hub asks the poller again.
const ROUND_SWITCHES: u32 = 128;
/// So long a worker sleeps although nothing can wake it before it says so.
pub(super) const DEADLOCK_PATIENCE: Duration = Duration::from_secs(1);
/// So many unused stacks a worker keeps in any case, and as many as are in use.
const SPARE_STACKS: usize = 256;
/// So long more than those must have been unused before their memory goes back to the system.
const TRIM_PATIENCE: Duration = Duration::from_secs(5);

/// Ends the process if the hub unwinds. Green threads would be left on stacks that nobody could
/// unwind any more, with borrows that others rely on; and whoever joins them would wait for ever.
struct HubPanics;

impl Drop for HubPanics {
    fn drop(&mut self) {
        report::tell("a worker panicked outside of its green threads; the process must end");
        std::process::abort();
    }
}

impl Worker {
    /// Runs green threads until `main` has ended and all others have been unwound; without a
    /// `main`, until another worker sends the word to stop.
    pub(crate) fn run(&self, main: Option<&TaskRef>) {
        self.main.set(main.map_or(ptr::null(), TaskRef::as_pointer));
        let hub_panics = HubPanics;
        loop {
            self.read_mail();
            if main.is_some_and(|main| main.is_done()) {
                self.stopping.set(true);
            }
            if self.stopping.get() {
                if self.tasks.borrow().is_empty() {
                    std::mem::forget(hub_panics);
                    return;
                }
                self.kill_now_and_then();
            }
            self.ring_alarms();
            self.poll();
            self.switches_left.set(ROUND_SWITCHES);
            let next = self.ready.pick();
            // SAFETY: what the run queue hands out is alive.
            if let Some(task) = unsafe { next.as_ref() } {
                // SAFETY: the hub is resumed by whoever next finds nobody ready.
                unsafe { self.switch_to(self.hub.as_ptr(), task) };
            }
        }
    }

    fn ring_alarms(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = Moment::now();
        loop {
            let due = self.timers.borrow_mut().pop_due(now.0);
            match due {
                None => return,
                Some(Alarm::Wake(task)) => {
                    // SAFETY: a parked green thread has not ended, see `Alarm::Wake`.
                    let task = unsafe { &*task };
                    task.alarm.set(None);
                    self.wake(task);
                }
                Some(Alarm::Interrupt(task, pending)) => {
                    // SAFETY: it is still inside `timeout`, see `Alarm::Interrupt`.
                    interrupt::interrupt(self, unsafe { &*task }, pending);
                }
            }
        }
    }

    /// Asks the poller, and sleeps in it when nobody is ready.
    fn poll(&self) {
        if !self.ready.is_empty() {
            if self.registry.has_waiters() {
                self.registry.poll(self, Some(Duration::ZERO));
            }
            return;
        }
        let alarm = self.timers.borrow().next_deadline().map(Moment);
        let hopeless = alarm.is_none() && !self.registry.has_waiters() && self.crew.len() == 1;
        let deadline = [alarm, self.trim_stacks()].into_iter().flatten().min();
        let now = Moment::now();
        let mut timeout = deadline.map(|deadline| deadline.since(now));
        if hopeless && !self.deadlock_told.get() {
            timeout = Some(DEADLOCK_PATIENCE);
        }
        if self.stopping.get() {
            // Whoever does not end although killed is asked again soon.
            timeout = Some(Duration::from_millis(1));
        }
        if !self.inbox.go_to_sleep() {
            return;
        }
        self.registry.poll(self, timeout);
        self.inbox.wake_up();
        if !hopeless || self.stopping.get() || self.deadlock_told.get() {
            return;
        }
        // A wake-up whose message has been read already may end the sleep too early.
        let is_early = Moment::now().since(now) < DEADLOCK_PATIENCE;
        if self.ready.is_empty() && !self.inbox.has_mail() && !is_early {
            self.deadlock_told.set(report::deadlock(self));
        }
    }

    /// Gives the memory of unused stacks back once too many have been unused for a while; when to
    /// ask again, if they have not been for long enough yet. Called when there is time.
    fn trim_stacks(&self) -> Option<Moment> {
        let mut stacks = self.stacks.borrow_mut();
        let in_use = self.tasks.borrow().len();
        if stacks.free_stacks() <= SPARE_STACKS.max(in_use) {
            self.trim_due.set(None);
            return None;
        }
        let due = self
            .trim_due
            .get()
            .or_else(|| Moment::after(TRIM_PATIENCE))?;
        if Moment::now() < due {
            self.trim_due.set(Some(due));
            return Some(due);
        }
        let unused = stacks.free_stacks();
        stacks.trim();
        self.trim_due.set(None);
        // A logger is the user's code, and may spawn.
        drop(stacks);
        log::trace!("the memory of {unused} unused stacks has gone back");
        None
    }

    /// Does what other OS threads have asked for.
    pub(super) fn read_mail(&self) {
        if !self.inbox.has_mail() {
            return;
        }
        self.deadlock_told.set(false);
        for message in self.inbox.take() {
            match message {
                Message::Wake(task) => self.wake(&task),
                Message::Interrupt(task, pending) if task.state.get() != State::Done => {
                    interrupt::interrupt(self, &task, pending);
                }
                Message::Interrupt(..) => {}
                Message::Start(start) => start(self),
                // Meant for the worker that listened here before.
                Message::Forget { worker, .. } if worker != self.inbox.number() => {}
                Message::Forget { key, .. } => self.registry.forget(self, key),
                Message::Stop => self.stopping.set(true),
            }
        }
    }

    /// Interrupts every green thread: each unwinds where it is suspended. Those who go on although
    /// killed are killed again, but not before as many rounds have gone by as all of them need, so
    /// that the end of a million is not a million times a million.
    fn kill_now_and_then(&self) {
        let rounds = self.rounds_to_kill.get();
        if rounds > 0 && !self.ready.is_empty() {
            self.rounds_to_kill.set(rounds - 1);
            return;
        }
        let rounds = self.tasks.borrow().len() / ROUND_SWITCHES as usize;
        self.rounds_to_kill.set(rounds);
        for (_, task) in self.tasks.borrow().iter() {
            interrupt::interrupt(self, task, Pending::KILL);
        }
    }
}
