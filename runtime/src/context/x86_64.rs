//! L1. The switch for x86-64: the canonical file, which `aarch64.rs` differs from.
//!
//! A suspended context is its stack pointer. The three words below that address are its frame:
//!
//! ```text
//!        higher addresses
//!      ├───────────────────────┤
//!      │ the function that     │   locals and spilled registers of whoever called `switch`
//!      │ called `switch`       │
//!      ├───────────────────────┤ ◀─ the context's StackPointer, and rsp while it runs
//!      │ rbx                   │   -8
//!      │ rbp                   │   -16
//!      │ resume: code address  │   -24  where a switch to this context jumps
//!      ├───────────────────────┤
//!      │ red zone, unused      │
//!      └───────────────────────┘   -128
//! ```
//!
//! Why the frame lies *below* rsp: the System V convention promises every function 128 bytes there
//! that no signal handler touches (the red zone). So rsp need not move by a word during the whole
//! switch, and what the compiler tells debuggers about this function (how far rsp is from its
//! return address) holds at every instruction: gdb and perf may stop anywhere in here. Pushing
//! the same words would be as fast and would break that for a few instructions.
//!
//! Why only two registers: the assembly names every register as overwritten, so the compiler saves
//! what is live around the switch, and nothing where nothing is. rbx and rbp are missing from what
//! it can be told (LLVM keeps them for its own addressing), so those two we save ourselves.
//!
//! Why `jmp` and never `ret`: the processor predicts a `ret` to go where the last `call` came from.
//! A `ret` into another context is always predicted wrongly, and so are those after it.
//!
//! Sources: System V ABI, AMD64 supplement, 3.2.2 (frame, red zone) and 6.2.1 (unwinding); DWARF 5,
//! 6.4. Not here: the direction flag, which every asm block leaves clear, and the mxcsr register
//! and x87 control word (see `context`).

use std::arch::{asm, naked_asm};
use std::mem::{offset_of, size_of};

use super::{Entry, StackPointer};

/// The words under a suspended context's stack pointer.
#[repr(C)]
struct Frame {
    resume: usize,
    rbp: usize,
    rbx: usize,
}

/// Where a field of the frame lies, counted from the stack pointer: below it.
const fn below(offset_bytes: usize) -> isize {
    offset_bytes as isize - size_of::<Frame>() as isize
}

/// Makes a context of an empty stack: the first switch to it calls `entry` with that switch's
/// value.
///
/// # Safety
///
/// `stack_top` must be a multiple of 16, with unused, writable memory of the stack below it.
pub(crate) unsafe fn prepare(stack_top: *mut u8, entry: Entry) -> StackPointer {
    assert!(
        stack_top.addr().is_multiple_of(16),
        "a stack must begin at a multiple of 16"
    );
    let frame = stack_top.cast::<Frame>().wrapping_sub(1);
    // A zero in rbp ends the chain of frame pointers, which profilers follow.
    let first = Frame {
        resume: root as *const () as usize,
        rbp: 0,
        rbx: entry as usize,
    };
    // SAFETY: the caller promises memory below `stack_top`, and 16 is enough alignment for words.
    unsafe { frame.write(first) };
    stack_top
}

/// The root of every prepared stack: where its first resume jumps, and where a walk up its frames
/// ends.
///
/// ```text
///   on arrival                       while entry runs
///   rsp ─▶ stack top                        stack top
///          entry, also in rbx        rsp ─▶ address of ud2 (return address, pushed by call)
///          0, also in rbp                   entry's frame ...
///          root
/// ```
///
/// Registers: rsp the stack's top, a multiple of 16 as a caller's rsp must be before its `call`;
/// rdi the first switch's value, which is also where the convention wants the first argument.
#[unsafe(naked)]
unsafe extern "C" fn root() -> ! {
    naked_asm!(
        ".cfi_startproc",
        // The caller of this function is nobody: an unwinder that asks stops here, cleanly.
        ".cfi_undefined rip",
        // Called, not jumped to: entry's return address must lie in here for unwinders to find
        // this function's table.
        "call rbx",
        // Entry does not return. Should it do so all the same, die at once.
        "ud2",
        ".cfi_endproc",
    )
}

/// The assembly of both switches, which differ in one optional instruction: `store`, with the
/// place to store to. Evaluates to the context that has switched back, and its value.
macro_rules! switch_assembly {
    ($to:ident, $value:ident $(, $store:literal, $save:ident)?) => {{
        let result;
        let from;
        asm!(
            // Complete the frame of the running context under its rsp.
            "mov [rsp + {rbx}], rbx",
            "mov [rsp + {rbp}], rbp",
            "lea rax, [rip + 2f]",
            "mov [rsp + {resume}], rax",
            $($store,)?
            // From here on it is suspended, and its one word goes along in rax.
            "mov rax, rsp",
            // The other context: its stack, its two registers, and then its code, at its own
            // label 2 or at `root`. Restored here and not after the label, the registers are on
            // their way while the processor still looks where the jump goes: a quarter of the
            // whole time, measured on Zen 4.
            "mov rsp, rsi",
            "mov rbx, [rsi + {rbx}]",
            "mov rbp, [rsi + {rbp}]",
            "jmp [rsi + {resume}]",
            // Somebody has switched back: rsp, rbx and rbp are ours again, rdi holds the value and
            // rax the context that it came from.
            "2:",
            rbx = const below(offset_of!(Frame, rbx)),
            rbp = const below(offset_of!(Frame, rbp)),
            resume = const below(offset_of!(Frame, resume)),
            inlateout("rdi") $value => result,
            inlateout("rsi") $to => _,
            out("rax") from,
            $(inlateout("rdx") $save => _,)?
            // The callee-saved registers that the compiler lets us name ...
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            // ... and all those that any call may overwrite, vectors and masks included.
            clobber_abi("sysv64"),
        );
        let arrival: (StackPointer, usize) = (from, result);
        arrival
    }};
}

/// See [`exchange`], whose contract is in `context` for all machines.
///
/// # Safety
///
/// As said there.
#[inline(always)]
pub(crate) unsafe fn exchange(to: StackPointer, value: usize) -> (StackPointer, usize) {
    // SAFETY: every register but rsp, rbx and rbp is named as overwritten, and those three are as
    // before when control comes back to label 2. The memory written is the red zone, which is ours
    // in a block without `nostack`.
    unsafe { switch_assembly!(to, value) }
}

/// As [`exchange`], and stores the context that is left in `save` before it continues `to`.
///
/// # Safety
///
/// As [`exchange`], and `save` must be valid to write.
#[inline(always)]
pub(crate) unsafe fn save_and_exchange(
    save: *mut StackPointer,
    to: StackPointer,
    value: usize,
) -> (StackPointer, usize) {
    // SAFETY: as in `exchange`, and the caller vouches for `save`.
    unsafe { switch_assembly!(to, value, "mov [rdx], rsp", save) }
}

/// Has the processor fetch the cache line of an address; a hint, which takes any address.
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: prefetching is harmless at every address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}
