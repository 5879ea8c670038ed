//! Pure decisions: no files, no processes, no network, no clock. Refuses every effect, which a test holds.

pub mod availability;
pub mod bake;
pub mod bench;
pub mod changelog;
pub mod checksum;
pub mod component;
pub mod config;
pub mod deb_version;
pub mod dockerfile;
pub mod environment;
pub mod hub_page;
pub mod key;
pub mod layers;
pub mod listing;
pub mod npm_lock;
pub mod oci;
pub mod platform;
pub mod promotion;
pub mod python_lock;
pub mod reference;
pub mod release_lock;
pub mod retry;
pub mod source;
pub mod verdict;
pub mod version;
pub mod workflow;
