//! The books of one connection, which everybody may read while it works.
//!
//! Application, above L4. A slot has one writer, the thread that works on the connection, whatever
//! kind of thread that is; so its counts are loaded, changed and stored, and no instruction locks
//! the bus. All totals are sums over the slots, which makes the fairness between connections a
//! matter of looking, and lets the books be closed at any moment.
//!
//! Two counts must not be read apart: who sees a message answered must have seen it sent, or the
//! messages in flight would be fewer than none. Therefore what follows `sent` is stored with
//! release and read first, with acquire; on x86-64 that costs nothing.
//!
//! Deliberately not here: times (`recorder`) and why a connection failed (`failure`).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::Shutdown;
use crate::wire::Wire;

/// How far a connection has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Connecting,
    Open,
    /// Ended in order.
    Closed,
    Failed,
}

const STATES: [State; 4] = [State::Connecting, State::Open, State::Closed, State::Failed];

/// A connection's books. On cache lines of its own, because neighbours may have other writers.
#[repr(align(64))]
pub(crate) struct Slot {
    state: AtomicU8,
    /// Whatever became of it.
    came_up: AtomicBool,
    /// Set by the supervisor when it has shut the connection down.
    timed_out: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    answered_bytes: AtomicU64,
    failed: AtomicU64,
    /// Since when the server owes something, a reply or the end; zero while it owes nothing.
    waiting_since_ns: AtomicU64,
    stream: Mutex<Option<Arc<dyn Wire>>>,
}

impl Slot {
    pub(crate) fn new() -> Slot {
        Slot {
            state: AtomicU8::new(State::Connecting as u8),
            came_up: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            answered_bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            waiting_since_ns: AtomicU64::new(0),
            stream: Mutex::new(None),
        }
    }
}

/// What the connection's own thread writes.
impl Slot {
    pub(crate) fn connected(&self, stream: Arc<dyn Wire>) {
        *lock(&self.stream) = Some(stream);
        self.came_up.store(true, Ordering::Relaxed);
        self.set_state(State::Open);
    }

    /// `messages` more are about to be sent.
    #[inline]
    pub(crate) fn count_sent(&self, messages: u64) {
        add(&self.sent, messages);
    }

    /// `messages` more, of `bytes` together, were answered right.
    #[inline]
    pub(crate) fn count_answered(&self, messages: u64, bytes: u64) {
        let answered = self.answered.load(Ordering::Relaxed) + messages;
        // Release: pairs with the acquire in `entry`, so that `sent` is never seen behind.
        self.answered.store(answered, Ordering::Release);
        add(&self.answered_bytes, bytes);
    }

    /// Since when the server owes a reply or the end; zero: it owes nothing.
    #[inline]
    pub(crate) fn wait_since(&self, since_ns: u64) {
        self.waiting_since_ns.store(since_ns, Ordering::Relaxed);
    }

    /// Whether the supervisor has shut the connection down.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// The connection ended in order; its descriptor is closed with the last owner of the stream.
    pub(crate) fn close(&self) {
        self.end(State::Closed);
    }

    /// The connection failed, and with it the messages in flight: how many those were.
    pub(crate) fn fail(&self) -> u64 {
        let messages = self.in_flight();
        let failed = self.failed.load(Ordering::Relaxed) + messages;
        // Release: as in `count_answered`.
        self.failed.store(failed, Ordering::Release);
        self.end(State::Failed);
        messages
    }

