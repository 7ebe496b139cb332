//! FIXME record::json

pub mod escape;
pub mod scanner;
pub(crate) mod simd;
pub mod text;
pub mod utf8;
