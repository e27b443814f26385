//! Green threads by their public API: `runtime::thread` and `runtime::timeout`.
//!
//! Order is made by yields, joins and channels, never by sleeping: a green thread runs until it
//! waits, so a test on one worker says exactly who is where. Every test has a deadline.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use runtime::sync::mpsc;
use runtime::thread::{self, JoinHandle, Killed};
use runtime::{TimedOut, net, timeout};
use tests::child::{end_of_child, in_child};
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

/// Adds one when dropped.
#[derive(Clone)]
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn counter() -> Rc<Cell<u32>> {
    Rc::new(Cell::new(0))
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

fn is_killed<T>(result: thread::Result<T>) -> bool {
    result.is_err_and(|payload| payload.is::<Killed>())
}

/// Lets everybody who is ready run until they wait.
fn settle() {
    for _ in 0..10 {
        thread::yield_now();
    }
}

// ---- join and results -----------------------------------------------------------------------

#[test]
fn join_waits_for_one_that_has_not_ended() {
    // Goal: join parks until the end, and returns the value. Method: join before the first run.
    let _watchdog = watched();
    runtime::run(|| {
        let handle = thread::spawn(|| {
            thread::yield_now();
            "value".to_owned()
        });
        assert!(!handle.is_finished());
        assert_eq!(handle.join().unwrap(), "value");
    });
}

#[test]
fn join_of_one_that_has_ended_does_not_wait() {
    // Goal: the result keeps until it is asked for. Method: yields until `is_finished`, then join.
    let _watchdog = watched();
    runtime::run(|| {
        let handle = thread::spawn(|| 7);
        settle();
        assert!(handle.is_finished());
        assert_eq!(handle.join().unwrap(), 7);
    });
}

#[test]
fn a_panic_comes_out_of_join_and_nowhere_else() {
    // Goal: a panic ends its green thread alone, with its payload as the error of join.
    // Method: one panics with a number beside one that goes on.
    let _watchdog = watched();
    runtime::run(|| {
        let other = thread::spawn(|| {
            settle();
            1
        });
        let bad = thread::spawn(|| -> u8 { panic::resume_unwind(Box::new(41_u64)) });
        assert_eq!(bad.join().unwrap_err().downcast_ref::<u64>(), Some(&41));
        assert_eq!(other.join().unwrap(), 1);
        assert!(!thread::panicking());
    });
}

#[test]
fn results_need_not_be_send() {
    // Goal: closure and result may be bound to the OS thread. Method: an Rc goes in and comes out.
    let _watchdog = watched();
    runtime::run(|| {
        let value = Rc::new(5);
        let theirs = Rc::clone(&value);
        let back = thread::spawn(move || theirs).join().unwrap();
        assert!(Rc::ptr_eq(&value, &back));
    });
}

#[test]
fn a_result_is_dropped_once_however_its_handle_goes() {
    // Goal: nothing is dropped twice or never. Method: handles dropped before the run, after the
    // end, joined, killed before the start; drops are counted.
    let _watchdog = watched();
    let drops = counter();
    runtime::run(|| {
        let result = || Counted(Rc::clone(&drops));
        let early = result();
        drop(thread::spawn(move || early));
        settle();
        assert_eq!(drops.replace(0), 1, "detached before the end");

        let late = result();
        let handle = thread::spawn(move || late);
        settle();
        assert_eq!(drops.get(), 0, "kept while the handle is");
        drop(handle);
        assert_eq!(drops.replace(0), 1, "detached after the end");

        let joined = result();
        let value = thread::spawn(move || joined).join().unwrap();
        assert_eq!(drops.get(), 0, "ours now");
        drop(value);
        assert_eq!(drops.replace(0), 1, "joined");

        let unborn = result();
        let handle = thread::spawn(move || unborn);
        handle.kill();
        assert!(is_killed(handle.join()));
        assert_eq!(drops.replace(0), 1, "killed before it began");
    });
    assert_eq!(drops.get(), 0);
}

#[test]
fn handles_outlive_their_run() {
    // Goal: results can be had after the run, those of unwound ones as kills. Method: handles are
    // carried out of a run on two workers and used there.
    let _watchdog = watched();
    let (done, endless, unfinished) = run_on(2, || {
        let done = thread::spawn_on(1, || vec![1, 2, 3]);
        while !done.is_finished() {
            thread::yield_now();
        }
        let endless = thread::spawn(|| thread::sleep(LONG));
        let unfinished = thread::spawn_on(1, || thread::sleep(LONG));
        thread::yield_now();
        (done, endless, unfinished)
    });
    endless.kill();
    endless.thread().unpark();
    assert!(unfinished.is_finished() && endless.is_finished());
    assert_eq!(done.join().unwrap(), [1, 2, 3]);
    assert!(is_killed(endless.join()));
    assert!(is_killed(unfinished.join()));
}

#[test]
fn handles_are_used_in_a_later_run_that_has_the_same_inbox() {
    // Goal: what is said to a green thread of a run that is over reaches nobody of the next run,
    // whose worker may use the old one's inbox. Method: kills and wakes old handles from within a
    // new run and from a plain OS thread.
    let _watchdog = watched();
    let old = runtime::run(|| {
        let handles: Vec<_> = (0..10)
            .map(|_| thread::spawn(|| thread::sleep(LONG)))
            .collect();
        settle();
        handles
    });
    runtime::run(|| {
        let fine = thread::spawn(|| {
            settle();
            thread::sleep(SHORT);
            7
        });
        for handle in &old {
            handle.kill();
            handle.thread().unpark();
        }
        let (told, was_told) = mpsc::channel();
        let handles = Arc::new(old);
        let theirs = Arc::clone(&handles);
        std::thread::spawn(move || {
            for handle in theirs.iter() {
                handle.kill();
                handle.thread().unpark();
            }
            told.send(()).unwrap();
        });
        was_told.recv().unwrap();
        assert_eq!(fine.join().unwrap(), 7);
        let old = Arc::into_inner(handles);
        assert!(old.is_none_or(|old| old.into_iter().all(|handle| is_killed(handle.join()))));
    });
}

#[test]
fn join_from_another_worker_and_from_a_plain_thread() {
    // Goal: any thread may join. Method: one handle goes to worker 1, one to an OS thread, and
    // both wait before the end is allowed.
    let _watchdog = watched();
    run_on(2, || {
        let (go, gate) = mpsc::channel::<()>();
        let slow = thread::spawn(move || {
            let _ = gate.recv();
            String::from("slow")
        });
        let there = thread::spawn_on(1, move || slow.join().unwrap());
        let (told, was_told) = mpsc::channel();
        let (go_too, gate_too) = mpsc::channel::<()>();
        let slow_too = thread::spawn(move || {
            let _ = gate_too.recv();
            3
        });
        let plain = std::thread::spawn(move || {
            told.send(()).unwrap();
            slow_too.join().unwrap()
        });
        was_told.recv().unwrap();
        drop((go, go_too));
        assert_eq!(there.join().unwrap(), "slow");
        while !plain.is_finished() {
            thread::yield_now();
        }
        assert_eq!(plain.join().unwrap(), 3);
    });
}

#[test]
fn results_are_dropped_on_their_own_thread() {
    // Goal: what need not be Send is dropped where it was made, also at the end of the run.
    // Method: values that compare OS threads, detached, unwound and left in handles that leave.
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
    let theirs = Arc::clone(&drops);
    run_on(3, move || {
        let handles: Vec<JoinHandle<()>> = (0..3)
            .map(|worker| {
                let drops = Arc::clone(&theirs);
                thread::spawn_on(worker, move || {
                    let homely = || {
                        let here = std::thread::current().id();
                        Homely(here, Arc::clone(&drops), PhantomData)
                    };
                    let (one, two, three) = (homely(), homely(), homely());
                    drop(thread::spawn(move || one));
                    let waits = thread::spawn(move || {
                        thread::sleep(LONG);
                        two
                    });
                    drop(waits);
                    let done = thread::spawn(move || three);
                    settle();
                    assert!(done.is_finished());
                    thread::spawn(move || {
                        let _done = done;
                        thread::park();
                    });
                    settle();
                })
            })
            .collect();
        handles
            .into_iter()
            .for_each(|handle| handle.join().unwrap());
    });
    assert_eq!(drops.load(Ordering::Relaxed), 9);
}

#[test]
fn a_result_whose_drop_panics_ends_nobody() {
    // Goal: a detached result may panic when dropped. Method: in a child, since it prints.
    let _watchdog = watched();
    in_child("a_result_whose_drop_panics_ends_nobody", || {
        runtime::run(|| {
            drop(thread::spawn(|| OnDrop(|| panic!("dropped"))));
            settle();
            assert_eq!(thread::spawn(|| 1).join().unwrap(), 1);
        });
    });
}

#[test]
fn a_detached_result_may_wait_in_its_destructor() {
    // Goal: the destructor of a result runs on the green thread, which may wait there, be killed
    // there, and spawn. Method: results that sleep, yield and spawn when dropped.
    let _watchdog = watched();
    let done = counter();
    runtime::run(|| {
        for _ in 0..3 {
            let done = Rc::clone(&done);
            drop(thread::spawn(move || {
                OnDrop(move || {
                    thread::sleep(SHORT);
                    let done = Rc::clone(&done);
                    let child = thread::spawn(move || done.set(done.get() + 1));
                    child.join().unwrap();
                })
            }));
        }
        while done.get() < 3 {
            thread::sleep(SHORT);
        }
        drop(thread::spawn(|| OnDrop(|| thread::sleep(LONG))));
        settle();
    });
    assert_eq!(done.get(), 3);
}

#[test]
fn ten_thousand_are_spawned_and_joined() {
    // Goal: many at once. Method: each returns its number, joined in order.
    let _watchdog = watched();
    let sum: u64 = runtime::run(|| {
        let handles: Vec<_> = (0..10_000_u64)
            .map(|n| {
                thread::spawn(move || {
                    thread::yield_now();
                    n
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .sum()
    });
    assert_eq!(sum, 10_000 * 9_999 / 2);
}

#[test]
fn closures_of_any_size_and_alignment() {
    // Goal: what a closure captures arrives unharmed on any stack. Method: sizes around the limit,
    // far above it, and alignments of 64 and 4096, also on the smallest stack and across workers.
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line([u8; 64]);
    #[derive(Clone, Copy)]
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    fn check<const SIZE: usize>() {
        let bytes: [u8; SIZE] = std::array::from_fn(|index| index as u8);
        let action = move || {
            let bytes = std::hint::black_box(&bytes);
            assert!(
                bytes
                    .iter()
                    .enumerate()
                    .all(|(index, byte)| *byte == index as u8)
            );
            bytes.len()
        };
        let small = thread::Builder::new().stack_size(1).spawn(action).unwrap();
        assert_eq!(small.join().unwrap(), SIZE);
        assert_eq!(thread::spawn_on(1, action).join().unwrap(), SIZE);
    }
    let _watchdog = watched();
    let roomy = runtime::Builder::new().workers(2).stack_bytes(1 << 20);
    let ran = roomy.run(|| {
        check::<0>();
        check::<1>();
        check::<17>();
        check::<2032>();
        check::<2048>();
        check::<2049>();
        check::<20_000>();
        let (line, page) = (Line([3; 64]), Page([4; 4096]));
        let aligned = move || {
            let (line, page) = (std::hint::black_box(&line), std::hint::black_box(&page));
            assert!(std::ptr::from_ref(line).addr().is_multiple_of(64));
            assert!(std::ptr::from_ref(page).addr().is_multiple_of(4096));
            u32::from(line.0[63]) + u32::from(page.0[4095])
        };
        assert_eq!(thread::spawn(aligned).join().unwrap(), 7);
        assert_eq!(thread::spawn_on(1, aligned).join().unwrap(), 7);
    });
    ran.unwrap();
}

#[test]
fn names_and_numbers() {
    // Goal: names as given, numbers unique, on green and plain threads. Method: asks all of them.
    let _watchdog = watched();
    run_on(2, || {
        assert_eq!(thread::current().name(), Some("main"));
        let named = thread::Builder::new().name("digger".into());
        let named = named
            .spawn(|| {
                (
                    thread::current().name().map(str::to_owned),
                    thread::current().id(),
                )
            })
            .unwrap();
        let id = named.thread().id();
        assert_eq!(named.thread().name(), Some("digger"));
        assert_eq!(named.join().unwrap(), (Some("digger".into()), id));
        let far = thread::Builder::new().name("far".into());
        let far = far.spawn_on(1, || thread::current().name().map(str::to_owned));
        assert_eq!(far.unwrap().join().unwrap().as_deref(), Some("far"));
        let unnamed = thread::spawn(|| thread::current().name().is_none());
        assert!(unnamed.join().unwrap());
        let plain = std::thread::spawn(|| thread::current().id() == thread::current().id());
        assert!(plain.join().unwrap());
        assert_ne!(thread::current().id(), id);
    });
}

// ---- other workers ----------------------------------------------------------------------------

#[test]
fn spawn_on_refuses_a_worker_that_is_not_there() {
    // Goal: a bad index is an error of the builder and a panic of the function. Method: both.
    let _watchdog = watched();
    run_on(2, || {
        let error = thread::Builder::new().spawn_on(2, || ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("2 workers"), "{error}");
        let payload = panic::catch_unwind(|| thread::spawn_on(9, || ())).unwrap_err();
        assert!(message_of(&*payload).contains("worker 9"));
    });
}

#[test]
fn a_panic_on_another_worker_comes_out_of_join() {
    // Goal: payloads cross workers; the other worker goes on.
    // Method: panic there, then spawn there.
    let _watchdog = watched();
    run_on(2, || {
        let bad = thread::spawn_on(1, || panic::resume_unwind(Box::new("far")));
        let payload: Box<dyn Any + Send> = bad.join().unwrap_err();
        assert_eq!(message_of(&*payload), "far");
        assert_eq!(thread::spawn_on(1, || 2).join().unwrap(), 2);
    });
}

#[test]
fn a_closure_that_comes_too_late_is_dropped_and_its_join_ends() {
    // Goal: nobody waits for what a worker that has ended will not start, even where the closure's
    // own destructor panics. Method: at the end of the run, a destructor on worker 2 spawns on
    // worker 1, which may have ended or be about to, and joins. In a child, for such a wait would
    // have no end.
    let _watchdog = watched();
    in_child(
        "a_closure_that_comes_too_late_is_dropped_and_its_join_ends",
        || {
            for _ in 0..50 {
                let joins = Arc::new(AtomicUsize::new(0));
                let theirs = Arc::clone(&joins);
                run_on(3, move || {
                    let (told, was_told) = mpsc::channel();
                    thread::spawn_on(2, move || {
                        let _on_drop = OnDrop(move || {
                            let unlucky = OnDrop(|| panic::resume_unwind(Box::new("drop")));
                            let late = thread::spawn_on(1, move || drop(unlucky));
                            assert!(late.join().is_err());
                            theirs.fetch_add(1, Ordering::Relaxed);
                        });
                        told.send(()).unwrap();
                        thread::park();
                    });
                    was_told.recv().unwrap();
                });
                assert_eq!(joins.load(Ordering::Relaxed), 1);
            }
        },
    );
}

// ---- kill -------------------------------------------------------------------------------------

/// Spawns `action`, lets it wait, kills it, and checks that it was unwound by that.
fn kill_in_the_middle_of(action: impl FnOnce() + 'static) {
    let drops = counter();
    let counted = Counted(Rc::clone(&drops));
    let handle = thread::spawn(move || {
        let _counted = counted;
        action();
        unreachable!("the kill came too late");
    });
    settle();
    assert!(!handle.is_finished(), "it did not wait");
    handle.kill();
    assert_eq!(drops.get(), 0, "a kill is delivered, not executed");
    assert!(is_killed(handle.join()));
    assert_eq!(drops.get(), 1);
}

#[test]
fn kill_ends_every_kind_of_wait() {
    // Goal: whatever a green thread waits for, a kill unwinds it from there and leaves what it
    // waited for usable. Method: kills in each wait, then uses the other side.
    let _watchdog = watched();
    runtime::run(|| {
        kill_in_the_middle_of(thread::park);
        kill_in_the_middle_of(|| thread::park_timeout(LONG));
        kill_in_the_middle_of(|| thread::sleep(LONG));
        kill_in_the_middle_of(|| thread::sleep(Duration::MAX));

        let parked = thread::spawn(thread::park);
        let thread_of_parked = parked.thread().clone();
        kill_in_the_middle_of(move || drop(parked.join()));
        thread_of_parked.unpark();

        let (sender, receiver) = mpsc::channel::<u8>();
        let kept = sender.clone();
        kill_in_the_middle_of(move || {
            let _ = receiver.recv();
        });
        assert!(kept.send(1).is_err());
        drop(sender);

        let (sender, receiver) = mpsc::sync_channel::<u8>(0);
        kill_in_the_middle_of(move || {
            let _ = receiver.recv_timeout(LONG);
        });
        assert!(sender.send(1).is_err());

        let (sender, receiver) = mpsc::sync_channel::<u8>(1);
        sender.send(1).unwrap();
        let theirs = sender.clone();
        kill_in_the_middle_of(move || {
            let _ = theirs.send(2);
        });
        sender.try_send(3).unwrap_err();
        assert_eq!(receiver.try_recv(), Ok(1));
        sender.try_send(4).unwrap();
        assert_eq!(receiver.try_recv(), Ok(4));
    });
}

#[test]
fn kill_ends_every_kind_of_io_wait() {
    // Goal: a green thread can be killed in accept, read and write; a shared socket goes on
    // working for others. Method: kills in each wait, then uses the socket.
    let _watchdog = watched();
    runtime::run(|| {
        let listener = Rc::new(net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let theirs = Rc::clone(&listener);
        kill_in_the_middle_of(move || drop(theirs.accept()));
        let mut near = net::TcpStream::connect(address).unwrap();
        let far = Rc::new(listener.accept().unwrap().0);
        for _ in 0..3 {
            let theirs = Rc::clone(&far);
            kill_in_the_middle_of(move || drop((&*theirs).read(&mut [0; 10])));
        }
        let theirs = Rc::clone(&far);
        kill_in_the_middle_of(move || {
            let bytes = vec![7; 1 << 20];
            loop {
                (&*theirs).write_all(&bytes).unwrap();
            }
        });
        near.write_all(b"still").unwrap();
        let mut answer = [0; 5];
        (&*far).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still");
    });
}

#[test]
fn two_readers_of_one_socket_and_one_is_killed() {
    // Goal: the list of waiters survives that any of its members leaves. Method: three readers of
    // one socket; the first, middle or last is killed; a byte for each of the others arrives.
    let _watchdog = watched();
    runtime::run(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        for victim in 0..3 {
            let mut near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let far = Rc::new(listener.accept().unwrap().0);
            let mut readers: Vec<_> = (0..3)
                .map(|_| {
                    let far = Rc::clone(&far);
                    thread::spawn(move || (&*far).read(&mut [0; 1]).unwrap())
                })
                .collect();
            settle();
            let victim = readers.remove(victim);
            victim.kill();
            assert!(is_killed(victim.join()));
            near.write_all(b"ab").unwrap();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 1);
            }
        }
    });
}

#[test]
fn a_killed_sender_passes_its_room_on() {
    // Goal: the wake-up of a sender that is killed before it runs again goes to the next one.
    // Method: three wait for room; the receiver takes one message, which wakes the first, and that
    // one is killed before it has run.
    let _watchdog = watched();
    runtime::run(|| {
        let (sender, receiver) = mpsc::sync_channel(1);
        sender.send(0).unwrap();
        let senders: Vec<_> = (1..=3)
            .map(|n| {
                let sender = sender.clone();
                thread::spawn(move || sender.send(n).unwrap())
            })
            .collect();
        settle();
        assert_eq!(receiver.try_recv(), Ok(0));
        senders[0].kill();
        settle();
        assert!(senders[0].is_finished() && senders[1].is_finished());
        assert_eq!(receiver.recv(), Ok(2));
        assert_eq!(receiver.recv(), Ok(3));
    });
}

#[test]
fn kill_before_the_start_and_by_itself_and_twice_and_after_the_end() {
    // Goal: the odd moments. Method: each of them.
    let _watchdog = watched();
    runtime::run(|| {
        let unborn = thread::spawn(|| unreachable!("it was killed before"));
        unborn.kill();
        assert!(is_killed::<()>(unborn.join()));

        let went_on = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&went_on);
        let suicide = thread::spawn(move || {
            thread::current().kill();
            theirs.set(true);
            thread::yield_now();
            unreachable!("the yield is a suspension point");
        });
        assert!(is_killed::<()>(suicide.join()));
        assert!(went_on.get(), "a kill waits for the next suspension point");

        let twice = thread::spawn(thread::park);
        settle();
        twice.kill();
        twice.kill();
        assert!(is_killed(twice.join()));

        let ended = thread::spawn(|| 5);
        settle();
        ended.kill();
        assert_eq!(ended.join().unwrap(), 5);

        let ended = thread::spawn(|| 6);
        let thread_of_ended = ended.thread().clone();
        assert_eq!(ended.join().unwrap(), 6);
        thread_of_ended.kill();
        thread_of_ended.unpark();
        settle();
    });
}

#[test]
fn kill_from_another_worker_and_from_a_plain_thread() {
    // Goal: a kill crosses OS threads. Method: both kinds kill one that is parked; another one is
    // killed right after it was sent to its worker.
    let _watchdog = watched();
    run_on(2, || {
        let victim = Arc::new(thread::spawn(thread::park));
        settle();
        let theirs = Arc::clone(&victim);
        thread::spawn_on(1, move || theirs.kill()).join().unwrap();
        while !victim.is_finished() {
            thread::yield_now();
        }

        let victim = Arc::new(thread::spawn_on(1, || thread::sleep(LONG)));
        let theirs = Arc::clone(&victim);
        let plain = std::thread::spawn(move || theirs.kill());
        while !victim.is_finished() || !plain.is_finished() {
            thread::yield_now();
        }
        plain.join().unwrap();
        assert!(is_killed(Arc::into_inner(victim).unwrap().join()));

        for _ in 0..100 {
            let fresh = thread::spawn_on(1, thread::park);
            fresh.kill();
            assert!(is_killed(fresh.join()));
        }
    });
}

#[test]
fn a_kill_prints_nothing_and_calls_no_hook() {
    // Goal: a kill is no panic: no message, and the payload is `Killed` where a panic's is its own.
    // Method: a child counts calls of its panic hook, and its standard error must stay empty.
    let _watchdog = watched();
    const NAME: &str = "a_kill_prints_nothing_and_calls_no_hook";
    let output = end_of_child(NAME, &[], || {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            before(information);
        }));
        runtime::run(|| {
            let handle = thread::spawn(thread::park);
            settle();
            handle.kill();
            assert!(is_killed(handle.join()));
            let _ = timeout(SHORT, || thread::sleep(LONG));
            thread::spawn(thread::park);
            settle();
        });
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    });
    if let Some(output) = output {
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn a_swallowed_kill_is_over() {
    // Goal: whoever catches a kill goes on, and can be killed again. Method: catches two of three.
    let _watchdog = watched();
    runtime::run(|| {
        let caught = counter();
        let theirs = Rc::clone(&caught);
        let stubborn = thread::spawn(move || {
            for _ in 0..2 {
                let payload = panic::catch_unwind(thread::park).unwrap_err();
                assert!(payload.is::<Killed>() && !thread::panicking());
                theirs.set(theirs.get() + 1);
            }
            thread::park();
        });
        for kills in 1..=2 {
            settle();
            stubborn.kill();
            settle();
            assert_eq!(caught.get(), kills);
        }
        assert!(!stubborn.is_finished());
        stubborn.kill();
        assert!(is_killed(stubborn.join()));
    });
}

#[test]
fn a_killed_holder_lets_go_of_its_lock() {
    // Goal: what the documentation of `kill` says of std's locks: released, and poisoned, since std
    // takes the unwinding for a panic. Method: kills the holder of a mutex.
    let _watchdog = watched();
    runtime::run(|| {
        let lock = Arc::new(Mutex::new(1));
        let theirs = Arc::clone(&lock);
        let holder = thread::spawn(move || {
            let _guard = theirs.lock().unwrap();
            thread::park();
        });
        settle();
        holder.kill();
        assert!(is_killed(holder.join()));
        let value = match lock.try_lock() {
            Err(TryLockError::Poisoned(error)) => *error.into_inner(),
            other => panic!("released and poisoned, not {other:?}"),
        };
        assert_eq!(value, 1);
    });
}

// ---- time-outs --------------------------------------------------------------------------------

#[test]
fn a_timeout_fires_or_does_not() {
    // Goal: the closure's value in time, otherwise `TimedOut`, after no less than the duration,
    // and the closure's values are dropped. Method: both, with the clock.
    let _watchdog = watched();
    runtime::run(|| {
        assert_eq!(timeout(LONG, || 7), Ok(7));
        let drops = counter();
        let begin = Instant::now();
        let result = timeout(Duration::from_millis(10), || {
            let _counted = Counted(Rc::clone(&drops));
            thread::sleep(LONG);
        });
        assert_eq!(result, Err(TimedOut));
        assert!(begin.elapsed() >= Duration::from_millis(10));
        assert_eq!(drops.get(), 1);
        assert!(!thread::panicking());
        settle();
    });
}

#[test]
fn timeouts_nest() {
    // Goal: each time-out ends its own call. Method: the inner fires; the outer fires inside of
    // the inner; both are due at once.
    let _watchdog = watched();
    runtime::run(|| {
        let inner = timeout(LONG, || timeout(SHORT, || thread::sleep(LONG)));
        assert_eq!(inner, Ok(Err(TimedOut)));
        let outer = timeout(SHORT, || timeout(LONG, || thread::sleep(LONG)));
        assert_eq!(outer, Err(TimedOut));
        let both = timeout(SHORT, || {
            let inner = timeout(Duration::ZERO, || thread::sleep(LONG));
            assert_eq!(inner, Err(TimedOut));
            let _ = timeout(SHORT, || thread::sleep(LONG));
            thread::sleep(LONG);
        });
        assert_eq!(both, Err(TimedOut));
        settle();
    });
}

#[test]
fn a_timeout_that_fires_too_late_is_forgotten() {
    // Goal: one that fired while the closure did not wait any more ends nothing later. Method: the
    // alarm rings while the green thread is ready, and the closure returns at its next turn.
    let _watchdog = watched();
    runtime::run(|| {
        let result = timeout(Duration::from_millis(1), || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
            3
        });
        assert_eq!(result, Ok(3));
        thread::sleep(SHORT);
        settle();

        // It fires while a scope waits, whose own panic comes first.
        let panicked = panic::catch_unwind(|| {
            timeout(SHORT, || {
                thread::scope(|scope| {
                    scope.spawn(|| drop(panic::catch_unwind(|| thread::sleep(LONG))));
                    panic::resume_unwind(Box::new(4_u8))
                })
            })
        });
        assert!(panicked.is_err_and(|payload| payload.is::<u8>()));
        settle();
    });
}

