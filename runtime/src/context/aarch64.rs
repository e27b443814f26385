//! L1. The switch for aarch64: how it differs from `x86_64.rs`, which is to be read first.
//!
//! ```text
//!        higher addresses
//!      │ caller of the switch  │
//!      ├───────────────────────┤ ◀─ sp while the context runs
//!      │ (8 bytes unused)      │   +24  sp must be a multiple of 16 at every access
//!      │ resume: code address  │   +16
//!      │ x19                   │   +8
//!      │ x29, frame pointer    │   +0
//!      └───────────────────────┘ ◀─ the context's StackPointer
//! ```
//!
//! - There is no red zone: a signal handler may overwrite everything below sp. So sp is moved first
//!   and the frame lies *above* the StackPointer.
//! - LLVM keeps x29 (frame pointer) and x19 (its base register) from assembly. They take the places
//!   of rbp and rbx.
//! - The return address of a call is in x30, and not on the stack. It is named as overwritten, like
//!   the lower halves of v8 to v15, which the convention would have a function preserve.
//! - `br`, as `jmp` there, leaves the prediction of returns alone; `ret x16` would not.
//!
//! Sources: Procedure Call Standard for the Arm 64-bit Architecture, 6.1 and 6.4. Not here: x18,
//! which belongs to the platform, and the scalable vector state, which Rust code does not keep
//! across calls.

use std::arch::{asm, naked_asm};
use std::mem::{offset_of, size_of};

use super::{Entry, StackPointer};

/// What lies at a suspended context's stack pointer.
#[repr(C, align(16))]
struct Frame {
    x29: usize,
    x19: usize,
    resume: usize,
}

/// As for x86-64.
///
/// # Safety
///
/// As for x86-64.
pub(crate) unsafe fn prepare(stack_top: *mut u8, entry: Entry) -> StackPointer {
    assert!(
        stack_top.addr().is_multiple_of(16),
        "a stack must begin at a multiple of 16"
    );
    let frame = stack_top.cast::<Frame>().wrapping_sub(1);
    let first = Frame {
        x29: 0,
        x19: entry as usize,
        resume: root as *const () as usize,
    };
    // SAFETY: the caller promises memory below `stack_top`, whose alignment is the frame's.
    unsafe { frame.write(first) };
    frame.cast()
}

/// The root of every prepared stack. On arrival sp is the stack's top, x29 is zero, x19 is the
/// entry and x0, the first argument, the first switch's value.
#[unsafe(naked)]
unsafe extern "C" fn root() -> ! {
    naked_asm!(
        ".cfi_startproc",
        // The return address is nowhere: an unwinder stops here.
        ".cfi_undefined x30",
        "blr x19",
        // Entry does not return.
        "brk #1",
        ".cfi_endproc",
    )
}

/// As for x86-64. The value travels in x0, the context that is left in x3.
macro_rules! switch_assembly {
    ($to:ident, $value:ident $(, $store:literal, $save:ident)?) => {{
        let result;
        let from;
        asm!(
            // The frame of the running context, below all that it uses.
            "sub sp, sp, {size}",
            "stp x29, x19, [sp, {x29}]",
            "adr x16, 2f",
            "str x16, [sp, {resume}]",
            "mov x3, sp",
            $($store,)?
            // The other context. Its frame is read before sp passes it.
            "mov sp, x1",
            "ldp x29, x19, [sp, {x29}]",
            "ldr x16, [sp, {resume}]",
            "add sp, sp, {size}",
            "br x16",
            // Somebody has switched back.
            "2:",
            size = const size_of::<Frame>(),
            x29 = const offset_of!(Frame, x29),
            resume = const offset_of!(Frame, resume),
            inlateout("x0") $value => result,
            inlateout("x1") $to => _,
            out("x3") from,
            $(inlateout("x2") $save => _,)?
            out("x16") _,
            lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _,
            lateout("x24") _, lateout("x25") _, lateout("x26") _, lateout("x27") _,
            lateout("x28") _, lateout("x30") _,
            lateout("v8") _, lateout("v9") _, lateout("v10") _, lateout("v11") _,
            lateout("v12") _, lateout("v13") _, lateout("v14") _, lateout("v15") _,
            clobber_abi("C"),
        );
        let arrival: (StackPointer, usize) = (from, result);
        arrival
    }};
}

const _: () = assert!(
    offset_of!(Frame, x19) == offset_of!(Frame, x29) + 8,
    "stp stores both"
);

/// As for x86-64.
///
/// # Safety
///
/// As for x86-64.
#[inline(always)]
pub(crate) unsafe fn exchange(to: StackPointer, value: usize) -> (StackPointer, usize) {
    // SAFETY: every register but sp, x19, x29 and the platform's x18 is named as overwritten; the
    // first three are as before when control comes back to label 2.
    unsafe { switch_assembly!(to, value) }
}

/// As for x86-64.
///
/// # Safety
///
/// As for x86-64.
#[inline(always)]
pub(crate) unsafe fn save_and_exchange(
    save: *mut StackPointer,
    to: StackPointer,
    value: usize,
) -> (StackPointer, usize) {
    // SAFETY: as in `exchange`, and the caller vouches for `save`.
    unsafe { switch_assembly!(to, value, "str x3, [x2]", save) }
}

/// As for x86-64.
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    // SAFETY: prefetching is harmless at every address, and changes nothing but caches.
    unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags)) };
}
