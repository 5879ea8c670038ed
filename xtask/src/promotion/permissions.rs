//! Proves, before anything is written or built, that the accounts may do what a release will ask of them.

use anyhow::Result;

use crate::context::{Context, Destination};
use crate::image::base::BASE_LATEST;
use crate::model::config::Variant;
use crate::model::reference::Repository;
use crate::tools::hub::{Hub, NotAllowed};

/// What the accounts may not do.
#[derive(Default)]
pub struct Findings {
    /// What keeps a release from being published, a line each.
    pub problems: Vec<String>,
    /// What a release goes without, a line each.
    pub warnings: Vec<String>,
}

/// What keeps a release from being published, a line each; nothing where the images stay in this project's own registry.
pub fn missing(ctx: &Context, repository: &Repository) -> Vec<String> {
    let found = findings(ctx, repository);
    found.warnings.iter().for_each(|warning| ctx.say(format!("warning: {warning}")));
    found.problems
}

/// Asks the registry, and Docker Hub where the images go there.
pub fn findings(ctx: &Context, repository: &Repository) -> Findings {
    let mut found = Findings::default();
    if ctx.destination == Destination::Local || ctx.runner.dry_run {
        return found;
    }
    for target in [repository, &ctx.staging(repository)] {
        if let Err(error) = ctx.registry.prove_push(&ctx.runner, target) {
            found.problems.push(format!("{error:#}"));
        }
    }
    if repository.is_docker_hub()
        && let Err(error) = ask_hub(ctx, repository, &mut found)
    {
        found.problems.push(format!("{error:#}"));
    }
    found
}

fn ask_hub(ctx: &Context, repository: &Repository, found: &mut Findings) -> Result<()> {
    let hub = Hub::login(&ctx.hub_account()?)?;
    let immutable = hub.immutable_tags(repository)?;
    let floating = ctx.config.variant.iter().map(Variant::latest_tag).chain([BASE_LATEST.to_owned()]);
    for tag in floating {
        if let Some(rule) = immutable.keeps(&tag) {
            found.problems.push(format!(
                "{repository} keeps {tag} immutable ({rule}), so it cannot move: change the repository's tag mutability settings"
            ));
        }
    }
    match hub.prove_edit(repository) {
        Err(error) if error.is::<NotAllowed>() => found.warnings.push(format!("{error:#}")),
        result => result?,
    }
    Ok(())
}
