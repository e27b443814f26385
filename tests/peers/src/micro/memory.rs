//! Memory of parked green threads: how much the process grew, by thread, once all of them wait.
//!
//! Outside the layers. Counted are resident pages and the page tables that map them. Not counted is
//! what the kernel keeps besides: an OS thread's kernel stack, or a mapping for each guard page.
//! The measuring process ends without waking anybody, as unwinding a million would prove nothing.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::Peer;
use crate::machine::{self, Memory};

/// How many have come to their parking place. Each peer here runs on one OS thread (std's threads
/// excepted), and only the number is read, so no ordering is needed.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

/// Parks `count` green threads, prints the bytes that each of them takes (all, and of these the
/// page tables) and ends the process.
pub(crate) fn run(peer: Peer, count: u64) -> io::Result<Infallible> {
    match peer {
        Peer::Ours => ours(count),
        Peer::Tokio => tokio(count),
        Peer::May => may(count),
        Peer::Corosensei => corosensei(count),
        Peer::Threads => os_threads(count),
        _ => Err(super::unsupported()),
    }
}

fn arrive() {
    ARRIVED.fetch_add(1, Ordering::Relaxed);
}

fn missing(count: u64) -> bool {
    ARRIVED.load(Ordering::Relaxed) < count
}

/// Prints the growth since `before` and ends the process from inside the measurement.
fn end(before: Memory, count: u64) -> io::Result<Infallible> {
    let after = machine::own_memory()?;
    let tables = after
        .page_table_bytes
        .saturating_sub(before.page_table_bytes);
    let together = after.resident_bytes.saturating_sub(before.resident_bytes) + tables;
    println!(
        "{} {}",
        together as f64 / count as f64,
        tables as f64 / count as f64
    );
    // SAFETY: always sound; it runs no destructor and no exit handler, which is the point.
    unsafe { libc::_exit(0) }
}

fn ours(count: u64) -> io::Result<Infallible> {
    ::runtime::run(move || {
        let before = machine::own_memory()?;
        for _ in 0..count {
            drop(::runtime::thread::spawn(|| {
                arrive();
                ::runtime::thread::park();
            }));
        }
        while missing(count) {
            ::runtime::thread::yield_now();
        }
        end(before, count)
    })
}

fn tokio(count: u64) -> io::Result<Infallible> {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let before = machine::own_memory()?;
        for _ in 0..count {
            drop(::tokio::spawn(async {
                arrive();
                std::future::pending::<()>().await;
            }));
        }
        while missing(count) {
            ::tokio::task::yield_now().await;
        }
        end(before, count)
    })
}

fn may(count: u64) -> io::Result<Infallible> {
    ::may::config().set_workers(1);
    let main = ::may::go!(move || {
        let before = machine::own_memory()?;
        for _ in 0..count {
            drop(::may::go!(|| {
                arrive();
                ::may::coroutine::park();
            }));
        }
        while missing(count) {
            // Its yield may run the yielding coroutine again and again; its sleep does not.
            ::may::coroutine::sleep(Duration::from_millis(1));
        }
        end(before, count)
    });
    main.join()
        .map_err(|_| io::Error::other("a coroutine panicked"))?
}

/// Coroutines without a scheduler: each is resumed once and left suspended.
fn corosensei(count: u64) -> io::Result<Infallible> {
    let before = machine::own_memory()?;
    let mut suspended = Vec::new();
    for _ in 0..count {
        let mut coroutine = ::corosensei::Coroutine::<(), (), ()>::with_stack(
            ::corosensei::stack::DefaultStack::new(128 * 1024)?,
            |suspender, ()| suspender.suspend(()),
        );
        coroutine.resume(());
        suspended.push(coroutine);
    }
    end(before, count)
}

fn os_threads(count: u64) -> io::Result<Infallible> {
    let before = machine::own_memory()?;
    for _ in 0..count {
        thread::Builder::new().spawn(|| {
            arrive();
            loop {
                thread::park();
            }
        })?;
    }
    while missing(count) {
        thread::yield_now();
    }
    end(before, count)
}
