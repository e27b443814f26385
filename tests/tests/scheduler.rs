//! Runs and their scheduling, by the public API: who runs when, what a run begins and ends with,
//! and what it says when nothing can go on.
//!
//! What dies, prints or counts descriptors does so in a child process. Every test has a deadline.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::panic;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::poller::Kind;
use runtime::sync::mpsc;
use runtime::{net, thread};
use tests::child::{descriptors, end_of_child, in_child};
use tests::guards::stacks_that_fit;
use tests::watchdog::Watchdog;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

/// The deadline of a test.
fn watched() -> Watchdog {
    Watchdog::new(Duration::from_secs(60))
}

/// A run with this many workers.
fn run_on<T>(workers: usize, main: impl FnOnce() -> T) -> T {
    runtime::Builder::new().workers(workers).run(main).unwrap()
}

/// Calls a function when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("(no text)")
}

/// Lets everybody who is ready run until they wait.
fn settle() {
    for _ in 0..10 {
        thread::yield_now();
    }
}

/// Whether a seed from outside shuffles the order that a test is about.
fn is_shuffled() -> bool {
    let shuffled = std::env::var_os("RUNTIME_SEED").is_some();
    if shuffled {
        println!("skipped: RUNTIME_SEED shuffles the order that this is about");
    }
    shuffled
}

// ---- order ------------------------------------------------------------------------------------

#[test]
fn yields_go_round() {
    // Goal: first come, first served; nobody is passed over. Method: three write their letter and
    // yield, for more turns than a round of the hub has switches.
    let _watchdog = watched();
    if is_shuffled() {
        return;
    }
    let written = runtime::run(|| {
        let written = Rc::new(RefCell::new(String::new()));
        let writers = ['a', 'b', 'c'].map(|letter| {
            let written = Rc::clone(&written);
            thread::spawn(move || {
                for _ in 0..200 {
                    written.borrow_mut().push(letter);
                    thread::yield_now();
                }
            })
        });
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        written.take()
    });
    assert_eq!(written, "abc".repeat(200));
}

