//! Says why two images differ: which inputs, packages and layers. An image is named by a tag, a content key or a
//! digest; without a second one, the first is compared with what this tree would make. Refuses an image that does not
//! say what it was made from.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::image::tree::Tree;
use crate::image::{base, changes, variant, verdict};
use crate::model::key::Inputs;
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tag, content key or digest of an image, such as latest-omos, v1.18.18 or base-0123456789ab
    pub image: String,
    /// The image to compare it with [default: what this tree would make]
    pub other: Option<String>,
}

/// An image, or what the tree would make.
struct Side {
    name: String,
    inputs: Inputs,
    /// The index and where it was found; nothing for a tree whose image is not built.
    found: Option<(Repository, Manifest)>,
}

#[derive(Serialize)]
struct LayerChange {
    platform: Platform,
    shared: usize,
    removed: Vec<(String, u64)>,
    added: Vec<(String, u64)>,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let repository = ctx.repository()?;
    let old = find(ctx, &repository, &args.image)?;
    let new = match &args.other {
        Some(other) => find(ctx, &repository, other)?,
        None => of_tree(ctx, &old)?,
    };
    let (_, index) = old.found.as_ref().context("an image without an index")?;
    let changes = changes::since(ctx, index, &new.inputs).unwrap_or_default();
    let packages = packages(ctx, &old, &new)?;
    let layers = layers(ctx, &old, &new)?;
    if ctx.json {
        let document = json!({ "from": old.name, "to": new.name, "inputs": changes, "packages": packages,
            "layers": layers });
        output::line(document);
        return Ok(());
    }
    output::line(format!("{} → {}", old.name, new.name));
    section("inputs", changes.iter().map(ToString::to_string).collect(), "the same");
    match packages {
        Some(lines) => section("Debian packages", lines, "the same"),
        None => output::line("Debian packages: not recorded for both; `cargo xtask smoke` records them"),
    }
    if layers.is_empty() {
        output::line("layers: one side is not built");
    }
    for change in layers {
        let mb = |layers: &[(String, u64)]| layers.iter().map(|(_, size)| size).sum::<u64>() as f64 / 1e6;
        output::line(format!(
            "layers on {}: {} shared, {} gone ({:.1} MB), {} new ({:.1} MB)",
            change.platform,
            change.shared,
            change.removed.len(),
            mb(&change.removed),
            change.added.len(),
            mb(&change.added)
        ));
    }
    Ok(())
}

fn section(title: &str, lines: Vec<String>, none: &str) {
    if lines.is_empty() {
        output::line(format!("{title}: {none}"));
        return;
    }
    output::line(format!("{title}:"));
    lines.iter().for_each(|line| output::line(format!("  {line}")));
}

/// Looks an image up: in the repository, then, with each prefix that a content key may have, in staging.
fn find(ctx: &Context, repository: &Repository, name: &str) -> Result<Side> {
    let staging = ctx.staging(repository);
    let variants = ctx.config.variant.iter().map(|variant| (&staging, format!("{}-{name}", variant.name)));
    let places =
        [(repository, name.to_owned()), (&staging, name.to_owned()), (repository, format!("base-{name}"))];
    for (place, reference) in places.into_iter().chain(variants) {
        let Some(index) = ctx.registry.image(&ctx.runner, place, &reference)? else { continue };
        let Some(inputs) = base::inputs_of(&index) else {
            bail!(
                "{} does not say what it was made from: it is not an image of this pipeline",
                place.tag(&reference)
            );
        };
        return Ok(Side { name: reference, inputs, found: Some((place.clone(), index)) });
    }
    bail!(
        "neither {repository} nor {staging} has an image {name:?}: `cargo xtask status` names the last release"
    )
}

