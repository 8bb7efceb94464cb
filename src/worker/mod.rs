//! Background workers. Each step they do is the engine's.

pub mod freezer;
pub mod settler;