#[test]
fn a_green_thread_runs_until_it_waits() {
    // Goal: nothing takes the processor away, and a spawn does not either. Method: a cell that only
    // a switch in the middle could change.
    let _watchdog = watched();
    runtime::run(|| {
        let busy = Rc::new(Cell::new(0));
        let workers: Vec<_> = (1..=20)
            .map(|number| {
                let busy = Rc::clone(&busy);
                thread::spawn(move || {
                    busy.set(number);
                    let nested = Rc::clone(&busy);
                    let child = thread::spawn(move || nested.set(0));
                    for _ in 0..1000 {
                        assert_eq!(busy.get(), number);
                    }
                    child.join().unwrap();
                })
            })
            .collect();
        assert_eq!(busy.get(), 0, "a spawn only makes ready");
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn busy_threads_starve_neither_timers_nor_sockets_nor_messages() {
    // Goal: the hub has its turn however busy the green threads are. Method: two yield for ever; a
    // sleeper, a reader and a message from another OS thread must get through.
    let _watchdog = watched();
    runtime::run(|| {
        for _ in 0..2 {
            thread::spawn(|| {
                loop {
                    thread::yield_now();
                }
            });
        }
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let reader = thread::spawn(move || far.read(&mut [0; 4]).unwrap());
        thread::sleep(SHORT);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            (&near).write_all(b"abc").unwrap();
            sender.send(near).unwrap();
        });
        let _near = receiver.recv().unwrap();
        assert_eq!(reader.join().unwrap(), 3);
    });
}

#[test]
fn a_seed_replays_an_order() {
    // Goal: with `RUNTIME_SEED` a debug build shuffles, the same seed in the same way. Method:
    // children print the order in which twenty green threads ran.
    let _watchdog = watched();
    const NAME: &str = "a_seed_replays_an_order";
    let order = |seed: &str| {
        let output = end_of_child(NAME, &[("RUNTIME_SEED", seed)], || {
            let order = runtime::run(|| {
                let order = Rc::new(RefCell::new(Vec::new()));
                let threads: Vec<_> = (0..20)
                    .map(|number| {
                        let order = Rc::clone(&order);
                        thread::spawn(move || {
                            order.borrow_mut().push(number);
                            thread::yield_now();
                            order.borrow_mut().push(number);
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .for_each(|thread| thread.join().unwrap());
                order.take()
            });
            println!("order {order:?}");
        })?;
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.split_once("order "));
        Some(line.unwrap().1.to_owned())
    };
    let Some(first) = order("1") else { return };
    let in_order: Vec<_> = (0..20).chain(0..20).collect();
    if cfg!(debug_assertions) {
        assert_eq!(order("1").unwrap(), first);
        assert_ne!(order("2").unwrap(), first);
        assert_ne!(first, format!("{in_order:?}"));
    } else {
        assert_eq!(first, format!("{in_order:?}"));
    }
}

// ---- runs -------------------------------------------------------------------------------------

#[test]
fn a_run_returns_what_main_returns_and_may_borrow() {
    // Goal: the result comes out, and the closure borrows. Method: both; and a run after a run.
    let _watchdog = watched();
    let words = [String::from("a"), String::from("b")];
    for workers in [1, 2, 5] {
        let borrowed = run_on(workers, || {
            assert_eq!(thread::workers(), workers);
            &words[1]
        });
        assert_eq!(borrowed, "b");
    }
    let result: Rc<u8> = runtime::run(|| Rc::new(1));
    assert_eq!(*result, 1);
}

#[test]
fn a_panic_of_main_comes_out_of_the_run() {
    // Goal: the payload comes out, after the others were unwound; the next run is unharmed.
    // Method: a panic with a number, beside a green thread with a destructor.
    let _watchdog = watched();
    let unwound = AtomicBool::new(false);
    let unwound_ref = &unwound;
    let payload = panic::catch_unwind(|| {
        runtime::run(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _on_drop = OnDrop(|| unwound_ref.store(true, Ordering::Relaxed));
                    settle();
                });
                thread::yield_now();
                panic::resume_unwind(Box::new(77_u8))
            })
        })
    });
    assert_eq!(payload.unwrap_err().downcast_ref::<u8>(), Some(&77));
    assert!(unwound.load(Ordering::Relaxed));
    assert_eq!(runtime::run(|| 1), 1);
}

#[test]
fn a_killed_main_ends_the_run_with_a_panic_that_says_so() {
    // Goal: nobody sees a silent end. Method: main kills itself, in a child since it prints.
    let _watchdog = watched();
    in_child(
        "a_killed_main_ends_the_run_with_a_panic_that_says_so",
        || {
            let result = panic::catch_unwind(|| {
                runtime::run(|| {
                    thread::current().kill();
                    thread::yield_now();
                })
            });
            let payload = result.unwrap_err();
            assert_eq!(message_of(&*payload), "the main green thread was killed");
        },
    );
}

