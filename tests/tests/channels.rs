//! Channels: std's semantics, by one body of tests over `std::sync::mpsc` and over ours, the latter
//! on plain threads as well as on green ones of one worker and of two.
//!
//! Nothing here waits for time to pass but what is about time-outs. Every test has a deadline.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runtime::sync::mpsc;
use runtime::thread;
use tests::child::end_of_child;
use tests::watchdog::Watchdog;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

/// The deadline of a test.
fn watched() -> Watchdog {
    Watchdog::new(Duration::from_secs(60))
}

/// Counts how many of it were dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body: a module `$module` with every test, over the channels of `$channels`. `$environment`
/// calls each test, and `$spawn` starts what goes on beside it.
macro_rules! conformance {
    ($module:ident, $channels:path, $environment:expr, $spawn:expr) => {
        mod $module {
            use super::{Counted, LONG, SHORT, watched};
            use mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
            use std::sync::Arc;
            use std::sync::atomic::{AtomicUsize, Ordering};
            use std::time::Instant;
            use $channels as mpsc;

            fn test(body: impl FnOnce() + Send + 'static) {
                let _watchdog = watched();
                $environment(body);
            }

            #[test]
            fn messages_of_a_sender_keep_their_order() {
                // Goal: first in, first out, for each kind of channel. Method: 1,000 numbers.
                test(|| {
                    let (sender, receiver) = mpsc::channel();
                    $spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()));
                    assert!(receiver.iter().eq(0..1000));
                    for bound in [0, 1, 2, 17] {
                        let (sender, receiver) = mpsc::sync_channel(bound);
                        $spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()));
                        assert!(receiver.into_iter().eq(0..1000), "bound {bound}");
                    }
                });
            }

            #[test]
            fn messages_of_many_senders_all_arrive() {
                // Goal: none lost, none twice, each sender's in order. Method: eight senders.
                test(|| {
                    for bound in [None, Some(0), Some(1), Some(5)] {
                        let receiver = match bound {
                            None => {
                                let (sender, receiver) = mpsc::channel();
                                for place in 0..8 {
                                    let sender = sender.clone();
                                    let send = move |n| sender.send((place, n)).unwrap();
                                    $spawn(move || (0..300).for_each(send));
                                }
                                receiver
                            }
                            Some(bound) => {
                                let (sender, receiver) = mpsc::sync_channel(bound);
                                for place in 0..8 {
                                    let sender = sender.clone();
                                    let send = move |n| sender.send((place, n)).unwrap();
                                    $spawn(move || (0..300).for_each(send));
                                }
                                receiver
                            }
                        };
                        let mut next = [0; 8];
                        for (place, n) in receiver {
                            assert_eq!(n, next[place]);
                            next[place] += 1;
                        }
                        assert_eq!(next, [300; 8], "bound {bound:?}");
                    }
                });
            }

            #[test]
            fn a_receiver_hears_of_the_last_senders_end() {
                // Goal: what was sent is still received, then every call says "disconnected", also
                // one that waits. Method: senders dropped before and during the wait.
                test(|| {
                    let (sender, receiver) = mpsc::channel();
                    let other = sender.clone();
                    sender.send(1).unwrap();
                    drop(sender);
                    other.send(2).unwrap();
                    drop(other);
                    assert_eq!(receiver.recv(), Ok(1));
                    assert_eq!(receiver.try_recv(), Ok(2));
                    assert_eq!(receiver.recv(), Err(RecvError));
                    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
                    let late = receiver.recv_timeout(LONG);
                    assert_eq!(late, Err(RecvTimeoutError::Disconnected));
                    assert_eq!(receiver.iter().next(), None);
                    assert_eq!(receiver.try_iter().next(), None);

                    let (sender, receiver) = mpsc::sync_channel::<u8>(0);
                    $spawn(move || drop(sender));
                    assert_eq!(receiver.recv(), Err(RecvError));
                    let (sender, receiver) = mpsc::channel::<u8>();
                    $spawn(move || drop(sender));
                    let late = receiver.recv_timeout(LONG);
                    assert_eq!(late, Err(RecvTimeoutError::Disconnected));
                });
            }

            #[test]
            fn senders_hear_of_the_receivers_end() {
                // Goal: every send returns its message, also one that waits. Method: the receiver
                // goes before, and while one waits for room or for its rendezvous.
                test(|| {
                    let (sender, receiver) = mpsc::channel();
                    drop(receiver);
                    assert_eq!(sender.send(1), Err(SendError(1)));
                    for bound in [0, 1] {
                        let (sender, receiver) = mpsc::sync_channel(bound);
                        if bound == 1 {
                            sender.send(0).unwrap();
                        }
                        $spawn(move || drop(receiver));
                        assert_eq!(sender.send(2), Err(SendError(2)));
                        assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
                    }
                });
            }

            #[test]
            fn try_calls_never_wait() {
                // Goal: what cannot be done at once is said. Method: full, empty, nobody there.
                test(|| {
                    let (sender, receiver) = mpsc::sync_channel(2);
                    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
                    sender.try_send(1).unwrap();
                    sender.try_send(2).unwrap();
                    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
                    assert!(receiver.try_iter().eq([1, 2]));
                    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
                    let (sender, receiver) = mpsc::sync_channel(0);
                    assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
                    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
                });
            }

            #[test]
            fn a_rendezvous_with_a_receiver_that_waits() {
                // Goal: `try_send` succeeds once somebody waits on the other side. Method: tries
                // until it does; the receiver has got that very message.
                test(|| {
                    let (sender, receiver) = mpsc::sync_channel(0);
                    let (told, was_told) = mpsc::channel();
                    $spawn(move || told.send(receiver.recv()).unwrap());
                    while sender.try_send(5).is_err() {
                        runtime::thread::yield_now();
                    }
                    assert_eq!(was_told.recv(), Ok(Ok(5)));
                });
            }

            #[test]
            fn a_rendezvous_lasts_until_the_message_is_taken() {
                // Goal: with a bound of zero no send returns before its message was received.
                // Method: a count that the sender raises after each send is never ahead.
                test(|| {
                    let (sender, receiver) = mpsc::sync_channel(0);
                    let sent = Arc::new(AtomicUsize::new(0));
                    let theirs = Arc::clone(&sent);
                    $spawn(move || {
                        for n in 0..500 {
                            sender.send(n).unwrap();
                            theirs.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                    for n in 0..500 {
                        assert!(sent.load(Ordering::SeqCst) <= n);
                        assert_eq!(receiver.recv(), Ok(n));
                    }
                });
            }

            #[test]
            fn a_bound_bounds() {
                // Goal: never more messages are on their way than the bound allows. Method: a count
                // raised after each send, held against what was received.
                test(|| {
                    for bound in [1, 3] {
                        let (sender, receiver) = mpsc::sync_channel(bound);
                        let sent = Arc::new(AtomicUsize::new(0));
                        let theirs = Arc::clone(&sent);
                        $spawn(move || {
                            for n in 0..500 {
                                sender.send(n).unwrap();
                                theirs.fetch_add(1, Ordering::SeqCst);
                            }
                        });
                        for n in 0..500 {
                            assert!(sent.load(Ordering::SeqCst) <= n + bound);
                            assert_eq!(receiver.recv(), Ok(n));
                        }
                    }
                });
            }

            #[test]
            fn a_wait_may_be_bounded() {
                // Goal: never early, and a message or an end ends it. Method: the clock, and both.
                test(|| {
                    let (sender, receiver) = mpsc::channel();
                    let begin = Instant::now();
                    assert_eq!(receiver.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
                    assert!(begin.elapsed() >= SHORT);
                    let zero = std::time::Duration::ZERO;
                    assert_eq!(receiver.recv_timeout(zero), Err(RecvTimeoutError::Timeout));
                    sender.send(1).unwrap();
                    assert_eq!(receiver.recv_timeout(zero), Ok(1));
                    $spawn(move || sender.send(2).unwrap());
                    assert_eq!(receiver.recv_timeout(LONG), Ok(2));
                    let late = receiver.recv_timeout(LONG);
                    assert_eq!(late, Err(RecvTimeoutError::Disconnected));
                });
            }

            #[test]
            fn messages_that_nobody_takes_are_dropped_once() {
                // Goal: none leaks, none is dropped twice, whichever end goes first, and as soon as
                // the receiver has gone. Method: counts drops, in each order, of each kind.
                test(|| {
                    for receiver_first in [true, false] {
                        let drops = Arc::new(AtomicUsize::new(0));
                        let message = || Counted(Arc::clone(&drops));
                        let (sender, receiver) = mpsc::channel();
                        let (bounded, other) = mpsc::sync_channel(3);
                        for _ in 0..3 {
                            sender.send(message()).unwrap();
                            bounded.send(message()).unwrap();
                        }
                        drop((receiver.recv().unwrap(), other.recv().unwrap()));
                        assert_eq!(drops.load(Ordering::SeqCst), 2);
                        if receiver_first {
                            drop((receiver, other));
                            assert_eq!(drops.load(Ordering::SeqCst), 6);
                            drop(sender.send(message()).unwrap_err());
                            assert_eq!(drops.load(Ordering::SeqCst), 7);
                        } else {
                            drop((sender, bounded));
                            assert_eq!(drops.load(Ordering::SeqCst), 2);
                            drop((receiver, other));
                            assert_eq!(drops.load(Ordering::SeqCst), 6);
                        }
                    }
                });
            }

            #[test]
            fn a_channel_may_carry_its_own_ends() {
                // Goal: dropping the receiver drops the messages outside of any lock, whatever they
                // own. Method: messages that are senders of the same channel, and receivers.
                test(|| {
                    type Ends = Box<dyn std::any::Any + Send>;
                    let (sender, receiver) = mpsc::channel::<Ends>();
                    sender.send(Box::new(sender.clone())).unwrap();
                    sender.send(Box::new(mpsc::channel::<u8>())).unwrap();
                    drop(receiver);
                    assert!(sender.send(Box::new(1)).is_err());
                    let (sender, receiver) = mpsc::sync_channel::<Ends>(4);
                    sender.send(Box::new(sender.clone())).unwrap();
                    drop(sender);
                    let own = receiver.recv().unwrap();
                    drop(receiver);
                    drop(own);
                });
            }

            #[test]
            fn ends_may_be_anywhere() {
                // Goal: ends are sent through channels and used where they arrive. Method: requests
                // that carry the place for their answer.
                test(|| {
                    let (requests, server) = mpsc::channel::<(u32, mpsc::Sender<u32>)>();
                    $spawn(move || {
                        for (number, answer) in server {
                            answer.send(number * 2).unwrap();
                        }
                    });
                    for number in 0..100 {
                        let (answer, answered) = mpsc::channel();
                        requests.send((number, answer)).unwrap();
                        assert_eq!(answered.recv(), Ok(number * 2));
                    }
                });
            }
        }
    };
}

/// A run on two workers.
fn on_two_workers(body: impl FnOnce()) {
    runtime::Builder::new().workers(2).run(body).unwrap();
}

conformance!(
    of_std,
    std::sync::mpsc,
    |body: _| std::thread::scope(|scope| drop(scope.spawn(body))),
    |action: _| drop(std::thread::spawn(action))
);
conformance!(
    on_plain_threads,
    runtime::sync::mpsc,
    |body: _| std::thread::scope(|scope| drop(scope.spawn(body))),
    |action: _| drop(std::thread::spawn(action))
);
conformance!(
    on_one_worker,
    runtime::sync::mpsc,
    |body: _| runtime::run(body),
    |action: _| drop(runtime::thread::spawn(action))
);
conformance!(
    across_workers,
    runtime::sync::mpsc,
    |body: _| super::on_two_workers(body),
    |action: _| drop(runtime::thread::spawn_on(1, action))
);
conformance!(
    from_plain_to_green,
    runtime::sync::mpsc,
    |body: _| runtime::run(body),
    |action: _| drop(std::thread::spawn(action))
);

// ---- ours alone -------------------------------------------------------------------------------

#[test]
fn ends_are_as_sharable_as_stds() {
    // Goal: the same auto traits as std's. Method: the compiler is asked.
    fn send_and_sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    send_and_sync::<mpsc::Sender<u8>>();
    send_and_sync::<mpsc::SyncSender<u8>>();
    send::<mpsc::Receiver<u8>>();
}

#[test]
fn a_killed_receiver_loses_no_message() {
    // Goal: a kill in recv leaves the message for the next. Method: the message comes first and the
    // kill second, before the receiver has run again; and the other way round.
    let _watchdog = watched();
    runtime::run(|| {
        for bound in [None, Some(1)] {
            let (send, receiver): (Box<dyn Fn(u8)>, _) = match bound {
                None => {
                    let (sender, receiver) = mpsc::channel();
                    (Box::new(move |n| sender.send(n).unwrap()), receiver)
                }
                Some(bound) => {
                    let (sender, receiver) = mpsc::sync_channel(bound);
                    (Box::new(move |n| sender.send(n).unwrap()), receiver)
                }
            };
            let receiver = std::rc::Rc::new(receiver);
            for kill_first in [true, false] {
                let theirs = std::rc::Rc::clone(&receiver);
                let victim = thread::spawn(move || theirs.recv());
                thread::yield_now();
                if kill_first {
                    victim.kill();
                    send(7);
                } else {
                    send(7);
                    victim.kill();
                }
                assert!(victim.join().is_err());
                assert_eq!(receiver.try_recv(), Ok(7));
            }
        }
    });
}

#[test]
fn a_killed_rendezvous_leaves_nothing_behind() {
    // Goal: the message of a sender that was killed in its rendezvous goes to the next receive or
    // with the receiver, and harms no other sender. Method: both, and drops are counted.
    let _watchdog = watched();
    runtime::run(|| {
        for is_received in [true, false] {
            let drops = Arc::new(AtomicUsize::new(0));
            let (sender, receiver) = mpsc::sync_channel(0);
            let (kept, message) = (sender.clone(), Counted(Arc::clone(&drops)));
            let victim = thread::spawn(move || sender.send(message).unwrap());
            thread::yield_now();
            victim.kill();
            assert!(victim.join().is_err());
            if is_received {
                drop(receiver.try_recv().unwrap());
                assert!(receiver.try_recv().is_err());
            }
            let (other, theirs) = (kept.clone(), Counted(Arc::clone(&drops)));
            let waits = thread::spawn(move || other.send(theirs).is_err());
            thread::yield_now();
            drop(receiver);
            assert!(waits.join().unwrap());
            assert_eq!(
                drops.load(Ordering::Relaxed),
                2,
                "although a sender is left"
            );
            drop(kept);
        }
    });
}

#[test]
fn a_receiver_that_always_finds_a_message_starves_nobody() {
    // Goal: receiving takes turns like I/O does. Method: one that sends to itself for ever, beside
    // one that only has to run once.
    let _watchdog = watched();
    runtime::run(|| {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            loop {
                sender.send(1).unwrap();
                receiver.recv().unwrap();
            }
        });
        thread::yield_now();
        assert_eq!(thread::spawn(|| 5).join().unwrap(), 5);
        assert!(runtime::timeout(SHORT, thread::park).is_err());
    });
}

