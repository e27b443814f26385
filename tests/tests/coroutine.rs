//! Coroutines, by their public API: values, panics, destructors, misuse.
//!
//! What would end the process happens in a child: this test binary again, told by an environment
//! variable to run one scene only.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use runtime::coroutine::{Coroutine, State, Suspender};
use tests::scene;
use tests::watchdog::Watchdog;

/// The text of a panic's payload.
fn text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload
            .downcast::<&'static str>()
            .expect("a panic has a text")
            .to_string(),
    }
}

/// Counts how often it is dropped.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Goal: values of every kind arrive whole, in order, both ways. Method: owned, empty, and large
/// over-aligned values through many resumes.
#[test]
fn values_travel_both_ways() {
    let mut words = Coroutine::new(|suspender, mut word: String| {
        while word != "end" {
            word = suspender.suspend(word + "!");
        }
        vec![word; 3]
    });
    for number in 0..10_000 {
        let reply = words.resume(format!("word {number}"));
        assert_eq!(reply, State::Suspended(format!("word {number}!")));
    }
    assert!(!words.is_complete());
    let ends = vec!["end".to_string(); 3];
    assert_eq!(words.resume("end".into()), State::Complete(ends));
    assert!(words.is_complete());

    let mut units = Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
    assert_eq!(units.resume(()), State::Suspended(()));
    assert_eq!(units.resume(()), State::Complete(()));

    #[repr(align(128))]
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Wide([u8; 3000]);
    let mut wide = Coroutine::new(|suspender, mut value: Wide| {
        loop {
            assert!((&raw const value).addr().is_multiple_of(128));
            value.0[7] += 1;
            value = suspender.suspend(value);
            if value.0[7] == 9 {
                return value;
            }
        }
    });
    let mut expected = Wide([1; 3000]);
    expected.0[7] = 2;
    assert_eq!(wide.resume(Wide([1; 3000])), State::Suspended(expected));
    let last = Wide([9; 3000]);
    assert_eq!(wide.resume(last), State::Complete(last));
}

/// Goal: floating-point and vector state of both sides survives. Method: sums kept in registers
/// across many switches, compared with the closed form.
#[test]
fn numbers_in_registers_survive() {
    let mut other = Coroutine::<f64, f64, ()>::new(|suspender, mut step| {
        let mut sums = [0.0f64; 8];
        loop {
            for (index, sum) in sums.iter_mut().enumerate() {
                *sum += step * index as f64;
            }
            step = suspender.suspend(sums.iter().sum());
        }
    });
    let mut own = [0.0f64; 8];
    for round in 1..=1000 {
        for (index, sum) in own.iter_mut().enumerate() {
            *sum += index as f64;
        }
        let expected = 28.0 * f64::from(round);
        assert_eq!(other.resume(1.0), State::Suspended(expected));
        assert_eq!(own.iter().sum::<f64>(), expected);
    }
}

/// Goal: a coroutine may resume others, to any depth. Method: each of 50 resumes the next one.
#[test]
fn coroutines_nest() {
    fn tower(height: u64) -> Coroutine<u64, u64, u64> {
        Coroutine::new(move |suspender, first| {
            if height == 0 {
                return suspender.suspend(first) + 1;
            }
            let mut inner = tower(height - 1);
            let State::Suspended(value) = inner.resume(first + 1) else {
                panic!("too early")
            };
            let next = suspender.suspend(value);
            let State::Complete(last) = inner.resume(next + 1) else {
                panic!("too late")
            };
            last
        })
    }
    let mut tower = tower(50);
    assert_eq!(tower.resume(0), State::Suspended(50));
    assert_eq!(tower.resume(100), State::Complete(151));
}

/// Goal: a panic comes out of `resume` with its payload, and completes the coroutine. Method: one
/// that panics after its first suspension, with a counting value on its stack.
#[test]
fn a_panic_comes_out_of_resume() {
    let drops = Rc::new(Cell::new(0));
    let counted = Counted(drops.clone());
    let mut fails = Coroutine::<(), (), ()>::new(move |suspender, ()| {
        let _counted = counted;
        suspender.suspend(());
        panic!("on purpose");
    });
    fails.resume(());
    let payload = panic::catch_unwind(AssertUnwindSafe(|| fails.resume(()))).unwrap_err();
    assert_eq!(text(payload), "on purpose");
    assert_eq!(drops.get(), 1);
    assert!(fails.is_complete());
    assert!(!std::thread::panicking());
    let payload = panic::catch_unwind(AssertUnwindSafe(|| fails.resume(()))).unwrap_err();
    let expected = "a coroutine that is complete cannot be resumed";
    assert_eq!(text(payload), expected);
}

