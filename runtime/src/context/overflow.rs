//! L1. Overflow: the handler that says whose stack was too small, and ends the process.
//!
//! A stack that overflows touches its guard page, which the kernel answers with SIGSEGV (SIGBUS on
//! some systems). The handler finds the slot by the faulting address, reads the label at its end,
//! says who it was in one line on the standard error, and aborts, as std does for OS threads. Any
//! other fault goes to the handler that was there before, std's own among them.
//!
//! It runs at an arbitrary instruction of an arbitrary thread, so it calls nothing that locks or
//! allocates: it walks a list, fills a buffer, makes one write(2).
//!
//! Man pages: sigaction(2), sigaltstack(2), signal-safety(7). Not here: backtraces, which would
//! need locks; a debugger or the core dump has them.

use std::cell::OnceCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;

use super::slab::{Slab, Slot};
use super::stack::{Kind, Label};
use crate::sys::memory::page_bytes;
use crate::sys::signal::{self, AlternateStack};

/// What was done about the two signals before; set before our handler is.
static PREVIOUS_SEGV: OnceLock<libc::sigaction> = OnceLock::new();
static PREVIOUS_BUS: OnceLock<libc::sigaction> = OnceLock::new();

thread_local! {
    /// Set once this thread can handle an overflow; holds the stack for it if that is ours.
    static READY: OnceCell<Option<AlternateStack>> = const { OnceCell::new() };
}

/// Has overflows of this thread's stacks reported from now on. Cheap when repeated.
///
/// # Errors
///
/// Those of sigaction(2) and sigaltstack(2), and `ENOMEM`.
pub(crate) fn report_here() -> io::Result<()> {
    // `page_bytes` asks the system once and remembers; the handler must find it remembered.
    page_bytes();
    install(libc::SIGSEGV, &PREVIOUS_SEGV)?;
    install(libc::SIGBUS, &PREVIOUS_BUS)?;
    // A thread that ends has its thread-locals destroyed: nothing is left there to set up.
    let ready = READY.try_with(|ready| {
        if ready.get().is_none() {
            // Nobody else can have set it in between, so the answer cannot be a refusal.
            let _ = ready.set(AlternateStack::ensure()?);
        }
        Ok(())
    });
    ready.unwrap_or(Ok(()))
}

/// Installs the handler for one signal, the first time.
fn install(number: c_int, previous: &'static OnceLock<libc::sigaction>) -> io::Result<()> {
    if previous.get().is_some() {
        return Ok(());
    }
    let current = signal::action(number)?;
    // Of two threads that come here at once only one wins and installs, so that our own handler is
    // never taken for the previous one. A fault in between goes where it went before.
    if previous.set(current).is_ok() {
        signal::handle(number, on_fault)?;
    }
    Ok(())
}

/// The handler of both signals.
extern "C" fn on_fault(number: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel has called us with these arguments.
    let address = unsafe { signal::fault_address(information) };
    if let Some(slot) = address.and_then(overflown) {
        report(slot);
        // Not an `exit`: the core dump shows the stack that overflowed.
        std::process::abort();
    }
    let previous = if number == libc::SIGBUS {
        &PREVIOUS_BUS
    } else {
        &PREVIOUS_SEGV
    };
    // SAFETY: these are our arguments, and the action was read before ours was set.
    unsafe { signal::pass_on(previous.get(), number, information, context) };
}

/// The slot whose guard page holds the address.
fn overflown(address: usize) -> Option<Slot> {
    Slab::find(address).filter(|slot| address - slot.base.addr().get() < page_bytes())
}

/// Says whose stack has overflowed.
fn report(slot: Slot) {
    // SAFETY: the stack is in use, since something on it has just run into its guard, so its label
    // is mapped; it was written by this thread, which does nothing else now.
    let label = unsafe { Label::of(slot).read() };
    let mut line = Line::new();
    line.text("\n");
    let (remedy, verb) = match label.kind {
        Kind::GreenThread => {
            line.text("green thread ");
            (
                "give it a larger one (thread::Builder::stack_size), or all of them \
                 (runtime::Builder::stack_bytes)",
                "spawned",
            )
        }
        Kind::Coroutine => {
            line.text("coroutine ");
            (
                "give it a larger one (Coroutine::with_stack_size)",
                "created",
            )
        }
        Kind::Nobody => {
            line.text("a context ");
            ("give it a larger one", "")
        }
    };
    line.who(&label, verb);
    line.text("has overflowed its stack of ");
    line.number(slot.bytes as u64 / 1024);
    line.text(" KiB; ");
    line.text(remedy);
    line.text(", or keep large values on the heap\n");
    signal::complain(line.bytes());
}

/// A line of text that grows without allocating; what does not fit is left out.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl Line {
    fn new() -> Line {
        Line {
            bytes: [0; 1024],
            length: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn text(&mut self, text: &str) {
        for &byte in text.as_bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
    }

    /// A number in decimal, its digits found from the last to the first.
    fn number(&mut self, mut number: u64) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len() - 1;
        while number > 0 {
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            first -= usize::from(number > 0);
        }
        self.text(std::str::from_utf8(&digits[first..]).unwrap_or(""));
    }

    /// Name or number, and origin: `'worker' (spawned at src/main.rs:3:5) `.
    fn who(&mut self, label: &Label, verb: &str) {
        // SAFETY: a name is valid for as long as it is on a label in use (`Stack::set_label`), or
        // null, which gives `None`.
        let name = unsafe { label.name.as_ref() }.unwrap_or("");
        if !name.is_empty() {
            self.text("'");
            // A name may be of any length, and the remedy must still fit.
            let shown = name
                .char_indices()
                .nth(200)
                .map_or(name, |(end, _)| &name[..end]);
            self.text(shown);
            self.text("' ");
        } else if label.id != 0 {
            self.number(label.id);
            self.text(" ");
        }
        if let Some(place) = label.spawned {
            self.text("(");
            self.text(verb);
            self.text(" at ");
            self.text(place.file());
            self.text(":");
            self.number(u64::from(place.line()));
            self.text(":");
            self.number(u64::from(place.column()));
            self.text(") ");
        }
    }
}
