//! Checks what is published under a tag: signatures, the signed record of the release, its commit, the signed verdicts, the
//! shared base. Reads only, asks nobody but the registry. Refuses a tag that does not exist; a check that fails makes the
//! command fail, and every check is made.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::context::signing::PUBLIC;
use crate::error::missing;
use crate::image::definition::REVISION as LABEL;
use crate::image::verdict;
use crate::model::dsse::Carried;
use crate::model::oci::{Digest, Manifest};
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::table::{self, Kind};
use crate::model::version::ReleaseTag;
use crate::model::{sbom_cyclonedx, sbom_spdx};
use crate::output;
use crate::promotion::attest::{self, RELEASE, REVISION, Signature, VARIANT, provenance, test_result};
use crate::promotion::record::{self, PlatformRecord, Record, VariantRecord};
use crate::tools::cosign::PublicKey;
use crate::tools::registry::Attached;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tag to verify, such as v1.18.18-omos or latest
    pub tag: String,
}

/// The answer to one question.
#[derive(Serialize)]
struct Check {
    check: &'static str,
    /// What the check is about.
    about: String,
    passed: bool,
    /// What was found.
    found: String,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let repository = ctx.repository()?;
    let tag = &args.tag;
    let name = repository.tag(tag);
    let Some(index) = ctx.registry.image(&ctx.runner, &repository, tag)? else {
        return Err(missing(format!("{name} does not exist: see the tags with `crane ls {repository}`")));
    };
    let Some(trusted) = ctx.trusted()? else {
        return Err(missing(format!(
            "no key to verify {name} with: {PUBLIC} is missing; get it from the project's repository"
        )));
    };
    let mut verifier = Verifier { ctx, repository, tag, index, trusted, checks: Vec::new() };
    verifier.verify()?;
    let checks = &verifier.checks;
    let failed = checks.iter().filter(|check| !check.passed).count();
    if ctx.json {
        output::json(&json!({ "image": name, "digest": verifier.index.digest, "passed": failed == 0,
            "key": verifier.trusted.fingerprint(), "checks": checks }));
    } else {
        output::line(format!("{name} is {}", verifier.index.digest));
        output::line(format!("key {}", verifier.trusted.fingerprint()));
        output::table(checks);
    }
    match failed {
        0 => Ok(()),
        _ => bail!(
            "{name} is not what its release published: {failed} of {} checks failed; do not use it, and ask its maintainers",
            checks.len()
        ),
    }
}

struct Verifier<'a> {
    ctx: &'a Context,
    repository: Repository,
    tag: &'a str,
    index: Manifest,
    trusted: PublicKey,
    checks: Vec<Check>,
}

