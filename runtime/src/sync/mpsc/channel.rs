//! L4. What the ends of a channel share: a queue under a lock, and who waits for what.
//!
//! The lock is std's, held for a few instructions and never while anybody waits, so it is taken
//! without a system call unless two OS threads meet in it. Waiting is parking (`sched::park`): the
//! receiver leaves its parker in its one place, senders queue for room.
//!
//! A bound of zero is a rendezvous. It is a queue of one whose sender waits a second time, until
//! the count of messages taken out says that its own has been.
//!
//! Deliberately not here: the types with std's names (`mpsc`).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{RecvTimeoutError, SendError, TryRecvError, TrySendError};
use crate::sched::park::{self, Parker};
use crate::sched::task::WaitsFor;
use crate::sched::worker::Worker;
use crate::sys::clock::Moment;

/// See the file's head.
pub(super) struct Channel<T> {
    state: Mutex<State<T>>,
    bound: Option<usize>,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
    /// The receiver, if it waits.
    receiver: Option<Parker>,
    /// Senders that wait, for room or for their message to be taken.
    waiting: VecDeque<Parker>,
    /// How many messages have been put in and taken out, ever.
    sent: u64,
    taken: u64,
    /// The number of the latest message whose sender waits for it to be taken; 0 for none.
    awaited: u64,
}

/// Senders to be woken once the lock is free.
struct Wakes {
    first: Option<Parker>,
    rest: VecDeque<Parker>,
}

impl Wakes {
    #[inline]
    fn unpark(self) {
        self.first.iter().chain(&self.rest).for_each(Parker::unpark);
    }
}

/// Takes the caller out of a queue of parkers; whether it was there.
fn withdraw(waiting: &mut VecDeque<Parker>) -> bool {
    let place = waiting.iter().position(Parker::is_current);
    place.and_then(|place| waiting.remove(place)).is_some()
}

impl<T> State<T> {
    /// Adds a message and names the receiver if it has to be woken.
    fn put(&mut self, message: T) -> Option<Parker> {
        self.queue.push_back(message);
        self.sent += 1;
        self.receiver.take()
    }
}

impl<T> Channel<T> {
    pub(super) fn new(bound: Option<usize>) -> Channel<T> {
        let state = State {
            queue: VecDeque::new(),
            senders: 1,
            has_receiver: true,
            receiver: None,
            waiting: VecDeque::new(),
            sent: 0,
            taken: 0,
            awaited: 0,
        };
        Channel {
            state: Mutex::new(state),
            bound,
        }
    }

    /// The lock; no code of the user's runs under it, so poison would mean nothing.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message may be put in.
    fn has_room(&self, state: &State<T>) -> bool {
        self.bound
            .is_none_or(|bound| state.queue.len() < bound.max(1))
    }

