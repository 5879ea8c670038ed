//! Formats the pipeline's code; tests refuse what is not formatted.

use anyhow::Result;

use crate::context::Context;
use crate::tools::command::cmd;

pub fn run(ctx: &Context) -> Result<()> {
    ctx.runner.run(&cmd!("cargo fmt --all"))
}