#[test]
fn the_end_of_main_unwinds_everybody_at_home() {
    // Goal: at the end every other green thread is unwound, on its own OS thread, whatever it waits
    // for, before the run returns. Method: destructors on three workers, in several kinds of waits,
    // compare OS threads and are counted.
    struct Homely(
        std::thread::ThreadId,
        Arc<AtomicUsize>,
        PhantomData<*const ()>,
    );
    impl Drop for Homely {
        fn drop(&mut self) {
            assert_eq!(self.0, std::thread::current().id());
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let _watchdog = watched();
    let drops = Arc::new(AtomicUsize::new(0));
    run_on(3, || {
        for worker in 0..3 {
            let drops = Arc::clone(&drops);
            let ready = thread::spawn_on(worker, move || {
                let waits: [fn(); 5] = [
                    thread::park,
                    || thread::sleep(LONG),
                    || {
                        let _ = mpsc::channel::<u8>().1.recv();
                    },
                    || {
                        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
                        drop(listener.accept());
                    },
                    || {
                        loop {
                            thread::yield_now();
                        }
                    },
                ];
                for wait in waits {
                    let here = std::thread::current().id();
                    let homely = Homely(here, Arc::clone(&drops), PhantomData);
                    thread::spawn(move || {
                        let _homely = homely;
                        wait();
                        thread::park();
                    });
                }
                settle();
            });
            ready.join().unwrap();
        }
        assert_eq!(drops.load(Ordering::Relaxed), 0);
    });
    assert_eq!(drops.load(Ordering::Relaxed), 15);
}

#[test]
fn destructors_may_spawn_at_the_end() {
    // Goal: a green thread that is spawned while its run ends is dropped as if killed, however deep
    // that goes. Method: destructors that spawn what spawns in its destructor.
    fn spawn_in_drop(depth: u32, drops: &Rc<Cell<u32>>) -> OnDrop<impl FnMut() + use<>> {
        let drops = Rc::clone(drops);
        OnDrop(Box::new(move || {
            drops.set(drops.get() + 1);
            if depth > 0 {
                let next: Box<dyn Any> = Box::new(spawn_in_drop(depth - 1, &drops));
                thread::spawn(move || {
                    let _next = next;
                    unreachable!("nothing begins any more");
                });
            }
        }) as Box<dyn FnMut()>)
    }
    let _watchdog = watched();
    let drops = Rc::new(Cell::new(0));
    runtime::run(|| {
        let first = spawn_in_drop(5, &drops);
        thread::spawn(move || {
            let _first = first;
            thread::park();
        });
        settle();
    });
    assert_eq!(drops.get(), 6);
}

#[test]
fn whoever_swallows_the_end_is_killed_again() {
    // Goal: catching the unwinding does not keep a run alive as long as it ends at some time.
    // Method: catches a hundred, beside many who do not.
    let _watchdog = watched();
    let caught = Rc::new(Cell::new(0));
    runtime::run(|| {
        let theirs = Rc::clone(&caught);
        thread::spawn(move || {
            while theirs.get() < 100 {
                let _ = panic::catch_unwind(thread::park);
                theirs.set(theirs.get() + 1);
            }
        });
        for _ in 0..1000 {
            thread::spawn(thread::park);
        }
        settle();
    });
    assert_eq!(caught.get(), 100);
}

#[test]
fn a_hundred_thousand_are_unwound_at_the_end() {
    // Goal: the end of a run takes time in proportion to its green threads. Method: 100,000 parked
    // ones; were it their square, the deadline would pass.
    let _watchdog = Watchdog::new(Duration::from_secs(120));
    runtime::run(|| {
        for _ in 0..stacks_that_fit(100_000) {
            let parked = thread::Builder::new().stack_size(1);
            drop(parked.spawn(thread::park).unwrap());
        }
        settle();
    });
}

#[test]
fn a_run_inside_a_run_is_refused() {
    // Goal: a panic that says what to do. Method: runs inside; and beside it on another OS thread.
    let _watchdog = watched();
    runtime::run(|| {
        let payload = panic::catch_unwind(|| runtime::run(|| ())).unwrap_err();
        assert!(message_of(&*payload).contains("called inside a runtime"));
        let beside = std::thread::spawn(|| runtime::run(|| 3));
        assert_eq!(beside.join().unwrap(), 3);
    });
}

#[test]
fn runs_on_many_threads_at_once_and_one_after_another() {
    // Goal: runs do not know each other, though they share inboxes over time. Method: four OS
    // threads each make fifty runs with two workers, sleeps, spawns and messages.
    let _watchdog = watched();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..50 {
                    let sum = run_on(2, || {
                        let (sender, receiver) = mpsc::channel();
                        for number in 0..10 {
                            let sender = sender.clone();
                            thread::spawn_on(number % 2, move || {
                                thread::sleep(Duration::from_micros(number as u64));
                                sender.send(number).unwrap();
                            });
                        }
                        drop(sender);
                        receiver.iter().sum::<usize>()
                    });
                    assert_eq!(sum, 45, "round {round}");
                }
            });
        }
    });
}

