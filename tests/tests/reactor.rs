//! `runtime::reactor::Reactor` on every poller: whom it calls, in which order, and what it
//! survives.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use runtime::poller::{Interest, Kind, Trigger};
use runtime::reactor::{Reactor, RemoteHandle};
use tests::watchdog::Watchdog;

const LOOK: Option<Duration> = Some(Duration::ZERO);
const READABLE: Interest = Interest::READABLE;

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
    echoes_to_many_clients,
    a_callback_may_change_anything,
    timers_are_ordered_and_never_early,
    cancelled_timers_are_not_called,
    every_round_is_bounded,
    an_always_ready_descriptor_starves_nobody,
    other_threads_reach_it,
    the_last_handle_ends_the_run,
    handles_outlive_the_reactor,
    panics_leave_it_usable,
    a_panic_loses_no_edge,
    the_loop_is_not_run_by_a_callback,
    refusals_come_out,
    dropping_it_drops_the_callbacks,
);

fn run(kind: Kind, test: fn(Kind)) {
    if !Kind::available().contains(&kind) {
        println!("skipped: this system has no {kind}");
        return;
    }
    let _watchdog = Watchdog::new(Duration::from_secs(60));
    test(kind);
}

fn pair() -> (UnixStream, UnixStream) {
    let (left, right) = UnixStream::pair().unwrap();
    left.set_nonblocking(true).unwrap();
    right.set_nonblocking(true).unwrap();
    (left, right)
}

/// A list that callbacks write to and the test reads.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn add(&self, word: &'static str) {
        self.0.borrow_mut().push(word);
    }

    fn take(&self) -> Vec<&'static str> {
        self.0.take()
    }
}

fn echoes_to_many_clients(kind: Kind) {
    // Goal: the textbook use. Method: a listener whose callback registers a callback for each
    // client, and fifty clients on threads, which count their bytes.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let fd = listener.as_raw_fd();
    reactor
        .register(&fd, READABLE, move |reactor, _| {
            while let Ok((stream, _)) = listener.accept() {
                let fd = stream.as_raw_fd();
                let echo = move |reactor: &mut Reactor, _| {
                    let mut buffer = [0; 512];
                    match (&stream).read(&mut buffer) {
                        Ok(0) | Err(_) => reactor.unregister(&fd).unwrap(),
                        Ok(length) => (&stream).write_all(&buffer[..length]).unwrap(),
                    }
                };
                reactor.register(&fd, READABLE, echo).unwrap();
            }
        })
        .unwrap();
    let handle = reactor.handle();
    let clients = thread::spawn(move || {
        thread::scope(|scope| {
            for number in 0..50u8 {
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for round in 0..20u8 {
                        let message = [number, round, 7];
                        stream.write_all(&message).unwrap();
                        let mut answer = [0; 3];
                        stream.read_exact(&mut answer).unwrap();
                        assert_eq!(answer, message);
                    }
                });
            }
        });
        handle.call(|reactor| reactor.stop()).unwrap();
    });
    reactor.run().unwrap();
    clients.join().unwrap();
    // The clients' ends may still be on their way.
    while reactor.len() > 1 {
        reactor.run_once(None).unwrap();
    }
    assert_eq!(reactor.kind(), kind);
}

