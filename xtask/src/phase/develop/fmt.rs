//! Formats the pipeline's code; tests refuse what is not formatted.

use anyhow::Result;

use crate::context::Context;
use crate::model::command::Cmd;

pub fn run(ctx: &Context) -> Result<()> {
    ctx.runner.run(&Cmd::new("cargo", ["fmt", "--all"]))
}
