//! Versions and release tags. Refuses names such as `latest`, leading zeros, and the letter a.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// An opencode version: three decimal numbers, no `v`, no pre-release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64, pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let version = semver::Version::parse(text).ok();
        let version = version.filter(|version| version.pre.is_empty() && version.build.is_empty());
        version
            .map(|version| Self(version.major, version.minor, version.patch))
            .ok_or_else(|| "expected three numbers such as 1.18.18, without a leading v".to_owned())
    }
}

/// `v<opencode>[letter]`: bare for the first build of a version, `b` for the second, `c` for the third; `a` never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReleaseTag {
    pub version: Version,
    /// `None` or `b`..=`z`.
    pub letter: Option<char>,
}

impl ReleaseTag {
    /// The first release of a version.
    pub fn first(version: Version) -> Self {
        Self { version, letter: None }
    }

    /// The release after this one for the same version; `None` after `z`.
    pub fn next(self) -> Option<Self> {
        let letter = match self.letter {
            None => 'b',
            Some('z') => return None,
            Some(letter) => char::from(letter as u8 + 1),
        };
        Some(Self { letter: Some(letter), ..self })
    }
}

impl fmt::Display for ReleaseTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}{}", self.version, self.letter.map(String::from).unwrap_or_default())
    }
}

impl Serialize for ReleaseTag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReleaseTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for ReleaseTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected v<opencode version>[letter], such as v1.18.18 or v1.18.18b".to_owned();
        let rest = text.strip_prefix('v').ok_or_else(wrong)?;
        let (number, letter) = match rest.chars().last() {
            Some('a') => {
                return Err("a release tag never ends in a: the second build of a version is b".to_owned());
            }
            Some(c @ 'b'..='z') => (&rest[..rest.len() - 1], Some(c)),
            _ => (rest, None),
        };
        Ok(Self { version: number.parse().map_err(|_| wrong())?, letter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tag(text: &str, next: Option<&str>) {
        let tag: ReleaseTag = text.parse().expect("a tag");
        assert_eq!(tag.to_string(), text);
        assert_eq!(tag.next().map(|t| t.to_string()).as_deref(), next);
    }

    #[test]
    fn release_tags_count_from_bare_to_z() {
        tag("v1.18.18", Some("v1.18.18b"));
        tag("v1.18.18b", Some("v1.18.18c"));
        tag("v1.18.18z", None);
    }

    #[test]
    fn malformed_versions_and_tags_are_refused() {
        for text in ["1.18", "v1.18.18", "1.18.18.1", "1.018.1", "1..2", "", "latest", "1.1.-1"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        let first = "v1.18.18a".parse::<ReleaseTag>();
        assert!(first.is_err_and(|why| why.contains("the second build of a version is b")));
        for text in ["1.18.18", "v1.18.18a", "v1.18.18bb", "v", "latest", "v1.18.18-omos", "vé"] {
            assert!(text.parse::<ReleaseTag>().is_err(), "{text}");
        }
    }
}
