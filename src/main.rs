//! The `distilld` program: arguments in, exit code out.
fn main() {}