    /// Messages sent and not answered, as the connection's own thread sees them.
    #[inline]
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
            - self.answered.load(Ordering::Relaxed)
            - self.failed.load(Ordering::Relaxed)
    }

    fn end(&self, state: State) {
        self.wait_since(0);
        self.set_state(state);
        lock(&self.stream).take();
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

/// What others read, and the one thing that they do.
impl Slot {
    pub(crate) fn entry(&self) -> Entry {
        // Acquire: pairs with the releases above; `sent` is read after what follows from it.
        let failed = self.failed.load(Ordering::Acquire);
        let answered = self.answered.load(Ordering::Acquire);
        Entry {
            state: STATES[usize::from(self.state.load(Ordering::Relaxed))],
            came_up: self.came_up.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            answered,
            answered_bytes: self.answered_bytes.load(Ordering::Relaxed),
            failed,
        }
    }

    pub(crate) fn shut_down_if_overdue(&self, now_ns: u64, timeout_ns: u64) {
        let since_ns = self.waiting_since_ns.load(Ordering::Relaxed);
        // The connection may have been faster than our clock: then it owes nothing yet.
        let overdue = since_ns != 0 && now_ns.saturating_sub(since_ns) >= timeout_ns;
        if overdue
            && !self.timed_out.swap(true, Ordering::Relaxed)
            && let Some(stream) = &*lock(&self.stream)
        {
            // If this fails the connection is over already, and its reader knows.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// One connection's books at one moment.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) state: State,
    pub(crate) came_up: bool,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) answered_bytes: u64,
    pub(crate) failed: u64,
}

/// The sums over all connections.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) answered_bytes: u64,
    pub(crate) failed: u64,
    connections: [u64; STATES.len()],
}

impl Totals {
    pub(crate) fn of(slots: &[Slot]) -> Totals {
        Totals::of_entries(slots.iter().map(Slot::entry))
    }

    pub(crate) fn of_entries(entries: impl IntoIterator<Item = Entry>) -> Totals {
        let mut totals = Totals::default();
        for entry in entries {
            totals.sent += entry.sent;
            totals.answered += entry.answered;
            totals.answered_bytes += entry.answered_bytes;
            totals.failed += entry.failed;
            totals.connections[entry.state as usize] += 1;
        }
        totals
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.answered - self.failed
    }

    pub(crate) fn connections_in(&self, state: State) -> u64 {
        self.connections[state as usize]
    }
}

#[inline]
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// A lock that is never held where anything could be left half done, so a panic poisons nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_fails_with_the_connection() {
        // Goal: each message is in one column at any time. Method: a history with known sums.
        let slots = [Slot::new(), Slot::new()];
        slots[0].count_sent(5);
        slots[0].count_answered(2, 128);
        let totals = Totals::of(&slots);
        assert_eq!(
            (totals.sent, totals.answered, totals.in_flight()),
            (5, 2, 3)
        );
        assert_eq!(totals.connections_in(State::Connecting), 2);
        assert_eq!(slots[0].fail(), 3);
        slots[1].close();
        let totals = Totals::of(&slots);
        assert_eq!((totals.failed, totals.in_flight()), (3, 0));
        assert_eq!(totals.answered_bytes, 128);
        assert_eq!(totals.connections_in(State::Failed), 1);
        assert_eq!(totals.connections_in(State::Closed), 1);
    }

    #[test]
    fn readers_never_see_more_answered_than_sent() {
        // Goal: the books balance for whoever looks while they are written. Method: one thread
        // writes, another one looks, until both have had their fill.
        let slot = [Slot::new()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200_000 {
                    slot[0].count_sent(1);
                    slot[0].count_answered(1, 1);
                }
            });
            for _ in 0..20_000 {
                let totals = Totals::of(&slot);
                assert!(totals.answered <= totals.sent, "{totals:?}");
            }
        });
    }

    #[test]
    fn only_the_overdue_are_shut_down() {
        // Goal: the exact border, and that a clock read before the send is no time-out. Method: no
        // stream is needed to see the mark.
        let slot = Slot::new();
        slot.shut_down_if_overdue(u64::MAX, 10);
        assert!(!slot.timed_out(), "it owed nothing");
        slot.wait_since(100);
        for now_ns in [50, 100, 109] {
            slot.shut_down_if_overdue(now_ns, 10);
            assert!(!slot.timed_out(), "{now_ns}");
        }
        slot.shut_down_if_overdue(110, 10);
        assert!(slot.timed_out());
    }
}