#[test]
fn zero_and_endless_timeouts() {
    // Goal: zero fires at the first wait and not before; the longest one never. Method: both.
    let _watchdog = watched();
    runtime::run(|| {
        assert_eq!(timeout(Duration::ZERO, || 1), Ok(1));
        assert_eq!(timeout(Duration::ZERO, thread::park), Err(TimedOut));
        assert_eq!(timeout(Duration::MAX, || 1), Ok(1));
        let woken = timeout(Duration::MAX, || {
            thread::sleep(SHORT);
            2
        });
        assert_eq!(woken, Ok(2));
        let nearly = Duration::from_nanos(u64::MAX / 2);
        assert_eq!(timeout(nearly, || thread::sleep(SHORT)), Ok(()));
    });
}

#[test]
fn a_timeout_ends_a_loop_of_receives() {
    // Goal: a loop that always finds a message is ended too. Method: a sender on another OS thread
    // that never lets the channel run empty, and one on the same worker.
    let _watchdog = watched();
    runtime::run(|| {
        let (sender, receiver) = mpsc::sync_channel(1000);
        let busy = std::thread::spawn(move || while sender.send(1).is_ok() {});
        let result = timeout(Duration::from_millis(5), || {
            loop {
                receiver.recv().unwrap();
            }
        });
        assert_eq!(result, Err(TimedOut));
        drop(receiver);
        while !busy.is_finished() {
            thread::sleep(SHORT);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::spawn(move || while sender.send(1).is_ok() {});
        let result = timeout(Duration::from_millis(5), || {
            loop {
                receiver.recv().unwrap();
            }
        });
        assert_eq!(result, Err(TimedOut));
        assert!(receiver.recv().is_ok(), "the channel goes on");
    });
}

#[test]
fn panics_and_kills_pass_through_a_timeout() {
    // Goal: only its own time-out stops at `timeout`. Method: a panic, and a kill from outside.
    let _watchdog = watched();
    runtime::run(|| {
        let panicked =
            panic::catch_unwind(|| timeout(LONG, || panic::resume_unwind(Box::new(9_u8))));
        assert_eq!(panicked.unwrap_err().downcast_ref::<u8>(), Some(&9));
        let inside = thread::spawn(|| timeout(LONG, || timeout(LONG, thread::park)));
        settle();
        inside.kill();
        assert!(is_killed(inside.join()));
    });
}

#[test]
fn a_timeout_outside_a_run_says_so() {
    // Goal: a clear panic where nothing could interrupt. Method: calls it on a plain thread.
    let payload = panic::catch_unwind(|| timeout(LONG, || 1)).unwrap_err();
    assert!(message_of(&*payload).contains("outside a green thread"));
}

#[test]
fn timers_of_waits_that_ended_early_do_not_pile_up() {
    // Goal: a cancelled timer costs nothing afterwards. Method: a million of them, an hour long
    // each; the resident memory of a child must stay small.
    let _watchdog = watched();
    in_child("timers_of_waits_that_ended_early_do_not_pile_up", || {
        runtime::run(|| {
            let (sender, receiver) = mpsc::channel();
            for n in 0..1_000_000 {
                if n % 1000 == 0 {
                    thread::yield_now();
                }
                sender.send(n).unwrap();
                assert_eq!(timeout(LONG, || receiver.recv_timeout(LONG)), Ok(Ok(n)));
            }
        });
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let peak = status
                .lines()
                .find(|line| line.starts_with("VmHWM"))
                .unwrap();
            let kilobytes: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(kilobytes < 40_000, "{peak}");
        }
    });
}

