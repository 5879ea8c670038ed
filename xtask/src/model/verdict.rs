//! What the smoke suite found out about one image on one platform, check by check, and which of several verdicts counts.
//! Refuses nothing: the publishing phase asks whether the verdict that counts has passed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::oci::Digest;
use super::platform::Platform;
use super::suite::{Check, Part, Pins, Subject, Suite};

/// Changes when the way of making keys changes, so that old and new keys never meet.
const FORMAT: &str = "opencode-devbox check key 1";

/// What one run of the suite, and earlier ones for other images, say about one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub image: Digest,
    pub platform: Platform,
    /// The variant, or `base image`.
    pub variant: String,
    /// True if the image ran under emulation.
    pub emulated: bool,
    /// How long the checks took that ran on this image.
    pub seconds: u64,
    /// When it was recorded, in seconds since 1970 by the tester's clock, which orders nothing.
    pub at: u64,
    /// One more than the highest that the image's verdicts had when this one was recorded.
    pub sequence: u64,
    /// Debian packages of the image: name, version and architecture, a line each, separated by tabs.
    pub packages: String,
    pub checks: Vec<CheckVerdict>,
}

/// The verdict on one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckVerdict {
    pub name: String,
    /// What the check exercised, and with which part of the suite.
    pub key: String,
    pub passed: bool,
    /// Where it ran; nothing if that was this image, in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
}

/// The image that a check ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub image: Digest,
    /// The variant, or `base image`.
    pub variant: String,
    /// When its verdict was recorded.
    pub at: u64,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// Its checks as verdicts of another image.
    pub fn inherited(&self) -> impl Iterator<Item = CheckVerdict> {
        let here = Origin { image: self.image.clone(), variant: self.variant.clone(), at: self.at };
        self.checks.iter().map(move |check| {
            let from = Some(check.from.clone().unwrap_or_else(|| here.clone()));
            CheckVerdict { from, ..check.clone() }
        })
    }

    /// True if it has a result of each of these checks.
    pub fn covers(&self, checks: &[CheckVerdict]) -> bool {
        checks.iter().all(|wanted| self.checks.iter().any(|check| check.key == wanted.key))
    }
}

/// How many of these checks ran on which image, the most first.
pub fn origins(checks: &[CheckVerdict]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for check in checks {
        let place = match &check.from {
            Some(from) => format!("on {} {}", from.variant, &from.image[.."sha256:".len() + 12]),
            None => "on this image".to_owned(),
        };
        *counts.entry(place).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let texts: Vec<String> =
        counts.into_iter().map(|(place, count)| format!("{count} checks {place}")).collect();
    texts.join(", ")
}

/// The parts of an image that checks can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// Digests of the layers of the base.
    pub base: Vec<String>,
    /// The layer of each component: digest and compressed bytes.
    pub components: BTreeMap<String, (String, u64)>,
    /// All layers with their compressed bytes.
    pub layers: Vec<(String, u64)>,
    /// The configuration's object `config`.
    pub config: Value,
}

impl Anatomy {
    /// What a check with this subject exercises. Inside a container no label can be seen, and no size.
    fn parts(&self, subject: &Subject) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut part = |name: &str, text: String| parts.push((name.to_owned(), text));
        if *subject == Subject::Image {
            part("config", self.config.to_string());
            self.layers.iter().for_each(|(digest, bytes)| part("layer", format!("{digest} {bytes}")));
            return parts;
        }
        let mut config = self.config.clone();
        if let Some(config) = config.as_object_mut() {
            config.remove("Labels");
        }
        part("config", config.to_string());
        self.base.iter().for_each(|digest| part("layer", digest.clone()));
        if let Subject::Components(names) = subject {
            for name in names {
                let digest = self.components.get(name).map_or("", |(digest, _)| digest);
                part("layer", format!("{name} {digest}"));
            }
        }
        parts
    }
}

/// The circumstances of a run that are part of every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub platform: Platform,
    pub emulated: bool,
}

