//! The geminid binary.

fn main() {}
