//! The programs that resolve locks, npm and uv, from this repository's own lock.

use std::fs;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::context::sources;
use crate::model::source::Source;
use crate::tools::command::cmd;
use crate::tools::toolbox::{self, Toolbox};
use crate::tools::web::Web;

/// The lock of the tools, from which the tools themselves are taken.
const TOOLS: &str = "images/locks/python/tools.txt";

/// The tools that resolve locks.
pub fn toolbox(ctx: &Context) -> Result<Toolbox> {
    let state = ctx.state_dir();
    fs::create_dir_all(&state).with_context(|| format!("cannot create {state}"))?;
    let (index, ca) = (sources::pypi_index(ctx)?, ctx.settings.ca_bundle.as_deref());
    let (web, npm) = (Web::with_accounts(&ctx.agent, [&index]), sources::configured_npm(ctx));
    toolbox::open(&ctx.runner, &web, &index, npm, &state, &ctx.read(TOOLS)?, ca)
        .context("cannot get the tools that resolve locks")
}

/// The npm registry: the configured one, or npm's own default, by the npm of this machine or the one that locks are made
/// with.
pub fn npm_registry(ctx: &Context) -> Result<Source> {
    if let Some(known) = sources::configured_npm(ctx) {
        return Ok(known);
    }
    if let Some(known) = ctx.npm_registry.get() {
        return Ok(known.clone());
    }
    let get = cmd!("npm config get registry");
    let text = match ctx.runner.probe(&get) {
        Some(text) => text,
        None => ctx.runner.read(&toolbox(ctx)?.npm(get))?,
    };
    Ok(ctx.npm_registry.get_or_init(|| Source::from(text.as_str())).clone())
}
