//! Sends to Docker Hub what differs of DOCKER_HUB.md and the short description, and reads it back. Refuses a text that
//! is too long, and an answer that is not what was sent. An account that may not edit the description is a warning.

use anyhow::{Result, bail};

use crate::context::Context;
use crate::model::config::HUB_DESCRIPTION_BYTES;
use crate::model::reference::Repository;
use crate::model::version::ReleaseTag;
use crate::output;
use crate::promotion::release_tag;
use crate::tools::hub::{Hub, NotAllowed};

/// The release that users get, if it is newer than this tree's: the rerun of an older release must not describe it.
fn newer_release(ctx: &Context, repository: &Repository) -> Result<Option<ReleaseTag>> {
    let newest = release_tag::floating(ctx, repository)?.newest();
    let pinned = ctx.opencode_version()?;
    Ok(newest.filter(|newest| match ctx.release_tag {
        Some(own) => *newest > own,
        None => newest.version > pinned,
    }))
}

pub fn run(ctx: &Context) -> Result<()> {
    if ctx.holds_latest_back() {
        return Ok(());
    }
    let repository = ctx.repository()?;
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
        output::line(format!(
            "# PATCH {}/v2/repositories/{}/ with DOCKER_HUB.md",
            account.url,
            repository.path()
        ));
        return Ok(());
    }
    if let Some(newer) = newer_release(ctx, &repository)? {
        ctx.say(format!("latest is at {newer}, newer than this tree: the description stays"));
        return Ok(());
    }
    let hub = Hub::login(&account)?;
    let wanted = (full, short.clone());
    let there = hub.description(&repository)?;
    if there == wanted {
        ctx.say("the description is up to date");
        return Ok(());
    }
    let full = (there.0 != wanted.0).then_some(wanted.0.as_str());
    let short = (there.1 != wanted.1).then_some(wanted.1.as_str());
    // An organization's access token pushes images and edits no description: a release goes without a new one.
    match hub.describe(&repository, full, short) {
        Err(error) if error.is::<NotAllowed>() => {
            ctx.say(format!("warning: {error:#}"));
            return Ok(());
        }
        result => result?,
    }
    if hub.description(&repository)? != wanted {
        bail!(
            "Docker Hub took the description of {repository} but shows another: run the same command again"
        );
    }
    ctx.say(format!("described {repository}"));
    Ok(())
}
