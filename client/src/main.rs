//! Placeholder entry of `client`.

fn main() {}