impl Place {
    fn parts(self) -> [Part; 2] {
        let how = if self.emulated { "emulated" } else { "native" };
        [("platform".to_owned(), self.platform.to_string()), ("run".to_owned(), how.to_owned())]
    }
}

/// The key of a check on an image: equal keys mean the same test of the same thing.
pub fn key(suite: &Suite, check: &Check, pins: &Pins, anatomy: &Anatomy, place: Place) -> String {
    let parts =
        suite.parts(check, pins).into_iter().chain(anatomy.parts(&check.subject)).chain(place.parts());
    of_parts(parts)
}

/// The tag under which the verdicts are found that have this subject: of all suites, since it names none.
pub fn group(subject: &Subject, anatomy: &Anatomy, place: Place) -> String {
    let key = of_parts(anatomy.parts(subject).into_iter().chain(place.parts()));
    format!("checks-{}", &key[..12])
}

/// The key of the rule that the layer of a component holds nothing but its own files.
pub fn layer_key(component: &str, digest: &str, paths: &[String]) -> String {
    let parts =
        [("rule", component), ("layer", digest)].map(|(name, text)| (name.to_owned(), text.to_owned()));
    of_parts(parts.into_iter().chain(paths.iter().map(|path| ("path".to_owned(), path.clone()))))
}

/// Every field is written with its length before it, so no two different lists give the same stream.
fn of_parts(parts: impl Iterator<Item = Part>) -> String {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    field(FORMAT);
    for (name, text) in parts {
        field(&name);
        field(&text);
    }
    let mut text = hex::encode(hash.finalize());
    text.truncate(32);
    text
}

/// The sequence of the next verdict on an image.
pub fn next_sequence(verdicts: &[Verdict]) -> u64 {
    verdicts.iter().map(|it| it.sequence).max().unwrap_or(0) + 1
}

/// What the runs of one kind, native or emulated, say about the checks that an image needs.
#[derive(Clone, Debug)]
pub struct Counting {
    /// The newest verdict of the kind, with the checks that are needed and have a result.
    pub verdict: Verdict,
    /// Every check that is needed has a result.
    pub complete: bool,
}

/// The results that count of one kind of run for these checks, names with their keys: of each check the newest with that
/// key; of two that were recorded at once the failure. `None` if there was no such run.
pub fn counting(verdicts: &[Verdict], emulated: bool, needed: &[(String, String)]) -> Option<Counting> {
    let mut of_kind: Vec<&Verdict> = verdicts.iter().filter(|it| it.emulated == emulated).collect();
    of_kind.sort_by_key(|it| it.sequence);
    let mut verdict = Verdict { checks: Vec::new(), ..(*of_kind.last()?).clone() };
    let mut newest: BTreeMap<&str, (u64, &CheckVerdict)> = BTreeMap::new();
    for (sequence, check) in of_kind.iter().flat_map(|it| it.checks.iter().map(|check| (it.sequence, check)))
    {
        let failed_at_once = |known: &(u64, &CheckVerdict)| known.0 == sequence && !known.1.passed;
        if !newest.get(check.key.as_str()).is_some_and(failed_at_once) {
            newest.insert(&check.key, (sequence, check));
        }
    }
    let results = needed.iter().filter_map(|(name, key)| {
        let (_, check) = newest.get(key.as_str())?;
        Some(CheckVerdict { name: name.clone(), ..(*check).clone() })
    });
    verdict.checks = results.collect();
    let complete = verdict.checks.len() == needed.len();
    Some(Counting { verdict, complete })
}

/// The verdict that counts among both kinds of runs. They are judged apart, since they fail for different reasons: a
/// failure of either counts, and a complete native pass is worth more than an emulated one.
pub fn of_both(native: Option<Counting>, emulated: Option<Counting>) -> Option<Verdict> {
    let kinds: Vec<Counting> = [native, emulated].into_iter().flatten().collect();
    let failed = kinds.iter().find(|it| !it.verdict.passed());
    failed.or_else(|| kinds.iter().find(|it| it.complete)).map(|it| it.verdict.clone())
}