#[test]
fn sockets_and_channels_survive_their_run() {
    // Goal: what was made in a run works after it, on the plain thread and in the next run, on
    // other pollers as well. Method: a connection and a channel, in several runs and in between.
    let _watchdog = watched();
    let (near, far, sender, receiver) = runtime::run(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let reader = thread::spawn(move || {
            assert_eq!(far.read(&mut [0; 4]).unwrap(), 1);
            far
        });
        settle();
        near.write_all(b"1").unwrap();
        let far = reader.join().unwrap();
        let (sender, receiver) = mpsc::sync_channel(1);
        (near, far, sender, receiver)
    });
    (&near).write_all(b"22").unwrap();
    assert_eq!((&far).read(&mut [0; 4]).unwrap(), 2);
    sender.send(1).unwrap();
    assert_eq!(receiver.recv(), Ok(1));
    for kind in Kind::available() {
        let builder = runtime::Builder::new().poller(*kind);
        let done = builder.run(|| {
            thread::scope(|scope| {
                let reader = scope.spawn(|| (&far).read(&mut [0; 4]).unwrap());
                let waiter = scope.spawn(|| receiver.recv().unwrap());
                settle();
                (&near).write_all(b"333").unwrap();
                sender.send(2).unwrap();
                assert_eq!(reader.join().unwrap(), 3);
                assert_eq!(waiter.join().unwrap(), 2);
            });
        });
        done.unwrap();
    }
}

#[test]
fn bad_settings_are_errors() {
    // Goal: the environment's faults are errors with a clear text. Method: no workers; children
    // with a poller that is none and a seed that is none.
    let _watchdog = watched();
    let error = runtime::Builder::new().workers(0).run(|| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for (name, value) in [("RUNTIME_POLLER", "pool"), ("RUNTIME_SEED", "dice")] {
        let output = end_of_child("bad_settings_are_errors", &[(name, value)], || {
            let began = Cell::new(false);
            let result = runtime::Builder::new().run(|| began.set(true));
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!began.get());
            println!("error: {error}");
            std::process::exit(0);
        });
        let Some(output) = output else { return };
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(value), "{text}");
    }
    let huge = runtime::Builder::new().stack_bytes(usize::MAX).run(|| ());
    assert_eq!(huge.unwrap_err().kind(), ErrorKind::OutOfMemory);
}

#[test]
fn a_run_leaves_no_descriptor_behind() {
    // Goal: whatever a run opened is closed at its end. Method: counts in a child, on every poller,
    // with workers, sockets that are unwound, plain threads that wait, and panics.
    let _watchdog = watched();
    in_child("a_run_leaves_no_descriptor_behind", || {
        let before = descriptors();
        for kind in Kind::available() {
            for end_badly in [false, true] {
                let builder = runtime::Builder::new().poller(*kind).workers(3);
                let result = panic::catch_unwind(|| {
                    builder.run(|| {
                        for worker in 0..3 {
                            let waits = thread::spawn_on(worker, || {
                                let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
                                thread::spawn(move || listener.accept().map(drop));
                                settle();
                            });
                            waits.join().unwrap();
                        }
                        if end_badly {
                            panic::resume_unwind(Box::new(()));
                        }
                    })
                });
                assert_eq!(result.is_err(), end_badly);
                assert_eq!(descriptors(), before, "{kind}");
            }
        }
    });
}

// ---- reports ----------------------------------------------------------------------------------

