//! Changes this tree: versions, locks, changelog, generated files.

pub mod bump;
pub mod changelog;
pub mod docs;
pub mod lock;
pub mod prune;
pub mod refresh_base;
pub mod workflows;