impl Verifier<'_> {
    fn check(
        &mut self,
        check: &'static str,
        about: impl Into<String>,
        passed: bool,
        found: impl Into<String>,
    ) {
        self.checks.push(Check { check, about: about.into(), passed, found: found.into() });
    }

    /// Each question in turn. What a signature says leads to the record, and the record to everything else.
    fn verify(&mut self) -> Result<()> {
        let (attached, signed) = self.signature(&self.index.digest.clone(), "index")?;
        let Some((release, record)) = self.record(&signed)? else { return Ok(()) };
        let Some(variant) = self.variant(release, &record) else { return Ok(()) };
        self.revision(&signed, &record, release);
        let of_release = |signed: Vec<Signature>| -> Vec<Signature> {
            signed.into_iter().filter(|it| it.is(RELEASE, &release.to_string())).collect()
        };
        let is_index = self.index.images().all(|(_, image)| *image != self.index.digest);
        self.attestations(
            "index",
            &self.index.digest.clone(),
            &attached,
            &of_release(signed),
            &attest::wanted(false, is_index),
        );
        self.base(&record)?;
        let images: Vec<(Platform, Digest)> =
            self.index.images().map(|(platform, image)| (platform, image.clone())).collect();
        let recorded = variant.platforms.len();
        let equal = images.len() == recorded;
        self.check("platforms", "index", equal, format!("{} images, {recorded} in the record", images.len()));
        for (platform, image) in images {
            let about = platform.to_string();
            if image != self.index.digest {
                let (attached, signed) = self.signature(&image, &about)?;
                let signed = of_release(signed);
                self.check("signature is of the release", &about, !signed.is_empty(), release.to_string());
                self.attestations(&about, &image, &attached, &signed, &attest::wanted(false, false));
            }
            let known = variant.platforms.iter().find(|it| it.platform == platform);
            let equal = known.is_some_and(|it| it.digest == *image);
            self.check("digest is in the record", &about, equal, image.to_string());
            self.verdict(&about, &image, known)?;
            self.layers(&about, &image, &record, platform)?;
        }
        Ok(())
    }

    /// What is attached to an image, and the signatures of it by the trusted key.
    fn signature(&mut self, image: &Digest, about: &str) -> Result<(Attached, Vec<Signature>)> {
        let found = self.ctx.registry.attached(&self.ctx.runner, &self.repository, image, None)?;
        let signed: Vec<_> = attest::signatures(&found.statements, image, &self.trusted).collect();
        let text = match (signed.len(), found.statements.len()) {
            (0, 0) => "not signed".to_owned(),
            (0, others) => format!("{others} statements, no signature by this key"),
            (count, _) => format!("{count} by this key"),
        };
        self.check("signature", about, !signed.is_empty(), text);
        Ok((found, signed))
    }

    /// Each statement that a signature names is attached, about this image, and signed by the same key.
    fn attestations(
        &mut self,
        about: &str,
        image: &Digest,
        attached: &Attached,
        signed: &[Signature],
        wanted: &[&str],
    ) {
        for kind in wanted {
            let named: Vec<&String> = signed.iter().filter_map(|it| it.attestations.get(*kind)).collect();
            let is_named = |it: &&Carried| {
                named.iter().any(|named| **named == *it.artifact) && it.about(image, kind).is_some()
            };
            let found = attest::signed_by(&attached.statements, &self.trusted).find(is_named);
            let (passed, text) = match found {
                Some(found) => described(kind, found.predicate()),
                None if !named.is_empty() => {
                    (false, "taken away, replaced, or not signed by this key".to_owned())
                }
                None => (false, "missing".to_owned()),
            };
            self.check(title(kind), about, passed, text);
        }
    }

    /// The record of the release that the tag is of. A floating tag does not name it; its signatures do.
    fn record(&mut self, signed: &[Signature]) -> Result<Option<(ReleaseTag, Record)>> {
        let named = self.ctx.config.variant.iter().find_map(|variant| {
            let release = self.tag.strip_suffix(&variant.suffix)?.parse::<ReleaseTag>().ok()?;
            (variant.version_tag(release) == self.tag).then_some(release)
        });
        let of_signatures = signed.iter().filter_map(|it| it.annotations.get(RELEASE)?.parse().ok()).max();
        let Some(release) = named.or(of_signatures) else {
            self.check("release record", "index", false, "no signature names a release");
            return Ok(None);
        };
        let fits = signed.iter().any(|it| it.is(RELEASE, &release.to_string()));
        self.check("signature is of the release", "index", fits, release.to_string());
        let record = record::signed(self.ctx, &self.repository, release)?;
        let text = if record.is_some() {
            "signed"
        } else {
            "missing, of another release, or not signed by this key"
        };
        self.check("release record", release.to_string(), record.is_some(), text);
        Ok(record.map(|record| (release, record)))
    }

    /// The variant of the record that has this tag and this digest.
    fn variant(&mut self, release: ReleaseTag, record: &Record) -> Option<VariantRecord> {
        let of_tag = record
            .variants
            .iter()
            .find(|it| [&it.version_tag, &it.latest_tag].contains(&&self.tag.to_owned()));
        let Some(variant) = of_tag.cloned() else {
            self.check(
                "digest is in the record",
                "index",
                false,
                format!("{release} has no tag {}", self.tag),
            );
            return None;
        };
        let equal = variant.digest == *self.index.digest;
        let found =
            if equal { self.index.digest.to_string() } else { format!("the record has {}", variant.digest) };
        self.check("digest is in the record", "index", equal, found);
        Some(variant)
    }

    /// Signature, record and image name the same commit.
    fn revision(&mut self, signed: &[Signature], record: &Record, release: ReleaseTag) {
        let of_release = signed.iter().filter(|it| it.is(RELEASE, &release.to_string()));
        let signed = of_release.map(|it| it.annotations.get(REVISION).cloned()).collect::<Vec<_>>();
        let equal = signed.contains(&record.revision);
        let named = record.revision.as_deref().unwrap_or("none");
        self.check("revision", "index", equal, format!("{named}, image built from {}", self.built_from()));
    }

    fn built_from(&self) -> &str {
        self.index.annotation(LABEL).unwrap_or("no commit")
    }

    fn base(&mut self, record: &Record) -> Result<()> {
        let digest: Digest = record.base.digest.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        let found = self.ctx.registry.attached(&self.ctx.runner, &self.repository, &digest, None)?;
        let signed = attest::signatures(&found.statements, &digest, &self.trusted);
        let signed: Vec<Signature> = signed.filter(|it| it.is(VARIANT, verdict::BASE)).collect();
        self.check("signature", "base", !signed.is_empty(), record.base.tag.clone());
        self.attestations("base", &digest, &found, &signed, &attest::wanted(true, true));
        Ok(())
    }

    /// The suite passed on this very image, and the tester has signed that.
    fn verdict(&mut self, about: &str, image: &Digest, known: Option<&PlatformRecord>) -> Result<()> {
        let staging = self.ctx.staging(&self.repository);
        let verdicts = verdict::all(self.ctx, &staging, image)?;
        let checks = known.map_or(&[][..], |it| it.checks.as_slice());
        let passed = !checks.is_empty()
            && checks.iter().all(|check| check.passed)
            && verdicts.iter().any(|verdict| verdict.passed() && verdict.covers(checks));
        let failed = verdicts.iter().filter(|verdict| !verdict.passed()).count();
        let found = match verdicts.len() {
            0 => "no verdict signed by this key".to_owned(),
            all => format!("{} checks, {all} signed verdicts, {failed} of them failed", checks.len()),
        };
        self.check("smoke test passed", about, passed, found);
        Ok(())
    }

    /// The image begins with the layers of the base that the record names.
    fn layers(&mut self, about: &str, image: &Digest, record: &Record, platform: Platform) -> Result<()> {
        let (registry, runner) = (&self.ctx.registry, &self.ctx.runner);
        let base = registry.manifest(runner, &self.repository, &record.base.digest)?;
        let base = base.as_ref().and_then(|base| base.platform(platform));
        let base = match base {
            Some(base) => registry.manifest(runner, &self.repository, base)?,
            None => None,
        };
        let image =
            registry.manifest(runner, &self.repository, image)?.context("an index without its image")?;
        let shared = base.map(|base| base.layers()).unwrap_or_default();
        let passed = !shared.is_empty() && image.layers().starts_with(&shared);
        let found =
            format!("{} of {} layers are those of {}", shared.len(), image.layers().len(), record.base.tag);
        let found =
            if passed { found } else { format!("does not begin with the layers of {}", record.base.tag) };
        self.check("base is shared", about, passed, found);
        Ok(())
    }
}