/// What the tree would make of the kind of image that `old` is.
fn of_tree(ctx: &Context, old: &Side) -> Result<Side> {
    let tree = Tree::load(ctx)?;
    let base = base::find(ctx, &tree, &ctx.platforms)?;
    // The build arguments show whether an image is a variant or a base.
    let of_variant = |name: &str| old.inputs.args.contains_key(&format!("INSTALL_{name}"));
    if !of_variant("OPENCODE") {
        let found = base.as_built().map(|built| (base.repository.clone(), (*built.index).clone()));
        return Ok(Side { name: "this tree".to_owned(), inputs: base.inputs.clone(), found });
    }
    for variant in &ctx.config.variant {
        let inputs = variant::inputs(ctx, &tree, variant, old.inputs.parents.clone())?;
        if inputs.args != old.inputs.args {
            continue;
        }
        let name = format!("{} of this tree", variant.name);
        let Some(base) = base.as_built() else { return Ok(Side { name, inputs, found: None }) };
        let found = variant::find(ctx, &tree, base, std::slice::from_ref(&variant.name))?;
        let plan = found.first().context("a variant that is not defined")?;
        let found = plan.as_staged().map(|staged| (staged.staging.clone(), (*staged.index).clone()));
        return Ok(Side { name, inputs: plan.inputs.clone(), found });
    }
    bail!("this tree has no variant like {}: name a second image to compare it with", old.name)
}

/// Differences between the recorded package lists; `None` where one of them was not recorded.
fn packages(ctx: &Context, old: &Side, new: &Side) -> Result<Option<Vec<String>>> {
    let (Some(old), Some(new)) = (package_list(ctx, old)?, package_list(ctx, new)?) else { return Ok(None) };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let line = |name: &String| match (old.get(name), new.get(name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => Some(format!("{name} {a} → {b}")),
        (Some(a), None) => Some(format!("{name} {a} gone")),
        (None, b) => Some(format!("{name} {} new", b.map_or("", String::as_str))),
    };
    Ok(Some(names.into_iter().filter_map(line).collect()))
}

/// Debian packages with their versions, as the smoke test of one of the platforms recorded them.
fn package_list(ctx: &Context, side: &Side) -> Result<Option<BTreeMap<String, String>>> {
    let Some((repository, index)) = &side.found else { return Ok(None) };
    // Verdicts lie in the staging repository, and are the same for an image wherever it was copied to.
    let public = ctx.repository()?;
    let staging = if *repository == public { ctx.staging(repository) } else { repository.clone() };
    for platform in &ctx.platforms {
        let Some(image) = index.platform(*platform) else { continue };
        let verdicts = verdict::all(ctx, &staging, image)?;
        if let Some(verdict) = verdicts.iter().find(|verdict| !verdict.packages.is_empty()) {
            let pair = |line: &str| {
                let mut words = line.split('\t');
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            };
            return Ok(Some(verdict.packages.lines().filter_map(pair).collect()));
        }
    }
    Ok(None)
}

fn layers(ctx: &Context, old: &Side, new: &Side) -> Result<Vec<LayerChange>> {
    let (Some((old_place, old)), Some((new_place, new))) = (&old.found, &new.found) else {
        return Ok(Vec::new());
    };
    let mut changes = Vec::new();
    for platform in &ctx.platforms {
        let (Some(old), Some(new)) = (old.platform(*platform), new.platform(*platform)) else { continue };
        let of = |place: &Repository, digest: &str| -> Result<Vec<(String, u64)>> {
            let image = ctx.registry.manifest(&ctx.runner, place, digest)?;
            Ok(image.context("an index without its image")?.layers())
        };
        let (old, new) = (of(old_place, old)?, of(new_place, new)?);
        changes.push(LayerChange {
            platform: *platform,
            shared: new.iter().filter(|layer| old.contains(layer)).count(),
            removed: old.iter().filter(|layer| !new.contains(layer)).cloned().collect(),
            added: new.iter().filter(|layer| !old.contains(layer)).cloned().collect(),
        });
    }
    Ok(changes)
}
