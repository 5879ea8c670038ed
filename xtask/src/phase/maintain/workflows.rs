//! Writes the CI workflows, and the picture of a release's jobs, from the definition; `--check` compares instead.
//! Refuses, with `--check`, a workflow that was edited by hand.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::model::{environment, workflow};
use crate::project::generated;
use crate::tools::files::Edit;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Fail with a diff if a workflow is not up to date
    #[arg(long)]
    pub check: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let page = ctx.read(workflow::PAGE)?;
    let drawn = environment::splice(&page, workflow::PASSAGE, &workflow::diagram(&ctx.config)?)?;
    let after =
        drawn.with_context(|| format!("{} has no passage `{}`", workflow::PAGE, workflow::PASSAGE))?;
    let mut edits = vec![Edit { path: workflow::PAGE.to_owned(), before: page, after }];
    for (path, after) in workflow::pages(&ctx.config)? {
        let before = ctx.read_if_there(&path);
        edits.push(Edit { path, before, after });
    }
    generated::settle(ctx, &edits, args.check, "workflows are out of date: run `cargo xtask workflows`")
}
