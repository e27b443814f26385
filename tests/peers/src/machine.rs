//! What the benchmarks ask the machine itself: which processor, which kernel, how much time and
//! memory a process has used; and the pinning of a process to one processor.
//!
//! Outside the layers: this crate measures the product and is no part of it.
//! Rests on proc(5) (`schedstat`, `status`), sched_setaffinity(2), uname(2).
//! Deliberately not here: hardware counters. Virtual machines rarely have them.

use std::fs;
use std::io;
use std::mem;
use std::process::Command;

/// The processors this process may run on, in ascending order.
pub(crate) fn processors() -> Vec<usize> {
    // SAFETY: cpu_set_t is a plain bit array, for which all zeroes is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the pointer and the length describe the local `set`, which outlives the call.
    let status = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
    if status != 0 {
        return vec![0];
    }
    let limit = 8 * mem::size_of_val(&set);
    // SAFETY: `processor` stays below the number of bits in the set.
    (0..limit)
        .filter(|&processor| unsafe { libc::CPU_ISSET(processor, &set) })
        .collect()
}

/// Pins the calling thread, and whatever it starts afterwards, to one processor.
///
/// Only system calls and plain memory: fit to be called between fork and exec.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit array, for which all zeroes is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `processor` came out of `processors`, so it is a bit of the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the pointer and the length describe the local `set`, which outlives the call.
    let status = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Processor time in ns that all threads of a process have used so far.
///
/// The first field of each thread's `schedstat` is what the scheduler itself accounts, to the
/// nanosecond; `stat` would count ticks. Threads that have ended meanwhile are not in the sum.
pub(crate) fn processor_time_ns(process: u32) -> io::Result<u64> {
    let mut total_ns = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the listing and the reading: it then counts for nothing.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            let first = text.split_whitespace().next().unwrap_or("");
            total_ns += first.parse::<u64>().map_err(io::Error::other)?;
        }
    }
    Ok(total_ns)
}

/// Memory of one process as the kernel counts it.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Pages in memory (`VmRSS`).
    pub(crate) resident_bytes: u64,
    /// Page tables that map them (`VmPTE`).
    pub(crate) page_table_bytes: u64,
}

/// Memory of the calling process.
pub(crate) fn own_memory() -> io::Result<Memory> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(Memory {
        resident_bytes: kilobytes(&status, "VmRSS:")? * 1024,
        page_table_bytes: kilobytes(&status, "VmPTE:")? * 1024,
    })
}

/// The number on the line of `text` that begins with `name`.
fn kilobytes(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/self/status has no {name}")))
}

/// One line that says on what the numbers were measured.
pub(crate) fn describe() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let count = processors().len();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory_gib = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kilobytes(&text, "MemTotal:").ok())
        .map_or(0, |kilobytes| kilobytes >> 20);
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    format!(
        "{model}, {count} processors ({}), {memory_gib} GiB, Linux {}, {}, load average {load}",
        std::env::consts::ARCH,
        release.trim(),
        compiler.unwrap_or_default().trim(),
    )
}
