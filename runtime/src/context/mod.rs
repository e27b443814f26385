//! L1. Contexts: stacks, and the switch from one to another.
//!
//! A *context* is a computation that stands still. All there is to know of it is one word, the
//! [`StackPointer`]; what it needs to go on (where to resume, two registers) lies on its stack
//! next to that address. [`prepare`] makes a context out of an empty stack, [`switch`] leaves the
//! running one and continues another. Neither knows what a coroutine or a green thread is, and
//! neither makes a system call.
//!
//! ```text
//!   running A                              suspended B
//!   switch(&mut a, b, 7) ───────────────▶  continues after the switch that it left by,
//!     saves A's frame, a = its address     which now returns 7; B has what A sent
//! ```
//!
//! The machines differ only in `x86_64.rs` (read this one first) and `aarch64.rs`. `stack.rs`
//! hands out stacks, `slab.rs` maps them, and `overflow.rs` reports who overflowed one.
//!
//! Man pages: mmap(2), sigaltstack(2). Not here: signal masks and floating-point control words.
//! Every context of a thread shares them, as the callee-saved part of the calling convention
//! would otherwise demand a save on each switch for what Rust code never changes.

pub(crate) mod overflow;
pub(crate) mod slab;
pub(crate) mod stack;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{exchange, prefetch_line, prepare, save_and_exchange};

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{exchange, prefetch_line, prepare, save_and_exchange};

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("contexts are switched by assembly, which exists for x86-64 and aarch64 only");

pub(crate) use stack::{DEFAULT_SLOT_BYTES, Kind, Label, Stack, StackPool, StackPools};

/// A suspended context: the stack pointer that it continues with.
pub(crate) type StackPointer = *mut u8;

/// What a prepared context runs first, with the value of the first switch to it.
///
/// It never returns, for there is nothing under it on its stack, and no panic may leave it: it
/// catches them all, and its last act is a switch away for good.
pub(crate) type Entry = unsafe extern "C" fn(argument: usize) -> !;

/// Suspends the running context into `save` and continues `to`, where `value` comes out of the
/// switch that left it. Returns, once somebody switches back, the value given there.
///
/// # Safety
///
/// `save` must be valid to write, and `to` must be a context of this OS thread that [`prepare`] or
/// a switch has just left there: each may be continued once. Both stacks must stay mapped, and this
/// one must not be freed while it stands suspended, unless what lies on it may be forgotten.
///
/// There are two more forms, with the same contract. [`exchange`] stores nothing, but returns
/// besides the value the context that has switched back: the two sides of a coroutine pass each
/// other on like this, in a register, since a word that one side stores and the other loads at once
/// would take longer than the rest of the switch. [`save_and_exchange`] does both.
#[inline(always)]
pub(crate) unsafe fn switch(save: *mut StackPointer, to: StackPointer, value: usize) -> usize {
    // SAFETY: the caller's promise is the same.
    unsafe { save_and_exchange(save, to, value) }.1
}

/// The frames of a green thread that waits in a read or a write take about so much.
const PREFETCH_BYTES: usize = 7 * LINE_BYTES;
/// A cache line of the processors that this is written for.
pub(crate) const LINE_BYTES: usize = 64;

/// Has the processor fetch what a suspended context will touch first when it goes on.
#[inline(always)]
pub(crate) fn prefetch(context: StackPointer) {
    // On x86-64 the switch's frame lies under the address.
    let start = context.wrapping_sub(16);
    for offset in (0..PREFETCH_BYTES).step_by(LINE_BYTES) {
        prefetch_line(start.wrapping_add(offset));
    }
}

#[cfg(test)]
mod tests;
