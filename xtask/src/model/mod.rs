//! Pure decisions: no files, no processes, no network, no clock.

pub mod bake;
pub mod command;
pub mod config;
pub mod dockerfile;
pub mod environment;
pub mod key;
pub mod platform;
pub mod reference;
pub mod retry;
pub mod version;
