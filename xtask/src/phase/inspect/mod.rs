//! Looks; nothing is built or moved.

pub mod explain;
pub mod next_tag;
pub mod outdated;
pub mod plan;
pub mod report;
pub mod sbom;
pub mod status;
pub mod verify;
pub mod verify_reproducible;
