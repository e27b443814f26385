//! L3. Reports: when every green thread waits and nothing can wake one, who waits for what.
//!
//! The report goes to the log as an error, and to standard error where no log would show it. It is
//! a report and no more, since an OS thread outside the runtime may still hold a handle or a
//! channel's end and use it; the runtime cannot see that.
//!
//! Deliberately not here: finding cycles. The list is short enough to be read.

use std::fmt::Write as _;
use std::io::Write as _;

use super::task::{Task, WaitsFor};
use super::worker::Worker;

/// So many green threads are named one by one.
const NAMED_MAX: usize = 20;

/// Tells the log or, failing that, standard error, which may be closed.
pub(super) fn tell(report: &str) {
    if log::log_enabled!(log::Level::Error) {
        log::error!("{report}");
    } else {
        let _ = writeln!(std::io::stderr(), "{report}");
    }
}

/// Says that no green thread of this worker can go on, and why. `false` where one still can.
pub(super) fn deadlock(worker: &Worker) -> bool {
    let tasks = worker.tasks.borrow();
    let offloaded = |task: &Task| task.waits_for.get() == WaitsFor::Offload;
    if tasks.is_empty() || worker.crew.len() > 1 || tasks.iter().any(|(_, task)| offloaded(task)) {
        return false;
    }
    let mut report = String::from(
        "deadlock: every green thread waits, and none of the waits is for I/O or time; \
         only another OS thread could still end one",
    );
    for (_, task) in tasks.iter().take(NAMED_MAX) {
        // Writing to a string cannot fail.
        let _ = write!(
            report,
            "\n  {}, spawned at {}, waits for {}",
            &**task,
            task.spawned,
            task.waits_for.get()
        );
    }
    if tasks.len() > NAMED_MAX {
        let _ = write!(report, "\n  ... and {} more", tasks.len() - NAMED_MAX);
    }
    // A logger is the user's code, and may spawn.
    drop(tasks);
    tell(&report);
    true
}

/// Says that a destructor waits during a panic for what no other OS thread brings.
pub(super) fn unwinding_waits(task: &Task) {
    tell(&format!(
        "{task}, spawned at {}, waits in a destructor while it unwinds from a panic or a kill. \
         No other green thread of its worker can run until the wait is over; if one of them was to \
         end it, this is a deadlock: do not wait for green threads while unwinding",
        task.spawned
    ));
}