/// The name of a predicate in the table.
fn title(kind: &str) -> &'static str {
    match kind {
        provenance::KIND => "provenance",
        test_result::KIND => "test result",
        sbom_cyclonedx::PREDICATE => "SBOM (CycloneDX)",
        sbom_spdx::PREDICATE => "SBOM (SPDX)",
        _ => "attestation",
    }
}

/// What a statement says, and whether that is good.
fn described(kind: &str, predicate: &Value) -> (bool, String) {
    match kind {
        provenance::KIND => {
            let source = &predicate["buildDefinition"]["externalParameters"]["source"];
            let commit = source["digest"]["gitCommit"].as_str().unwrap_or("no commit");
            (true, format!("built from {commit}"))
        }
        test_result::KIND => {
            let passed = predicate["passedTests"].as_array().map_or(0, Vec::len);
            let result = predicate["result"].as_str().unwrap_or("no result");
            (result == "PASSED" && passed > 0, format!("{result}, {passed} checks"))
        }
        _ => {
            let parts =
                predicate["components"].as_array().or(predicate["packages"].as_array()).map_or(0, Vec::len);
            (parts > 0, format!("{parts} packages"))
        }
    }
}

impl table::Row for Check {
    const COLUMNS: &'static [(&'static str, Kind)] =
        &[("check", Kind::Text), ("of", Kind::Text), ("result", Kind::Text), ("found", Kind::Text)];

    fn cells(&self) -> Vec<String> {
        let result = if self.passed { "ok" } else { "FAILED" };
        [self.check, &self.about, result, &self.found].map(str::to_owned).to_vec()
    }
}
