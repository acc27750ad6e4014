//! The `tidegate` binary: see the crate's map.

fn main() {}
