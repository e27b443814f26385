//! `runtime::selector::Selector` on every poller: one body for all, as for the pollers themselves.
//!
//! What readiness means is the pollers' suite's business. Here it is the registry's: that it knows
//! what is registered and nothing else, whatever is refused, closed, replaced or late.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime::poller::{
    self, Capabilities, Events, Interest, Kind, Poller, Readiness, Token, Trigger,
};
use runtime::selector::{Key, Ready, Selector};
use tests::child;
use tests::watchdog::Watchdog;

const LOOK: Option<Duration> = Some(Duration::ZERO);
const READABLE: Interest = Interest::READABLE;
const WRITABLE: Interest = Interest::WRITABLE;

/// Makes a module of tests for each kind of poller.
macro_rules! on_every_poller {
    ($($test:ident),* $(,)?) => {
        on_every_poller!(@module epoll Epoll $($test)*);
        on_every_poller!(@module kqueue Kqueue $($test)*);
        on_every_poller!(@module poll Poll $($test)*);
        on_every_poller!(@module select Select $($test)*);
    };
    (@module $module:ident $kind:ident $($test:ident)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::run(runtime::poller::Kind::$kind, super::$test);
            })*
        }
    };
}

on_every_poller!(
    registers_and_gives_back,
    refuses_duplicates_and_strangers,
    modify_swaps_interest_and_data,
    set_interest_pauses_and_resumes,
    edges_are_armed_anew,
    lists_what_is_registered,
    unregister_after_close,
    refusals_of_the_kernel_are_undone,
    late_events_within_one_batch,
    late_events_of_a_living_duplicate,
    a_key_is_never_reused,
    any_data_is_kept_and_dropped_once,
    timeouts_are_never_early,
    many_descriptors_in_small_buffers,
);

/// Descriptor numbers belong to the whole process, and some tests are about particular ones.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(kind: Kind, test: fn(Kind)) {
    if !Kind::available().contains(&kind) {
        println!("skipped: this system has no {kind}");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::new(Duration::from_secs(60));
    test(kind);
}

fn pair() -> (UnixStream, UnixStream) {
    let (left, right) = UnixStream::pair().unwrap();
    left.set_nonblocking(true).unwrap();
    right.set_nonblocking(true).unwrap();
    (left, right)
}

/// A look: whose keys are ready.
fn look<T>(selector: &mut Selector<T>) -> Vec<Key> {
    let mut ready = Ready::new();
    selector.select(&mut ready, LOOK).unwrap();
    ready.iter().map(|(key, _)| key).collect()
}

fn registers_and_gives_back(kind: Kind) {
    // Goal: the round trip of a registration. Method: each verb once.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    assert!(selector.is_empty() && selector.get(&near).is_none());
    let key = selector.register(&near, READABLE, "data").unwrap();
    assert!(look(&mut selector).is_empty());
    far.write_all(b"x").unwrap();
    let mut ready = Ready::with_capacity(8);
    selector.select(&mut ready, None).unwrap();
    let found: Vec<_> = ready.iter().collect();
    assert_eq!(found, [(key, Readiness::READABLE)]);
    assert_eq!(ready.at(0), found[0]);
    assert_eq!((selector.data(key), selector.len()), (Some(&"data"), 1));
    assert_eq!(selector.kind(), kind);
    assert_eq!(selector.unregister(&near).unwrap(), "data");
    assert!(selector.is_empty() && selector.data(key).is_none());
    assert!(look(&mut selector).is_empty());
}

fn refuses_duplicates_and_strangers(kind: Kind) {
    // Goal: one registration for a descriptor, and none for what is not registered. Method: each
    // wrong verb, and a look that nothing has changed.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    for stranger in [near.as_raw_fd(), -1, RawFd::MAX] {
        let error = selector.unregister(&stranger).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = selector.modify(&stranger, READABLE, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(selector.get(&stranger).is_none());
    }
    let key = selector.register(&near, READABLE, 1).unwrap();
    let error = selector.register(&near, WRITABLE, 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&near.as_raw_fd().to_string()));
    assert_eq!(
        (look(&mut selector), selector.data(key)),
        (vec![key], Some(&1))
    );
    assert_eq!(selector.unregister(&near).unwrap(), 1);
    let error = selector.unregister(&near).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = selector.unregister_key(key).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = selector.set_interest(key, READABLE).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

