//! A second process: a copy of this one that runs one function and ends with it.
//!
//! fork(2) copies the thread that calls it and no other. Whatever lock another thread held at that
//! moment stays locked in the copy for ever, so the process that forks must have one thread only:
//! the parents of this server start none. Nor does anything of the parent's end in the copy: its
//! destructors do not run there, and its unwritten output is not written twice.
//!
//! Signals are blocked from before the fork until the child has handlers of its own (see `stop`).
//! The parent's would write to the parent's pipe, and an order to stop that came in between would
//! kill the child.
//!
//! Man pages: fork(2), _exit(2), prctl(2) (PR_SET_PDEATHSIG), sigprocmask(2), kill(2), getppid(2).
//! Deliberately not here: what becomes of children (see `deaths`).

use crate::stop::Stop;
use log::error;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGKILL, SIGTERM};
use signal_hook::low_level;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process, for as long as nobody has waited for its end.
pub(crate) type Pid = libc::pid_t;

/// What a child exits with when its function returns an error.
const EXIT_FAILURE: i32 = 1;
/// What a Rust program exits with after a panic.
const EXIT_PANICKED: i32 = 101;

/// Whether this process was forked.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process is the child of another that runs the same program.
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Runs `child` in a new process, which ends with it, and gives back who that is. The child gets a
/// [`Stop`] of its own.
///
/// # Errors
///
/// What fork reports: `EAGAIN` when the limit of processes is reached, `ENOMEM`.
pub(crate) fn fork(stop: &Stop, child: impl FnOnce(&Stop) -> io::Result<()>) -> io::Result<Pid> {
    let blocked = BlockedSignals::new()?;
    let parent = std::process::id();
    // SAFETY: this process has one thread, so no lock is held in the copy that nobody can release.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            IS_CHILD.store(true, Ordering::Relaxed);
            let body = AssertUnwindSafe(|| {
                die_with(parent)?;
                let stop = stop.renewed_in_child()?;
                drop(blocked);
                child(&stop)
            });
            let exit_code = match catch_unwind(body) {
                Ok(Ok(())) => 0,
                Ok(Err(error)) => {
                    error!("{error}");
                    EXIT_FAILURE
                }
                // The message has been printed.
                Err(_) => EXIT_PANICKED,
            };
            low_level::exit(exit_code)
        }
        pid => Ok(pid),
    }
}

/// Sees to it that the calling child does not outlive `parent`, however that ends.
#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: prctl with these arguments only sets an attribute of the calling process.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // It may have died before it was asked for its death to be told.
    if std::os::unix::process::parent_id() != parent {
        low_level::exit(EXIT_FAILURE);
    }
    Ok(())
}

/// Elsewhere a parent that is killed leaves its children behind, who go on until they are told to
/// stop.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> io::Result<()> {
    Ok(())
}

/// Asks `child` to stop gracefully.
pub(crate) fn order_to_stop(child: Pid) {
    send(child, Stop::ORDER);
}

/// Ends `child` there and then.
pub(crate) fn kill(child: Pid) {
    send(child, SIGKILL);
}

fn send(child: Pid, signal: i32) {
    // SAFETY: kill touches no memory of ours.
    if unsafe { libc::kill(child, signal) } != 0 {
        // Nobody else can have the number: a child that nobody has waited for keeps it.
        let error = io::Error::last_os_error();
        error!("signal {signal} cannot be sent to process {child}: {error}");
    }
}

/// While it lives, the signals that ask for a stop wait.
struct BlockedSignals {
    mask_before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> io::Result<BlockedSignals> {
        let set = set_of(&[SIGINT, SIGTERM, Stop::ORDER]);
        let mut before = MaybeUninit::uninit();
        // SAFETY: the first set is initialised, and the second is ours to be written to.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: the call above has succeeded, and so has written it.
        let mask_before = unsafe { before.assume_init() };
        Ok(BlockedSignals { mask_before })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is initialised, and null asks for no answer.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask_before, ptr::null_mut()) };
    }
}

/// Lets through what a server must hear of: a stop, and the end of a child. Whoever has started it
/// may have blocked these signals, and a program inherits that.
pub(crate) fn unblock_signals() -> io::Result<()> {
    let set = set_of(&[SIGINT, SIGTERM, SIGCHLD, Stop::ORDER]);
    // SAFETY: the set is initialised, and null asks for no answer.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is ours, and this call initialises it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised above.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: it was initialised above.
    unsafe { set.assume_init() }
}
