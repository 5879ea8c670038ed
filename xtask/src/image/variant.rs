//! The variants that this tree implies on top of a base: their content keys, and the staged images that were made from the
//! same inputs.

use std::collections::BTreeMap;
use std::ops::Deref;

use anyhow::Result;

use crate::context::Context;
use crate::error::missing;
use crate::image::base::{self, Base, BuiltBase, find_made_from, named};
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
    /// `None` where a dry run would build the base, whose digest is part of the key.
    pub key: Option<Key>,
    /// `<variant>-<key>` in the staging repository, literally so where the key is unknown.
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
    let platforms: Vec<Platform> = base.index.images().map(|(platform, _)| platform).collect();
    let mut parents = named("base", &base.index);
    parents.insert("Debian".to_owned(), base.debian.rsplit('@').next().unwrap_or_default().to_owned());
    let mut found = Vec::new();
    for variant in chosen(ctx, names)? {
        let inputs = inputs(ctx, tree, variant, parents.clone())?;
        let key = inputs.key();
        let plan =
            planned(ctx, base, &base.repository.digest(&base.index.digest), variant, inputs, Some(key));
        let index = find_made_from(ctx, &plan.staging, &plan.tag, &plan.inputs, &platforms)?;
        found.push(match index {
            Some(index) => {
                ctx.registry.remember(&plan.staging, &plan.tag, &index.digest);
                FoundVariant::Staged(StagedVariant { plan, index })
            }
            None => FoundVariant::Absent(plan),
        });
    }
    Ok(found)
}

/// The variants that a dry run would build on top of a base that it would build: their keys are unknown.
pub fn would_build<'a>(
    ctx: &'a Context,
    tree: &Tree,
    base: &Base,
    names: &[String],
) -> Result<Vec<FoundVariant<'a>>> {
    let plan = |variant| {
        let inputs = inputs(ctx, tree, variant, BTreeMap::new())?;
        Ok(FoundVariant::Absent(planned(ctx, base, &base.reference(), variant, inputs, None)))
    };
    chosen(ctx, names)?.into_iter().map(plan).collect()
}

fn planned<'a>(
    ctx: &Context,
    base: &Base,
    base_image: &str,
    variant: &'a Variant,
    inputs: Inputs,
    key: Option<Key>,
) -> PlannedVariant<'a> {
    let mut args = inputs.args.clone();
    args.insert("BASE_IMAGE".to_owned(), base_image.to_owned());
    args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
    let tag = base::tag(&variant.name, key.as_ref());
    PlannedVariant { variant, key, tag, inputs, args, staging: ctx.staging(&base.repository) }
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