#[test]
fn a_timeout_ends_a_scope_with_all_that_it_spawned() {
    // Goal: the wait at a scope's end is bounded by a time-out as any other; its green threads are
    // ended, and the scope does not pretend to have succeeded. Method: a scope whose child would
    // sleep for an hour, in the middle of the closure and at the end.
    let _watchdog = watched();
    runtime::run(|| {
        let ended = counter();
        let at_the_end = timeout(SHORT, || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _counted = Counted(Rc::clone(&ended));
                    thread::sleep(LONG);
                });
            });
            1
        });
        assert_eq!(at_the_end, Err(TimedOut));
        assert_eq!(ended.get(), 1);
        let in_the_middle = timeout(SHORT, || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _counted = Counted(Rc::clone(&ended));
                    thread::sleep(LONG);
                });
                thread::sleep(LONG);
            });
        });
        assert_eq!(in_the_middle, Err(TimedOut));
        assert_eq!(ended.get(), 2);
    });
}

// ---- park and unpark --------------------------------------------------------------------------

#[test]
fn an_unpark_is_remembered_once() {
    // Goal: std's token: one is kept, more count as one. Method: unparks twice before the park.
    let _watchdog = watched();
    runtime::run(|| {
        let turns = counter();
        let theirs = Rc::clone(&turns);
        let handle = thread::spawn(move || {
            loop {
                thread::park();
                theirs.set(theirs.get() + 1);
            }
        });
        handle.thread().unpark();
        handle.thread().unpark();
        settle();
        assert_eq!(turns.get(), 1);
        handle.thread().unpark();
        settle();
        assert_eq!(turns.get(), 2);
        thread::current().unpark();
        thread::park();
    });
}

