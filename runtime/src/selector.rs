//! L2. The selector: a registry of (descriptor, interest, data) on any poller.
//!
//! A poller knows descriptors only by the words it was given. The selector makes those words
//! keys into a table of whatever its user wants to find again: callbacks, waiting green threads,
//! the states of a protocol. It is what Python calls a selector, and has the same verbs.
//!
//! A key is a place in the table and a generation, a number that no two registrations share.
//! When a descriptor is unregistered, its place and even its number may be taken by a successor
//! at once; the generation is what keeps the predecessor's late events from reaching it.
//!
//! Man pages: epoll(7), "Possible pitfalls": the event cache. Not here: calling anybody (see
//! `reactor`), deadlines (see `timer`), closing descriptors (their owner does).

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use std::{fmt, io};

use slab::Slab;

use crate::poller::{
    self, Capabilities, Events, Interest, Kind, Poller, Readiness, Token, Trigger,
};

/// Names one registration, and never a later one of the same descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    generation: NonZeroU32,
    index: u32,
}

impl Key {
    /// The key as one word, which is never 0.
    pub(crate) fn to_word(self) -> u64 {
        self.token().0
    }

    /// The key that [`to_word`](Key::to_word) made a word of; `None` for 0.
    pub(crate) fn from_word(word: u64) -> Option<Key> {
        Key::from_token(Token(word))
    }

    /// The word by which a poller knows the registration.
    fn token(self) -> Token {
        Token(u64::from(self.generation.get()) << 32 | u64::from(self.index))
    }

    /// The key in a poller's word; `None` for words that no selector has made.
    fn from_token(token: Token) -> Option<Key> {
        let generation = NonZeroU32::new((token.0 >> 32) as u32)?;
        Some(Key {
            generation,
            index: token.0 as u32,
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Key({}, generation {})",
            self.index, self.generation
        )
    }
}

/// What the table holds for one descriptor.
struct Registration<T> {
    fd: RawFd,
    interest: Interest,
    trigger: Trigger,
    generation: NonZeroU32,
    data: T,
}

/// A look at one registration.
#[derive(Debug)]
pub struct Entry<'a, T> {
    /// The descriptor.
    pub fd: RawFd,
    /// What its user wants to hear of.
    pub interest: Interest,
    /// When its user wants to hear of it.
    pub trigger: Trigger,
    /// The registration's name.
    pub key: Key,
    /// What its user wants to find again.
    pub data: &'a T,
}

/// A buffer for what one [`select`](Selector::select) finds ready, used again and again.
#[derive(Debug, Default)]
pub struct Ready {
    events: Events,
}

impl Ready {
    /// A buffer for as many descriptors as a poller takes from the kernel at once.
    pub fn new() -> Ready {
        Ready::default()
    }

    /// A buffer for `capacity` descriptors; the rest comes with the next call.
    ///
    /// # Panics
    ///
    /// If `capacity` is zero.
    pub fn with_capacity(capacity: usize) -> Ready {
        Ready {
            events: Events::with_capacity(capacity),
        }
    }

    /// Who is ready for what. Handling one may unregister another: look each key up when its
    /// turn comes ([`Selector::data_mut`] answers `None` for one that is gone).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Key, Readiness)> + '_ {
        (0..self.len()).map(|position| self.at(position))
    }

    /// The one at `position`, for a loop that must not keep the buffer borrowed meanwhile.
    ///
    /// # Panics
    ///
    /// If `position` is not below [`len`](Ready::len).
    pub fn at(&self, position: usize) -> (Key, Readiness) {
        let event = self.events.at(position);
        let Some(key) = Key::from_token(event.token) else {
            unreachable!("select must keep only the words of known registrations");
        };
        (key, event.readiness)
    }

    /// How many are ready.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// A registry of descriptors with an interest and a piece of data each.
///
/// ```
/// use runtime::{poller::Interest, selector::{Ready, Selector}};
/// use std::{io::Write, net};
///
/// let listener = net::TcpListener::bind("127.0.0.1:0")?;
/// let mut selector = Selector::new()?;
/// selector.register(&listener, Interest::READABLE, "a client is at the door")?;
///
/// let _client = net::TcpStream::connect(listener.local_addr()?)?;
/// let mut ready = Ready::new();
/// selector.select(&mut ready, None)?;
/// for (key, readiness) in ready.iter() {
///     assert!(readiness.is_readable());
///     assert_eq!(selector.data(key), Some(&"a client is at the door"));
/// }
/// assert_eq!(selector.unregister(&listener)?, "a client is at the door");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Selector<T> {
    poller: Box<dyn Poller>,
    registrations: Slab<Registration<T>>,
    /// By descriptor number. The kernel hands out the lowest free number, so this stays dense.
    keys: Vec<Option<Key>>,
    generation_next: NonZeroU32,
}

