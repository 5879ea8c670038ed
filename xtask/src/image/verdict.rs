//! Smoke verdicts in the registry. A verdict is stored beside the image that it is about and lists each check with its
//! key and the image that it ran on. Tags of the staging repository lead from what a check exercises to the newest verdict
//! that has it, so that the next image with the same layers takes its result.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::context::signing::no_public_key;
use crate::error::missing;
use crate::image::base::BuiltBase;
use crate::image::tree::{DEFINITION, SUITE, SUITE_PARTS, Tree};
use crate::image::variant::{FoundVariant, StagedVariant};
use crate::model::key::Kind;
use crate::model::layers::IDENTITY;
use crate::model::oci::{Digest, Manifest, Subject as Descriptor};
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::suite::{Check, Pins, Subject, Suite};
use crate::model::verdict::{self, Anatomy, CheckVerdict, Verdict};
use crate::tools::cosign::PublicKey;
use crate::tools::registry::{Place, Registry, signed_document};
use crate::tools::runner::Runner;

/// The artifact type of a smoke verdict.
pub const VERDICT: &str = "application/vnd.opencode-devbox.verdict.v2+json";

/// The base among the names of variants.
pub const BASE: &str = "base image";

/// A staged variant that passed every check on every platform.
#[derive(Clone, Debug)]
pub struct TestedVariant<'a> {
    staged: StagedVariant<'a>,
    pub verdicts: BTreeMap<Platform, Verdict>,
}

impl<'a> Deref for TestedVariant<'a> {
    type Target = StagedVariant<'a>;

    fn deref(&self) -> &StagedVariant<'a> {
        &self.staged
    }
}

impl<'a> TestedVariant<'a> {
    /// A variant with a passing verdict on each platform; `None` where one is missing.
    pub fn new(staged: StagedVariant<'a>, verdicts: BTreeMap<Platform, Verdict>) -> Option<Self> {
        let has_passed = |platform: Platform| verdicts.get(&platform).is_some_and(Verdict::passed);
        let is_tested = staged.index.images().all(|(platform, _)| has_passed(platform));
        is_tested.then_some(Self { staged, verdicts })
    }
}

/// The suite of a tree, with what it expects of the base.
pub struct Tester<'a> {
    ctx: &'a Context,
    pub suite: Suite,
    base_versions: BTreeMap<String, String>,
}

/// One image on one platform, as its checks see it.
#[derive(Clone, Debug)]
pub struct Examined {
    pub image: Digest,
    pub platform: Platform,
    pub pins: Pins,
    pub anatomy: Anatomy,
}

/// A check that an image needs, with its key on that image.
#[derive(Clone, Debug)]
pub struct Needed<'s> {
    /// Nothing for the rule about a component's layer, which no script checks.
    pub check: Option<&'s Check>,
    pub name: String,
    pub key: String,
    pub subject: Subject,
}

impl<'a> Tester<'a> {
    pub fn new(ctx: &'a Context, tree: &Tree, base: &BuiltBase) -> Result<Self> {
        let of_variants: BTreeSet<String> =
            ctx.config.variant.iter().flat_map(|it| it.components.iter().cloned()).collect();
        let mut files = BTreeMap::new();
        for entry in tree.entries(&[SUITE.to_owned(), SUITE_PARTS.to_owned()]) {
            let Kind::File { bytes, .. } = entry.kind else { continue };
            files.insert(entry.path, String::from_utf8(bytes).context("the smoke suite is not UTF-8")?);
        }
        let suite = Suite::parse(&files, &ctx.config.component, &of_variants)?;
        // A part of the base that is optional counts where this base has it.
        let has = |name: &str| {
            let optional = ctx.config.base_optional.iter().find(|part| part.name == name);
            optional.is_none_or(|part| base.inputs.args.get(&part.arg()).is_some_and(|it| it == "true"))
        };
        let base_versions =
            ctx.versions()?.into_iter().filter(|(name, _)| !of_variants.contains(name) && has(name));
        let known = |name: &str| {
            ctx.config.component.iter().any(|it| it.name == name && it.version_command.is_some())
        };
        let base_versions = base_versions.filter(|(name, _)| known(name)).collect();
        Ok(Self { ctx, suite, base_versions })
    }

    /// The base on one platform.
    pub fn base(&self, base: &BuiltBase, platform: Platform) -> Result<Examined> {
        let image =
            base.index.platform(platform).context("a base without a platform that it is built for")?;
        let (layers, config) = self.parts(&base.repository, image)?;
        let pins = Pins { versions: self.base_versions.clone(), ..Pins::default() };
        let digests = layers.iter().map(|(digest, _)| digest.clone()).collect();
        let anatomy = Anatomy { base: digests, components: BTreeMap::new(), layers, config };
        Ok(Examined { image: image.clone(), platform, pins, anatomy })
    }