#[test]
fn a_deadlock_is_reported_once_and_names_who_waits_for_what() {
    // Goal: when nobody can go on, standard error says so once, with names, spawn sites and waits;
    // the run goes on when an OS thread helps after all. Method: a child where five wait; another
    // OS thread ends its wait once the report must be long over.
    let _watchdog = watched();
    const NAME: &str = "a_deadlock_is_reported_once_and_names_who_waits_for_what";
    let output = end_of_child(NAME, &[], || {
        runtime::run(|| {
            let (sender, receiver) = mpsc::sync_channel::<u8>(0);
            let parked = thread::Builder::new().name("lazy".into());
            let parked = parked.spawn(thread::park).unwrap();
            let joins = thread::spawn(move || parked.join().unwrap());
            let (_kept, empty) = mpsc::channel::<u8>();
            thread::spawn(move || empty.recv().unwrap());
            thread::spawn(move || sender.send(1).unwrap());
            // Not a synchronisation: the longer it takes, the more often a wrong report would come.
            let (told, was_told) = mpsc::channel();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(3500));
                told.send(()).unwrap();
            });
            was_told.recv().unwrap();
            drop((joins, receiver));
        });
    });
    let Some(output) = output else { return };
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("deadlock:").count(), 1, "{text}");
    for part in [
        "'main'",
        "'lazy'",
        "scheduler.rs:",
        "waits for an unpark",
        "to end",
        "waits for a message in a channel",
        "waits for room in a channel",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn waiting_for_a_green_thread_while_unwinding_is_reported() {
    // Goal: a destructor that waits during a panic for what only a green thread of its worker could
    // bring says so instead of standing still silently. Method: a child where an OS thread helps
    // in the end.
    let _watchdog = watched();
    const NAME: &str = "waiting_for_a_green_thread_while_unwinding_is_reported";
    let output = end_of_child(NAME, &[], || {
        runtime::run(|| {
            let (told, was_told) = mpsc::channel::<()>();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(2500));
                told.send(()).unwrap();
            });
            let unwinds = thread::Builder::new().name("unwinder".into());
            let unwinds = unwinds
                .spawn(move || {
                    let _on_drop = OnDrop(move || was_told.recv().unwrap());
                    thread::park();
                })
                .unwrap();
            settle();
            unwinds.kill();
            unwinds.join().unwrap_err();
        });
    });
    let Some(output) = output else { return };
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("waits in a destructor").count(), 1, "{text}");
    assert!(text.contains("'unwinder'"), "{text}");
}

#[test]
fn an_overflow_names_the_green_thread_and_its_origin() {
    // Goal: the message says who, from where and how large; the process dies as from a fault.
    // Method: a child that recurses for ever, once with a name and once without.
    fn dig(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 64]);
        if depth == u64::MAX {
            return 0;
        }
        dig(depth + 1) + room[(depth % 64) as usize]
    }
    let _watchdog = watched();
    const NAME: &str = "an_overflow_names_the_green_thread_and_its_origin";
    for name in ["", "digger"] {
        let output = end_of_child(NAME, &[("TESTS_NAME", name)], || {
            runtime::run(|| {
                let mut builder = thread::Builder::new();
                if let Ok(name) = std::env::var("TESTS_NAME") {
                    builder = if name.is_empty() {
                        builder
                    } else {
                        builder.name(name)
                    };
                }
                builder.spawn(|| dig(0)).unwrap().join().unwrap()
            });
        });
        let Some(output) = output else { return };
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        for part in ["has overflowed its stack of 128 KiB", "scheduler.rs:", name] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
}

// ---- panics of others -------------------------------------------------------------------------

#[test]
fn nobody_sees_the_panic_of_another() {
    // Goal: the panic count belongs to the OS thread, so while a destructor waits during a panic no
    // other green thread may run; nobody finds itself panicking, no lock is poisoned. Method:
    // destructors that sleep, yield, read a socket and receive, by panic and by kill, beside one
    // that looks at `panicking()` at every turn and holds a lock. The helpers are OS threads.
    let _watchdog = watched();
    runtime::run(|| {
        let unwinding = Rc::new(Cell::new(false));
        let lock = Arc::new(Mutex::new(0_u64));
        let (seen, shared) = (Rc::clone(&unwinding), Arc::clone(&lock));
        let witness = thread::spawn(move || {
            loop {
                assert!(!thread::panicking());
                assert!(!seen.get(), "it ran in the middle of another's unwinding");
                *shared.lock().unwrap() += 1;
                thread::yield_now();
            }
        });
        for by_panic in [true, false] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (sender, receiver) = mpsc::channel();
            let helper = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; 2]).unwrap();
                stream.write_all(b"ok").unwrap();
                sender.send(stream).unwrap();
            });
            let unwinding = Rc::clone(&unwinding);
            let victim = thread::spawn(move || {
                let mut stream = net::TcpStream::connect(address).unwrap();
                let _on_drop = OnDrop(move || {
                    assert!(thread::panicking());
                    unwinding.set(true);
                    thread::yield_now();
                    thread::sleep(SHORT);
                    thread::park_timeout(SHORT);
                    stream.write_all(b"hi").unwrap();
                    stream.read_exact(&mut [0; 2]).unwrap();
                    receiver.recv().unwrap();
                    assert!(receiver.recv_timeout(SHORT).is_err());
                    unwinding.set(false);
                });
                if by_panic {
                    panic::resume_unwind(Box::new("bad"));
                }
                thread::park();
            });
            settle();
            victim.kill();
            assert!(victim.join().is_err());
            helper.join().unwrap();
        }
        assert!(!witness.is_finished());
        assert!(*lock.lock().unwrap() > 0);
    });
}

