//! Resolves the lock files of all pinned versions, or says that they are not what the versions imply. Refuses, with
//! `--check`, locks that differ; writes all of them or none.

use anyhow::{Result, bail};

use crate::context::Context;
use crate::image::debian;
use crate::output;
use crate::tools::files::Edit;
use crate::upstream::{crane_archive, locks};

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only these components; `debian` is the parent image, `crane` the program [default: all]
    pub components: Vec<String>,
    /// Write nothing; fail with a diff if a lock is not what the pinned versions imply
    #[arg(long, conflicts_with = "upgrade")]
    pub check: bool,
    /// Take everything below the pinned versions as new as it may be
    #[arg(long)]
    pub upgrade: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let asks = |name: &str| args.components.is_empty() || args.components.iter().any(|it| it == name);
    let is_component = |name: &&String| ![debian::NAME, crane_archive::NAME].contains(&name.as_str());
    let components = match args.components.is_empty() {
        true => ctx.config.component.iter().collect(),
        false => {
            let named = args.components.iter().filter(is_component);
            named.map(|name| ctx.config.component(name)).collect::<Result<Vec<_>>>()?
        }
    };
    let mut edits = match components.is_empty() {
        true => Vec::new(),
        false => locks::resolve(ctx, &components, &locks::pinned(ctx)?, args.upgrade)?,
    };
    if asks(debian::NAME) {
        edits.push(debian::lock(ctx, args.upgrade)?);
    }
    if asks(crane_archive::NAME) {
        edits.push(crane_archive::lock(ctx, args.upgrade)?);
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
    output::text(diff);
    ctx.replace(&edits)
}
