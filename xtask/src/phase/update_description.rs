//! Sends DOCKER_HUB.md to Docker Hub, if it differs, and reads it back.

use anyhow::{Result, bail};

use crate::ctx::Ctx;
use crate::model::config::HUB_DESCRIPTION_BYTES;
use crate::state;
use crate::tools::hub::Hub;

pub fn run(ctx: &Ctx) -> Result<()> {
    let repository = state::repository(ctx)?;
    if !repository.is_docker_hub() {
        ctx.say(format!("{repository} is not on Docker Hub: no description to update"));
        return Ok(());
    }
    let full = ctx.read("DOCKER_HUB.md")?;
    if full.len() > HUB_DESCRIPTION_BYTES {
        bail!("DOCKER_HUB.md has {} bytes, Docker Hub takes {HUB_DESCRIPTION_BYTES}: shorten it", full.len());
    }
    let short = &ctx.config.short_description;
    let account = ctx.hub_account()?;
    if ctx.runner.dry_run {
        println!("# PATCH {}/v2/repositories/{}/ with DOCKER_HUB.md", account.url, repository.path());
        return Ok(());
    }
    let hub = Hub::login(&account)?;
    let wanted = (full, short.clone());
    if hub.description(&repository)? == wanted {
        ctx.say("the description is up to date");
        return Ok(());
    }
    hub.describe(&repository, &wanted.0, &wanted.1)?;
    if hub.description(&repository)? != wanted {
        bail!(
            "Docker Hub took the description of {repository} but shows another: run the same command again"
        );
    }
    ctx.say(format!("described {repository}"));
    Ok(())
}
