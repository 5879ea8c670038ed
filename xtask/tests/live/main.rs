//! Tests with real engines, registries and images, and those that take minutes. `cargo xtask test` prepares the machine
//! and runs them; plain `cargo test` does not build them. They fail, rather than skip, where something is missing.
#![allow(clippy::disallowed_methods, reason = "tests run the program and read their own settings")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "each target uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod act;
mod agents;
mod container;
mod crash;
mod emulation;
mod engines;
mod images;
mod launcher;
mod people;
mod privilege;
mod processes;
mod progress;
mod prune;
mod races;
mod release;
mod report;
mod sbom;
mod sealed;
mod signatures;
mod update;
