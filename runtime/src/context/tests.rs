//! Tests of the switch and of the stack pools, from inside: what the public API cannot reach.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use super::slab::Slab;
use super::*;
use crate::sys::memory::page_bytes;

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
    // Of two the last one, whose memory is the warmest.
    let (first, last) = (stacks.remove(0), stacks.remove(0));
    let (first_top, last_top) = (first.top(), last.top());
    pool.give_back(first);
    pool.give_back(last);
    for top in [last_top, first_top] {
        let again = pool.take().unwrap();
        assert_eq!(again.top(), top);
        stacks.insert(0, again);
    }
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

/// The return addresses that an unwinder meets, as many as fit.
#[derive(Default)]
struct Trace {
    addresses: [usize; 32],
    length: usize,
}

// The unwinder that std itself stands on; its interface is that of the Itanium C++ ABI, 1.6.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(frame: *mut c_void, trace: *mut c_void) -> c_int,
        trace: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
}

/// Notes one frame; anything but zero ends the walk.
extern "C" fn note(frame: *mut c_void, trace: *mut c_void) -> c_int {
    // SAFETY: the walk was begun with the address of a live `Trace`.
    let trace = unsafe { &mut *trace.cast::<Trace>() };
    let Some(place) = trace.addresses.get_mut(trace.length) else {
        return 5;
    };
    // SAFETY: the unwinder passes a frame of its own.
    *place = unsafe { _Unwind_GetIP(frame) };
    trace.length += 1;
    0
}

/// What a walk starts in, and where it must never arrive.
struct Walk {
    back: Cell<StackPointer>,
    trace: Cell<Trace>,
}

/// Walks up its own stack and goes back.
unsafe extern "C" fn walk(argument: usize) -> ! {
    let walk = ptr::with_exposed_provenance::<Walk>(argument);
    // SAFETY: the test waits for us, and keeps it.
    let walk = unsafe { &*walk };
    let mut trace = Trace::default();
    // SAFETY: `note` takes what it is given here.
    unsafe { _Unwind_Backtrace(note, (&raw mut trace).cast()) };
    walk.trace.set(trace);
    // SAFETY: the test has left its context there.
    unsafe { exchange(walk.back.get(), 0) };
    unreachable!("nobody comes back here")
}

/// Goal: a walk up a stack ends at its root, whatever lies above that. Method: return addresses lie
/// there, of a function that has not been called, and an unwinder must meet none of them.
#[test]
fn nothing_is_found_above_the_root() {
    let mut pool = StackPool::new(DEFAULT_SLOT_BYTES);
    let stack = pool.take().unwrap();
    // Inside a function, as a return address is.
    let never_called = values_cross_the_switch_both_ways as *const () as usize + 4;
    let root_top = stack.top().wrapping_sub(256);
    let words = root_top.cast::<usize>();
    for index in 0..32 {
        // SAFETY: the words lie between the two tops, which are both within the stack.
        unsafe { words.wrapping_add(index).write(never_called) };
    }
    let state = Walk {
        back: Cell::new(ptr::null_mut()),
        trace: Cell::new(Trace::default()),
    };
    // SAFETY: the stack is fresh.
    let context = unsafe { prepare(root_top, walk) };
    let argument = ptr::from_ref(&state).expose_provenance();
    // SAFETY: the context was just prepared.
    unsafe { switch(state.back.as_ptr(), context, argument) };
    let trace = state.trace.take();
    let met = &trace.addresses[..trace.length];
    assert!(met.len() >= 2, "the walk has not begun: {met:x?}");
    assert!(met.len() < trace.addresses.len(), "no end: {met:x?}");
    assert!(!met.contains(&never_called), "above the root: {met:x?}");
}

/// Goal: neighbouring slots begin at different places of the page, and none in its label. Method:
/// the tops of a fresh pool's stacks.
#[test]
fn colours_differ_and_leave_half_a_page() {
    let mut pool = StackPool::new(DEFAULT_SLOT_BYTES);
    let stacks: Vec<Stack> = (0..32).map(|_| pool.take().unwrap()).collect();
    let slot_end = |stack: &Stack| stack.bottom().addr() - page_bytes() + stack.slot_bytes();
    let lowered: Vec<usize> = stacks
        .iter()
        .map(|stack| slot_end(stack) - stack.top().addr())
        .collect();
    let mut first: Vec<usize> = lowered[..16].to_vec();
    assert_eq!(first, lowered[16..]);
    first.sort_unstable();
    first.dedup();
    assert_eq!(first.len(), 16, "{lowered:?}");
    assert!(first[0] >= size_of::<Label>());
    assert!(first[15] <= 2048 - 64, "{lowered:?}");
    assert!(first.iter().all(|bytes| bytes.is_multiple_of(64)));
}

