//! Release pipeline of opencode-devbox.
//!
//! Invariants that every module keeps:
//! 1. `images/devbox.toml` and the `ARG` defaults of the Dockerfiles are the only definition.
//! 2. Images are addressed by content keys ([`model::key`]), never by time or ancestry.
//! 3. An image that the registry holds, complete on every platform, is not built again.
//! 4. The registry is the only state: staged images, verdicts and tags live there.
//! 5. The digest that passed the smoke suite is the digest that gets the tag.
//! 6. Every target is checked before the first tag moves; version tags first, floating tags last.
//! 7. A probe answers present, absent or unknown; only a clear 404 is absent.
//! 8. Secrets come from the environment and travel by header or standard input.
//!
//! The modules are listed from left to right: each imports only from those before it (`xtask/tests/it/layout.rs`).

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod cli;
pub mod context;
pub mod error;
pub mod image;
pub mod model;
pub mod output;
pub mod phase;
pub mod project;
pub mod promotion;
pub mod settings;
pub mod tools;
pub mod upstream;