#[test]
fn the_token_is_not_eaten_by_other_waits() {
    // Goal: recv, join, sleep, I/O and a scope neither take the token nor end because of it.
    // Method: the token comes before and during each wait; the park afterwards must not wait.
    let _watchdog = watched();
    runtime::run(|| {
        let handle = thread::spawn(|| {
            let (sender, receiver) = mpsc::channel();
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let near = net::TcpStream::connect(address).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            thread::park();
            thread::spawn(move || {
                settle();
                sender.send(1).unwrap();
            });
            assert_eq!(receiver.recv(), Ok(1));
            thread::park();
            thread::spawn(settle).join().unwrap();
            thread::park();
            let begin = Instant::now();
            thread::sleep(SHORT);
            assert!(begin.elapsed() >= SHORT);
            thread::park();
            thread::scope(|scope| {
                scope.spawn(settle);
            });
            thread::park();
            thread::spawn(move || {
                settle();
                (&near).write_all(b"x").unwrap();
                near
            });
            assert_eq!(far.read(&mut [0; 8]).unwrap(), 1);
            thread::park();
        });
        // Everything on this worker: one unpark for each turn until it has ended.
        while !handle.is_finished() {
            handle.thread().unpark();
            thread::yield_now();
        }
        handle.join().unwrap();

        let tokens = thread::spawn(|| {
            let (_sender, receiver) = mpsc::channel::<()>();
            thread::park();
            assert!(receiver.recv_timeout(SHORT).is_err());
            thread::sleep(SHORT);
            thread::spawn(|| ()).join().unwrap();
            thread::park();
        });
        tokens.thread().unpark();
        settle();
        tokens.thread().unpark();
        tokens.join().unwrap();
    });
}

