//! Who drives the connections: the styles in which a load client can be written.
//!
//! Application, above L4. A style starts whatever threads it needs and answers at once with how to
//! wait for them. All styles keep the same books (`load`), which are therefore shared between OS
//! threads; what happens on a connection is in `connection`, and what is sent and compared in
//! `message` and `verify`.
//!
//! Deliberately not here: the supervisor (`load`), which no style has to know.

pub(crate) mod green;

/// Waits for all threads of a style; the payload of the first panic, if there was one.
pub(crate) type Join = Box<dyn FnOnce() -> std::thread::Result<()>>;
