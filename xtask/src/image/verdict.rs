//! Smoke verdicts: what the suite is, what it expects of a variant, and what it found on an image. A verdict is stored
//! as a referrer of its image.

use std::collections::BTreeMap;
use std::ops::Deref;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::error::missing;
use crate::image::tree::{SUITE, SUITE_PARTS, Tree};
use crate::image::variant::{FoundVariant, StagedVariant};
use crate::model::config::Variant;
use crate::model::key::Inputs;
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::verdict::{self, Verdict};
use crate::tools::registry::Place;

/// The artifact type of a smoke verdict.
pub const VERDICT: &str = "application/vnd.opencode-devbox.verdict.v1+json";

/// A staged variant that passed the current suite on every platform.
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
        let has_passed = |platform: Platform| verdicts.get(&platform).is_some_and(|verdict| verdict.passed);
        let is_tested = staged.index.images().all(|(platform, _)| has_passed(platform));
        is_tested.then_some(Self { staged, verdicts })
    }
}

/// The verdicts that count of the current suite on the images of a variant, by platform.
pub fn find(ctx: &Context, tree: &Tree, staged: &StagedVariant<'_>) -> Result<BTreeMap<Platform, Verdict>> {
    let suite = suite(ctx, tree, staged.variant)?;
    let mut counting = BTreeMap::new();
    for (platform, image) in staged.index.images() {
        let mut found = all(ctx, &staged.staging, image)?;
        found.retain(|it| it.suite == suite && it.platform == platform);
        counting.extend(verdict::counting(&found).map(|verdict| (platform, verdict.clone())));
    }
    Ok(counting)
}

/// The variants as tested ones. All gaps are named at once.
pub fn find_tested<'a>(
    ctx: &'a Context,
    tree: &Tree,
    variants: Vec<FoundVariant<'a>>,
) -> Result<Vec<TestedVariant<'a>>> {
    let (mut tested, mut problems) = (Vec::new(), Vec::new());
    for variant in variants {
        let name = &variant.variant.name;
        let staged = match variant {
            FoundVariant::Staged(staged) => staged,
            FoundVariant::Absent(_) => {
                problems.push(format!("{name} is not staged: run `cargo xtask build {name}`"));
                continue;
            }
        };
        let verdicts = find(ctx, tree, &staged)?;
        let again = format!("run `cargo xtask smoke {name}`");
        for (platform, _) in staged.index.images() {
            match verdicts.get(&platform) {
                Some(verdict) if verdict.passed => {}
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

/// The content key of the smoke suite, with what it is asked to expect of a variant.
pub fn suite(ctx: &Context, tree: &Tree, variant: &Variant) -> Result<String> {
    let entries = tree.entries(&[SUITE.to_owned(), SUITE_PARTS.to_owned()]);
    let args = BTreeMap::from([("arguments".to_owned(), expectations(ctx, variant)?.join(" "))]);
    Ok(Inputs::new(&entries, args, BTreeMap::new()).key().to_string())
}

/// What the tree pins is what the image has to answer: the suite's arguments beside the image and its platform.
pub fn expectations(ctx: &Context, variant: &Variant) -> Result<Vec<String>> {
    let mut words = vec!["--components".to_owned(), variant.components.join(",")];
    words.extend(["--shared-in".to_owned(), ctx.config.shared_checks()?.name.clone()]);
    words.extend(["--max-size-mb".to_owned(), variant.budget_mb.to_string()]);
    for (name, version) in ctx.versions()? {
        if variant.has(&name) || ["node", "uv", "mempalace"].contains(&name.as_str()) {
            words.extend(["--expect".to_owned(), format!("{name}={version}")]);
        }
    }
    Ok(words)
}

/// All verdicts on one platform's image, of any suite.
pub fn all(ctx: &Context, staging: &Repository, image: &str) -> Result<Vec<Verdict>> {
    let found = ctx.registry.referrers(&ctx.runner, staging, image, VERDICT)?;
    let parsed = found.into_iter().filter_map(|document| serde_json::from_value::<Verdict>(document).ok());
    Ok(parsed.filter(|verdict| verdict.image == image).collect())
}

/// True if the suite that tested an image last has passed on it.
pub fn has_passed(ctx: &Context, staging: &Repository, image: &str) -> Result<bool> {
    let mut found = all(ctx, staging, image)?;
    let Some(suite) = found.iter().max_by_key(|it| it.sequence).map(|it| it.suite.clone()) else {
        return Ok(false);
    };
    found.retain(|it| it.suite == suite);
    Ok(verdict::counting(&found).is_some_and(|verdict| verdict.passed))
}

/// Records a verdict beside the image of `index` that it is about, as the last one there. Returns it as recorded.
pub fn record(
    ctx: &Context,
    staging: &Repository,
    index: &Manifest,
    mut verdict: Verdict,
) -> Result<Verdict> {
    let subject = index.subject_of(verdict.platform).context("the tested image is in no index")?;
    verdict.sequence = verdict::next_sequence(&all(ctx, staging, &subject.digest)?);
    let labels = BTreeMap::from([
        ("opencode-devbox.passed".to_owned(), verdict.passed.to_string()),
        ("opencode-devbox.suite".to_owned(), verdict.suite.clone()),
    ]);
    let document = serde_json::to_value(&verdict)?;
    let place = Place::Referrer(&subject);
    ctx.registry.put_document(&ctx.runner, staging, &place, VERDICT, &labels, &document)?;
    Ok(verdict)
}
