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
    /// Names that upstream gave to versions, such as `latest`.
    #[serde(default, rename = "dist-tags")]
    pub tags: BTreeMap<String, String>,
    /// When each version was published, withdrawn ones included; also `created` and `modified`.
    #[serde(default)]
    pub time: BTreeMap<String, String>,
}

/// One version of a package.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    pub dist: Dist,
    /// Why nobody should use it; registries also write `false` or an empty text.
    #[serde(default)]
    deprecated: serde_json::Value,
}

impl Manifest {
    pub fn deprecated(&self) -> Option<String> {
        match &self.deprecated {
            serde_json::Value::String(why) => Some(why.clone()).filter(|why| !why.is_empty()),
            serde_json::Value::Bool(true) => Some("no reason given".to_owned()),
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct Dist {
    /// Subresource Integrity of the tarball; absent for very old packages.
    #[serde(default)]
    pub integrity: String,
}

impl Packument {
    /// When a version was published.
    pub fn published(&self, version: &str) -> Option<Timestamp> {
        self.time.get(version)?.parse().ok()
    }

    /// The version that upstream names `latest`.
    pub fn latest(&self) -> Option<Version> {
        self.tags.get("latest")?.parse().ok()
    }

    /// Versions that upstream says not to use, each with its reason.
    pub fn deprecated(&self) -> BTreeMap<Version, String> {
        let reason =
            |(text, manifest): (&String, &Manifest)| Some((text.parse().ok()?, manifest.deprecated()?));
        self.versions.iter().filter_map(reason).collect()
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

/// The file of a version, where `images/fetch-component` asks for it.
pub fn tarball(registry: &str, name: &str, version: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    format!("{registry}/{name}/-/{file}-{version}.tgz")
}

/// A scope's slash is escaped, as npm does it.
fn address(registry: &str, name: &str) -> String {
    format!("{registry}/{}", name.replace('/', "%2f"))
}
