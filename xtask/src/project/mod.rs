//! This Git repository and its forge: generated pages, release notes and pull requests.

pub mod generated;
pub mod gitea;
