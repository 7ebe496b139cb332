//! Reading and writing of JSON lines: a scanner over one line, its strings as spans of the line, and their escapes.

pub mod escape;
pub mod scanner;
mod simd;
pub mod text;
pub mod utf8;
