//! The npm registry: metadata of packages and the addresses of their files.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::model::version::Version;

use super::web::{Answer, Web};

/// Everything that the registry says about a package (npm/registry, docs/responses/package-metadata.md).
#[derive(Debug, Deserialize)]
pub struct Packument {
    pub versions: BTreeMap<String, Manifest>,
    /// When each version was published, withdrawn ones included; also `created` and `modified`.
    #[serde(default)]
    pub time: BTreeMap<String, String>,
}

/// One version of a package.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    pub dist: Dist,
}

#[derive(Debug, Deserialize)]
pub struct Dist {
    /// Subresource Integrity of the tarball; absent for very old packages.
    #[serde(default)]
    pub integrity: String,
    pub tarball: String,
}

impl Packument {
    /// When a version was published.
    pub fn published(&self, version: &str) -> Option<Timestamp> {
        self.time.get(version)?.parse().ok()
    }

    /// Released versions; pre-releases do not count.
    pub fn releases(&self) -> Vec<Version> {
        self.versions.keys().filter_map(|text| text.parse().ok()).collect()
    }
}

/// All versions of a package.
pub fn packument(web: &Web, registry: &str, name: &str) -> Answer<Packument> {
    web.json(&address(registry, name), "application/json")
}

/// One version of a package, without the other ones.
pub fn manifest(web: &Web, registry: &str, name: &str, version: &str) -> Answer<Manifest> {
    web.json(&format!("{}/{version}", address(registry, name)), "application/json")
}

/// A scope's slash is escaped, as npm does it.
fn address(registry: &str, name: &str) -> String {
    format!("{registry}/{}", name.replace('/', "%2f"))
}
