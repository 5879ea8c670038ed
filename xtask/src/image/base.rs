//! The base image that this tree implies: its content key, and the image in the registry that was made from the same
//! inputs. Refuses an image under that key that was made from others.

use std::collections::BTreeMap;
use std::ops::Deref;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::error::missing;
use crate::image::debian::{self, Debian};
use crate::image::parts;
use crate::image::tree::Tree;
use crate::model::config::Optional;
use crate::model::dockerfile;
use crate::model::key::{Entry, Inputs, Key};
use crate::model::oci::{CompleteIndex, Manifest};
use crate::model::platform::Platform;
use crate::model::reference::Repository;

/// The annotation of an image that holds its [`Inputs`].
pub const INPUTS: &str = "opencode-devbox.inputs";

/// The floating tag of the base.
pub const BASE_LATEST: &str = "base-latest";

/// Why a base that exists does not contain a part.
const UNREACHED: &str = "its host did not answer when the base was built";

/// The base that this tree implies.
#[derive(Clone, Debug)]
pub struct Base {
    /// `None` where a dry run would make the Debian image, whose digest is part of the key.
    pub key: Option<Key>,
    /// `base-<key>`, literally so where the key is unknown.
    pub tag: String,
    pub inputs: Inputs,
    /// The Debian image by digest, or by tag where a dry run would make it.
    pub debian: String,
    pub repository: Repository,
    /// Parts that the tree includes and this base does not contain, each with the reason: the registry is on this machine, and
    /// their hosts were not reached.
    pub left_out: BTreeMap<String, String>,
}

impl Base {
    /// The base as a reference by tag.
    pub fn reference(&self) -> String {
        self.repository.tag(&self.tag)
    }
}

/// A base that the registry holds, complete on every platform.
#[derive(Clone, Debug)]
pub struct BuiltBase {
    base: Base,
    pub index: CompleteIndex,
}

impl Deref for BuiltBase {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.base
    }
}

/// The base of this tree, as the registry has it.
#[derive(Clone, Debug)]
pub enum FoundBase {
    Built(BuiltBase),
    Absent(Base),
}

impl FoundBase {
    /// The built base, or the command that builds it.
    pub fn built(self) -> Result<BuiltBase> {
        match self {
            Self::Built(base) => Ok(base),
            Self::Absent(base) => {
                Err(missing(format!("{} is not built: run `cargo xtask build-base`", base.reference())))
            }
        }
    }

    /// The built base, if there is one.
    pub fn as_built(&self) -> Option<&BuiltBase> {
        match self {
            Self::Built(base) => Some(base),
            Self::Absent(_) => None,
        }
    }
}

impl Deref for FoundBase {
    type Target = Base;

    fn deref(&self) -> &Base {
        match self {
            Self::Built(base) => base,
            Self::Absent(base) => base,
        }
    }
}

/// Finds the base on these platforms.
///
/// The tree decides what the base contains. On the registry of this machine a base may be without parts whose hosts were not
/// reached when it was built: the most complete one that exists is used, whichever hosts answer now, so that all phases
/// agree on it. Hosts are asked only where none exists.
pub fn find(ctx: &Context, tree: &Tree, platforms: &[Platform]) -> Result<FoundBase> {
    let repository = ctx.repository()?;
    let debian = debian::find(ctx, &repository, platforms)?;
    Bases::new(ctx, tree, &repository, &debian)?.find(ctx, platforms)
}

/// Finds the base on the platforms of this command.
pub fn find_built(ctx: &Context, tree: &Tree) -> Result<BuiltBase> {
    find(ctx, tree, &ctx.platforms)?.built()
}

/// The base that a build makes: the one that exists, unless a build could add a part that it does not contain. The Debian
/// image is made where it is missing.
pub fn to_build(ctx: &Context, tree: &Tree) -> Result<FoundBase> {
    let repository = ctx.repository()?;
    let debian = debian::ensure(ctx, &repository)?;
    let bases = Bases::new(ctx, tree, &repository, &debian)?;
    let found = bases.find(ctx, &ctx.platforms)?;
    if found.as_built().is_none() || found.left_out.is_empty() {
        return Ok(found);
    }
    let left_out = parts::left_out(ctx);
    if left_out.len() >= found.left_out.len() {
        return Ok(found);
    }
    bases.without(ctx, left_out, &ctx.platforms)
}

/// The common part of all bases of a tree.
struct Bases {
    repository: Repository,
    debian: Debian,
    entries: Vec<Entry>,
    versions: BTreeMap<String, String>,
}

