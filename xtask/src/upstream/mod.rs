//! What upstream publishes: versions, lock files, and whether the files that they name are available.

pub mod availability;
pub mod crane_archive;
pub mod licences;
pub mod lock_tools;
pub mod locks;
pub mod security_updates;
pub mod versions;