/// Goal: dropping runs the destructors of what is on the stack, whether it has begun or not.
/// Method: counting values, in the closure and four calls deep.
#[test]
fn dropping_unwinds() {
    fn deep(depth: u32, drops: &Rc<Cell<u32>>, suspender: &Suspender<(), ()>) {
        let _counted = Counted(drops.clone());
        if depth > 0 {
            deep(depth - 1, drops, suspender);
        }
        suspender.suspend(());
    }
    let drops = Rc::new(Cell::new(0));
    let make = || {
        let captured = Counted(drops.clone());
        Coroutine::<(), (), ()>::new(move |suspender, ()| deep(3, &captured.0, suspender))
    };
    drop(make());
    assert_eq!(
        drops.get(),
        1,
        "one that has not begun has only its closure"
    );
    let mut begun = make();
    begun.resume(());
    drop(begun);
    assert_eq!(drops.get(), 6);
    // Dropped because a panic unwinds its owner: the two unwindings must not be confused.
    let payload = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut begun = make();
        begun.resume(());
        panic!("outer");
    }));
    assert_eq!(text(payload.unwrap_err()), "outer");
    assert_eq!(drops.get(), 11);
    assert!(!std::thread::panicking());
}

/// Goal: a function that catches its own unwinding cannot keep its coroutine alive. Method: it
/// goes on to suspend twice more, then returns.
#[test]
fn unwinding_that_is_caught_is_repeated() {
    let caught = Rc::new(Cell::new(0));
    let counter = caught.clone();
    let mut stubborn = Coroutine::<(), (), ()>::new(move |suspender, ()| {
        for _ in 0..3 {
            let result = panic::catch_unwind(AssertUnwindSafe(|| suspender.suspend(())));
            counter.set(counter.get() + u32::from(result.is_err()));
        }
    });
    stubborn.resume(());
    drop(stubborn);
    assert_eq!(caught.get(), 3);
}

/// Goal: a coroutine works while a panic unwinds its resumer. Method: a destructor uses one.
#[test]
fn a_destructor_may_use_a_coroutine() {
    struct User(Rc<RefCell<Vec<u32>>>);
    impl Drop for User {
        fn drop(&mut self) {
            let mut count = Coroutine::<(), u32, ()>::new(|suspender, ()| {
                (0..3).for_each(|number| suspender.suspend(number));
            });
            while let State::Suspended(number) = count.resume(()) {
                self.0.borrow_mut().push(number);
            }
        }
    }
    let numbers = Rc::new(RefCell::new(Vec::new()));
    let user = User(numbers.clone());
    let result = panic::catch_unwind(AssertUnwindSafe(move || {
        let _user = user;
        panic!("unwinds the user");
    }));
    assert!(result.is_err());
    assert_eq!(*numbers.borrow(), [0, 1, 2]);
}

/// Goal: a suspender that another coroutine was lent panics there, and both remain usable. Method:
/// the outer one passes its own suspender to the inner one as an input.
#[test]
fn a_lent_suspender_panics() {
    let mut outer = Coroutine::<(), u32, String>::new(|suspender, ()| {
        let mut inner = Coroutine::<&Suspender<(), u32>, (), ()>::new(|_, lent| lent.suspend(7));
        let result = panic::catch_unwind(AssertUnwindSafe(|| inner.resume(suspender)));
        suspender.suspend(8);
        text(result.unwrap_err())
    });
    assert_eq!(outer.resume(()), State::Suspended(8));
    let expected = "a coroutine can be suspended only by itself while it runs";
    assert_eq!(outer.resume(()), State::Complete(expected.to_string()));
}

/// Goal: stacks of several sizes serve side by side, and are used again. Method: many coroutines
/// of three sizes, resumed in turn and dropped in another order.
#[test]
fn many_coroutines_of_several_sizes() {
    let mut coroutines: Vec<Coroutine<u64, u64, ()>> = Vec::new();
    for _ in 0..3 {
        let numbers: Vec<u64> = (0..1500).collect();
        for &number in &numbers {
            let stack_bytes = [16, 128, 1024][number as usize % 3] * 1024;
            let made = Coroutine::with_stack_size(stack_bytes, move |suspender, mut value| {
                loop {
                    value = suspender.suspend(value * number);
                }
            });
            coroutines.push(made.unwrap());
        }
        for (number, coroutine) in numbers.iter().zip(&mut coroutines) {
            assert_eq!(coroutine.resume(3), State::Suspended(number * 3));
        }
        coroutines.reverse();
        coroutines.clear();
    }
}

