//! L2. Deadlines: a hierarchical timing wheel that adds and cancels in constant time.
//!
//! Time is cut into ticks of about 16 microseconds. Level 0 has one slot for each of the next 64
//! ticks, level 1 one for each of the next 64 blocks of 64 ticks, and so on up to the whole range
//! of a 64-bit nanosecond clock. A timer waits in the slot of the highest level at which its tick
//! differs from the cursor (the last tick that was handled), and moves to finer slots when the
//! cursor reaches its block, at most once a level. One bit per slot tells which are occupied, so
//! the next one is found without a search.
//!
//! A deadline is rounded up to its tick and the present down, so a timer is never early; it may be
//! late by a tick and by however long its owner sleeps.
//!
//! Rests on: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7.
//! Deliberately not here: reading the clock, sleeping, calling anything back.

use slab::Slab;

/// A tick is `2^14` nanoseconds, 16.4 microseconds.
const TICK_BITS: u32 = 14;
/// A level has `2^6` slots: as many as one word has bits.
const LEVEL_BITS: u32 = 6;
/// Enough levels for every tick of a 64-bit clock.
const LEVELS: usize = (64 - TICK_BITS as usize).div_ceil(LEVEL_BITS as usize);
const SLOTS: usize = 1 << LEVEL_BITS;
/// Marks the end of a slot's list.
const NONE: u32 = u32::MAX;

/// Names one timer of one [`Wheel`]; a key whose timer is gone is recognised and harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

/// A timer and its place in the list of its slot.
#[derive(Debug)]
struct Node<T> {
    data: T,
    tick: u64,
    generation: u32,
    next: u32,
    previous: u32,
    level: u8,
    slot: u8,
}

/// One level: the ends of its lists, and which of them are not empty.
#[derive(Debug, Clone, Copy)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
    tails: [u32; SLOTS],
}

/// Holds any number of timers, each a deadline in nanoseconds and something to hand back then.
///
/// # Examples
///
/// ```
/// let mut wheel = runtime::timer::Wheel::new(0);
/// let tea = wheel.insert(1_000_000, "tea");
/// wheel.insert(2_000_000, "eggs");
/// assert_eq!(wheel.pop_due(999_999), None);
/// assert_eq!(wheel.cancel(tea), Some("tea"));
/// assert_eq!(wheel.pop_due(3_000_000), Some("eggs"));
/// ```
#[derive(Debug)]
pub struct Wheel<T> {
    levels: Box<[Level; LEVELS]>,
    nodes: Slab<Node<T>>,
    /// The last tick that was handled; no timer stands in a slot before it.
    cursor: u64,
    generation: u32,
}

impl<T> Wheel<T> {
    /// An empty wheel whose present is `now_ns`.
    pub fn new(now_ns: u64) -> Wheel<T> {
        let empty = Level {
            occupied: 0,
            heads: [NONE; SLOTS],
            tails: [NONE; SLOTS],
        };
        Wheel {
            levels: Box::new([empty; LEVELS]),
            nodes: Slab::new(),
            cursor: now_ns >> TICK_BITS,
            generation: 0,
        }
    }

    /// How many timers wait.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no timer waits.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a timer for `deadline_ns`, which may have passed already. O(1).
    ///
    /// # Panics
    ///
    /// With more than four billion timers at once.
    pub fn insert(&mut self, deadline_ns: u64, data: T) -> TimerKey {
        let tick = deadline_ns.div_ceil(1 << TICK_BITS);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let node = Node {
            data,
            tick,
            generation,
            next: NONE,
            previous: NONE,
            level: 0,
            slot: 0,
        };
        let index = self.nodes.insert(node);
        assert!(
            index < NONE as usize,
            "a wheel holds fewer than 2^32 - 1 timers"
        );
        self.link(index as u32);
        TimerKey {
            index: index as u32,
            generation,
        }
    }