    /// A variant on one platform. Fails where its layers are not those of the base, one for each component, and its identity.
    pub fn variant(&self, staged: &StagedVariant<'_>, base: &Examined) -> Result<Examined> {
        let platform = base.platform;
        let image = staged.index.platform(platform).context("an index without a platform of its base")?;
        let (layers, config) = self.parts(&staged.staging, image)?;
        let names: Vec<String> =
            staged.variant.components.iter().cloned().chain([IDENTITY.to_owned()]).collect();
        let count = base.anatomy.layers.len();
        if !layers.starts_with(&base.anatomy.layers) || layers.len() != count + names.len() {
            anyhow::bail!(
                "{} on {platform} has other layers than its base and one for each of {}: delete that tag and run `cargo \
                 xtask build {}`",
                staged.tag,
                names.join(", "),
                staged.variant.name
            );
        }
        let components = names.into_iter().zip(layers[count..].iter().cloned()).collect();
        let mut versions = self.base_versions.clone();
        versions.extend(self.ctx.versions()?.into_iter().filter(|(name, _)| staged.variant.has(name)));
        let (variant, max_mb) = (staged.variant.name.clone(), staged.variant.budget_mb);
        let anatomy = Anatomy { base: base.anatomy.base.clone(), components, layers, config };
        Ok(Examined { image: image.clone(), platform, pins: Pins { versions, max_mb, variant }, anatomy })
    }

    fn parts(
        &self,
        repository: &Repository,
        image: &Digest,
    ) -> Result<(Vec<(String, u64)>, serde_json::Value)> {
        let (registry, runner) = (&self.ctx.registry, &self.ctx.runner);
        let manifest = registry.manifest(runner, repository, image)?.context("an index without its image")?;
        let config = manifest.as_image().context("an image that is an index")?.config().digest().to_string();
        let config = registry.blob(runner, repository, &config)?["config"].clone();
        Ok((manifest.layers(), config))
    }

    /// The checks that an image has to pass natively or under emulation, and the rule about the layers of its components.
    /// Those of the base count for a variant as they ran on the base itself.
    pub fn needed<'s>(&'s self, it: &Examined, base: &Examined, emulated: bool) -> Vec<Needed<'s>> {
        let place = verdict::Place { platform: it.platform, emulated };
        let of_check = |check: &Check| {
            let key = match check.subject {
                Subject::Bare => verdict::key(&self.suite, check, &base.pins, &base.anatomy, place),
                // A start sees the configuration of the variant; of the rest the base decides.
                Subject::Base => verdict::key(&self.suite, check, &base.pins, &it.anatomy, place),
                _ => verdict::key(&self.suite, check, &it.pins, &it.anatomy, place),
            };
            (check.name.clone(), key, check.subject.clone())
        };
        let with_keys = |check| {
            let (name, key, subject) = of_check(check);
            Needed { check: Some(check), name, key, subject }
        };
        let mut needed: Vec<Needed<'_>> = self.suite.of_image(&it.pins, emulated).map(with_keys).collect();
        for (name, (digest, _)) in &it.anatomy.components {
            let key = verdict::layer_key(name, digest, self.paths(name));
            let subject = Subject::Components(BTreeSet::from([name.clone()]));
            let name = format!("the layer of {name} holds its own files only");
            needed.push(Needed { check: None, name, key, subject });
        }
        needed
    }

    /// What the layer of a component may hold.
    pub fn paths(&self, component: &str) -> &[String] {
        let known = self.ctx.config.component.iter().find(|it| it.name == component);
        known.map_or(&[], |it| it.paths.as_slice())
    }

    /// The tag that leads to verdicts about a subject on an image.
    pub fn group(&self, subject: &Subject, it: &Examined, emulated: bool) -> String {
        let subject = if *subject == Subject::Bare { &Subject::Base } else { subject };
        verdict::group(subject, &it.anatomy, verdict::Place { platform: it.platform, emulated })
    }

    /// The verdict that counts among those on an image, if there is one.
    pub fn counting(&self, found: &[Verdict], it: &Examined, base: &Examined) -> Option<Verdict> {
        let counting = |emulated| {
            let needed = self.needed(it, base, emulated);
            let keys: Vec<_> = needed.into_iter().map(|it| (it.name, it.key)).collect();
            verdict::counting(found, emulated, &keys)
        };
        verdict::of_both(counting(false), counting(true))
    }
}

/// The verdicts that count on the images of a variant, by platform.
pub fn find(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    staged: &StagedVariant<'_>,
) -> Result<BTreeMap<Platform, Verdict>> {
    let tester = Tester::new(ctx, tree, base)?;
    let mut counting = BTreeMap::new();
    for (platform, image) in staged.index.images() {
        let found = all(ctx, &staged.staging, image)?;
        let base = tester.base(base, platform)?;
        let variant = tester.variant(staged, &base)?;
        counting.extend(tester.counting(&found, &variant, &base).map(|verdict| (platform, verdict)));
    }
    Ok(counting)
}

