//! Working on the pipeline itself.

pub mod bench;
pub mod completions;
pub mod fmt;
pub mod local;
pub mod reclaim;
pub mod test;
pub mod validate;