    /// Takes a timer out before it is due; `None` where it was handed out or cancelled. O(1).
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let node = self.nodes.get(key.index as usize)?;
        if node.generation != key.generation {
            return None;
        }
        self.unlink(key.index);
        Some(self.nodes.remove(key.index as usize).data)
    }

    /// When [`pop_due`](Wheel::pop_due) should next be asked: never later than the earliest
    /// deadline rounded up to its tick. It may be earlier, when timers have to be moved to finer
    /// slots first; nothing is due then.
    pub fn next_deadline(&self) -> Option<u64> {
        let (level, slot) = self.first_occupied()?;
        let tick = self.slot_start(level, slot).max(self.cursor);
        // The last tick ends where the clock does.
        Some(tick.saturating_mul(1 << TICK_BITS))
    }

    /// Hands out one timer whose deadline is not after `now_ns`, in the order of ticks and, within
    /// a tick, of insertion. Ask again until it answers `None`.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        let now = now_ns >> TICK_BITS;
        while let Some((level, slot)) = self.first_occupied() {
            let start = self.slot_start(level, slot);
            if start > now.max(self.cursor) {
                break;
            }
            self.cursor = self.cursor.max(start);
            let head = self.levels[level].heads[slot];
            if level == 0 {
                self.unlink(head);
                return Some(self.nodes.remove(head as usize).data);
            }
            self.spread(level, slot);
        }
        // Every slot that starts at or before the present is empty, so all timers keep differing
        // from the new cursor first at the level at which they stand.
        self.cursor = self.cursor.max(now);
        None
    }

    /// Moves the timers of a block that the cursor has reached to finer slots.
    fn spread(&mut self, level: usize, slot: usize) {
        let mut index = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        self.levels[level].tails[slot] = NONE;
        self.levels[level].occupied &= !(1 << slot);
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    /// The earliest occupied slot: whatever stands at a finer level comes before all that stands
    /// at a coarser one, for that lies beyond the cursor's block.
    fn first_occupied(&self) -> Option<(usize, usize)> {
        self.levels.iter().enumerate().find_map(|(level, state)| {
            let position = self.cursor >> (LEVEL_BITS * level as u32) & (SLOTS as u64 - 1);
            let ahead = state.occupied & (u64::MAX << position);
            debug_assert!(ahead == state.occupied, "no timer stands behind the cursor");
            (ahead != 0).then(|| (level, ahead.trailing_zeros() as usize))
        })
    }

    /// The first tick of a slot that is not behind the cursor.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = LEVEL_BITS * level as u32;
        let block = self.cursor >> shift & !(SLOTS as u64 - 1);
        (block | slot as u64) << shift
    }

    /// Puts a node at the end of the slot that its tick and the cursor ask for.
    fn link(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let tick = node.tick.max(self.cursor);
        let differing = (tick ^ self.cursor) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / LEVEL_BITS) as usize;
        let slot = (tick >> (LEVEL_BITS * level as u32)) as usize & (SLOTS - 1);
        let state = &mut self.levels[level];
        let tail = std::mem::replace(&mut state.tails[slot], index);
        state.occupied |= 1 << slot;
        (node.level, node.slot) = (level as u8, slot as u8);
        (node.previous, node.next) = (tail, NONE);
        match tail {
            NONE => state.heads[slot] = index,
            tail => self.nodes[tail as usize].next = index,
        }
    }

    /// Takes a node out of its slot's list.
    fn unlink(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let (level, slot) = (node.level as usize, node.slot as usize);
        let (previous, next) = (node.previous, node.next);
        match previous {
            NONE => self.levels[level].heads[slot] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        match next {
            NONE => self.levels[level].tails[slot] = previous,
            next => self.nodes[next as usize].previous = previous,
        }
        if self.levels[level].heads[slot] == NONE {
            self.levels[level].occupied &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A small generator of well-spread numbers (splitmix64), so that a failure can be replayed.
    fn next_random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    // Goal: no timer is early, lost, doubled or later than a tick. Method: a random history of
    // inserts, cancels and advances, held against an ordered map as the model.
    #[test]
    fn agrees_with_an_ordered_map() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut random = seed;
            let mut now = next_random(&mut random) >> (seed % 40 + 4);
            let mut wheel = Wheel::new(now);
            let mut model = BTreeMap::new();
            for id in 0..4_000u64 {
                let distance = next_random(&mut random) >> (next_random(&mut random) % 60 + 4);
                match next_random(&mut random) % 4 {
                    0 | 1 => {
                        let deadline = now.saturating_add(distance);
                        let key = wheel.insert(deadline, id);
                        model.insert(id, (deadline, key));
                    }
                    2 => {
                        let pick = model.range(next_random(&mut random) % (id + 1)..).next();
                        if let Some((&id, &(_, key))) = pick {
                            model.remove(&id);
                            assert_eq!(wheel.cancel(key), Some(id));
                            assert_eq!(wheel.cancel(key), None, "a key works once");
                        }
                    }
                    _ => {
                        now = now.saturating_add(distance >> 8);
                        while let Some(id) = wheel.pop_due(now) {
                            let (deadline, key) = model.remove(&id).expect("handed out twice");
                            assert!(deadline <= now, "early by {} ns", deadline - now);
                            assert_eq!(wheel.cancel(key), None, "a key dies with its timer");
                        }
                        let late = now.saturating_sub(1 << TICK_BITS);
                        assert!(model.values().all(|&(deadline, _)| deadline > late), "late");
                    }
                }
                assert_eq!(wheel.len(), model.len());
                let earliest = model.values().map(|&(deadline, _)| deadline).min();
                match (wheel.next_deadline(), earliest) {
                    (Some(told), Some(earliest)) => {
                        let tick_end = (earliest | ((1 << TICK_BITS) - 1)).max(now);
                        assert!(told <= tick_end.saturating_add(1), "would be overslept");
                    }
                    (None, None) => {}
                    other => panic!("one is empty, the other not: {other:?}"),
                }
            }
        }
    }

    // Goal: following `next_deadline` reaches every timer in few steps. Method: one far timer,
    // the present set to what the wheel asks for, steps counted.
    #[test]
    fn a_far_timer_is_reached_in_one_step_a_level() {
        let mut wheel = Wheel::new(12_345);
        let deadline = u64::MAX / 3;
        wheel.insert(deadline, ());
        for _ in 0..=LEVELS {
            let now = wheel.next_deadline().expect("the timer still waits");
            if wheel.pop_due(now).is_some() {
                assert!(now >= deadline);
                return;
            }
        }
        panic!("more steps than levels");
    }

    // Goal: equal deadlines keep their order, also across the move to finer slots. Method: two
    // hundred timers for one far moment, handed out in one go.
    #[test]
    fn equal_deadlines_keep_their_order() {
        let mut wheel = Wheel::new(0);
        for id in 0..200 {
            wheel.insert(5_000_000_000, id);
        }
        let mut handed_out = Vec::new();
        while let Some(now) = wheel.next_deadline() {
            while let Some(id) = wheel.pop_due(now) {
                handed_out.push(id);
            }
        }
        assert_eq!(handed_out, (0..200).collect::<Vec<_>>());
    }

    // Goal: a deadline that has passed is due at once, also where it lies before the wheel began.
    // Method: insert one behind the cursor.
    #[test]
    fn a_past_deadline_is_due_at_once() {
        let mut wheel = Wheel::new(1 << 40);
        wheel.insert(7, 'x');
        assert_eq!(wheel.pop_due(1 << 40), Some('x'));
        assert_eq!(wheel.pop_due(1 << 40), None);
    }
}
