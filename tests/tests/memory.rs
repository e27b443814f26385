//! What green threads cost in memory, as the system counts it.
//!
//! Each test runs in a child process of its own, so that nobody else's memory is measured. Linux
//! only: the figures come from proc(5).

#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use runtime::thread::{self, JoinHandle};
use tests::guards::{are_markers, stacks_that_fit};
use tests::scene::play;

/// Bytes resident and in page tables.
fn memory_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc must be mounted");
    let figure = |name: &str| -> usize {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect(name);
        let kib = line
            .split_whitespace()
            .nth(1)
            .expect("a figure follows the name");
        kib.parse::<usize>().expect("the figure is a number") * 1024
    };
    figure("VmRSS:") + figure("VmPTE:")
}

/// Starts green threads that park, and lets them.
fn park_many(count: usize) -> Vec<JoinHandle<()>> {
    let threads = (0..count).map(|_| thread::spawn(thread::park)).collect();
    thread::yield_now();
    threads
}

/// The number that the child has printed behind `name`, among the lines of the test runner.
fn figure_after(name: &str, output: &str) -> usize {
    let (_, rest) = output.split_once(name).expect("the child says it");
    let digits = rest
        .split_whitespace()
        .next()
        .expect("a figure follows the name");
    digits.parse().expect("the figure is a number")
}

fn end(threads: Vec<JoinHandle<()>>) {
    for parked in threads {
        parked.thread().unpark();
        parked.join().expect("a parked green thread ends well");
    }
}

// Goal: a parked green thread costs one page of stack, its share of the page table, and a small
// control block; two pages where nothing is optimised. Method: memory before and after many park.
#[test]
fn a_parked_green_thread_costs_a_page() {
    let count = stacks_that_fit(50_000);
    let allowed_bytes = if cfg!(debug_assertions) { 8_800 } else { 4_600 };
    let output = play("a_parked_green_thread_costs_a_page", || {
        runtime::run(|| {
            end(park_many(1));
            let before = memory_bytes();
            let threads = park_many(count);
            println!("each={}", (memory_bytes() - before) / count);
            end(threads);
        });
    })
    .succeeded();
    let each = figure_after("each=", &output);
    assert!(
        each <= allowed_bytes,
        "{each} bytes each, {allowed_bytes} are allowed"
    );
}

// Goal: guards cost no mapping, so that the kernel's limit of 65,530 mappings is no limit here.
// Method: count the mappings while twice as many green threads as would fit are parked.
#[test]
fn guards_cost_no_mapping() {
    if !are_markers() {
        return eprintln!("skipped: each guard costs a mapping on this system");
    }
    let count = 70_000;
    let output = play("guards_cost_no_mapping", || {
        runtime::run(|| {
            let threads = park_many(count);
            let maps = std::fs::read_to_string("/proc/self/maps").expect("proc must be mounted");
            println!("mappings={}", maps.lines().count());
            end(threads);
        });
    })
    .succeeded();
    let mappings = figure_after("mappings=", &output);
    assert!(
        mappings < 1_000,
        "{mappings} mappings for {count} green threads"
    );
}

// Goal: the memory of a burst goes back to the system. Method: end many green threads and wait,
// with a deadline, until most of what they had is gone.
#[test]
fn the_memory_of_a_burst_goes_back() {
    let played = play("the_memory_of_a_burst_goes_back", || {
        runtime::run(|| {
            let before = memory_bytes();
            let threads = park_many(stacks_that_fit(20_000));
            let most = memory_bytes() - before;
            end(threads);
            let deadline = Instant::now() + Duration::from_secs(40);
            while memory_bytes().saturating_sub(before) > most / 4 {
                assert!(
                    Instant::now() < deadline,
                    "the memory of {most} bytes stays"
                );
                thread::sleep(Duration::from_millis(100));
            }
        });
    });
    played.succeeded();
}