#[test]
fn stray_wake_ups_neither_lose_nor_invent_anything() {
    // Goal: an unpark that is meant for `park` only repeats a channel's wait. Method: senders and
    // receivers of a small channel, unparked all the time from an OS thread.
    let _watchdog = watched();
    runtime::run(|| {
        for bound in [0, 1, 2] {
            let (sender, receiver) = mpsc::sync_channel(bound);
            let senders: Vec<_> = (0..4)
                .map(|_| {
                    let sender = sender.clone();
                    thread::spawn(move || (0..500).for_each(|n| sender.send(n).unwrap()))
                })
                .collect();
            drop(sender);
            let sum = thread::spawn(move || receiver.iter().sum::<u64>());
            let threads: Vec<_> = senders
                .iter()
                .map(|handle| handle.thread().clone())
                .collect();
            let sums = sum.thread().clone();
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let nuisance = std::thread::spawn(move || {
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    threads.iter().for_each(thread::Thread::unpark);
                    sums.unpark();
                }
            });
            assert_eq!(sum.join().unwrap(), 4 * 499 * 500 / 2);
            stop.send(()).unwrap();
            nuisance.join().unwrap();
        }
    });
}

#[test]
fn senders_everywhere_with_a_seed() {
    // Goal: nothing is lost between workers and OS threads in any interleaving. Method: a printed
    // seed decides who spins for how long; senders on two workers and two OS threads, one receiver
    // that changes between recv, try_recv and recv_timeout; sums are compared.
    let _watchdog = watched();
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    println!("seed {seed}");
    on_two_workers(|| {
        for bound in [0, 1, 8] {
            let (sender, receiver) = mpsc::sync_channel(bound);
            for place in 0..6_u64 {
                let sender = sender.clone();
                let send = move || {
                    let mut random = seed ^ (place << 32);
                    for n in 0..1000_u64 {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(n);
                        for _ in 0..(random >> 33) % 100 {
                            std::hint::spin_loop();
                        }
                        sender.send(n).unwrap();
                    }
                };
                match place % 3 {
                    0 => drop(thread::spawn_on(0, send)),
                    1 => drop(thread::spawn_on(1, send)),
                    _ => drop(std::thread::spawn(send)),
                }
            }
            drop(sender);
            let (mut sum, mut count) = (0, 0);
            loop {
                let received = match count % 3 {
                    0 => receiver.recv().ok(),
                    1 => receiver.recv_timeout(LONG).ok(),
                    _ => receiver.try_recv().or_else(|_| receiver.recv()).ok(),
                };
                let Some(n) = received else { break };
                sum += n;
                count += 1;
            }
            assert_eq!((count, sum), (6000, 6 * 999 * 1000 / 2));
        }
    });
}

#[test]
fn a_message_whose_drop_panics_breaks_nothing() {
    // Goal: the lock is free while the user's destructors run, so the channel goes on. Method: in a
    // child, since it prints: a receiver goes, its messages panic, and senders still get answers.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bomb");
        }
    }
    let _watchdog = watched();
    const NAME: &str = "a_message_whose_drop_panics_breaks_nothing";
    let output = end_of_child(NAME, &[], || {
        runtime::run(|| {
            let (sender, receiver) = mpsc::sync_channel(2);
            sender.send(Bomb).unwrap();
            let dropped = thread::spawn(move || drop(receiver));
            assert!(dropped.join().is_err());
            std::mem::forget(sender.try_send(Bomb).unwrap_err());
        });
    });
    assert!(output.is_none_or(|output| output.status.success()));
}
