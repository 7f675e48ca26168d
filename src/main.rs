//! The `mirrorbus` program.
fn main() {}