fn modify_swaps_interest_and_data(kind: Kind) {
    // Goal: modify takes effect, gives back the old data and keeps the key. Method: from reading
    // to writing to both, and a change of the data alone.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    let key = selector.register(&near, READABLE, 'a').unwrap();
    assert!(look(&mut selector).is_empty());
    assert_eq!(selector.modify(&near, WRITABLE, 'b').unwrap(), 'a');
    assert_eq!(look(&mut selector), [key]);
    assert_eq!(selector.modify(&near, WRITABLE, 'c').unwrap(), 'b');
    assert_eq!(look(&mut selector), [key]);
    far.write_all(b"x").unwrap();
    assert_eq!(selector.modify(&near, Interest::BOTH, 'd').unwrap(), 'c');
    let mut ready = Ready::new();
    selector.select(&mut ready, LOOK).unwrap();
    let seen = ready
        .iter()
        .fold(Readiness::EMPTY, |seen, (_, readiness)| seen | readiness);
    assert_eq!(seen, Readiness::READABLE | Readiness::WRITABLE);
    let entry = selector.get(&near).unwrap();
    assert_eq!(
        (entry.interest, *entry.data, entry.key),
        (Interest::BOTH, 'd', key)
    );
    *selector.data_mut(key).unwrap() = 'e';
    assert_eq!(selector.unregister(&near).unwrap(), 'e');
}

