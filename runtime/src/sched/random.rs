//! L3. The one source of randomness, and it is seeded.
//!
//! `RUNTIME_SEED` holds the seed; without it nothing is random. A run can thus be repeated.
//!
//! Rests on: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA
//! 2014), where the generator is called SplitMix64. Deliberately not here: secrets.

use std::cell::Cell;
use std::io;

/// The environment variable with the seed.
pub(crate) const SEED_VARIABLE: &str = "RUNTIME_SEED";

/// A sequence of numbers that its seed determines.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    /// The generator that the environment asks for, if it does.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the variable does not hold a number.
    pub(crate) fn from_environment() -> io::Result<Option<Random>> {
        let Ok(text) = std::env::var(SEED_VARIABLE) else {
            return Ok(None);
        };
        let seed = text.parse().map_err(|_| {
            let message = format!("{SEED_VARIABLE} must be a whole number, not '{text}'");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        if !cfg!(debug_assertions) {
            log::warn!("{SEED_VARIABLE} is set, but only debug builds shuffle the run queue");
            return Ok(None);
        }
        log::info!("the run queue is shuffled: replay with {SEED_VARIABLE}={seed}");
        Ok(Some(Random::new(seed)))
    }

    /// The next number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}
