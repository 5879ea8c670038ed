//! The variants that this tree implies on top of a base: their content keys, and the staged images that were made from the
//! same inputs.

use std::collections::BTreeMap;
use std::ops::Deref;

use anyhow::Result;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::{BuiltBase, find_made_from, named};
use crate::image::tree::Tree;
use crate::model::config::Variant;
use crate::model::dockerfile;
use crate::model::key::{Inputs, Key};
use crate::model::oci::CompleteIndex;
use crate::model::platform::Platform;
use crate::model::reference::Repository;

/// A variant that this tree implies on top of a base.
#[derive(Clone, Debug)]
pub struct PlannedVariant<'a> {
    pub variant: &'a Variant,
    pub key: Key,
    /// `<variant>-<key>` in the staging repository.
    pub tag: String,
    pub inputs: Inputs,
    pub args: BTreeMap<String, String>,
    pub staging: Repository,
}

impl PlannedVariant<'_> {
    /// The variant as a reference by tag.
    pub fn reference(&self) -> String {
        self.staging.tag(&self.tag)
    }
}

/// A variant that the staging repository holds, complete on every platform.
#[derive(Clone, Debug)]
pub struct StagedVariant<'a> {
    plan: PlannedVariant<'a>,
    pub index: CompleteIndex,
}

impl<'a> Deref for StagedVariant<'a> {
    type Target = PlannedVariant<'a>;

    fn deref(&self) -> &PlannedVariant<'a> {
        &self.plan
    }
}

/// A variant of this tree, as the staging repository has it.
#[derive(Clone, Debug)]
pub enum FoundVariant<'a> {
    Staged(StagedVariant<'a>),
    Absent(PlannedVariant<'a>),
}

impl<'a> FoundVariant<'a> {
    /// The staged variant, if there is one.
    pub fn as_staged(&self) -> Option<&StagedVariant<'a>> {
        match self {
            Self::Staged(staged) => Some(staged),
            Self::Absent(_) => None,
        }
    }

    /// The staged variant, or the command that builds it.
    pub fn staged(self) -> Result<StagedVariant<'a>> {
        match self {
            Self::Staged(staged) => Ok(staged),
            Self::Absent(plan) => Err(missing(format!(
                "{} is not staged: run `cargo xtask build {}`",
                plan.reference(),
                plan.variant.name
            ))),
        }
    }
}

impl<'a> Deref for FoundVariant<'a> {
    type Target = PlannedVariant<'a>;

    fn deref(&self) -> &PlannedVariant<'a> {
        match self {
            Self::Staged(staged) => staged,
            Self::Absent(plan) => plan,
        }
    }
}

/// Finds variants (all, if none is named) on the platforms of their base.
pub fn find<'a>(
    ctx: &'a Context,
    tree: &Tree,
    base: &BuiltBase,
    names: &[String],
) -> Result<Vec<FoundVariant<'a>>> {
    let mut parents = named("base", &base.index);
    parents.insert("Debian".to_owned(), base.debian.rsplit('@').next().unwrap_or_default().to_owned());
    let staging = ctx.staging(&base.repository);
    let platforms: Vec<Platform> = base.index.images().map(|(platform, _)| platform).collect();
    let mut found = Vec::new();
    for variant in chosen(ctx, names)? {
        let inputs = inputs(ctx, tree, variant, parents.clone())?;
        let mut args = inputs.args.clone();
        let key = inputs.key();
        args.insert("BASE_IMAGE".to_owned(), base.repository.digest(&base.index.digest));
        args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
        let tag = format!("{}-{key}", variant.name);
        let index = find_made_from(ctx, &staging, &tag, &inputs, &platforms)?;
        let plan = PlannedVariant { variant, key, tag, inputs, args, staging: staging.clone() };
        found.push(match index {
            Some(index) => {
                ctx.registry.remember(&staging, &plan.tag, &index.digest);
                FoundVariant::Staged(StagedVariant { plan, index })
            }
            None => FoundVariant::Absent(plan),
        });
    }
    Ok(found)
}

/// Finds variants that have to be staged.
pub fn find_staged<'a>(
    ctx: &'a Context,
    tree: &Tree,
    base: &BuiltBase,
    names: &[String],
) -> Result<Vec<StagedVariant<'a>>> {
    find(ctx, tree, base, names)?.into_iter().map(FoundVariant::staged).collect()
}

/// The inputs of a variant on top of these digests.
pub fn inputs(
    ctx: &Context,
    tree: &Tree,
    variant: &Variant,
    parents: BTreeMap<String, String>,
) -> Result<Inputs> {
    let entries = tree.entries(&ctx.config.variants.inputs);
    let recipe = tree.text(&ctx.config.variants.dockerfile)?;
    let switches = dockerfile::switches(recipe);
    let args = switches.into_iter().map(|(component, arg)| (arg, variant.has(&component).to_string()));
    let args = args.chain(ctx.config.layers.record());
    let mut inputs = Inputs::new(&entries, args.collect(), parents);
    // Those of other variants as well: their pins and locks are inputs, too.
    inputs.versions = dockerfile::versions(recipe).into_iter().collect();
    Ok(inputs)
}

/// The variants of these names, in the order of devbox.toml; all if there are no names.
pub fn chosen<'a>(ctx: &'a Context, names: &[String]) -> Result<Vec<&'a Variant>> {
    for name in names {
        ctx.config.variant(name)?;
    }
    Ok(ctx.config.variant.iter().filter(|it| names.is_empty() || names.contains(&it.name)).collect())
}
