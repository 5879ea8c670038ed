//! Resolves the lock files of all pinned versions, or says that they are not what the versions imply. Refuses, with
//! `--check`, locks that differ; writes all of them or none.

use anyhow::{Result, bail};

use crate::context::Context;
use crate::image::debian;
use crate::tools::files::Edit;
use crate::upstream::locks;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only these components, or `debian` for the image below them [default: all]
    pub components: Vec<String>,
    /// Write nothing; fail with a diff if a lock is not what the pinned versions imply
    #[arg(long, conflicts_with = "upgrade")]
    pub check: bool,
    /// Take everything below the pinned versions as new as it may be
    #[arg(long)]
    pub upgrade: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let (debian, named): (Vec<_>, Vec<_>) = args.components.iter().partition(|name| *name == debian::NAME);
    let components = match args.components.is_empty() {
        true => ctx.config.component.iter().collect(),
        false => named.into_iter().map(|name| ctx.config.component(name)).collect::<Result<Vec<_>>>()?,
    };
    let mut edits = locks::resolve(ctx, &components, &locks::pinned(ctx)?, args.upgrade)?;
    if args.components.is_empty() || !debian.is_empty() {
        edits.push(debian::lock(ctx, args.upgrade)?);
    }
    let changed: Vec<&Edit> = edits.iter().filter(|edit| edit.changes()).collect();
    if changed.is_empty() {
        ctx.say("the locks are what the pinned versions imply");
        return Ok(());
    }
    let diff: String = changed.iter().map(|edit| edit.diff()).collect();
    if args.check {
        bail!("the locks are not what the pinned versions imply: run `cargo xtask lock`\n{diff}");
    }
    print!("{diff}");
    ctx.replace(&edits)
}
