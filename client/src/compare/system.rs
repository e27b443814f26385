//! What `compare` asks the kernel for that std has no name for: where a process may run, what its
//! children have used, signals, and that no child outlives this program.
//!
//! Application, above L4. Man pages: sched_setaffinity(2), prctl(2) (`PR_SET_PDEATHSIG`,
//! `PR_SET_CHILD_SUBREAPER`), getrusage(2), kill(2), waitpid(2). None of these calls waits.
//!
//! Deliberately not here: which process is started when (`process`), and /proc (`procfs`).

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// What processes have used from their beginning to their end.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Context switches, asked for and not.
    pub(crate) switches: u64,
}

impl Usage {
    /// What was added since `earlier`.
    pub(crate) fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// What all children that were waited for have used, together with the children that they
/// themselves waited for: every thread and every process, also those that ended long ago.
pub(crate) fn usage_of_ended_children() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to a local of the type that the call fills, and no copy of it is kept.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    assert!(result == 0, "getrusage refuses only a wrong `who`");
    // SAFETY: the call above succeeded, and so has filled all of it.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        switches: (usage.ru_nvcsw + usage.ru_nivcsw) as u64,
    }
}

/// Sends `signal` to a process that has not been waited for.
///
/// # Errors
///
/// If there is no such process any more.
pub(crate) fn send_signal(process: u32, signal: i32) -> io::Result<()> {
    let process = libc::pid_t::try_from(process).map_err(io::Error::other)?;
    // SAFETY: kill(2) takes numbers only.
    match unsafe { libc::kill(process, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets `command` run on these processors only (on all, if there are none), in a process group of
/// its own, so that Ctrl-C reaches this program alone, which then stops its children in order.
pub(crate) fn confine(command: &mut Command, processors: &[usize]) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let processors = processors.to_vec();
        let prepare = move || {
            linux::end_with_parent()?;
            linux::pin(&processors)
        };
        // SAFETY: the closure makes two system calls, allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = processors;
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{adopt_orphans, adopts_orphans, pin, processors, reap};

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem;
    use std::sync::atomic::{AtomicBool, Ordering};

    static ADOPTS: AtomicBool = AtomicBool::new(false);

    /// The processors on which this process may run, in ascending order.
    pub(crate) fn processors() -> Vec<usize> {
        // SAFETY: cpu_set_t is a plain array of bits, of which all may be zero.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the pointer and the length describe the local `set`, which outlives the call.
        let status = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
        if status != 0 {
            return Vec::new();
        }
        (0..8 * mem::size_of_val(&set))
            // SAFETY: `processor` is below the number of bits of the set.
            .filter(|&processor| unsafe { libc::CPU_ISSET(processor, &set) })
            .collect()
    }

    /// Lets the calling thread, and whatever it starts from now on, run on these processors only.
    ///
    /// Plain memory and one system call: fit for the time between fork and exec.
    pub(crate) fn pin(processors: &[usize]) -> io::Result<()> {
        if processors.is_empty() {
            return Ok(());
        }
        // SAFETY: cpu_set_t is a plain array of bits, of which all may be zero.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        for &processor in processors {
            // SAFETY: `processor` came out of `processors()`, so it is a bit of the set.
            unsafe { libc::CPU_SET(processor, &mut set) };
        }
        // SAFETY: the pointer and the length describe the local `set`, which outlives the call.
        let status = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) };
        if status == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Has the calling process killed when the thread that started it ends, however that comes.
    pub(crate) fn end_with_parent() -> io::Result<()> {
        // SAFETY: prctl with these arguments only sets an attribute of the calling process.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// From now on, whoever loses its parent below this process becomes a child of this process,
    /// and can be found and ended by it.
    pub(crate) fn adopt_orphans() -> io::Result<()> {
        // SAFETY: prctl with these arguments only sets an attribute of the calling process.
        match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
            0 => {
                ADOPTS.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether orphans come to this process.
    pub(crate) fn adopts_orphans() -> bool {
        ADOPTS.load(Ordering::Relaxed)
    }

    /// Waits for a child that was killed or is dead already.
    pub(crate) fn reap(process: u32) {
        let Ok(process) = libc::pid_t::try_from(process) else {
            return;
        };
        // SAFETY: no status is asked for, so that there is nothing to write to.
        unsafe { libc::waitpid(process, std::ptr::null_mut(), 0) };
    }
}

/// Only Linux can pin a process and give orphans to it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn processors() -> Vec<usize> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_work_is_counted_with_its_grandchildren() {
        // Goal: what a child's child has used is in the sum. Method: a shell whose subshell works
        // for a while; the shell itself only waits.
        let before = usage_of_ended_children();
        let script = "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done) & wait";
        let status = Command::new("sh").args(["-c", script]).status().unwrap();
        assert!(status.success());
        let used = usage_of_ended_children().since(before);
        assert!(used.cpu > Duration::from_millis(10), "{used:?}");
        assert!(used.switches > 0, "{used:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_confined_child_runs_where_it_may() {
        // Goal: a child has the processors that it is given, and a group of its own. Method: asks a
        // child's /proc.
        let all = processors();
        assert!(!all.is_empty());
        let mut command = Command::new("cat");
        confine(command.arg("/proc/self/status"), &all[..1]);
        let status = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("Cpus_allowed_list:"));
        let allowed = line.unwrap().split_whitespace().nth(1).unwrap();
        assert_eq!(allowed, all[0].to_string());
    }
}