#[test]
fn connecting_is_not_ended_by_an_unpark() {
    // Goal: an unpark in the middle of a connect does not make it look connected. Method: a full
    // backlog keeps the connect waiting while the token comes again and again.
    let _watchdog = watched();
    runtime::run(|| {
        // The first address of TEST-NET-1 answers nobody; without a route the kernel refuses at
        // once, and there is nothing to test.
        let address = "192.0.2.1:9".parse().unwrap();
        let connecting = thread::spawn(move || {
            net::TcpStream::connect_timeout(&address, Duration::from_millis(50))
        });
        while !connecting.is_finished() {
            connecting.thread().unpark();
            thread::yield_now();
        }
        assert!(connecting.join().unwrap().is_err());
    });
}

#[test]
fn park_timeout_ends_by_either() {
    // Goal: it ends by the token at once, or by time, never early. Method: both.
    let _watchdog = watched();
    runtime::run(|| {
        let begin = Instant::now();
        thread::park_timeout(SHORT);
        assert!(begin.elapsed() >= SHORT);
        let handle = thread::spawn(|| thread::park_timeout(LONG));
        settle();
        handle.thread().unpark();
        handle.join().unwrap();
        thread::current().unpark();
        thread::park_timeout(LONG);
        thread::park_timeout(Duration::ZERO);
        let endless = thread::spawn(|| thread::park_timeout(Duration::MAX));
        settle();
        endless.thread().unpark();
        endless.join().unwrap();
    });
}