impl<T> Selector<T> {
    /// A selector on the poller that `RUNTIME_POLLER` names, or else on the system's best.
    ///
    /// # Errors
    ///
    /// As [`Kind::from_environment`] and [`poller::open`].
    pub fn new() -> io::Result<Selector<T>> {
        Selector::with_kind(Kind::from_environment()?)
    }

    /// A selector on a poller of this kind.
    ///
    /// # Errors
    ///
    /// As [`poller::open`].
    pub fn with_kind(kind: Kind) -> io::Result<Selector<T>> {
        Ok(Selector::with_poller(poller::open(kind)?))
    }

    /// A selector on this poller, which should watch nothing yet: what the selector has not
    /// registered, it does not report.
    pub fn with_poller(poller: Box<dyn Poller>) -> Selector<T> {
        Selector {
            poller,
            registrations: Slab::new(),
            keys: Vec::new(),
            generation_next: NonZeroU32::MIN,
        }
    }

    /// Begins to watch a descriptor, level-triggered, and keeps `data` for it.
    ///
    /// # Errors
    ///
    /// After an error the descriptor is not registered.
    ///
    /// - `AlreadyExists`: it is registered already.
    /// - What [`Poller::add`] reports.
    pub fn register(&mut self, fd: &impl AsRawFd, interest: Interest, data: T) -> io::Result<Key> {
        self.register_with(fd, interest, Trigger::Level, data)
    }

