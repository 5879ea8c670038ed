//! Which licences an image may have in it (`images/licences.toml`), and what packages say of theirs where their lock does not
//! (`images/licences/*.tsv`). Refuses words that are no SPDX expression, and decisions without a reason.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use spdx::Expression;

use super::checksum::Checksum;
use super::platform::Platform;

/// The policy's file.
pub const POLICY: &str = "images/licences.toml";
/// The folder of what `cargo xtask lock` has found out.
pub const FACTS: &str = "images/licences";

/// What may be redistributed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// SPDX licences, with their exceptions.
    allowed: BTreeSet<String>,
    /// The SPDX expression of words that packages use in place of one.
    words: BTreeMap<String, String>,
    /// Decisions on single packages.
    #[serde(default)]
    package: Vec<Decision>,
}

/// The licence of a package that itself names none, or none that can be read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    /// Such as `npm:opencode-linux-x64`.
    name: String,
    /// What it says. As soon as it says something else, the decision is no longer about it.
    #[serde(default)]
    says: String,
    licence: String,
    reason: String,
}

/// A package, and what it says of its licence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Licensed {
    /// With its ecosystem, such as `npm:lru-cache`.
    pub name: String,
    pub version: String,
    pub says: Option<String>,
    /// The component that it comes with.
    pub component: String,
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self> {
        let policy: Self = toml::from_str(text).context(POLICY)?;
        let expressions = policy.words.values().chain(policy.package.iter().map(|it| &it.licence));
        for licence in policy.allowed.iter().chain(expressions) {
            Expression::parse(licence)
                .map_err(|error| anyhow::anyhow!("{POLICY}: {licence:?}: {}", error.reason))?;
        }
        for decision in &policy.package {
            if decision.reason.is_empty() || !decision.name.contains(':') {
                bail!(
                    "{POLICY}: the decision on {:?} needs a reason, and a name such as npm:lru-cache",
                    decision.name
                );
            }
        }
        Ok(policy)
    }

    /// The SPDX expression of a package's licence; `None` if nobody knows it.
    pub fn expression(&self, package: &str, says: Option<&str>) -> Option<String> {
        let says = says.unwrap_or_default();
        let decided = self.package.iter().find(|it| it.name == package && it.says == says);
        let known =
            decided.map(|it| it.licence.as_str()).or_else(|| self.words.get(says).map(String::as_str));
        let expression = known.unwrap_or(says);
        Expression::parse(expression).is_ok().then(|| expression.to_owned())
    }

    /// Why a package may not be in an image, in one line; nothing if it may.
    pub fn problem(&self, package: &Licensed) -> Option<String> {
        let Licensed { name, version, says, component } = package;
        let what = || format!("{name} {version} of {component}");
        let Some(text) = self.expression(name, says.as_deref()) else {
            let says =
                says.as_ref().map_or_else(|| "no licence".to_owned(), |says| format!("the licence {says:?}"));
            return Some(format!(
                "{} names {says}, which is no SPDX expression: decide on it in {POLICY}, below [words] or in [[package]]",
                what()
            ));
        };
        let is_allowed = Expression::parse(&text)
            .is_ok_and(|it| it.evaluate(|one| self.allowed.contains(&one.to_string())));
        (!is_allowed).then(|| {
            format!("{} has the licence {text}, which may not be redistributed: leave it out, or add it to `allowed` in {POLICY}", what())
        })
    }
}

/// What a package says that a lock does not: a line of a file in [`FACTS`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// `pypi` or `npm`.
    pub ecosystem: String,
    pub name: String,
    pub version: String,
    pub licence: Option<String>,
    /// The file that each platform gets, by its SHA-256 in hexadecimal; nothing for what comes in another package's file.
    pub files: BTreeMap<Platform, String>,
}

impl Fact {
    /// The checksum of a platform's file.
    pub fn checksum(&self, platform: Platform) -> Option<Checksum> {
        Checksum::sha256(self.files.get(&platform)?).ok()
    }
}

/// The columns of platforms.
const PLATFORMS: [Platform; 2] = [Platform::LinuxAmd64, Platform::LinuxArm64];

/// Reads the lines of a file.
pub fn facts(text: &str) -> Vec<Fact> {
    let fact = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        let (ecosystem, name, version) = (columns.next()?, columns.next()?, columns.next()?);
        let licence = columns.next().unwrap_or_default();
        let files = PLATFORMS.into_iter().zip(columns).filter(|(_, sum)| !sum.is_empty()).collect();
        Some(Fact { ecosystem, name, version, licence: Some(licence).filter(|it| !it.is_empty()), files })
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(fact).collect()
}

