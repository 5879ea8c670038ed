//! The command lines of a release, and what it leaves in a registry.

use registry_lab::Registry;
use xtask::model::promotion::Attempt;

use crate::support::env::DEBIAN;

pub const CHAIN: [&str; 8] = [
    "build-base",
    "build",
    "smoke base",
    "smoke omos",
    "smoke with-pi",
    "smoke omos-with-pi",
    "publish --promote-latest",
    "promote-base-latest",
];

/// Stores the Debian index; its two images need not exist for the pipeline to read it.
pub fn put_debian(registry: &Registry) {
    registry.put("debian", "trixie-slim", DEBIAN.as_bytes());
}

/// Attempts of a journal that are neither done nor superseded.
pub fn open_attempts(registry: &Registry, path: &str) -> Vec<String> {
    let tags: Vec<String> = registry.tags(&format!("{path}-staging")).into_keys().collect();
    let attempts = Attempt::all(&tags).into_iter().filter(Attempt::is_unsettled);
    attempts.map(|attempt| attempt.id.tag()).collect()
}

/// Version tags that have pointed at more than one image.
pub fn moved_versions(registry: &Registry, path: &str) -> Vec<String> {
    let versions = registry.tags(path).into_keys().filter(|tag| tag.starts_with('v'));
    versions.filter(|tag| registry.tag_history(path, tag).len() > 1).collect()
}