    /// [`register`](Selector::register) with a choice of the trigger.
    ///
    /// # Errors
    ///
    /// As [`register`](Selector::register), and `InvalidInput` for [`Trigger::Edge`] where the
    /// poller has none.
    pub fn register_with(
        &mut self,
        fd: &impl AsRawFd,
        interest: Interest,
        trigger: Trigger,
        data: T,
    ) -> io::Result<Key> {
        let fd = fd.as_raw_fd();
        if self.key_of(fd).is_some() {
            let message = format!(
                "descriptor {fd} is registered already; if it is a new one with the number of \
                 one closed meanwhile, that one must be unregistered first"
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let generation = self.generation_next;
        let place = self.registrations.vacant_entry();
        let index = u32::try_from(place.key());
        let Ok(index) = index else {
            unreachable!("a process must have fewer than 2^32 descriptors");
        };
        let key = Key { generation, index };
        // The kernel is asked before anything is written down, so there is nothing to undo.
        self.poller.add(fd, key.token(), interest, trigger)?;
        place.insert(Registration {
            fd,
            interest,
            trigger,
            generation,
            data,
        });
        self.generation_next = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let slot = fd as usize; // The poller has refused negative numbers (EBADF).
        if slot >= self.keys.len() {
            self.keys.resize(slot + 1, None);
        }
        self.keys[slot] = Some(key);
        Ok(key)
    }

    /// Changes a descriptor's interest and data, and gives back the old data. The key stays.
    ///
    /// # Errors
    ///
    /// `NotFound` if the descriptor is not registered, and what [`Poller::modify`] reports; the
    /// registration is then as it was.
    pub fn modify(&mut self, fd: &impl AsRawFd, interest: Interest, data: T) -> io::Result<T> {
        let fd = fd.as_raw_fd();
        let key = self.key_of(fd).ok_or_else(|| not_registered(fd))?;
        self.set_interest(key, interest)?;
        let registration = &mut self.registrations[key.index as usize];
        Ok(std::mem::replace(&mut registration.data, data))
    }

    /// Changes a registration's interest. An empty one keeps it, silent, until the next change.
    ///
    /// An edge-triggered registration is thereby armed anew: readiness that is there is reported
    /// once more, even if the interest is the same. A level-triggered one is reported anyway, so
    /// there the same interest costs no system call.
    ///
    /// # Errors
    ///
    /// As [`modify`](Selector::modify).
    pub fn set_interest(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        let Some(registration) = resolve_mut(&mut self.registrations, key) else {
            let message = format!("{key:?} names no registration any more");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        let Registration { fd, trigger, .. } = *registration;
        if trigger == Trigger::Level && registration.interest == interest {
            return Ok(());
        }
        self.poller.modify(fd, key.token(), interest, trigger)?;
        registration.interest = interest;
        Ok(())
    }

    /// Forgets a descriptor and gives back its data. It may have been closed meanwhile: a
    /// [`RawFd`] names it still.
    ///
    /// # Errors
    ///
    /// `NotFound` if the descriptor is not registered.
    pub fn unregister(&mut self, fd: &impl AsRawFd) -> io::Result<T> {
        let fd = fd.as_raw_fd();
        let key = self.key_of(fd).ok_or_else(|| not_registered(fd))?;
        self.unregister_key(key)
    }

    /// Forgets a registration and gives back its data.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is gone already.
    pub fn unregister_key(&mut self, key: Key) -> io::Result<T> {
        let Some(registration) = resolve_mut(&mut self.registrations, key) else {
            let message = format!("{key:?} names no registration any more");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        let fd = registration.fd;
        // Even if the kernel objects, the registration goes: its later events would be stale.
        if let Err(error) = self.poller.remove(fd) {
            log::warn!("the kernel did not want to forget descriptor {fd}: {error}");
        }
        self.keys[fd as usize] = None;
        Ok(self.registrations.remove(key.index as usize).data)
    }

    /// Waits until a descriptor is ready or `timeout` has passed (`None`: never; zero: only
    /// look), and replaces `ready` by who is ready for what. Events of registrations that are
    /// gone are dropped, so in rare cases nobody is ready before the timeout has passed.
    ///
    /// # Errors
    ///
    /// As [`Poller::wait`].
    pub fn select(&mut self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
        self.poller.wait(&mut ready.events, timeout)?;
        let registrations = &self.registrations;
        ready.events.retain(|event| {
            let key = Key::from_token(event.token);
            let known = key.is_some_and(|key| resolve(registrations, key).is_some());
            if !known {
                // It was closed, then unregistered, and a duplicate keeps the open file alive.
                log::trace!("dropped an event of the past: {key:?} is not registered any more");
            }
            known
        });
        Ok(())
    }

    /// The registration of a descriptor.
    pub fn get(&self, fd: &impl AsRawFd) -> Option<Entry<'_, T>> {
        let key = self.key_of(fd.as_raw_fd())?;
        self.registrations
            .get(key.index as usize)
            .map(|registration| entry(key.index, registration))
    }

    /// The data of a registration; `None` once it is gone.
    #[inline]
    pub fn data(&self, key: Key) -> Option<&T> {
        resolve(&self.registrations, key).map(|registration| &registration.data)
    }

    /// The data of a registration; `None` once it is gone.
    #[inline]
    pub fn data_mut(&mut self, key: Key) -> Option<&mut T> {
        resolve_mut(&mut self.registrations, key).map(|registration| &mut registration.data)
    }

    /// All registrations, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_, T>> {
        self.registrations
            .iter()
            .map(|(index, registration)| entry(index as u32, registration))
    }

    /// How many descriptors are registered.
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Whether no descriptor is registered.
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// What the poller can do.
    pub fn capabilities(&self) -> Capabilities {
        self.poller.capabilities()
    }

    /// Which poller this stands on.
    pub fn kind(&self) -> Kind {
        self.poller.kind()
    }

    fn key_of(&self, fd: RawFd) -> Option<Key> {
        let slot = usize::try_from(fd).ok()?;
        *self.keys.get(slot)?
    }
}

impl<T> fmt::Debug for Selector<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered = self.registrations.len();
        formatter
            .debug_struct("Selector")
            .field("kind", &self.kind())
            .field("registered", &registered)
            .finish_non_exhaustive()
    }
}

#[inline]
fn resolve<T>(registrations: &Slab<Registration<T>>, key: Key) -> Option<&Registration<T>> {
    let registration = registrations.get(key.index as usize)?;
    (registration.generation == key.generation).then_some(registration)
}

#[inline]
fn resolve_mut<T>(
    registrations: &mut Slab<Registration<T>>,
    key: Key,
) -> Option<&mut Registration<T>> {
    let registration = registrations.get_mut(key.index as usize)?;
    (registration.generation == key.generation).then_some(registration)
}

fn entry<T>(index: u32, registration: &Registration<T>) -> Entry<'_, T> {
    Entry {
        fd: registration.fd,
        interest: registration.interest,
        trigger: registration.trigger,
        key: Key {
            generation: registration.generation,
            index,
        },
        data: &registration.data,
    }
}

fn not_registered(fd: RawFd) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("descriptor {fd} is not registered"),
    )
}