#[test]
fn plain_threads_park_and_unpark_too() {
    // Goal: unpark crosses between green and plain threads. Method: each wakes the other.
    let _watchdog = watched();
    runtime::run(|| {
        let green = thread::current();
        let (tell, told) = mpsc::channel();
        let plain = std::thread::spawn(move || {
            tell.send(thread::current()).unwrap();
            thread::park();
            green.unpark();
        });
        told.recv().unwrap().unpark();
        thread::park();
        while !plain.is_finished() {
            thread::yield_now();
        }
    });
}

#[test]
fn no_wake_up_is_lost_between_workers() {
    // Goal: the token always arrives, whether the other worker sleeps or is about to. Method: two
    // green threads on two workers and one plain OS thread hand a ball around, 20,000 times; a
    // seeded number of spins in between moves the moment.
    let _watchdog = watched();
    let seed = 0x5eed_u64;
    println!("seed {seed}");
    run_on(2, move || {
        let ball = Arc::new(AtomicUsize::new(0));
        let players: Arc<Mutex<Vec<thread::Thread>>> = Arc::default();
        let play = move |place: usize, ball: Arc<AtomicUsize>, players: Vec<thread::Thread>| {
            let mut random = seed + place as u64;
            for turn in 0..20_000 {
                let mine = turn * players.len() + place;
                while ball.load(Ordering::Acquire) != mine {
                    thread::park();
                }
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                for _ in 0..(random >> 33) % 200 {
                    std::hint::spin_loop();
                }
                ball.store(mine + 1, Ordering::Release);
                players[(place + 1) % players.len()].unpark();
            }
        };
        let ready = Arc::new(AtomicBool::new(false));
        let start = |place: usize| {
            let (ball, players, ready) =
                (Arc::clone(&ball), Arc::clone(&players), Arc::clone(&ready));
            move || {
                while !ready.load(Ordering::Acquire) {
                    thread::park();
                }
                let players = players.lock().unwrap().clone();
                play(place, ball, players);
            }
        };
        let one = thread::spawn(start(0));
        let two = thread::spawn_on(1, start(1));
        let (tell, told) = mpsc::channel();
        let third = start(2);
        let three = std::thread::spawn(move || {
            tell.send(thread::current()).unwrap();
            third();
        });
        let everybody = vec![
            one.thread().clone(),
            two.thread().clone(),
            told.recv().unwrap(),
        ];
        *players.lock().unwrap() = everybody.clone();
        ready.store(true, Ordering::Release);
        everybody.iter().for_each(thread::Thread::unpark);
        one.join().unwrap();
        two.join().unwrap();
        while !three.is_finished() {
            thread::yield_now();
        }
        three.join().unwrap();
        assert_eq!(ball.load(Ordering::Relaxed), 60_000);
    });
}

