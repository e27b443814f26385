//! Tests of the switch and of the stack pools, from inside: what the public API cannot reach.

use std::cell::Cell;
use std::ptr;

use super::*;

/// What the two sides of the ping-pong share.
struct Sides {
    main: Cell<StackPointer>,
    other: Cell<StackPointer>,
}

/// Sends back one more than it gets, for ever.
unsafe extern "C" fn add_one(argument: usize) -> ! {
    let sides = ptr::with_exposed_provenance::<Sides>(argument);
    let mut value = 0;
    loop {
        // SAFETY: the test keeps `sides` alive for as long as it switches here.
        let sides = unsafe { &*sides };
        // SAFETY: the test has left its own context there, by the switch that brought us here.
        value = unsafe { switch(sides.other.as_ptr(), sides.main.get(), value) } + 1;
    }
}

/// Goal: values arrive on both sides of a switch. Method: a context that adds one, a million times.
#[test]
fn values_cross_the_switch_both_ways() {
    let mut pool = StackPool::new(DEFAULT_SLOT_BYTES);
    let stack = pool.take().unwrap();
    let sides = Sides {
        main: Cell::new(ptr::null_mut()),
        other: Cell::new(ptr::null_mut()),
    };
    // SAFETY: the stack is fresh.
    sides.other.set(unsafe { prepare(stack.top(), add_one) });
    let address = ptr::from_ref(&sides).expose_provenance();
    // SAFETY: the context was just prepared.
    let first = unsafe { switch(sides.main.as_ptr(), sides.other.get(), address) };
    assert_eq!(first, 0);
    let mut value = 0;
    for _ in 0..1_000_000 {
        // SAFETY: the other side has left its context in `other`.
        value = unsafe { switch(sides.main.as_ptr(), sides.other.get(), value) };
    }
    assert_eq!(value, 1_000_000);
}

/// Writes the highest word of a stack.
fn write_word(stack: &Stack, word: usize) {
    let place = stack.top().cast::<usize>().wrapping_sub(1);
    // SAFETY: the word below the top is the stack's own, and nobody runs there.
    unsafe { place.write(word) };
}

/// Reads it again; the stack may have outlived its pool.
fn read_word(stack: &Stack) -> usize {
    let place = stack.top().cast::<usize>().wrapping_sub(1);
    // SAFETY: as above.
    unsafe { place.read() }
}

/// Goal: a stack given back is the next one handed out, and trimming keeps taken stacks alive.
/// Method: takes more than a slab holds, writes to all, gives half back, trims, checks the rest.
#[test]
fn pool_reuses_and_trims() {
    let mut pool = StackPool::new(DEFAULT_SLOT_BYTES);
    let mut stacks: Vec<Stack> = (0..600).map(|_| pool.take().unwrap()).collect();
    for (number, stack) in stacks.iter().enumerate() {
        write_word(stack, number);
        assert!(stack.top().addr().is_multiple_of(16));
    }
    let last = stacks.pop().unwrap();
    let top = last.top();
    pool.give_back(last);
    let again = pool.take().unwrap();
    assert_eq!(again.top(), top);
    stacks.push(again);
    let mut kept = Vec::new();
    for (number, stack) in stacks.into_iter().enumerate() {
        if number % 2 == 0 && number > 256 {
            kept.push((number, stack));
        } else {
            pool.give_back(stack);
        }
    }
    pool.trim();
    for (number, stack) in &kept {
        assert_eq!(read_word(stack), *number);
    }
    let fresh: Vec<Stack> = (0..600).map(|_| pool.take().unwrap()).collect();
    for stack in &fresh {
        // SAFETY: the stack is mapped from its bottom on.
        unsafe { stack.bottom().write(1) };
    }
    drop(pool);
    for (number, stack) in &kept {
        assert_eq!(read_word(stack), *number);
    }
}
