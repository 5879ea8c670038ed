//! Writes DOCKER_HUB.md from its template and the definition, the page of commands, and the passages that other files
//! get from the table of environment variables; `--check` compares instead. Refuses, with `--check`, a page that
//! differs.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::model::environment::{self, Environment};
use crate::model::hub_page::Sizes;
use crate::model::launcher::{self, LAUNCHER};
use crate::model::version::ReleaseTag;
use crate::project::generated::{self, COMMANDS, SIZES};
use crate::tools::files::Edit;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Fail with a diff if a generated file is not up to date
    #[arg(long)]
    pub check: bool,
    /// Weigh this release in the registry first
    #[arg(long, value_name = "RELEASE", conflicts_with = "check")]
    pub sizes: Option<ReleaseTag>,
}

pub fn run(ctx: &Context, args: &Args, definition: &clap::Command) -> Result<()> {
    let mut edits = Vec::new();
    let sizes = match args.sizes {
        None => generated::sizes(ctx)?,
        Some(release) => {
            let sizes = weigh(ctx, release)?;
            let before = ctx.read_if_there(SIZES);
            edits.push(Edit {
                path: SIZES.to_owned(),
                before,
                after: serde_json::to_string_pretty(&sizes)? + "\n",
            });
            sizes
        }
    };
    edits.push(generated::edit(ctx, &ctx.versions()?.into_iter().collect(), &sizes)?);
    let before = ctx.read_if_there(COMMANDS);
    edits.push(Edit { path: COMMANDS.to_owned(), before, after: generated::commands(definition) });
    for (path, after) in environment::pages(|path| ctx.read(path))? {
        let before = ctx.read_if_there(&path);
        edits.push(Edit { path, before, after });
    }
    let launcher = ctx.read(LAUNCHER)?;
    let table = Environment::parse(&ctx.read(environment::TABLE)?)?;
    let after = launcher::page(&launcher, &table, &ctx.config, &ctx.read(launcher::HOSTS)?)?;
    edits.push(Edit { path: LAUNCHER.to_owned(), before: launcher, after });
    generated::settle(ctx, &edits, args.check, "generated files are out of date: run `cargo xtask docs`")
}

fn weigh(ctx: &Context, release: ReleaseTag) -> Result<Sizes> {
    let repository = ctx.repository()?;
    let mut sizes = Sizes { release: release.to_string(), ..Sizes::default() };
    for variant in &ctx.config.variant {
        let tag = variant.version_tag(release);
        let index = ctx.registry.image(&ctx.runner, &repository, &tag)?;
        let index = index.with_context(|| format!("{} is not published", repository.tag(&tag)))?;
        for platform in &ctx.platforms {
            let Some(digest) = index.platform(*platform) else { continue };
            let image = ctx.registry.manifest(&ctx.runner, &repository, digest)?;
            let bytes = image.context("an index without its image")?.layer_bytes();
            sizes.bytes.entry(variant.name.clone()).or_default().insert(*platform, bytes);
        }
    }
    Ok(sizes)
}
