//! Command lines of crane, which copies and tags images without pulling them.

use crate::model::command::Cmd;

/// Succeeds where crane is installed.
pub fn version() -> Cmd {
    Cmd::new("crane", ["version"])
}

/// Copies an image, all platforms, by digest; blobs are mounted where source and target share a registry.
pub fn copy(from: &str, to: &str) -> Cmd {
    Cmd::new("crane", ["copy", from, to])
}

/// The tags of a repository, a line each.
pub fn tags(repository: &str) -> Cmd {
    Cmd::new("crane", ["ls", repository])
}

/// Gives an image of a repository one more tag there: one request to write.
pub fn tag(image: &str, tag: &str) -> Cmd {
    Cmd::new("crane", ["tag", image, tag])
}

/// The credentials for a registry as JSON, from Docker's own configuration.
pub fn credentials(host: &str) -> Cmd {
    let host = if host == "docker.io" { "index.docker.io" } else { host };
    Cmd::new("crane", ["auth", "get", host])
}