// ---- scope ------------------------------------------------------------------------------------

#[test]
fn scoped_threads_borrow() {
    // Goal: shared and mutable borrows, results, nesting. Method: all of them.
    let _watchdog = watched();
    runtime::run(|| {
        let words = vec![String::from("to"), String::from("be")];
        let mut sum = 0;
        let lengths = thread::scope(|scope| {
            scope.spawn(|| {
                thread::scope(|inner| {
                    for word in &words {
                        inner.spawn(|| thread::sleep(Duration::from_micros(word.len() as u64)));
                    }
                });
                sum += 1;
            });
            let lengths: Vec<_> = words
                .iter()
                .map(|word| scope.spawn(move || word.len()))
                .collect();
            scope.spawn(|| scope.spawn(|| words.len()).join().unwrap());
            lengths
                .into_iter()
                .map(|handle| handle.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!((lengths, sum), (4, 1));
    });
}

#[test]
fn an_unjoined_panic_comes_out_of_the_scope() {
    // Goal: std's rule: a joined panic is its joiner's matter, an unjoined one the scope's.
    // Method: both, with the handle dropped early, kept, and forgotten.
    let _watchdog = watched();
    let fail = || panic::resume_unwind(Box::new("inside"));
    runtime::run(|| {
        thread::scope(|scope| {
            let payload: Box<dyn Any + Send> = scope.spawn(fail).join().unwrap_err();
            assert_eq!(message_of(&*payload), "inside");
        });
        for keep in [false, true] {
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                thread::scope(|scope| {
                    let handle = scope.spawn(fail);
                    if keep {
                        settle();
                        assert!(handle.is_finished());
                    }
                    drop::<thread::ScopedJoinHandle<'_, ()>>(handle);
                });
            }));
            let payload = result.unwrap_err();
            assert_eq!(message_of(&*payload), "a scoped green thread panicked");
        }
    });
}

#[test]
fn forgotten_scope_handles_harm_nobody() {
    // Goal: a forgotten handle leaks its result and no more; the scope still waits. Method: forgets
    // handles of one that ends at once and of one that ends late.
    let _watchdog = watched();
    runtime::run(|| {
        let ended = counter();
        thread::scope(|scope| {
            for turns in [0, 5] {
                let ended = &ended;
                std::mem::forget(scope.spawn(move || {
                    for _ in 0..turns {
                        thread::yield_now();
                    }
                    ended.set(ended.get() + 1);
                    vec![1]
                }));
            }
        });
        assert_eq!(ended.get(), 2);
    });
}

#[test]
fn a_killed_creator_takes_its_scope_along() {
    // Goal: a kill in the closure or in the wait at the end ends the scope's green threads, and
    // the creator's stack stays until they have gone. Method: children that borrow a local and use
    // it in their destructors.
    let _watchdog = watched();
    runtime::run(|| {
        for in_closure in [true, false] {
            let log = Rc::new(RefCell::new(Vec::new()));
            let theirs = Rc::clone(&log);
            let creator = thread::spawn(move || {
                let local = String::from("local");
                let _last = OnDrop(|| theirs.borrow_mut().push("creator".to_owned()));
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            let _used = OnDrop(|| theirs.borrow_mut().push(local.clone()));
                            thread::sleep(LONG);
                        });
                    }
                    if in_closure {
                        thread::park();
                    }
                });
                unreachable!("the kill is delivered where the scope ends");
            });
            settle();
            creator.kill();
            assert!(is_killed::<()>(creator.join()));
            assert_eq!(*log.borrow(), ["local", "local", "creator"]);
        }
    });
}

