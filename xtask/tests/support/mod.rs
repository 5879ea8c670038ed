//! What tests of both targets start from: trees, stand-ins, scripted servers.

pub mod env;
pub mod hub;
pub mod pages;
pub mod published;
pub mod releases;
pub mod server;

use std::path::{Path, PathBuf};

pub fn launcher() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/usr/share/devbox/opencode-devbox")
}
