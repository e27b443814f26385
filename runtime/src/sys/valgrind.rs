//! L0. Valgrind: tells it of our stacks, when the program runs under it.
//!
//! Valgrind follows the stack pointer. A small step means to it that frames were entered or left,
//! and what they used to hold becomes invalid; so a switch to the neighbouring slot would look like
//! a very large frame, and every later access like an error. It takes such a step for a switch once
//! the stacks have been made known to it.
//!
//! That is done by a *client request*: some instructions in a row that change nothing on a
//! processor, where they cost a nanosecond, and that valgrind recognises. So there is no build for
//! valgrind and no suppression: `valgrind target/debug/program` works on any program as it is.
//!
//! Source: the valgrind manual, 3.1 (the client request mechanism), and its public header
//! `valgrind.h`, in which instructions and numbers are fixed for good. Not here: requests of its
//! single tools.

use std::arch::asm;
use std::ops::Range;

const STACK_REGISTER: usize = 0x1501;
const STACK_DEREGISTER: usize = 0x1502;

/// What no stack is called; the answer of a processor, which answers nothing.
const NO_STACK: usize = usize::MAX;

/// A stack that valgrind knows of, until it is [forgotten](StackId::forget).
#[derive(Debug)]
pub(crate) struct StackId(usize);

impl StackId {
    /// Tells valgrind that there is a stack at these addresses; `None` where there is no valgrind.
    pub(crate) fn announce(stack: Range<usize>) -> Option<StackId> {
        // Valgrind wants the last address, not the one after it.
        let answer = request(
            [STACK_REGISTER, stack.start, stack.end - 1, 0, 0, 0],
            NO_STACK,
        );
        (answer != NO_STACK).then_some(StackId(answer))
    }

    /// Tells valgrind that there is no stack any more, before the addresses serve something else.
    pub(crate) fn forget(self) {
        request([STACK_DEREGISTER, self.0, 0, 0, 0, 0], 0);
    }
}

/// A request with its arguments. What comes back is valgrind's answer, or else `default`.
#[cfg(target_arch = "x86_64")]
fn request(arguments: [usize; 6], default: usize) -> usize {
    let mut answer = default;
    // SAFETY: the rotations make a full turn, and the exchange is of a register with itself.
    // Valgrind reads the arguments, and writes nothing but rdx for the requests above.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const arguments,
            inout("rdx") answer,
            options(nostack),
        );
    }
    answer
}

/// A request with its arguments. What comes back is valgrind's answer, or else `default`.
#[cfg(target_arch = "aarch64")]
fn request(arguments: [usize; 6], default: usize) -> usize {
    let mut answer = default;
    // SAFETY: the rotations make a full turn, and the last instruction copies a register to itself.
    // Valgrind reads the arguments, and writes nothing but x3 for the requests above.
    unsafe {
        asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") &raw const arguments,
            inout("x3") answer,
            options(nostack),
        );
    }
    answer
}
