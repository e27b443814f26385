//! L1. The words between a poller and its caller: interest, readiness, tokens and events.
//!
//! Man pages: poll(2), for what "readable" and "writable" promise. Not here: how a kernel spells
//! them (each poller's file), who is behind a token (see `selector`).

use std::fmt;
use std::ops::BitOr;

/// What somebody wants to hear of about a descriptor.
///
/// ```
/// use runtime::poller::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.contains(Interest::WRITABLE));
/// assert_eq!(both, Interest::BOTH);
/// assert_eq!(both.remove(Interest::READABLE), Interest::WRITABLE);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// Nothing at all: what a descriptor that is known but not watched has.
    pub const EMPTY: Interest = Interest(0);
    /// A read, or an accept, would not block.
    pub const READABLE: Interest = Interest(Readiness::READABLE.0);
    /// A write would not block, or an attempt to connect has ended.
    pub const WRITABLE: Interest = Interest(Readiness::WRITABLE.0);
    /// Both directions.
    pub const BOTH: Interest = Interest(Self::READABLE.0 | Self::WRITABLE.0);
    /// Something exceptional has come, such as urgent data on a TCP stream. Not every poller can
    /// tell: see [`Capabilities::priority`](crate::poller::Capabilities::priority).
    pub const PRIORITY: Interest = Interest(Readiness::PRIORITY.0);

    /// Whether all of `other` is part of this.
    #[inline]
    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// This and `other`; the operator `|` does the same.
    #[inline]
    pub const fn union(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }

    /// This without `other`.
    #[inline]
    pub const fn remove(self, other: Interest) -> Interest {
        Interest(self.0 & !other.0)
    }

    /// Whether nothing is asked for.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        self.union(other)
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_names(formatter, self.0)
    }
}

/// What a poller found out about a descriptor.
///
/// Readiness is a hint that a call is worth making; the call's own answer is the truth. A failed
/// or fully closed descriptor counts as readable and writable besides, because every call on it
/// answers at once, and so that whoever waits for either direction wakes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const EMPTY: Readiness = Readiness(0);
    /// A read or an accept would not block: there is data, or a connection, or the end.
    pub const READABLE: Readiness = Readiness(1);
    /// A write would not block.
    pub const WRITABLE: Readiness = Readiness(2);
    /// The peer will send no more: what is still buffered can be read, and then comes the end.
    pub const CLOSED: Readiness = Readiness(4);
    /// The descriptor has failed; for a socket, `SO_ERROR` or the next call tells how.
    pub const ERROR: Readiness = Readiness(8);
    /// Something exceptional has come, such as urgent data on a TCP stream.
    pub const PRIORITY: Readiness = Readiness(16);

    /// What a failure or a hang-up means for those who wait: both directions answer at once.
    pub(crate) const BOTH: Readiness = Readiness(Self::READABLE.0 | Self::WRITABLE.0);

    /// Whether a read or an accept would not block.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READABLE)
    }

    /// Whether a write would not block.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITABLE)
    }

    /// Whether the peer is known to send no more. Not every poller can tell early; the truth is
    /// a read of zero bytes. See [`Capabilities::half_close`](crate::poller::Capabilities).
    #[inline]
    pub const fn is_closed(self) -> bool {
        self.contains(Self::CLOSED)
    }

    /// Whether the descriptor is known to have failed. select(2) cannot tell at all: there a
    /// failed descriptor is merely readable and writable.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.contains(Self::ERROR)
    }

    /// Whether something exceptional has come.
    #[inline]
    pub const fn is_priority(self) -> bool {
        self.contains(Self::PRIORITY)
    }

    /// Whether nothing is said.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is part of this.
    #[inline]
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }

    /// This and `other`; the operator `|` does the same.
    #[inline]
    pub const fn union(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// This where `condition` holds, nothing otherwise: for translations from a kernel's bits.
    #[inline]
    pub(crate) const fn when(self, condition: bool) -> Readiness {
        if condition { self } else { Readiness::EMPTY }
    }

    /// Whether any of what `interest` asks for has come.
    ///
    /// ```
    /// use runtime::poller::{Interest, Readiness};
    ///
    /// let readiness = Readiness::READABLE | Readiness::CLOSED;
    /// assert!(readiness.answers(Interest::BOTH));
    /// assert!(!readiness.answers(Interest::WRITABLE));
    /// ```
    #[inline]
    pub const fn answers(self, interest: Interest) -> bool {
        self.0 & interest.0 != 0
    }
}

impl BitOr for Readiness {
    type Output = Readiness;

    fn bitor(self, other: Readiness) -> Readiness {
        self.union(other)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_names(formatter, self.0)
    }
}

/// The caller's own word for a descriptor; a poller only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// One piece of news: the descriptor registered with `token` is ready for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The word that the descriptor was registered with.
    pub token: Token,
    /// What it is ready for. Never empty.
    pub readiness: Readiness,
}

/// A buffer for the events of one wait, made once and used again and again.
///
/// What does not fit is not lost: the next wait reports it, before what this one reported.
///
/// ```
/// use runtime::poller::Events;
///
/// let events = Events::with_capacity(16);
/// assert_eq!((events.len(), events.capacity()), (0, 16));
/// ```
#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
    /// The vector's own capacity may be more than was asked for; this is what was asked for.
    capacity: usize,
}

impl Events {
    /// As many as a poller takes from the kernel in one call: enough to spread the cost of the
    /// call thin, and few enough that a round of the loop stays short.
    pub const CAPACITY_DEFAULT: usize = 1024;

    /// A buffer for [`Events::CAPACITY_DEFAULT`] events.
    pub fn new() -> Events {
        Events::with_capacity(Self::CAPACITY_DEFAULT)
    }

    /// A buffer for at most `capacity` events.
    ///
    /// # Panics
    ///
    /// If `capacity` is zero: a wait could then never say anything.
    pub fn with_capacity(capacity: usize) -> Events {
        assert!(capacity > 0, "an event buffer must have room for an event");
        Events {
            list: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// The events of the last wait, in the poller's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// The event at `position`.
    ///
    /// # Panics
    ///
    /// If `position` is not below [`len`](Events::len).
    pub fn at(&self, position: usize) -> Event {
        self.list[position]
    }

    /// How many events the last wait has reported.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the last wait has reported nothing, which means that its timeout passed.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many events fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the events. Every wait begins with this.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Whether no further event fits.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= self.capacity
    }

    /// Adds an event, unless it says nothing.
    #[inline]
    pub(crate) fn push(&mut self, token: Token, readiness: Readiness) {
        assert!(
            !self.is_full(),
            "a poller must take no more events than the buffer holds"
        );
        if readiness.is_empty() {
            return;
        }
        log::trace!("token {} is {readiness:?}", token.0);
        self.list.push(Event { token, readiness });
    }

    /// Drops the events that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Event) -> bool) {
        self.list.retain(keep);
    }
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Writes a bit set as `readable+closed`: the words a trace shows.
fn write_names(formatter: &mut fmt::Formatter<'_>, bits: u8) -> fmt::Result {
    let names = [
        (Readiness::READABLE, "readable"),
        (Readiness::WRITABLE, "writable"),
        (Readiness::CLOSED, "closed"),
        (Readiness::ERROR, "failed"),
        (Readiness::PRIORITY, "exceptional"),
    ];
    let mut separator = "";
    for (bit, name) in names {
        if bits & bit.0 != 0 {
            write!(formatter, "{separator}{name}")?;
            separator = "+";
        }
    }
    if separator.is_empty() {
        formatter.write_str("nothing")
    } else {
        Ok(())
    }
}
