//! L0. Signals: handlers for faults, and the stacks that they run on.
//!
//! A fault on an overflown stack cannot be handled on that stack. The kernel switches to the
//! thread's *alternate* stack first, if the handler asks for it and the thread has one: std gives
//! one to `main` and to the threads it spawns, and [`AlternateStack::ensure`] to any other.
//!
//! Actions are set through libc on every system: the kernel wants to be told where a handler
//! returns to, which is a piece of code in libc. That call never waits, so no crate that replaces
//! libc's blocking functions takes it over.
//!
//! Man pages: sigaction(2), sigaltstack(2), getauxval(3), signal-safety(7). Not here: what a
//! handler does, and signals that ask a program to end.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;

use super::kernel;
use super::memory::{Region, page_bytes};

/// A handler that is told the details of its signal.
pub(crate) type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Room for a handler's own frames, besides what the kernel puts on the stack for it.
const HANDLER_BYTES: usize = 32 * 1024;

/// What is done at present about a signal.
///
/// # Errors
///
/// `EINVAL` for a number that is no signal.
pub(crate) fn action(signal: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: the structure is integers and an optional function; zeros are a value of it.
    let mut current: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `current` may be written.
    if unsafe { libc::sigaction(signal, ptr::null(), &raw mut current) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(current)
}

/// Has a signal handled by `handler`, on the alternate stack.
///
/// # Errors
///
/// `EINVAL` for a signal that cannot be handled.
pub(crate) fn handle(signal: c_int, handler: Handler) -> io::Result<()> {
    // SAFETY: as in `action`; an empty mask is all zeros too.
    let mut wanted: libc::sigaction = unsafe { mem::zeroed() };
    wanted.sa_sigaction = handler as *const () as usize;
    wanted.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(signal, &raw const wanted, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Does what `previous` would have done about a fault, from within the handler that replaced it.
///
/// # Safety
///
/// Call it only from a handler, with that handler's arguments, and with an action that [`action`]
/// has given.
pub(crate) unsafe fn pass_on(
    previous: Option<&libc::sigaction>,
    signal: c_int,
    information: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(previous) = previous.filter(|previous| is_function(previous)) else {
        // The faulting instruction runs again after the return, and this time the kernel ends the
        // process, with the true signal in its exit status.
        restore_default(signal);
        return;
    };
    let address = previous.sa_sigaction as *const ();
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the flag says that the address is a function of this type.
        let handler = unsafe { mem::transmute::<*const (), Handler>(address) };
        handler(signal, information, context);
    } else {
        // SAFETY: without the flag it takes the signal's number only.
        let handler = unsafe { mem::transmute::<*const (), extern "C" fn(c_int)>(address) };
        handler(signal);
    }
}

/// Whether an action is a function, rather than one of the two special values.
fn is_function(action: &libc::sigaction) -> bool {
    action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
}

fn restore_default(signal: c_int) {
    // SAFETY: as in `action`; SIG_DFL is zero as well.
    let wanted: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the default action is no function of ours. Nothing can be done if it is refused.
    let _ = unsafe { libc::sigaction(signal, &raw const wanted, ptr::null_mut()) };
}

/// The address whose access failed, or `None` where somebody merely sent the signal by kill(2).
///
/// # Safety
///
/// `information` must be what the kernel gave a handler of SIGSEGV or SIGBUS.
pub(crate) unsafe fn fault_address(information: *const libc::siginfo_t) -> Option<usize> {
    // SAFETY: the caller vouches for the pointer.
    let information = unsafe { &*information };
    // Codes up to zero mean that a process sent it; then there is no address.
    if information.si_code <= 0 {
        return None;
    }
    // SAFETY: the kernel fills the address in for faults.
    Some(unsafe { information.si_addr() }.addr())
}

/// Writes to the standard error as much as it takes, from within a handler.
pub(crate) fn complain(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: the text is readable for its length.
        match unsafe { kernel::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) } {
            Ok(count) if count > 0 => text = &text[count.min(text.len())..],
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            _ => return,
        }
    }
}

/// A stack for the handlers of one OS thread, taken out of use when dropped there.
#[derive(Debug)]
pub(crate) struct AlternateStack {
    region: Region,
}

impl AlternateStack {
    /// Gives the calling thread an alternate stack, unless it has one already.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is no room for it; `EPERM` on an alternate stack.
    pub(crate) fn ensure() -> io::Result<Option<AlternateStack>> {
        if AlternateStack::current()?.ss_flags & libc::SS_DISABLE == 0 {
            return Ok(None);
        }
        let usable_bytes = (kernel_frame_bytes() + HANDLER_BYTES).next_multiple_of(page_bytes());
        let region = Region::map(page_bytes() + usable_bytes)?;
        // SAFETY: the lowest page is left out of the stack below.
        unsafe { region.guard(0, page_bytes()) }?;
        let wanted = libc::stack_t {
            ss_sp: region.base().as_ptr().wrapping_add(page_bytes()).cast(),
            ss_flags: 0,
            ss_size: usable_bytes,
        };
        // SAFETY: the memory is ours until `drop` has taken it out of use.
        unsafe { kernel::sigaltstack(&raw const wanted, ptr::null_mut()) }?;
        Ok(Some(AlternateStack { region }))
    }

    fn current() -> io::Result<libc::stack_t> {
        let mut current = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        // SAFETY: `current` may be written.
        unsafe { kernel::sigaltstack(ptr::null(), &raw mut current) }?;
        Ok(current)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        let ours = self
            .region
            .base()
            .as_ptr()
            .wrapping_add(page_bytes())
            .cast();
        // Somebody may have set another one since; that one stays.
        if AlternateStack::current().is_ok_and(|current| current.ss_sp == ours) {
            let none = libc::stack_t {
                ss_sp: ours,
                ss_flags: libc::SS_DISABLE,
                ss_size: HANDLER_BYTES,
            };
            // SAFETY: to take a stack out of use is always allowed outside of a handler.
            let _ = unsafe { kernel::sigaltstack(&raw const none, ptr::null_mut()) };
        }
    }
}

/// How much the kernel itself may put on the stack: with AMX registers more than 10 KiB.
fn kernel_frame_bytes() -> usize {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: getauxval reads a table that the kernel has left in this process.
        let known = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        known.max(libc::MINSIGSTKSZ)
    }
    // What a handler usually needs, so more than enough; not every system names the minimum.
    #[cfg(not(target_os = "linux"))]
    libc::SIGSTKSZ
}