fn a_callback_may_change_anything(kind: Kind) {
    // Goal: callbacks unregister themselves and others, replace themselves, and are not called
    // once they are gone, even if their readiness was found in the same round. Method: two ready
    // descriptors that each remove the other; then one that replaces itself; then one that
    // unregisters itself and registers anew.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let log = Log::default();
    let ((one, one_far), (two, two_far)) = (pair(), pair());
    (&one_far).write_all(b"x").unwrap();
    (&two_far).write_all(b"x").unwrap();
    for (own, other) in [(&one, two.as_raw_fd()), (&two, one.as_raw_fd())] {
        let log = log.clone();
        let remove = move |reactor: &mut Reactor, _| {
            log.add("removed the other");
            reactor.unregister(&other).unwrap();
        };
        reactor.register(own, READABLE, remove).unwrap();
    }
    assert_eq!(reactor.run_once(None).unwrap(), 1);
    assert_eq!((log.take(), reactor.len()), (vec!["removed the other"], 1));
    let left = if reactor.unregister(&one).is_ok() {
        one
    } else {
        two
    };
    let _ = reactor.unregister(&left);

    let fd = left.as_raw_fd();
    let (first, second) = (log.clone(), log.clone());
    let replace = move |reactor: &mut Reactor, _| {
        first.add("first");
        let second = second.clone();
        reactor
            .modify(&fd, READABLE, move |_, _| second.add("second"))
            .unwrap();
    };
    reactor.register(&left, READABLE, replace).unwrap();
    for _ in 0..3 {
        reactor.run_once(None).unwrap();
    }
    assert_eq!(log.take(), ["first", "second", "second"]);

    let (first, second) = (log.clone(), log.clone());
    let anew = move |reactor: &mut Reactor, _| {
        first.add("old");
        reactor.unregister(&fd).unwrap();
        let second = second.clone();
        reactor
            .register(&fd, READABLE, move |_, _| second.add("new"))
            .unwrap();
    };
    reactor.modify(&left, READABLE, anew).unwrap();
    for _ in 0..2 {
        reactor.run_once(None).unwrap();
    }
    assert_eq!(log.take(), ["old", "new"]);
    let key = {
        reactor.unregister(&left).unwrap();
        let log = log.clone();
        reactor
            .register(&left, READABLE, move |_, _| log.add("paused"))
            .unwrap()
    };
    reactor.set_interest(key, Interest::EMPTY).unwrap();
    assert_eq!(reactor.run_once(LOOK).unwrap(), 0);
}

fn timers_are_ordered_and_never_early(kind: Kind) {
    // Goal: timers come in the order of their deadlines, none early, also those set by others.
    // Method: three, set in the wrong order, which check the time themselves.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let log = Log::default();
    let begin = Instant::now();
    for (word, milliseconds) in [("late", 20), ("early", 1), ("middle", 8)] {
        let delay = Duration::from_millis(milliseconds);
        let log = log.clone();
        reactor.call_later(delay, move |reactor| {
            assert!(begin.elapsed() >= delay);
            log.add(word);
            if word == "late" {
                let begin = Instant::now();
                let delay = Duration::from_micros(300);
                reactor.call_later(delay, move |_| {
                    assert!(begin.elapsed() >= delay);
                    log.add("last");
                });
            }
        });
    }
    reactor.call_later(Duration::MAX, |_| panic!("this time never comes"));
    while log.0.borrow().len() < 4 {
        reactor.run_once(None).unwrap();
    }
    assert_eq!(log.take(), ["early", "middle", "late", "last"]);
    assert_eq!(reactor.run_once(LOOK).unwrap(), 0);
}

fn cancelled_timers_are_not_called(kind: Kind) {
    // Goal: cancel, also by another timer of the same round, and what it answers. Method: two
    // timers that are due at once, the first of which cancels the second.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let log = Log::default();
    let word = log.clone();
    let victim = Rc::new(Cell::new(None));
    let found = Rc::clone(&victim);
    reactor.call_later(Duration::ZERO, move |reactor| {
        assert!(reactor.cancel(found.get().unwrap()));
        word.add("first");
    });
    let key = reactor.call_later(Duration::from_millis(1), |_| panic!("it was cancelled"));
    victim.set(Some(key));
    let end = log.clone();
    reactor.call_later(Duration::from_millis(5), move |_| end.add("end"));
    reactor.run().unwrap();
    assert_eq!(log.take(), ["first", "end"]);
    assert!(!reactor.cancel(key));
}

