//! The ways to serve many connections, one file each.
//!
//! A model is a function `serve(listener, options, stop)` that echoes until `stop` says so and
//! gives back the books. All that models have in common lies beside this directory, so that a file
//! here holds only what makes its model what it is.

pub(crate) mod green;
pub(crate) mod green_workers;