/// The text of a file with these lines.
pub fn text(facts: &BTreeSet<Fact>) -> String {
    let head = "# By cargo xtask lock: ecosystem, name, version, licence, SHA-256 of the file for amd64 and for arm64\n";
    let line = |fact: &Fact| {
        let sum = |platform| fact.files.get(&platform).map_or("", String::as_str);
        let [amd64, arm64] = PLATFORMS.map(sum);
        let licence = fact.licence.as_deref().unwrap_or_default();
        format!("{}\t{}\t{}\t{licence}\t{amd64}\t{arm64}", fact.ecosystem, fact.name, fact.version)
            .trim_end()
            .to_owned()
            + "\n"
    };
    head.to_owned() + &facts.iter().map(line).collect::<String>()
}

/// The licence in the METADATA of a Python package (core metadata): an expression, the field that some fill with the whole
/// text, or a classifier.
pub fn of_metadata(metadata: &str) -> Option<String> {
    let head = metadata.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = head.lines().collect();
    let field = |name: &str| {
        let at = lines.iter().position(|line| line.starts_with(&format!("{name}: ")))?;
        let is_one_line = lines.get(at + 1).is_none_or(|next| !next.starts_with([' ', '\t']));
        is_one_line.then(|| lines[at][name.len() + 2..].trim().to_owned()).filter(|it| !it.is_empty())
    };
    let classifier = lines.iter().find_map(|line| line.strip_prefix("Classifier: License :: "));
    let classifier = classifier.and_then(|it| it.rsplit(" :: ").next()).map(str::to_owned);
    field("License-Expression").or_else(|| field("License")).or(classifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "allowed = [\"MIT\", \"Apache-2.0\", \"GPL-2.0-only WITH Classpath-exception-2.0\"]\n\
        [words]\n\"MIT License\" = \"MIT\"\n\
        [[package]]\nname = \"npm:x\"\nlicence = \"MIT\"\nreason = \"its page says so\"\n";

    fn package(name: &str, says: Option<&str>) -> Licensed {
        let [name, version, component] = [name, "1.0.0", "omos"].map(str::to_owned);
        Licensed { name, version, says: says.map(str::to_owned), component }
    }

    #[track_caller]
    fn refused(name: &str, says: Option<&str>, expected: Option<&str>) {
        let found = Policy::parse(TEXT).expect("a policy").problem(&package(name, says));
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn an_expression_is_allowed_if_a_choice_of_it_is() {
        for says in [
            "MIT",
            "(MIT OR GPL-3.0-only)",
            "MIT AND Apache-2.0",
            "MIT License",
            "GPL-2.0-only WITH Classpath-exception-2.0",
        ] {
            refused("npm:a", Some(says), None);
        }
        let outside = |text: &str| {
            format!(
                "npm:a 1.0.0 of omos has the licence {text}, which may not be redistributed: leave it out, or add it to \
                 `allowed` in images/licences.toml"
            )
        };
        for says in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "GPL-2.0-only"] {
            refused("npm:a", Some(says), Some(&outside(says)));
        }
    }

    #[test]
    fn a_decision_is_about_what_the_package_said() {
        let unknown = |name: &str, says: &str| {
            format!(
                "npm:{name} 1.0.0 of omos names {says}, which is no SPDX expression: decide on it in images/licences.toml, \
                 below [words] or in [[package]]"
            )
        };
        refused("npm:x", None, None);
        refused("npm:x", Some("SEE LICENSE"), Some(&unknown("x", "the licence \"SEE LICENSE\"")));
        refused("npm:y", None, Some(&unknown("y", "no licence")));
    }

    #[test]
    fn a_policy_without_reasons_or_with_unknown_licences_is_refused() {
        let with = |text: &str| Policy::parse(text).map_err(|error| format!("{error:#}"));
        assert!(with("allowed = [\"MTI\"]\n[words]\n").is_err_and(|it| it.contains("\"MTI\"")));
        assert!(with(&TEXT.replace("its page says so", "")).is_err_and(|it| it.contains("needs a reason")));
        assert!(with(&TEXT.replace("npm:x", "x")).is_err());
    }

    #[test]
    fn facts_are_read_as_they_are_written() {
        let fact = |name: &str, licence: Option<&str>, files: &[Platform]| Fact {
            ecosystem: "pypi".to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            licence: licence.map(str::to_owned),
            files: files.iter().map(|platform| (*platform, "ab".to_owned())).collect(),
        };
        let all =
            [fact("a", Some("MIT"), &PLATFORMS), fact("b", None, &[]), fact("c", None, &PLATFORMS[1..])];
        assert_eq!(facts(&text(&all.iter().cloned().collect())), all);
    }

    #[test]
    fn metadata_has_one_of_three_fields() {
        let found = |text: &str| of_metadata(&format!("Name: x\n{text}\n\nLicense: in the description\n"));
        assert_eq!(found("License-Expression: MIT\nLicense: x").as_deref(), Some("MIT"));
        assert_eq!(found("License: Apache 2.0").as_deref(), Some("Apache 2.0"));
        let whole = "License: The text\n        of it\nClassifier: License :: OSI Approved :: MIT License";
        assert_eq!(found(whole).as_deref(), Some("MIT License"));
        assert_eq!(found("Summary: y"), None);
    }
}
