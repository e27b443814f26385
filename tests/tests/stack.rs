//! Stacks, by what can be seen from outside: overflow reports, limits, memory used.
//!
//! Every scene that overflows or sets a limit is played in a child process.

use std::hint::black_box;

use runtime::coroutine::Coroutine;
#[cfg(target_os = "linux")]
use runtime::coroutine::State;
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

/// A mapping as /proc/self/maps has it: its addresses and its permissions.
#[cfg(target_os = "linux")]
fn mapping_of(address: usize) -> Option<(std::ops::Range<usize>, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc must be mounted");
    let mut mappings = maps.lines().map(|line| {
        let (range, rest) = line.split_once(' ').expect("a range comes first");
        let (start, end) = range.split_once('-').expect("a range has two ends");
        let number = |text| usize::from_str_radix(text, 16).expect("addresses are in hex");
        (number(start)..number(end), rest[..4].to_owned())
    });
    mappings.find(|(range, _)| range.contains(&address))
}

/// The address of something on a coroutine's stack, after many were made around it.
#[cfg(target_os = "linux")]
fn address_on_a_stack(neighbours: &mut Vec<Coroutine<(), usize, ()>>) -> usize {
    for _ in 0..8 {
        neighbours.push(Coroutine::new(|suspender, ()| {
            let local = 0u8;
            suspender.suspend((&raw const local).addr());
        }));
    }
    match neighbours[4].resume(()) {
        State::Suspended(address) => address,
        State::Complete(()) => panic!("it must suspend"),
    }
}

/// Goal: each kind of guard is the one that was asked for. Method: children look at the mapping
/// around a stack: markers leave the slab whole, protection cuts every slot out.
#[test]
#[cfg(target_os = "linux")]
fn guards_are_of_the_kind_asked_for() {
    if std::env::var_os("TESTS_RUNNER").is_some() {
        return eprintln!("skipped: the emulator's mappings are not the program's");
    }
    for kind in ["mprotect", "marker"] {
        if kind == "marker" && !tests::guards::are_markers() {
            eprintln!("skipped: this kernel knows no guard markers (Linux 6.13)");
            continue;
        }
        let name = "guards_are_of_the_kind_asked_for";
        let ended = scene::play_with(name, &[("RUNTIME_GUARD", kind)], || {
            let mut neighbours = Vec::new();
            let (stack, permissions) = mapping_of(address_on_a_stack(&mut neighbours)).unwrap();
            let below = mapping_of(stack.start - 1);
            let below = below.map_or("nothing".to_owned(), |(_, permissions)| permissions);
            println!("\nguard {permissions} {below} {} end", stack.len() / 1024);
        });
        let output = ended.succeeded();
        let told = output.lines().find_map(|line| line.strip_prefix("guard "));
        let words: Vec<&str> = told.unwrap().split_whitespace().collect();
        let kib: usize = words[2].parse().unwrap();
        assert_eq!(words[0], "rw-p", "{output}");
        if kind == "mprotect" {
            assert_eq!(words[1], "---p", "{output}");
            assert!(kib < 128, "{output}");
        } else {
            assert!(kib >= 32 * 1024, "{output}");
        }
    }
}

/// Goal: no huge page ever backs a stack. Method: the kernel's own flags of the mapping, since
/// whether it would use huge pages without them depends on the machine's settings.
#[test]
#[cfg(target_os = "linux")]
fn stacks_refuse_huge_pages() {
    if std::env::var_os("TESTS_RUNNER").is_some() {
        return eprintln!("skipped: the emulator's mappings are not the program's");
    }
    let mut neighbours = Vec::new();
    let (stack, _) = mapping_of(address_on_a_stack(&mut neighbours)).unwrap();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", stack.start);
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    let flags = lines.find(|line| line.starts_with("VmFlags:"));
    let flags = flags.expect("smaps must have flags");
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return eprintln!("skipped: this kernel has no huge pages");
    }
    assert!(flags.split_whitespace().any(|flag| flag == "nh"), "{flags}");
}

/// Goal: an overflow names the coroutine, its origin and its size, and aborts. Method: children
/// with both kinds of guard.
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

/// A figure of /proc/self/status, in bytes.
#[cfg(target_os = "linux")]
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc must be mounted");
    let line = status.lines().find(|line| line.starts_with(field));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    let kib = figure.and_then(|figure| figure.parse::<usize>().ok());
    kib.expect("a field of /proc/self/status is a number") * 1024
}

/// Goal: trimming gives the memory of unused stacks back, and nothing of used ones. Method: a child
/// of which most of many deep coroutines end; resident and mapped memory before and after.
#[test]
#[cfg(target_os = "linux")]
fn trimming_gives_memory_back() {
    if std::env::var_os("TESTS_RUNNER").is_some() {
        return eprintln!("skipped: the emulator's memory is not the program's");
    }
    let ended = scene::play("trimming_gives_memory_back", || {
        const COUNT: usize = 2_000;
        let mut made = Vec::with_capacity(COUNT);
        let (mapped, start) = (status("VmSize:"), status("VmRSS:"));
        for number in 0..COUNT {
            let mut coroutine = Coroutine::<(), u8, u8>::new(move |suspender, ()| {
                let room = black_box([number as u8; 40_000]);
                suspender.suspend(room[7]);
                room[39_999]
            });
            coroutine.resume(());
            made.push(coroutine);
        }
        let most = status("VmRSS:") - start;
        assert!(most >= COUNT * 40_000, "{most}");
        // One in a hundred stays, so that every slab stays.
        let mut number = 0;
        made.retain(|_| {
            number += 1;
            number % 100 == 0
        });
        assert!(
            status("VmRSS:") - start >= most * 9 / 10,
            "kept for the next"
        );
        runtime::coroutine::trim_stacks();
        let left = status("VmRSS:").saturating_sub(start);
        assert!(left < most / 10, "{left} of {most}");
        for (index, coroutine) in made.iter_mut().enumerate() {
            let byte = (index * 100 + 99) as u8;
            assert_eq!(coroutine.resume(()), State::Complete(byte));
        }
        drop(made);
        runtime::coroutine::trim_stacks();
        let still = status("VmSize:").saturating_sub(mapped);
        assert!(still < 16 << 20, "{still} bytes of address space are left");
    });
    ended.succeeded();
}

/// Goal: a suspended coroutine costs one page and its share of the page tables, and stacks need few
/// mappings: there may be more than half of the kernel's limit of 65,530, where those that need two
/// mappings each would end. Method: a child makes 40,000 and reads its own status.
#[test]
#[cfg(target_os = "linux")]
fn a_suspended_coroutine_costs_a_page() {
    // Where each guard is a mapping, that many do not fit.
    let count = if tests::guards::are_markers() {
        40_000
    } else {
        10_000
    };
    let ended = scene::play("a_suspended_coroutine_costs_a_page", || {
        let make = || Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
        let mut made = Vec::with_capacity(count);
        made.push(make());
        let before = status("VmRSS:") + status("VmPTE:");
        for _ in 1..count {
            made.push(make());
            made.last_mut().unwrap().resume(());
        }
        let each = (status("VmRSS:") + status("VmPTE:") - before) / count;
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