/// The label of a stack, as the overflow handler would find it.
fn label(stack: &Stack) -> Label {
    let slot = Slab::find(stack.top().addr()).expect("a stack is in a slab");
    // SAFETY: the label is mapped as long as the stack is there.
    unsafe { Label::of(slot).read() }
}

/// Goal: a label is found from any address of its slot, and goes with its user. Method: a label is
/// set, read from both ends, and read again after the stack has come back.
#[test]
fn labels_come_and_go() {
    let mut pool = StackPool::new(DEFAULT_SLOT_BYTES);
    let (before, stack, after) = (
        pool.take().unwrap(),
        pool.take().unwrap(),
        pool.take().unwrap(),
    );
    let set = Label {
        kind: Kind::GreenThread,
        id: 7,
        name: "seven",
        spawned: None,
    };
    // SAFETY: the name is static.
    unsafe { stack.set_label(set) };
    let guard = stack.bottom().addr() - 1;
    let found = Slab::find(guard).expect("the guard is of the slot");
    assert_eq!(found.base.addr().get(), guard + 1 - page_bytes());
    assert_eq!(label(&stack).id, 7);
    assert_eq!(label(&before).kind, Kind::Nobody);
    assert_eq!(label(&after).kind, Kind::Nobody);
    pool.give_back(stack);
    let again = pool.take().unwrap();
    assert_eq!(label(&again).kind, Kind::Nobody);
    assert!(label(&again).name.is_null());
}

/// Goal: a stack's mapping ends with its pool and with the last stack, in either order. Method: the
/// list of slabs is asked for their addresses.
#[test]
fn slabs_are_unmapped_with_their_last_stack() {
    let mut pool = StackPool::new(DEFAULT_SLOT_BYTES);
    let stack = pool.take().unwrap();
    let (early, kept) = (stack.top().addr(), pool.take().unwrap());
    pool.give_back(stack);
    pool.trim();
    assert!(Slab::find(early).is_some(), "one of its stacks is taken");
    assert_eq!(
        pool.take().unwrap().top().addr(),
        early,
        "trimmed ones are used again"
    );
    drop(pool);
    assert!(Slab::find(early).is_some(), "a stack outlives its pool");
    drop(kept);
}

/// Goal: nothing stays of a pool whose stacks have all come back. Method: the list of slabs is
/// asked for addresses of a size that no other test uses.
#[test]
fn trimming_an_idle_pool_unmaps_all() {
    let mut pools = StackPools::new();
    let stacks: Vec<Stack> = (0..100).map(|_| pools.take(1 << 20).unwrap()).collect();
    let tops: Vec<usize> = stacks.iter().map(|stack| stack.top().addr()).collect();
    assert_eq!(pools.free_stacks(), 0);
    stacks.into_iter().for_each(|stack| pools.give_back(stack));
    assert_eq!(pools.free_stacks(), 100);
    pools.trim();
    assert_eq!(pools.free_stacks(), 0);
    let slot_bytes = |top: usize| Slab::find(top).map(|slot| slot.bytes);
    // Another test's slab may lie there by now, but none with slots of this size.
    assert!(tops.iter().all(|&top| slot_bytes(top) != Some(1 << 20)));
    drop(pools.take(1 << 20).unwrap());
}

/// Goal: no slot is handed out twice. Method: the newest slab is trimmed away while an older one is
/// full, and the next stacks must be at new addresses.
#[test]
fn a_full_slab_stays_full() {
    let mut pool = StackPool::new(1 << 20);
    let mut stacks: Vec<Stack> = (0..33).map(|_| pool.take().unwrap()).collect();
    pool.give_back(stacks.remove(32));
    pool.trim();
    stacks.extend((0..40).map(|_| pool.take().unwrap()));
    let mut tops: Vec<usize> = stacks.iter().map(|stack| stack.top().addr()).collect();
    tops.sort_unstable();
    tops.dedup();
    assert_eq!(tops.len(), 72);
}
