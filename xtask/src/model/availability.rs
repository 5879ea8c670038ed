//! Why a file that should be in a package registry is not there. Only observations decide; an unclear answer is
//! called so. Refuses to guess: a registry that gave no clear answer is never taken for a version that does not exist.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::model::checksum::Checksum;
use crate::model::npm_lock::Package;
use crate::model::platform::Platform;

/// How long a registry may take to show all files of a release. Copies of npm's registry lag by minutes to hours; after
/// a day nothing more comes by itself.
pub const PROPAGATION: SignedDuration = SignedDuration::from_hours(24);

/// One published thing that a build fetches.
#[derive(Clone, Debug)]
pub struct Need {
    pub component: String,
    pub item: Item,
    pub platforms: BTreeSet<Platform>,
}

#[derive(Clone, Debug)]
pub enum Item {
    /// A package of npm. Without integrity it is not locked yet. `release` is the package that it belongs to.
    Npm { package: Package, release: Option<String> },
    /// A file of a part of the base that comes from a host of its own.
    Release { url: String, checksum: Checksum },
    /// A version of a Python project. Without hashes it is not locked yet.
    Python { project: String, version: String, hashes: BTreeSet<String> },
}

/// A file that is not available, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    pub component: String,
    pub file: String,
    pub platforms: BTreeSet<Platform>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let platforms: Vec<String> = self.platforms.iter().map(ToString::to_string).collect();
        write!(f, "{}: {} for {} {}", self.component, self.file, platforms.join(" and "), self.verdict)
    }
}

impl Need {
    /// Why it is not available, for some of its platforms.
    pub fn problem(&self, file: String, platforms: &BTreeSet<Platform>, verdict: Verdict) -> Problem {
        Problem { component: self.component.clone(), file, platforms: platforms.clone(), verdict }
    }

    /// The name that a person knows it by.
    pub fn label(&self) -> String {
        match &self.item {
            Item::Npm { package, .. } => format!("{}@{}", package.name, package.version),
            Item::Python { project, version, .. } => format!("{project} {version}"),
            Item::Release { url, .. } => url.clone(),
        }
    }
}

/// A version that is incomplete, by a clear answer: another version may be complete.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Incomplete(pub String);

/// What a registry says about one missing file.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The metadata names the version.
    pub listed: bool,
    /// When the version was published, by the metadata of its own package; also known for withdrawn versions.
    pub published: Option<Timestamp>,
    /// When the release that the file belongs to was published, by the metadata of the package that asks for it.
    pub release: Option<Timestamp>,
    /// A lock file holds its checksum, so it was there once.
    pub locked: bool,
    /// The newest version that the package has.
    pub newest: Option<String>,
}

/// Why a file is not available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Published less than a day ago: it may still arrive.
    Propagating { since: Timestamp },
    /// It was there.
    Gone,
    /// It was never published.
    NeverExisted { why: String },
    /// The registry answers again at that time.
    RateLimited { until: Timestamp },
    /// It is there, with other bytes.
    Differs { detail: String },
    /// It is there, and its authors say not to use it.
    Withdrawn { why: String },
    /// No clear answer.
    CannotTell { why: String },
}

/// Judges a clear "not there".
pub fn judge(evidence: &Evidence, now: Timestamp) -> Verdict {
    let young = |time: &Timestamp| now.duration_since(*time) < PROPAGATION;
    let since = evidence.published.or(evidence.release);
    match since.filter(young) {
        // A young version that the metadata no longer names was withdrawn, not delayed.
        Some(since) if evidence.listed || evidence.published.is_none() => Verdict::Propagating { since },
        // Without a time, a file that is named may still arrive, or may have been there.
        _ if evidence.listed && since.is_none() && !evidence.locked => {
            Verdict::CannotTell { why: "the metadata names it, but not since when".to_owned() }
        }
        _ if evidence.listed || evidence.published.is_some() || evidence.locked => Verdict::Gone,
        _ => Verdict::NeverExisted {
            why: match &evidence.newest {
                Some(newest) => format!("the package stops at {newest}"),
                None => "there is no such package".to_owned(),
            },
        },
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propagating { since } => {
                write!(
                    f,
                    "is propagating: published {since:.0}, it may still arrive; wait for it with --wait 1h"
                )
            }
            Self::Gone => f.write_str("is gone: it was there"),
            Self::NeverExisted { why } => write!(f, "never existed: {why}"),
            Self::RateLimited { until } => write!(f, "cannot be asked for before {until:.0}: rate limited"),
            Self::Differs { detail } => write!(f, "has other bytes than its lock: {detail}"),
            Self::Withdrawn { why } => {
                write!(f, "was withdrawn by its authors ({why}): run `cargo xtask bump <component> latest`")
            }
            Self::CannotTell { why } => write!(f, "unknown: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours_ago(hours: i64) -> Option<Timestamp> {
        Some(now() - SignedDuration::from_hours(hours))
    }

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().expect("a time")
    }

    #[track_caller]
    fn verdict(evidence: Evidence, expected: &str) {
        let text = judge(&evidence, now()).to_string();
        assert!(text.contains(expected), "{evidence:?}: {text}");
    }

    #[test]
    fn what_was_observed_decides() {
        let none = Evidence::default();
        // Failure 1: metadata two minutes old, tarball 404.
        verdict(Evidence { listed: true, published: hours_ago(0), ..none.clone() }, "is propagating");
        verdict(Evidence { listed: true, published: hours_ago(24), ..none.clone() }, "is gone");
        verdict(Evidence { published: hours_ago(1), ..none.clone() }, "is gone");
        verdict(Evidence { release: hours_ago(23), ..none.clone() }, "is propagating");
        let old = Evidence { release: hours_ago(48), newest: Some("1.18.18".to_owned()), ..none.clone() };
        verdict(old.clone(), "never existed: the package stops at 1.18.18");
        verdict(Evidence { locked: true, ..old }, "is gone");
        verdict(Evidence { locked: true, ..none.clone() }, "is gone");
        verdict(Evidence { listed: true, ..none.clone() }, "unknown");
        verdict(Evidence { listed: true, locked: true, ..none.clone() }, "is gone");
        verdict(none, "no such package");
    }
}