/// The variants as tested ones. All gaps are named at once.
pub fn find_tested<'a>(
    ctx: &'a Context,
    tree: &Tree,
    base: &BuiltBase,
    variants: Vec<FoundVariant<'a>>,
) -> Result<Vec<TestedVariant<'a>>> {
    let (mut tested, mut problems) = (Vec::new(), Vec::new());
    if !ctx.is_rehearsal() && ctx.trusted()?.is_none() {
        return Err(missing(format!("nothing published; {:#}", no_public_key())));
    }
    for variant in variants {
        let name = &variant.variant.name;
        let staged = match variant {
            FoundVariant::Staged(staged) => staged,
            FoundVariant::Absent(_) => {
                problems.push(format!("{name} is not staged: run `cargo xtask build {name}`"));
                continue;
            }
        };
        let verdicts = find(ctx, tree, base, &staged)?;
        let again = format!("run `cargo xtask smoke {name}`");
        for (platform, _) in staged.index.images() {
            match verdicts.get(&platform) {
                Some(verdict) if verdict.passed() => {}
                Some(_) => problems.push(format!("{name} failed its smoke test on {platform}: {again}")),
                None => problems.push(format!("{name} is untested on {platform}: {again}")),
            }
        }
        tested.extend(TestedVariant::new(staged, verdicts));
    }
    match problems.is_empty() {
        true => Ok(tested),
        false => Err(missing(format!("nothing published; {}", problems.join("; ")))),
    }
}

/// The files that a run of the suite reads.
pub fn inputs() -> [String; 3] {
    [SUITE, SUITE_PARTS, DEFINITION].map(str::to_owned)
}

/// All verdicts on one platform's image, of any suite, that the trusted key has signed.
pub fn all(ctx: &Context, staging: &Repository, image: &str) -> Result<Vec<Verdict>> {
    let Some(trusted) = ctx.trusted()? else { return Ok(Vec::new()) };
    let found = ctx.registry.artifacts(&ctx.runner, staging, image, VERDICT)?;
    let verdicts = found.iter().filter_map(|artifact| parse(artifact, &trusted));
    Ok(verdicts.filter(|verdict| *verdict.image == *image).collect())
}

fn parse(artifact: &Manifest, trusted: &PublicKey) -> Option<Verdict> {
    serde_json::from_value(signed_document(artifact, trusted)?).ok()
}

/// The verdict that a tag leads to; none where nothing is there that can be read and that the trusted key has signed.
pub fn of_group(
    registry: &Registry,
    runner: &Runner,
    staging: &Repository,
    trusted: &PublicKey,
    tag: &str,
) -> Result<Option<Verdict>> {
    let Some((artifact, subject)) = registry.tagged(runner, staging, tag)? else { return Ok(None) };
    let verdict = parse(&artifact, trusted);
    // The artifact has to refer to the image that the verdict is about.
    Ok(verdict.filter(|verdict| verdict.image == subject))
}

/// True if every check of the newest verdict on an image has passed.
pub fn has_passed(ctx: &Context, staging: &Repository, image: &str) -> Result<bool> {
    let found = all(ctx, staging, image)?;
    let newest = |emulated| {
        found.iter().filter(|it| it.emulated == emulated).max_by_key(|it| (it.sequence, !it.passed()))
    };
    let kinds: Vec<&Verdict> = [newest(false), newest(true)].into_iter().flatten().collect();
    Ok(!kinds.is_empty() && kinds.iter().all(|it| it.passed()))
}

/// Records a verdict beside the image of `index` that it is about, and under the tags that lead to
/// it. Returns it as recorded.
pub fn record(
    ctx: &Context,
    staging: &Repository,
    index: &Manifest,
    verdict: Verdict,
    groups: &BTreeSet<String>,
) -> Result<Verdict> {
    let subject: Descriptor =
        index.subject_of(verdict.platform).context("the tested image is in no index")?;
    let document = serde_json::to_value(&verdict)?;
    let mut labels = ctx.sign(VERDICT, &document)?;
    labels.insert("opencode-devbox.passed".to_owned(), verdict.passed().to_string());
    let place = Place::Tagged(&subject, groups);
    ctx.registry.put_document(&ctx.runner, staging, &place, VERDICT, &labels, &document)?;
    Ok(verdict)
}

/// Checks of a verdict that passed, by key.
pub fn passed(verdict: &Verdict) -> impl Iterator<Item = (String, CheckVerdict)> {
    verdict.inherited().filter(|check| check.passed).map(|check| (check.key.clone(), check))
}
