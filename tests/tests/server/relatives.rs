//! The children of a process, and who is still there after it.
//!
//! Test support for `processes.rs`. Man pages: proc(5) (`/proc/PID/stat`), kill(2).

use crate::process::{Server, eventually};
use std::fs;

/// A process, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Relative {
    pub(crate) pid: i32,
    /// What it is doing: R runs, S sleeps, T is suspended, Z has ended and nobody has asked.
    pub(crate) state: char,
    parent: i32,
    group: i32,
}

/// Reads one line of `/proc`. `None`: there is no such process any more.
fn look_at(pid: i32) -> Option<Relative> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name comes second, in brackets, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let state = fields[0].chars().next()?;
    let (parent, group) = (fields[1].parse().ok()?, fields[2].parse().ok()?);
    Some(Relative {
        pid,
        state,
        parent,
        group,
    })
}

/// Every process there is.
fn all() -> impl Iterator<Item = Relative> {
    let entries = fs::read_dir("/proc").expect("it is mounted");
    entries.filter_map(|entry| look_at(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

/// The children of `server` now, zombies among them, by pid.
pub(crate) fn children(server: &Server) -> Vec<Relative> {
    let pid = i32::try_from(server.pid()).expect("a pid fits");
    let mut children: Vec<_> = all().filter(|relative| relative.parent == pid).collect();
    children.sort();
    children
}

/// Waits until `server` has `count` children, all of them alive, and gives them back.
pub(crate) fn wait_for_children(server: &Server, count: usize) -> Vec<i32> {
    let mut found = Vec::new();
    eventually(&format!("there are {count} children and no zombie"), || {
        found = children(server);
        found.len() == count && found.iter().all(|child| child.state != 'Z')
    });
    found.into_iter().map(|child| child.pid).collect()
}

/// Waits until none of `pids` runs any more. Who outlives its parent has process 1 for one, which
/// in a container need not ask for its end: a zombie has ended, too.
pub(crate) fn wait_until_gone(pids: &[i32]) {
    eventually(&format!("all of {pids:?} have ended"), || {
        let mut left = pids.iter().filter_map(|pid| look_at(*pid));
        left.all(|relative| relative.state == 'Z')
    });
}

/// How many OS threads a process has.
pub(crate) fn os_threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .count()
}

/// How often the first OS thread of each of `pids` has gone to sleep, all in all.
pub(crate) fn sleeps(pids: &[i32]) -> u64 {
    let of = |pid: &i32| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.expect("every thread has that").trim();
        count.parse().expect("a number")
    };
    pids.iter().map(of).sum()
}

/// Sends `signal` to one process.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: kill touches no memory of ours.
    let result = unsafe { libc::kill(pid, signal) };
    assert_eq!(result, 0, "signal {signal} to process {pid}");
}

/// Sends `signal` to everybody in the group that `server` leads, as a terminal does on Ctrl-C.
pub(crate) fn signal_group(server: &Server, number: i32) {
    let group = i32::try_from(server.pid()).expect("a pid fits");
    let leader = look_at(group).expect("it runs");
    assert_eq!(
        leader.group, group,
        "it leads a group, or this would hit the test"
    );
    signal(-group, number);
}