    pub(super) fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut state = self.lock();
        while state.has_receiver && !self.has_room(&state) {
            state = self.wait_as_sender(state);
        }
        if !state.has_receiver {
            drop(state);
            return Err(SendError(message));
        }
        let receiver = state.put(message);
        let ticket = state.sent;
        if self.bound == Some(0) {
            return self.await_taking(state, receiver, ticket);
        }
        drop(state);
        if let Some(receiver) = receiver {
            receiver.unpark();
        }
        Ok(())
    }

    /// The second half of a rendezvous: waits until the message of this number is taken.
    fn await_taking<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
        receiver: Option<Parker>,
        ticket: u64,
    ) -> Result<(), SendError<T>> {
        /// What has to happen when a kill unwinds from the wait: nobody wants the message back.
        struct Awaiting<'a, T>(&'a Channel<T>, u64);
        impl<T> Drop for Awaiting<'_, T> {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                if state.awaited != self.1 {
                    return;
                }
                state.awaited = 0;
                let unwanted = !state.has_receiver && state.taken < self.1;
                let abandoned = unwanted.then(|| state.queue.pop_front());
                drop(state);
                drop(abandoned);
            }
        }
        state.awaited = ticket;
        let awaiting = Awaiting(self, ticket);
        if let Some(receiver) = receiver {
            drop(state);
            receiver.unpark();
            state = self.lock();
        }
        while state.taken < ticket && state.has_receiver {
            state = self.wait_as_sender(state);
        }
        std::mem::forget(awaiting);
        if state.taken >= ticket {
            return Ok(());
        }
        // The receiver has gone and left what was in the queue; with a bound of zero that is one.
        let message = state.queue.pop_front();
        drop(state);
        message.map_or(Ok(()), |message| Err(SendError(message)))
    }

    /// Parks until a message has been taken or the receiver goes.
    fn wait_as_sender<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
    ) -> MutexGuard<'a, State<T>> {
        /// What has to happen when a kill unwinds from the park.
        struct Waiting<'a, T>(&'a Channel<T>);
        impl<T> Drop for Waiting<'_, T> {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                let was_woken = !withdraw(&mut state.waiting);
                // The wake-up was meant for a sender who goes on; this one does not.
                let heir = if was_woken {
                    state.waiting.pop_front()
                } else {
                    None
                };
                drop(state);
                heir.iter().for_each(Parker::unpark);
            }
        }
        state.waiting.push_back(Parker::current());
        drop(state);
        let waiting = Waiting(self);
        park::park(None, WaitsFor::Room);
        std::mem::forget(waiting);
        let mut state = self.lock();
        withdraw(&mut state.waiting);
        state
    }

    pub(super) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut state = self.lock();
        if !state.has_receiver {
            drop(state);
            return Err(TrySendError::Disconnected(message));
        }
        let is_met = self.bound != Some(0) || state.receiver.is_some();
        if !self.has_room(&state) || !is_met {
            drop(state);
            return Err(TrySendError::Full(message));
        }
        let receiver = state.put(message);
        drop(state);
        if let Some(receiver) = receiver {
            receiver.unpark();
        }
        Ok(())
    }

    /// Takes a message out, and with it the senders who have waited for that: the first one, or in
    /// a rendezvous all, since some wait for their own message to go and some for room.
    fn take(&self, state: &mut State<T>) -> Option<(T, Wakes)> {
        let message = state.queue.pop_front()?;
        state.taken += 1;
        let wakes = match self.bound {
            Some(0) => Wakes {
                first: None,
                rest: std::mem::take(&mut state.waiting),
            },
            _ => Wakes {
                first: state.waiting.pop_front(),
                rest: VecDeque::new(),
            },
        };
        Some((message, wakes))
    }

    pub(super) fn try_receive(&self) -> Result<T, TryRecvError> {
        let mut state = self.lock();
        let Some((message, wakes)) = self.take(&mut state) else {
            let is_over = state.senders == 0;
            return Err(if is_over {
                TryRecvError::Disconnected
            } else {
                TryRecvError::Empty
            });
        };
        drop(state);
        wakes.unpark();
        Ok(message)
    }

    pub(super) fn receive(&self, deadline: Option<Moment>) -> Result<T, RecvTimeoutError> {
        /// Takes the parker back, also when a kill unwinds from the park.
        struct Waiting<'a, T>(&'a Channel<T>);
        impl<T> Drop for Waiting<'_, T> {
            fn drop(&mut self) {
                self.0.lock().receiver = None;
            }
        }
        // Whoever always finds a message must not starve the others, nor escape a time-out.
        if let Some(worker) = Worker::current() {
            worker.count_operation();
        }
        let mut is_late = false;
        loop {
            let mut state = self.lock();
            if let Some((message, wakes)) = self.take(&mut state) {
                drop(state);
                wakes.unpark();
                return Ok(message);
            }
            if state.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            if is_late {
                return Err(RecvTimeoutError::Timeout);
            }
            state.receiver = Some(Parker::current());
            drop(state);
            let waiting = Waiting(self);
            is_late = park::park(deadline, WaitsFor::Message);
            if is_late {
                drop(waiting);
            } else {
                // Whoever woke us has taken the parker; a wake-up without one leaves it for the
                // next round, which replaces it.
                std::mem::forget(waiting);
            }
        }
    }

    pub(super) fn add_sender(&self) {
        self.lock().senders += 1;
    }

    pub(super) fn remove_sender(&self) {
        let mut state = self.lock();
        state.senders -= 1;
        let receiver = if state.senders == 0 {
            state.receiver.take()
        } else {
            None
        };
        drop(state);
        if let Some(receiver) = receiver {
            receiver.unpark();
        }
    }

    pub(super) fn remove_receiver(&self) {
        let mut state = self.lock();
        state.has_receiver = false;
        let waiting = std::mem::take(&mut state.waiting);
        // A rendezvous' message goes back to its sender, if that still waits for it.
        let is_awaited = self.bound == Some(0) && state.awaited == state.sent;
        let abandoned = if is_awaited {
            VecDeque::new()
        } else {
            std::mem::take(&mut state.queue)
        };
        drop(state);
        waiting.iter().for_each(Parker::unpark);
        // Dropped outside the lock, for it may be this channel's own senders.
        drop(abandoned);
    }
}
