//! What the integration tests share.

pub mod binaries;
pub mod child;
pub mod guards;
pub mod scene;
pub mod sources;
pub mod watchdog;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
