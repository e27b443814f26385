//! Stacks, by what can be seen from outside: overflow reports, limits, memory used.
//!
//! Every scene that overflows or sets a limit is played in a child process.

use std::hint::black_box;

use runtime::coroutine::{Coroutine, State};
use tests::scene;

/// Uses up any stack, slowly enough to run into every guard page.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 16]);
    if depth == u64::MAX {
        room[3]
    } else {
        recurse(depth + 1) + room[depth as usize % 16]
    }
}

/// A coroutine that overflows its stack when resumed.
fn overflowing(stack_bytes: usize) -> Coroutine<(), (), u64> {
    Coroutine::with_stack_size(stack_bytes, |_, ()| recurse(black_box(0)))
        .expect("there must be room for one stack")
}

/// What the report of an overflown coroutine begins with, up to the line of its creation.
const CREATED_HERE: &str = "coroutine (created at tests/tests/stack.rs:";

/// Goal: an overflow names the coroutine, its origin and its size, and aborts. Method: children
/// with both kinds of guard, on two stack sizes.
#[test]
fn an_overflow_is_reported() {
    let variables = [("RUNTIME_GUARD", "mprotect")];
    // The child plays the scene at the first call, with or without the variable.
    for variables in [&[][..], &variables[..]] {
        let ended = scene::play_with("an_overflow_is_reported", variables, || {
            let mut fine = Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
            fine.resume(());
            overflowing(128 * 1024).resume(());
        });
        let complaint = ended.died_by(libc::SIGABRT);
        assert!(complaint.contains(CREATED_HERE), "{complaint}");
        assert!(
            complaint.contains(") has overflowed its stack of 128 KiB; "),
            "{complaint}"
        );
        assert!(
            complaint.contains("Coroutine::with_stack_size"),
            "{complaint}"
        );
    }
}

/// Goal: an overflow names a green thread, by name and by the place of its spawn. Method: a child
/// in whose runtime one of several green threads overflows.
#[test]
fn an_overflow_names_the_green_thread() {
    let ended = scene::play("an_overflow_names_the_green_thread", || {
        runtime::run(|| {
            runtime::thread::spawn(|| {
                let spawned = runtime::thread::Builder::new()
                    .name("glutton".into())
                    .spawn(|| recurse(black_box(0)));
                let _ = spawned.unwrap().join();
            })
            .join()
            .unwrap();
        });
    });
    let complaint = ended.died_by(libc::SIGABRT);
    let expected = "green thread 'glutton' (spawned at tests/tests/stack.rs:";
    assert!(complaint.contains(expected), "{complaint}");
}