fn set_interest_pauses_and_resumes(kind: Kind) {
    // Goal: an empty interest keeps a registration and its data, silently. Method: pause one that
    // is ready, hang up, resume it.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let key = selector.register(&near, READABLE, "kept").unwrap();
    selector.set_interest(key, Interest::EMPTY).unwrap();
    drop(far);
    assert!(look(&mut selector).is_empty());
    assert!(selector.get(&near).unwrap().interest.is_empty());
    selector.set_interest(key, READABLE).unwrap();
    assert_eq!(
        (look(&mut selector), selector.data(key)),
        (vec![key], Some(&"kept"))
    );
    let error = selector
        .register(&near, Interest::EMPTY, "never")
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

fn edges_are_armed_anew(kind: Kind) {
    // Goal: edge-triggering where there is any, and set_interest as its way to ask again. Method:
    // a byte that is never read.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let result = selector.register_with(&near, READABLE, Trigger::Edge, ());
    if !selector.capabilities().edge_triggered {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(selector.is_empty());
        return;
    }
    let key = result.unwrap();
    assert_eq!(selector.get(&near).unwrap().trigger, Trigger::Edge);
    assert_eq!(look(&mut selector), [key]);
    assert!(look(&mut selector).is_empty());
    selector.set_interest(key, READABLE).unwrap();
    assert_eq!(look(&mut selector), [key]);
    assert!(look(&mut selector).is_empty());
}

fn lists_what_is_registered(kind: Kind) {
    // Goal: iteration shows each registration once, with what belongs to it. Method: register
    // three, unregister one.
    let mut selector = Selector::with_kind(kind).unwrap();
    let pairs = [pair(), pair(), pair()];
    for (number, (near, _)) in pairs.iter().enumerate() {
        selector.register(near, READABLE, number).unwrap();
    }
    selector.unregister(&pairs[1].0).unwrap();
    let mut listed: Vec<(usize, RawFd)> = selector
        .iter()
        .map(|entry| (*entry.data, entry.fd))
        .collect();
    listed.sort_unstable();
    assert_eq!(
        listed,
        [(0, pairs[0].0.as_raw_fd()), (2, pairs[2].0.as_raw_fd())]
    );
    for entry in selector.iter() {
        assert_eq!(selector.data(entry.key), Some(entry.data));
    }
    assert!(format!("{selector:?}").contains("registered: 2"));
}

fn unregister_after_close(kind: Kind) {
    // Goal: a closed descriptor can be unregistered by its number, and the number registered
    // again. Method: close one that is ready, and put another under its number.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    far.write_all(b"x").unwrap();
    let old = selector.register(&near, READABLE, "old").unwrap();
    drop(near);
    assert_eq!(selector.unregister(&fd).unwrap(), "old");
    assert!(look(&mut selector).is_empty());
    let (successor, mut far) = pair();
    // SAFETY: `fd` is free or one of the new pair; in the latter case this does nothing.
    let is_same = unsafe { libc::dup2(successor.as_raw_fd(), fd) } == fd;
    assert!(is_same);
    let new = selector.register(&fd, READABLE, "new").unwrap();
    assert!(new != old && look(&mut selector).is_empty());
    far.write_all(b"y").unwrap();
    assert_eq!(look(&mut selector), [new]);
    assert_eq!(
        (selector.data(new), selector.data(old)),
        (Some(&"new"), None)
    );
    selector.unregister(&fd).unwrap();
    if successor.as_raw_fd() != fd {
        // SAFETY: the duplicate was made above, and nobody else owns it.
        unsafe { libc::close(fd) };
    }
}

fn refusals_of_the_kernel_are_undone(kind: Kind) {
    // Goal: what the kernel refuses leaves no trace, so that it can be registered later. Method: a
    // closed number (EBADF), an empty interest, and a regular file (EPERM from epoll).
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    let aside = near.try_clone().unwrap();
    drop(near);
    let error = selector.register(&fd, READABLE, 1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert!(selector.is_empty() && selector.get(&fd).is_none());
    // SAFETY: the number is free: this thread is the only one that opens descriptors now.
    assert_eq!(unsafe { libc::dup2(aside.as_raw_fd(), fd) }, fd);
    let error = selector.register(&fd, Interest::EMPTY, 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let key = selector.register(&fd, READABLE, 3).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(
        (look(&mut selector), selector.data(key)),
        (vec![key], Some(&3))
    );
    assert_eq!(selector.unregister(&fd).unwrap(), 3);

    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    if kind == Kind::Epoll {
        let error = selector.register(&file, READABLE, 4).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(selector.is_empty() && look(&mut selector).is_empty());
        // SAFETY: `fd` is ours, and takes the file's place: the refused number works again.
        let number = unsafe { libc::dup2(fd, file.as_raw_fd()) };
        assert_eq!(number, file.as_raw_fd());
        selector.register(&file, READABLE, 5).unwrap();
        assert_eq!(look(&mut selector).len(), 1);
    } else {
        let key = selector.register(&file, READABLE, 4).unwrap();
        assert_eq!(look(&mut selector), [key]);
    }
    // SAFETY: the duplicate was made above, and nobody else owns it.
    unsafe { libc::close(fd) };
}

fn late_events_within_one_batch(kind: Kind) {
    // Goal: an event that was found before its registration was replaced reaches nobody. Method:
    // of two that are found ready at once, the first handled replaces the other's registration,
    // by a new one of the very same descriptor.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (one, mut one_far) = pair();
    let (two, mut two_far) = pair();
    one_far.write_all(b"x").unwrap();
    two_far.write_all(b"x").unwrap();
    selector.register(&one, READABLE, "one").unwrap();
    selector.register(&two, READABLE, "two").unwrap();
    let mut ready = Ready::new();
    selector.select(&mut ready, None).unwrap();
    assert_eq!(ready.len(), 2);
    let mut handled = Vec::new();
    for (key, _) in ready.iter() {
        let Some(&name) = selector.data(key) else {
            continue;
        };
        handled.push(name);
        let other = if name == "one" { &two } else { &one };
        selector.unregister(other).unwrap();
        selector.register(other, READABLE, "successor").unwrap();
    }
    assert_eq!(handled.len(), 1, "{handled:?}");
    assert!(handled[0] != "successor");
}

/// A poller that has remembered something for too long: it reports an event of its own choice
/// besides the real ones.
#[derive(Debug)]
struct Forgetless {
    inner: Box<dyn Poller>,
    late: Option<Token>,
}

impl Poller for Forgetless {
    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn add(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        self.late.get_or_insert(token);
        self.inner
            .add(fd, self.late.unwrap_or(token), interest, trigger)
    }

    fn modify(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        self.inner.modify(fd, token, interest, trigger)
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        self.inner.remove(fd)
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.inner.wait(events, timeout)
    }
}

fn late_events_of_a_living_duplicate(kind: Kind) {
    // Goal: select itself drops events of registrations that are gone, as epoll reports them when
    // a closed descriptor has a living duplicate. Method: a poller that reports the first token
    // for ever.
    let inner = poller::open(kind).unwrap();
    let mut selector = Selector::with_poller(Box::new(Forgetless { inner, late: None }));
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let old = selector.register(&near, READABLE, "old").unwrap();
    assert_eq!(look(&mut selector), [old]);
    selector.unregister(&near).unwrap();
    let new = selector.register(&near, READABLE, "new").unwrap();
    assert!(
        look(&mut selector).is_empty(),
        "the poller still reports the old token"
    );
    selector.set_interest(new, WRITABLE).unwrap();
    assert_eq!(look(&mut selector), [new]);

    if kind == Kind::Epoll {
        // The real thing.
        let mut selector = Selector::with_kind(kind).unwrap();
        let copy = near.try_clone().unwrap();
        selector.register(&copy, READABLE, "closed").unwrap();
        let fd = copy.as_raw_fd();
        drop(copy);
        assert_eq!(selector.unregister(&fd).unwrap(), "closed");
        assert!(look(&mut selector).is_empty());
    }
}

fn a_key_is_never_reused(kind: Kind) {
    // Goal: no two registrations share a key, though their places are reused. Method: one
    // descriptor, a thousand times.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, _far) = pair();
    let mut keys = std::collections::HashSet::new();
    for number in 0..1_000 {
        let key = selector.register(&near, READABLE, number).unwrap();
        assert!(keys.insert(key));
        assert_eq!(selector.unregister_key(key).unwrap(), number);
    }
    assert!(keys.into_iter().all(|key| selector.data(key).is_none()));
}

fn any_data_is_kept_and_dropped_once(kind: Kind) {
    // Goal: data of any type, dropped exactly once, also when a registration is refused or the
    // selector goes. Method: data that counts its drops.
    struct Counted(Rc<Cell<u32>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let drops = Rc::new(Cell::new(0));
    let data = || Counted(Rc::clone(&drops));
    let mut selector = Selector::with_kind(kind).unwrap();
    let (one, two) = pair();
    selector.register(&one, READABLE, data()).unwrap();
    selector.register(&two, READABLE, data()).unwrap();
    assert_eq!(drops.get(), 0);
    assert!(selector.register(&one, READABLE, data()).is_err());
    assert_eq!(drops.get(), 1);
    drop(selector.modify(&one, WRITABLE, data()).unwrap());
    assert_eq!(drops.get(), 2);
    drop(selector.unregister(&one).unwrap());
    assert_eq!(drops.get(), 3);
    drop(selector);
    assert_eq!(drops.get(), 4);
    // Functions as data, as a callback loop keeps them.
    let mut selector: Selector<Box<dyn FnMut() -> u32>> = Selector::with_kind(kind).unwrap();
    let mut calls = 0;
    let call = Box::new(move || {
        calls += 1;
        calls
    });
    let key = selector.register(&one, WRITABLE, call).unwrap();
    assert_eq!(selector.data_mut(key).map(|call| call()), Some(1));
    assert_eq!(selector.data_mut(key).map(|call| call()), Some(2));
}

fn timeouts_are_never_early(kind: Kind) {
    // Goal: nobody ready means that the time is up. Method: a silent descriptor, odd timeouts.
    let mut selector = Selector::with_kind(kind).unwrap();
    let (near, _far) = pair();
    selector.register(&near, READABLE, ()).unwrap();
    let mut ready = Ready::new();
    for nanoseconds in [0, 1, 999_999, 2_345_678] {
        let timeout = Duration::from_nanos(nanoseconds);
        let begin = std::time::Instant::now();
        selector.select(&mut ready, Some(timeout)).unwrap();
        assert!(ready.is_empty() && begin.elapsed() >= timeout);
    }
}

fn many_descriptors_in_small_buffers(kind: Kind) {
    // Goal: every registration finds its own data, in batches smaller than what is ready. Method:
    // two hundred echoes at once through a buffer for seven.
    let mut selector = Selector::with_kind(kind).unwrap();
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    for (number, (near, far)) in pairs.iter().enumerate() {
        selector.register(near, READABLE, (number, near)).unwrap();
        let message = u32::try_from(number).unwrap().to_ne_bytes();
        (&*far).write_all(&message).unwrap();
    }
    let mut ready = Ready::with_capacity(7);
    let mut open = pairs.len();
    while open > 0 {
        selector.select(&mut ready, None).unwrap();
        assert!((1..=7).contains(&ready.len()));
        for (key, readiness) in ready.iter() {
            assert!(readiness.is_readable());
            let &(number, mut near) = selector.data(key).unwrap();
            let mut message = [0; 4];
            near.read_exact(&mut message).unwrap();
            assert_eq!(u32::from_ne_bytes(message) as usize, number);
            selector.unregister(near).unwrap();
            open -= 1;
        }
    }
    assert!(selector.is_empty());
}

#[test]
fn the_environment_chooses_the_poller() {
    // Goal: RUNTIME_POLLER names the poller, and a wrong name is an error that lists the right
    // ones. Method: this program runs itself with the variable set, and prints what it got.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::new(Duration::from_secs(60));
    let run = |name: &str| {
        let mut command = child::this_program();
        command.args(["--exact", "child_prints_its_poller", "--nocapture"]);
        command
            .env(poller::ENVIRONMENT_VARIABLE, name)
            .env("PRINT_POLLER", "1");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for kind in Kind::available() {
        assert!(run(kind.name()).contains(&format!("poller: {kind}.")));
    }
    for wrong in ["", "Epoll", "epoll ", "uring"] {
        let output = run(wrong);
        assert!(
            output.contains("error: RUNTIME_POLLER: no poller is named"),
            "{output}"
        );
        assert!(
            Kind::available()
                .iter()
                .all(|kind| output.contains(kind.name())),
            "{output}"
        );
    }
    let missing = if cfg!(target_os = "linux") {
        "kqueue"
    } else {
        "epoll"
    };
    assert!(run(missing).contains(&format!(
        "error: RUNTIME_POLLER: this system has no {missing}"
    )));
}

#[test]
fn child_prints_its_poller() {
    // Goal and method: see the test above; on its own it does nothing.
    if std::env::var_os("PRINT_POLLER").is_some() {
        match Selector::<()>::new() {
            Ok(selector) => println!("poller: {}.", selector.kind()),
            Err(error) => println!("error: {error}"),
        }
    }
}
