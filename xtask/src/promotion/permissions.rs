//! Proves, before anything is written or built, that the accounts may do what a release will ask of them.

use crate::ctx::{Ctx, Destination};
use crate::model::reference::Repository;
use crate::state;
use crate::tools::hub::Hub;

/// What is not allowed, a line each; nothing where the images stay on this machine.
pub fn missing(ctx: &Ctx, repository: &Repository) -> Vec<String> {
    if ctx.destination == Destination::Local || ctx.runner.dry_run {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for target in [repository, &state::staging(ctx, repository)] {
        if let Err(error) = ctx.registry.prove_push(&ctx.runner, target) {
            problems.push(format!("{error:#}"));
        }
    }
    if repository.is_docker_hub()
        && let Err(error) = ctx.hub_account().and_then(|account| Hub::login(&account)?.prove_edit(repository))
    {
        problems.push(format!("{error:#}"));
    }
    problems
}
