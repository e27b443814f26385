//! What the integration tests share.

pub mod binaries;
pub mod watchdog;
