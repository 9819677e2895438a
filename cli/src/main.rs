//! The command
fn main(){}
