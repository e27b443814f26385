//! Placeholder entry of `server`.

fn main() {}