#[test]
fn whoever_is_born_into_a_killed_scope_is_killed() {
    // Goal: a child that catches its kill and spawns another one does not hold the scope up.
    // Method: exactly that; the newcomer would sleep for an hour.
    let _watchdog = watched();
    runtime::run(|| {
        let creator = thread::spawn(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    assert!(panic::catch_unwind(thread::park).is_err());
                    scope.spawn(|| thread::sleep(LONG));
                });
            });
        });
        settle();
        creator.kill();
        assert!(is_killed(creator.join()));
    });
}

#[test]
fn a_panic_in_the_closure_waits_for_the_children() {
    // Goal: a panic of the closure leaves the scope only after the children. Method: they borrow.
    let _watchdog = watched();
    runtime::run(|| {
        let ended = counter();
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    ended.set(1);
                });
                panic::resume_unwind(Box::new(5_u8));
            })
        }));
        assert!(result.unwrap_err().is::<u8>());
        assert_eq!(ended.get(), 1);
    });
}

#[test]
fn results_of_scoped_threads_may_borrow_and_act_when_dropped() {
    // Goal: a result that borrows from outside is dropped while that lives, wherever its handle
    // went. Method: results that read a local when dropped: unjoined, dropped by a sibling, early.
    let _watchdog = watched();
    runtime::run(|| {
        let seen = RefCell::new(Vec::new());
        {
            let local = String::from("alive");
            thread::scope(|scope| {
                let result = || {
                    thread::yield_now();
                    OnDrop(|| seen.borrow_mut().push(local.clone()))
                };
                let kept = scope.spawn(result);
                let given = scope.spawn(result);
                scope.spawn(move || {
                    settle();
                    assert!(given.is_finished());
                });
                drop(scope.spawn(result));
                settle();
                assert!(kept.is_finished());
            });
        }
        assert_eq!(*seen.borrow(), ["alive"; 3]);
    });
}

#[test]
fn a_long_lived_scope_forgets_its_ended_threads() {
    // Goal: a server that serves each connection in one scope for ever does not grow. Method: in a
    // child, 300,000 children in one scope, joined or let go; the memory must stay small.
    let _watchdog = watched();
    in_child("a_long_lived_scope_forgets_its_ended_threads", || {
        runtime::run(|| {
            thread::scope(|scope| {
                for n in 0..300_000 {
                    let child = scope.spawn(|| ());
                    if n % 2 == 0 {
                        child.join().unwrap();
                    }
                }
            });
        });
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let peak = status
                .lines()
                .find(|line| line.starts_with("VmHWM"))
                .unwrap();
            let kilobytes: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(kilobytes < 40_000, "{peak}");
        }
    });
}

#[test]
fn a_scope_outside_a_run_spawns_nothing() {
    // Goal: on a plain thread a scope works and spawning in it is refused. Method: both.
    let value = thread::scope(|scope| {
        let refused = thread::Builder::new().spawn_scoped(scope, || ());
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
        5
    });
    assert_eq!(value, 5);
}

// ---- sleeping ---------------------------------------------------------------------------------

#[test]
fn sleeps_are_never_early_and_end_in_order() {
    // Goal: the lower bound holds, and earlier deadlines end first. Method: sleepers in a mixed
    // order, each a clear distance from the next; the clock and the order of their ends.
    let _watchdog = watched();
    runtime::run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let sleepers: Vec<_> = [5_u64, 1, 4, 2, 3]
            .map(|place| {
                let order = Rc::clone(&order);
                thread::spawn(move || {
                    let duration = Duration::from_millis(place);
                    let begin = Instant::now();
                    thread::sleep(duration);
                    assert!(begin.elapsed() >= duration);
                    order.borrow_mut().push(place);
                })
            })
            .into();
        sleepers
            .into_iter()
            .for_each(|sleeper| sleeper.join().unwrap());
        assert_eq!(*order.borrow(), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_hundred_thousand_sleepers() {
    // Goal: very many timers at once, none early, none lost. Method: deadlines spread over 50 ms.
    let _watchdog = Watchdog::new(Duration::from_secs(120));
    let ended = counter();
    let count = stacks_that_fit(100_000);
    runtime::run(|| {
        let sleepers: Vec<_> = (0..count as u64)
            .map(|n| {
                let ended = Rc::clone(&ended);
                let sleep = move || {
                    let duration = Duration::from_micros(n * 7919 % 50_000);
                    let begin = Instant::now();
                    thread::sleep(duration);
                    assert!(begin.elapsed() >= duration);
                    ended.set(ended.get() + 1);
                };
                thread::Builder::new()
                    .stack_size(16 * 1024)
                    .spawn(sleep)
                    .unwrap()
            })
            .collect();
        sleepers
            .into_iter()
            .for_each(|sleeper| sleeper.join().unwrap());
    });
    assert_eq!(ended.get() as usize, count);
}

#[test]
fn everything_but_spawn_works_on_a_plain_thread() {
    // Goal: outside of a run the functions block, and spawn says what is missing. Method: calls.
    let _watchdog = watched();
    let begin = Instant::now();
    thread::sleep(SHORT);
    assert!(begin.elapsed() >= SHORT);
    thread::yield_now();
    thread::park_timeout(Duration::ZERO);
    assert_eq!(thread::workers(), 0);
    let payload = panic::catch_unwind(|| thread::spawn(|| ())).unwrap_err();
    let text = message_of(&*payload);
    assert!(text.contains("green threads need a runtime"), "{text}");
    let error = thread::Builder::new().spawn(|| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    let error = thread::Builder::new().spawn_on(0, || ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    let (sender, receiver) = std_mpsc::channel::<()>();
    drop(sender);
    assert!(receiver.recv().is_err());
}