// ---- memory -----------------------------------------------------------------------------------

#[test]
fn stacks_are_used_again() {
    // Goal: a stack that was given back serves the next green thread. Method: the address of a
    // local in a thousand green threads, one after another.
    let _watchdog = watched();
    runtime::run(|| {
        let address = || {
            let handle = thread::spawn(|| {
                let local = 0_u8;
                std::hint::black_box(&raw const local).addr()
            });
            handle.join().unwrap()
        };
        let first = address();
        for _ in 0..1000 {
            assert_eq!(address(), first);
        }
    });
}

// ---- loggers ----------------------------------------------------------------------------------

/// A logger as bad as can be: it sleeps, yields, sends, spawns and wakes in the middle of whatever
/// the scheduler tells about.
struct Nuisance;

static RECORDS: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Nuisance {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        thread_local! {
            static INSIDE: Cell<bool> = const { Cell::new(false) };
        }
        // What it causes is logged as well; once is enough.
        if INSIDE.replace(true) {
            return;
        }
        std::hint::black_box(record.args().to_string());
        let count = RECORDS.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
        thread::current().unpark();
        let (sender, receiver) = mpsc::channel();
        sender.send(count).unwrap();
        assert_eq!(receiver.recv(), Ok(count));
        thread::park_timeout(Duration::from_micros(1));
        let _ = thread::scope(|scope| {
            let builder = thread::Builder::new();
            builder.spawn_scoped(scope, || ()).map(drop)
        });
        INSIDE.set(false);
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_that_waits_disturbs_no_step() {
    // Goal: the user's logger may do anything in the middle of a step of the scheduler. Method: a
    // child whose logger waits and wakes at every record, under sleeps, channels, sockets, kills.
    let _watchdog = watched();
    in_child("a_logger_that_waits_disturbs_no_step", || {
        log::set_logger(&Nuisance).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        run_on(2, || {
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                for _ in 0..20 {
                    let (mut stream, _) = listener.accept().unwrap();
                    thread::spawn(move || {
                        let mut bytes = [0; 2];
                        stream.read_exact(&mut bytes).unwrap();
                        stream.write_all(&bytes).unwrap();
                    });
                }
            });
            let clients: Vec<_> = (0..20)
                .map(|n| {
                    thread::spawn_on(n % 2, move || {
                        let mut stream = net::TcpStream::connect(address).unwrap();
                        thread::sleep(Duration::from_micros(100));
                        stream.write_all(b"hi").unwrap();
                        stream.read_exact(&mut [0; 2]).unwrap();
                        let killed = thread::spawn(|| thread::sleep(LONG));
                        thread::yield_now();
                        killed.kill();
                        assert!(killed.join().is_err());
                        let late = runtime::timeout(SHORT, thread::park);
                        assert!(late.is_err());
                    })
                })
                .collect();
            clients
                .into_iter()
                .for_each(|client| client.join().unwrap());
            server.join().unwrap();
        });
        assert!(RECORDS.load(Ordering::Relaxed) > 100);
    });
}