impl Bases {
    fn new(ctx: &Context, tree: &Tree, repository: &Repository, debian: &Debian) -> Result<Self> {
        let versions = dockerfile::versions(tree.text(&ctx.config.base.dockerfile)?).into_iter().collect();
        let entries = tree.entries(&ctx.config.base.inputs);
        Ok(Self { repository: repository.clone(), debian: debian.clone(), entries, versions })
    }

    fn find(&self, ctx: &Context, platforms: &[Platform]) -> Result<FoundBase> {
        for left_out in self.possible(ctx) {
            let base = self.without(ctx, left_out, platforms)?;
            if let Some(built) = base.as_built() {
                ctx.registry.remember(&built.repository, &built.tag, &built.index.digest);
            }
            if base.as_built().is_some() || !self.repository.is_loopback() {
                return Ok(base);
            }
        }
        self.without(ctx, parts::left_out(ctx), platforms)
    }

    /// Every choice of parts that a base can be without, the smallest first; elsewhere than on this machine, none.
    fn possible(&self, ctx: &Context) -> Vec<BTreeMap<String, String>> {
        let mut choices = vec![BTreeMap::new()];
        if self.repository.is_loopback() {
            for part in parts::included(ctx) {
                let with = choices.iter().cloned().map(|mut choice| {
                    choice.insert(part.name.clone(), UNREACHED.to_owned());
                    choice
                });
                choices.extend(with.collect::<Vec<_>>());
            }
        }
        choices.sort_by_key(BTreeMap::len);
        choices
    }

    /// The base without some of the parts that the tree includes.
    fn without(
        &self,
        ctx: &Context,
        left_out: BTreeMap<String, String>,
        platforms: &[Platform],
    ) -> Result<FoundBase> {
        let installed = |part: &Optional| part.include && !left_out.contains_key(&part.name);
        let optional = ctx.config.base_optional.iter();
        let args = optional.map(|part| (part.arg(), installed(part).to_string()));
        let args = args.chain(ctx.config.layers.record()).collect();
        let parents = self.debian.index.as_ref().map(|index| named("Debian", index));
        let is_known = parents.is_some();
        let mut inputs = Inputs::new(&self.entries, args, parents.unwrap_or_default());
        inputs.versions = self.versions.clone();
        let key = is_known.then(|| inputs.key());
        let tag = tag("base", key.as_ref());
        let index = match is_known {
            true => find_made_from(ctx, &self.repository, &tag, &inputs, platforms)?,
            false => None,
        };
        let (debian, repository) = (self.debian.reference(), self.repository.clone());
        let base = Base { key, tag, inputs, debian, repository, left_out };
        Ok(match index {
            Some(index) => FoundBase::Built(BuiltBase { base, index }),
            None => FoundBase::Absent(base),
        })
    }
}

/// The tag of an image: its name and its content key. An unknown key, which only a dry run has, is named as such.
pub(super) fn tag(name: &str, key: Option<&Key>) -> String {
    key.map_or_else(|| format!("{name}-<key>"), |key| format!("{name}-{key}"))
}

/// The complete index under a content key. The key is short, and any account that may push can put anything under it: the
/// record of inputs that travels with the image has to be the one that was asked for.
pub(super) fn find_made_from(
    ctx: &Context,
    repository: &Repository,
    tag: &str,
    inputs: &Inputs,
    platforms: &[Platform],
) -> Result<Option<CompleteIndex>> {
    let Some(image) = ctx.registry.complete(&ctx.runner, repository, tag, platforms)? else {
        return Ok(None);
    };
    let same = inputs_of(&image).is_some_and(|record| {
        (&record.files, &record.args, &record.parents) == (&inputs.files, &inputs.args, &inputs.parents)
    });
    if !same {
        bail!(
            "{} is an image that was made from other inputs than its name promises: delete that tag and run the same command again",
            repository.tag(tag)
        );
    }
    Ok(Some(image))
}

/// The inputs that an image was made from, as it carries them; `None` for an image that carries none.
pub fn inputs_of(image: &Manifest) -> Option<Inputs> {
    serde_json::from_str(image.annotation(INPUTS)?).ok()
}

/// The digest of each platform's image under a name, such as `base linux/amd64`.
pub(super) fn named(name: &str, index: &CompleteIndex) -> BTreeMap<String, String> {
    index.images().map(|(platform, digest)| (format!("{name} {platform}"), digest.to_string())).collect()
}
