//! What a tag of this project is for, which decides how long it is kept. Refuses nothing; a tag of any other form is nobody's
//! here, and stays.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::oci::Digest;
use super::promotion::{self, AttemptId};
use super::version::ReleaseTag;

/// What follows the name of an image that was built again for comparison.
const REBUILT: &str = "-rebuilt";

/// Length of a content key.
const KEY: usize = 12;

/// Which of the two repositories of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Public,
    Staging,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Staging => "staging",
        })
    }
}

/// What a tag is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// An image under its content key: a base in the public repository, a variant in staging.
    Keyed,
    /// One that was built again.
    Rebuilt,
    /// The version tag of a variant.
    Version(ReleaseTag),
    /// The record of a release.
    Record(ReleaseTag),
    /// Part of an attempt to move tags.
    Attempt(AttemptId),
    /// The list of what a prune deletes, or that all of it is deleted.
    Prune { id: String, done: bool },
    /// What refers to an image, on a registry without the referrers API, or as cosign stores it.
    Referrers(Digest),
    /// The verdict about a subject of checks.
    Verdict,
    /// Floating tags, caches, and whatever else is never deleted.
    Kept,
}

impl Use {
    pub fn of(side: Side, tag: &str) -> Self {
        if let Some(subject) = subject_of(tag) {
            return Self::Referrers(subject);
        }
        let name = tag.strip_suffix(REBUILT).unwrap_or(tag);
        match side {
            Side::Public => match version_of(tag) {
                Some(release) => Self::Version(release),
                None if tag.starts_with("base-") && is_keyed(tag) => Self::Keyed,
                None => Self::Kept,
            },
            Side::Staging => {
                if let Some(release) = tag.strip_prefix("release-").and_then(|it| it.parse().ok()) {
                    return Self::Record(release);
                }
                if let Some((id, _)) = promotion::parse(tag) {
                    return Self::Attempt(id);
                }
                if let Some(id) = tag.strip_prefix(PRUNE) {
                    let done = id.strip_suffix(DONE);
                    return Self::Prune { id: done.unwrap_or(id).to_owned(), done: done.is_some() };
                }
                if tag.starts_with("checks-") {
                    return Self::Verdict;
                }
                if !is_keyed(name) || name.starts_with("cache-") {
                    return Self::Kept;
                }
                if name == tag { Self::Keyed } else { Self::Rebuilt }
            }
        }
    }
}

const PRUNE: &str = "prune-";
const DONE: &str = "-done";

/// The tag of the list of what a prune deletes.
pub fn prune_tag(id: &str) -> String {
    format!("{PRUNE}{id}")
}

/// The tag that says that all of the list is deleted.
pub fn prune_done_tag(id: &str) -> String {
    format!("{PRUNE}{id}{DONE}")
}

/// The release of a version tag, whatever variant it is of.
fn version_of(tag: &str) -> Option<ReleaseTag> {
    tag.split('-').next()?.parse().ok()
}

/// The image that a tag such as `sha256-<hex>` or `sha256-<hex>.sig` is about.
fn subject_of(tag: &str) -> Option<Digest> {
    let hex = tag.strip_prefix("sha256-")?.split('.').next()?;
    format!("sha256:{hex}").parse().ok()
}

/// True for `<name>-<key>`.
fn is_keyed(tag: &str) -> bool {
    let key = tag.rsplit_once('-').filter(|(name, _)| !name.is_empty()).map(|(_, key)| key);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    key.is_some_and(|key| key.len() == KEY && key.bytes().all(is_digit))
}

/// A manifest to delete, with all its tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    pub repository: Side,
    pub digest: Digest,
    /// In the order in which they go, where a registry deletes them one by one.
    pub tags: Vec<String>,
    pub why: String,
    /// Compressed bytes of its layers that nothing else has which is kept; unknown where that would take too many reads.
    pub bytes: Option<u64>,
}

/// The document of a prune: written before the first deletion, so that another run can complete it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PruneRecord {
    /// Seconds since 1970 by the registry's clock.
    pub at: u64,
    pub deletes: Vec<Doomed>,
    /// Images of unknown age, with the time at which a prune first found that nothing needs them.
    #[serde(default)]
    pub unneeded_since: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: &str = "0123456789ab";

    #[test]
    fn tags_are_told_by_their_form() {
        let hex = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let subject = || Use::Referrers(format!("sha256:{hex}").parse().expect("a digest"));
        let release = |text: &str| text.parse().expect("a release");
        let staging = |tag: &str| Use::of(Side::Staging, tag);
        let public = |tag: &str| Use::of(Side::Public, tag);
        for (tag, expected) in [
            (format!("omos-with-pi-{KEYED}"), Use::Keyed),
            (format!("base-{KEYED}"), Use::Keyed),
            (format!("base-{KEYED}-rebuilt"), Use::Rebuilt),
            ("release-v1.18.18b".to_owned(), Use::Record(release("v1.18.18b"))),
            (format!("checks-{KEYED}"), Use::Verdict),
            (format!("sha256-{hex}"), subject()),
            (format!("sha256-{hex}.sig"), subject()),
            (format!("cache-{KEYED}"), Use::Kept),
            ("cache-base-image".to_owned(), Use::Kept),
            ("prune-17-ab".to_owned(), Use::Prune { id: "17-ab".to_owned(), done: false }),
            ("prune-17-ab-done".to_owned(), Use::Prune { id: "17-ab".to_owned(), done: true }),
            ("release-candidate".to_owned(), Use::Kept),
            ("sha256-44".to_owned(), Use::Kept),
            (KEYED.to_owned(), Use::Kept),
            ("somebody's".to_owned(), Use::Kept),
        ] {
            assert_eq!(staging(&tag), expected, "{tag}");
        }
        let attempt = AttemptId { begun: 17, nonce: "ab".to_owned() };
        for tag in [attempt.tag(), attempt.alive_tag(18), format!("{}-done", attempt.tag())] {
            assert_eq!(staging(&tag), Use::Attempt(attempt.clone()), "{tag}");
        }
        assert_eq!(public("v1.18.18-omos-with-pi"), Use::Version(release("v1.18.18")));
        assert_eq!(public("v1.18.18c"), Use::Version(release("v1.18.18c")));
        assert_eq!(
            (public(&format!("base-{KEYED}")), public(&format!("sha256-{hex}"))),
            (Use::Keyed, subject())
        );
        for tag in ["latest", "latest-omos", "base-latest", "release-v1.18.18", "v1", "nightly-0123456789ab"]
        {
            assert_eq!(public(tag), Use::Kept, "{tag}");
        }
    }
}
