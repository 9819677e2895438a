//! The command
fn main() {}