/// Goal: overflows are reported on threads that std has not made, which have no alternate stack.
/// Method: a child overflows on a bare pthread.
#[test]
fn an_overflow_is_reported_on_a_foreign_thread() {
    extern "C" fn foreign(_: *mut libc::c_void) -> *mut libc::c_void {
        // Twice, as the second time everything is set up already.
        drop(overflowing(64 * 1024));
        overflowing(64 * 1024).resume(());
        std::ptr::null_mut()
    }
    let ended = scene::play("an_overflow_is_reported_on_a_foreign_thread", || {
        // SAFETY: a thread's handle is an integer or a pointer, and zero a value of both.
        let mut thread = unsafe { std::mem::zeroed() };
        let (no_attributes, nothing) = (std::ptr::null(), std::ptr::null_mut());
        // SAFETY: the function has the type that is asked for, and takes nothing.
        let created = unsafe { libc::pthread_create(&mut thread, no_attributes, foreign, nothing) };
        assert_eq!(created, 0);
        // SAFETY: the thread was created, and is joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    });
    let complaint = ended.died_by(libc::SIGABRT);
    assert!(
        complaint.contains("has overflowed its stack of 64 KiB"),
        "{complaint}"
    );
}

/// Goal: a coroutine within a coroutine is reported as itself. Method: the inner one overflows.
#[test]
fn an_overflow_of_a_nested_coroutine_is_reported() {
    let ended = scene::play("an_overflow_of_a_nested_coroutine_is_reported", || {
        let mut outer = Coroutine::<(), (), ()>::new(|_, ()| {
            overflowing(32 * 1024).resume(());
        });
        outer.resume(());
    });
    let complaint = ended.died_by(libc::SIGABRT);
    assert!(
        complaint.contains("has overflowed its stack of 32 KiB"),
        "{complaint}"
    );
}

/// Goal: std still reports the overflows of its own threads. Method: a child has our handler
/// installed, then overflows an OS thread.
#[test]
fn an_overflow_of_an_os_thread_stays_with_std() {
    let ended = scene::play("an_overflow_of_an_os_thread_stays_with_std", || {
        Coroutine::<(), (), ()>::new(|_, ()| ()).resume(());
        let thread = std::thread::Builder::new().name("plain".into());
        let _ = thread.spawn(|| recurse(black_box(0))).unwrap().join();
    });
    let complaint = ended.died_by(libc::SIGABRT);
    assert!(complaint.contains("thread 'plain'"), "{complaint}");
    assert!(!complaint.contains("KiB"), "{complaint}");
}

/// Goal: any other fault in a coroutine dies of its own signal. Method: a child writes to a page
/// that is not mapped, and one sends itself the signal.
#[test]
fn other_faults_are_not_ours() {
    let ended = scene::play("other_faults_are_not_ours", || {
        let mut stray = Coroutine::<usize, (), ()>::new(|_, address| {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: none; this is the fault that the test is about, in a process of its own.
            unsafe { place.write_volatile(1) };
        });
        stray.resume(16);
    });
    let complaint = ended.died_by(libc::SIGSEGV);
    assert!(!complaint.contains("overflowed"), "{complaint}");
}

/// Goal: SIGSEGV that somebody sends is not taken for a fault. Method: a child sends it to itself.
#[test]
fn a_sent_signal_is_not_a_fault() {
    let ended = scene::play("a_sent_signal_is_not_a_fault", || {
        let mut sender = Coroutine::<(), (), ()>::new(|_, ()| {
            // SAFETY: raise reads no memory of ours.
            unsafe { libc::raise(libc::SIGSEGV) };
            // SAFETY: again, as the first one may only have restored the default action.
            unsafe { libc::raise(libc::SIGSEGV) };
        });
        sender.resume(());
    });
    assert!(!ended.died_by(libc::SIGSEGV).contains("overflowed"));
}

/// Goal: running out of address space is an error that names the limits, and what exists goes on.
/// Method: a child with a small RLIMIT_AS makes coroutines until it is refused.
#[test]
#[cfg(target_os = "linux")]
fn running_out_is_an_error_with_a_remedy() {
    if std::env::var_os("TESTS_RUNNER").is_some() {
        eprintln!("skipped: the emulator does not apply RLIMIT_AS to what it emulates");
        return;
    }
    let ended = scene::play("running_out_is_an_error_with_a_remedy", || {
        let limit = libc::rlimit {
            rlim_cur: 3 << 30,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit is a live local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let mut made = Vec::new();
        let error = loop {
            match Coroutine::<u32, u32, ()>::with_stack_size(1 << 20, |suspender, mut value| {
                loop {
                    value = suspender.suspend(value + 1);
                }
            }) {
                Ok(coroutine) => made.push(coroutine),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
        println!("{} {error}", made.len());
        for coroutine in &mut made {
            assert_eq!(coroutine.resume(1), State::Suspended(2));
        }
        // What is given back can be used again.
        made.pop();
        Coroutine::<(), (), ()>::with_stack_size(1 << 20, |_, ()| ())
            .unwrap()
            .resume(());
    });
    let output = ended.succeeded();
    assert!(output.contains("1024 KiB"), "{output}");
    assert!(output.contains("vm.max_map_count"), "{output}");
    assert!(output.contains("ulimit -v"), "{output}");
}

/// Goal: an absurd size is refused, not wrapped around. Method: the largest number there is.
#[test]
fn an_absurd_size_is_refused() {
    let made = Coroutine::<(), (), ()>::with_stack_size(usize::MAX, |_, ()| ());
    assert_eq!(made.unwrap_err().kind(), std::io::ErrorKind::OutOfMemory);
}

/// Goal: a suspended coroutine costs one page and its share of the page tables, and stacks need few
/// mappings. Method: a child makes 20,000 and reads its own status.
#[test]
#[cfg(target_os = "linux")]
fn a_suspended_coroutine_costs_a_page() {
    const COUNT: usize = 20_000;
    fn status(field: &str) -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            * 1024
    }
    let ended = scene::play("a_suspended_coroutine_costs_a_page", || {
        let make = || Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
        let mut made = Vec::with_capacity(COUNT);
        made.push(make());
        let before = status("VmRSS:") + status("VmPTE:");
        for _ in 1..COUNT {
            made.push(make());
            made.last_mut().unwrap().resume(());
        }
        let each = (status("VmRSS:") + status("VmPTE:") - before) / COUNT;
        let maps = std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count();
        println!("bytes {each} maps {maps} end");
    });
    let output = ended.succeeded();
    let number = |word| {
        let mut words = output.split_whitespace().skip_while(|other| *other != word);
        words.nth(1).unwrap().parse::<usize>().unwrap()
    };
    if cfg!(target_arch = "x86_64") {
        assert!(number("bytes") <= 4_600, "{output}");
        assert!(number("maps") < 500, "{output}");
    }
}
