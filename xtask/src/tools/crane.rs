//! Command lines of crane, which copies and tags images without pulling them.

use crate::tools::command::{Cmd, cmd};

/// Succeeds where crane is installed.
pub fn version() -> Cmd {
    cmd!("crane version")
}

/// Copies an image, all platforms, by digest; blobs are mounted where source and target share a registry.
pub fn copy(from: &str, to: &str) -> Cmd {
    cmd!("crane copy {from} {to}")
}

/// The tags of a repository, a line each.
pub fn tags(repository: &str) -> Cmd {
    cmd!("crane ls {repository}")
}

/// Gives an image of a repository one more tag there: one request to write.
pub fn tag(image: &str, tag: &str) -> Cmd {
    cmd!("crane tag {image} {tag}")
}

/// The credentials for a registry as JSON, from Docker's own configuration.
pub fn credentials(host: &str) -> Cmd {
    let host = if host == "docker.io" { "index.docker.io" } else { host };
    cmd!("crane auth get {host}")
}

/// Prints a blob, byte for byte.
pub fn blob(reference: &str) -> Cmd {
    cmd!("crane blob {reference}")
}
