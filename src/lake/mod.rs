//! FIXME lake

pub mod chunk;
pub mod identity;
pub mod path;
pub mod source;
pub mod walk;