/// Goal: coroutines work in destructors of thread-locals, when their pool may have gone. Method: a
/// thread-local made before the pool's, which is therefore destroyed after it, and one made later.
#[test]
fn coroutines_outlive_their_pool() {
    struct Late(RefCell<Option<Coroutine<u32, u32, ()>>>);
    impl Drop for Late {
        fn drop(&mut self) {
            let mut kept = self.0.borrow_mut().take().unwrap();
            assert_eq!(kept.resume(4), State::Suspended(5));
            drop(kept);
            let mut fresh = Coroutine::<u32, (), u32>::new(|_, value| value + 1);
            assert_eq!(fresh.resume(1), State::Complete(2));
        }
    }
    fn echo() -> Coroutine<u32, u32, ()> {
        Coroutine::new(|suspender, mut value| {
            loop {
                value = suspender.suspend(value + 1);
            }
        })
    }
    thread_local! {
        static EARLIER: Late = const { Late(RefCell::new(None)) };
        static LATER: Late = const { Late(RefCell::new(None)) };
    }
    let thread = std::thread::spawn(|| {
        EARLIER.with(|late| {
            let mut made = echo();
            made.resume(0);
            *late.0.borrow_mut() = Some(made);
        });
        LATER.with(|late| *late.0.borrow_mut() = Some(echo()));
    });
    thread.join().unwrap();
}

/// Goal: a backtrace taken in a coroutine reaches its root and ends there. Method: a child prints
/// one, whose frames must be the coroutine's and not the resumer's.
#[test]
fn a_backtrace_ends_at_the_root() {
    #[inline(never)]
    fn innermost(suspender: &Suspender<(), String>) {
        suspender.suspend(std::backtrace::Backtrace::force_capture().to_string());
    }
    fn trace() -> String {
        let mut traced = Coroutine::<(), String, ()>::new(|suspender, ()| innermost(suspender));
        match traced.resume(()) {
            State::Suspended(trace) => trace,
            State::Complete(()) => panic!("it must suspend"),
        }
    }
    let ended = scene::play("a_backtrace_ends_at_the_root", || println!("{}", trace()));
    let trace = ended.succeeded();
    assert!(trace.contains("innermost"), "{trace}");
    assert!(trace.contains("coroutine::main"), "{trace}");
    let last = trace
        .lines()
        .rfind(|line| line.contains("runtime::"))
        .unwrap();
    assert!(last.ends_with("::root"), "{trace}");
    assert!(!trace.contains("::resume"), "{trace}");
}

/// Goal: to suspend while a panic unwinds the coroutine is refused, as it would falsify the count
/// of panics. Method: a child does so in a destructor, and must abort with our message.
#[test]
fn suspending_in_a_panic_aborts() {
    let ended = scene::play("suspending_in_a_panic_aborts", || {
        struct Suspends<'a>(&'a Suspender<(), ()>);
        impl Drop for Suspends<'_> {
            fn drop(&mut self) {
                self.0.suspend(());
            }
        }
        let mut bad = Coroutine::<(), (), ()>::new(|suspender, ()| {
            let _suspends = Suspends(suspender);
            panic!("first");
        });
        bad.resume(());
    });
    let complaint = ended.died_by(libc::SIGABRT);
    let expected = "cannot suspend while a panic unwinds it";
    assert!(complaint.contains(expected), "{complaint}");
}

/// Goal: valgrind takes no switch for an error. Method: runs the other tests of this file under it,
/// among them neighbouring stacks, panics, and addresses that are used again for another size.
#[test]
fn valgrind_finds_no_error() {
    let _watchdog = Watchdog::new(Duration::from_secs(300));
    let children = ["TESTS_RUNNER", "TESTS_VALGRIND"];
    if children.iter().any(|name| std::env::var_os(name).is_some()) {
        return eprintln!("skipped: already under an emulator");
    }
    let output = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=9"])
        .arg(std::env::current_exe().unwrap())
        .args(["--test-threads=1", "--skip=a_backtrace"])
        .env("TESTS_VALGRIND", "1")
        .output();
    match output {
        Err(error) => eprintln!("skipped: valgrind cannot be run: {error}"),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let first: Vec<&str> = complaint.lines().take(40).collect();
            assert!(output.status.success(), "{}", first.join("\n"));
        }
    }
}
