//! Formats the pipeline's code; tests refuse what is not formatted.

use anyhow::Result;

use crate::ctx::Ctx;
use crate::model::command::Cmd;

pub fn run(ctx: &Ctx) -> Result<()> {
    ctx.runner.run(&Cmd::new("cargo", ["fmt", "--all"]))
}