fn every_round_is_bounded(kind: Kind) {
    // Goal: what queues itself again and again does not keep a round from ending. Method: a task
    // and a timer without delay that do, counted over ten rounds.
    fn again(reactor: &mut Reactor, count: Rc<Cell<u32>>) {
        count.set(count.get() + 1);
        reactor.call_soon(move |reactor| again(reactor, count));
    }
    fn again_later(reactor: &mut Reactor, count: Rc<Cell<u32>>) {
        count.set(count.get() + 1);
        reactor.call_later(Duration::ZERO, move |reactor| again_later(reactor, count));
    }
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let (tasks, timers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    again(&mut reactor, Rc::clone(&tasks));
    again_later(&mut reactor, Rc::clone(&timers));
    for round in 2..12 {
        reactor.run_once(None).unwrap();
        assert_eq!(tasks.get(), round);
        assert!(timers.get() <= round);
    }
}

fn an_always_ready_descriptor_starves_nobody(kind: Kind) {
    // Goal: timers, tasks, other descriptors and other threads have their turn beside one that is
    // always ready. Method: one that nobody reads, and one of each of the others.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let log = Log::default();
    let ((busy, busy_far), (other, other_far)) = (pair(), pair());
    (&busy_far).write_all(b"never read").unwrap();
    (&other_far).write_all(b"x").unwrap();
    reactor.register(&busy, READABLE, |_, _| {}).unwrap();
    let (word, fd) = (log.clone(), other.as_raw_fd());
    let once = move |reactor: &mut Reactor, _| {
        word.add("descriptor");
        reactor.unregister(&fd).unwrap();
    };
    reactor.register(&other, READABLE, once).unwrap();
    let word = log.clone();
    reactor.call_later(Duration::from_millis(2), move |_| word.add("timer"));
    let word = log.clone();
    reactor.call_soon(move |_| word.add("task"));
    let (answer, answered) = mpsc::channel();
    let handle = reactor.handle();
    thread::spawn(move || handle.call(move |_| answer.send(()).unwrap()).unwrap());
    while log.0.borrow().len() < 3 || answered.try_recv().is_err() {
        assert!(reactor.run_once(None).unwrap() > 0 || log.0.borrow().len() >= 2);
    }
    assert_eq!(log.take().len(), 3);
}

fn other_threads_reach_it(kind: Kind) {
    // Goal: tasks from other threads are called, all, once, in each sender's order, while the
    // loop sleeps and while it is busy; and a bare wake ends a wait. Method: four senders, a sum.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    thread_local!(static SEEN: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) });
    let handle = reactor.handle();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let handle: RemoteHandle = handle.clone();
            thread::spawn(move || {
                for number in 0..500 {
                    let note = move |_: &mut Reactor| {
                        SEEN.with_borrow_mut(|seen| seen.push((sender, number)));
                    };
                    handle.call(note).unwrap();
                    if number % 50 == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    while SEEN.with_borrow(Vec::len) < 2_000 {
        reactor.run_once(None).unwrap();
    }
    for sender in senders {
        sender.join().unwrap();
    }
    let seen = SEEN.take();
    for sender in 0..4 {
        let own: Vec<_> = seen
            .iter()
            .filter(|entry| entry.0 == sender)
            .map(|e| e.1)
            .collect();
        assert_eq!(own, (0..500).collect::<Vec<_>>());
    }
    // The first handle stays, because dropping the last one would be a wake-up as well.
    let copy = handle.clone();
    thread::spawn(move || copy.wake());
    assert_eq!(reactor.run_once(None).unwrap(), 0);
    // All wake-ups are taken back: the next wait is a real one.
    let (begin, timeout) = (Instant::now(), Duration::from_millis(2));
    assert_eq!(reactor.run_once(Some(timeout)).unwrap(), 0);
    assert!(begin.elapsed() >= timeout);
}

fn the_last_handle_ends_the_run(kind: Kind) {
    // Goal: run returns when nothing can happen any more, and not before. Method: a thread that
    // sends a task and then drops the only handle.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    reactor.run().unwrap();
    for _ in 0..200 {
        let handle = reactor.handle();
        let (sent, was_called) = mpsc::channel();
        thread::spawn(move || {
            let second = handle.clone();
            drop(handle);
            second.call(move |_| sent.send(()).unwrap()).unwrap();
        });
        reactor.run().unwrap();
        was_called.try_recv().unwrap();
    }
    reactor.call_soon(|reactor| reactor.stop());
    let _handle = reactor.handle();
    reactor.run().unwrap();
}

fn handles_outlive_the_reactor(kind: Kind) {
    // Goal: a handle of a reactor that is gone says so, and tasks are dropped, not kept. Method: a
    // task that was never called and one that comes too late, which share a counter.
    let reactor = Reactor::with_kind(kind).unwrap();
    let handle = reactor.handle();
    let shared = std::sync::Arc::new(());
    let held = shared.clone();
    handle.call(move |_| drop(held)).unwrap();
    drop(reactor);
    assert_eq!(std::sync::Arc::strong_count(&shared), 1);
    let held = shared.clone();
    let error = handle.call(move |_| drop(held)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(std::sync::Arc::strong_count(&shared), 1);
    handle.wake();
}

fn panics_leave_it_usable(kind: Kind) {
    // Goal: a panic comes out of run_once, removes the callback that panicked, and keeps all
    // others. Method: one panicking callback of each kind among well-behaved ones.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let log = Log::default();
    let ((bad, bad_far), (good, good_far)) = (pair(), pair());
    (&bad_far).write_all(b"x").unwrap();
    (&good_far).write_all(b"x").unwrap();
    reactor
        .register(&bad, READABLE, |_, _| panic!("as the test wants"))
        .unwrap();
    let (word, fd) = (log.clone(), good.as_raw_fd());
    let once = move |reactor: &mut Reactor, _| {
        word.add("good");
        reactor.unregister(&fd).unwrap();
    };
    reactor.register(&good, READABLE, once).unwrap();
    reactor.call_soon(|_| panic!("as the test wants"));
    let word = log.clone();
    reactor.call_soon(move |_| word.add("task"));
    reactor.call_later(Duration::ZERO, |_| panic!("as the test wants"));
    let word = log.clone();
    reactor.call_later(Duration::ZERO, move |_| word.add("timer"));
    let mut panics = 0;
    while !reactor.is_empty() || log.0.borrow().len() < 3 {
        let result = catch_unwind(AssertUnwindSafe(|| reactor.run_once(None).unwrap()));
        panics += u32::from(result.is_err());
    }
    assert_eq!(panics, 3);
    let mut words = log.take();
    words.sort_unstable();
    assert_eq!(words, ["good", "task", "timer"]);
    // The descriptor that lost its callback can have another.
    let word = log.clone();
    reactor
        .register(&bad, READABLE, move |_, _| word.add("again"))
        .unwrap();
    reactor.run_once(None).unwrap();
    assert_eq!(log.take(), ["again"]);
}

fn a_panic_loses_no_edge(kind: Kind) {
    // Goal: those whose readiness was found together with the one that panicked are still called,
    // even if the kernel tells only once. Method: three edge-triggered descriptors, each of whose
    // callbacks panics.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let calls = Rc::new(Cell::new(0));
    let pairs = [pair(), pair(), pair()];
    for (near, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
        let count = Rc::clone(&calls);
        let callback = move |_: &mut Reactor, _| {
            count.set(count.get() + 1);
            panic!("as the test wants");
        };
        if reactor
            .register_with(near, READABLE, Trigger::Edge, callback)
            .is_err()
        {
            println!("skipped: {kind} has no edges");
            return;
        }
    }
    for round in 1..=3 {
        let result = catch_unwind(AssertUnwindSafe(|| reactor.run_once(LOOK)));
        assert!(result.is_err() && calls.get() == round);
    }
    assert!(reactor.is_empty());
    assert_eq!(reactor.run_once(LOOK).unwrap(), 0);
}

fn the_loop_is_not_run_by_a_callback(kind: Kind) {
    // Goal: re-entering the loop is refused loudly. Method: a task that tries, and a round after.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    reactor.call_soon(|reactor| drop(reactor.run_once(LOOK)));
    let result = catch_unwind(AssertUnwindSafe(|| reactor.run_once(LOOK)));
    let panic = result.unwrap_err();
    let message = panic.downcast_ref::<&str>().unwrap();
    assert!(
        message.contains("a callback must not run the loop"),
        "{message}"
    );
    assert_eq!(reactor.run_once(LOOK).unwrap(), 0);
}

fn refusals_come_out(kind: Kind) {
    // Goal: the selector's refusals, seen through the reactor. Method: a duplicate, a stranger, an
    // edge where there is none.
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let (near, far) = pair();
    reactor.register(&near, READABLE, |_, _| {}).unwrap();
    let error = reactor.register(&near, READABLE, |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(
        reactor.unregister(&far).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    let error = reactor.modify(&far, READABLE, |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let edge = reactor.register_with(&far, READABLE, Trigger::Edge, |_, _| {});
    assert_eq!(edge.is_ok(), matches!(kind, Kind::Epoll | Kind::Kqueue));
    assert_eq!(reactor.len(), 1 + usize::from(edge.is_ok()));
}

fn dropping_it_drops_the_callbacks(kind: Kind) {
    // Goal: nothing of the user's is leaked. Method: callbacks of each kind that share a counter.
    let shared = Rc::new(());
    let mut reactor = Reactor::with_kind(kind).unwrap();
    let (near, _far) = pair();
    let held = Rc::clone(&shared);
    reactor
        .register(&near, READABLE, move |_, _| {
            assert_eq!(Rc::strong_count(&held), 4)
        })
        .unwrap();
    let held = Rc::clone(&shared);
    reactor.call_soon(move |_| drop(held));
    let held = Rc::clone(&shared);
    reactor.call_later(Duration::from_secs(60), move |_| drop(held));
    assert_eq!(Rc::strong_count(&shared), 4);
    drop(reactor);
    assert_eq!(Rc::strong_count(&shared), 1);
}
