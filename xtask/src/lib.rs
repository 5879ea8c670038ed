//! Release pipeline of opencode-devbox.
//!
//! Invariants that every module keeps:
//! 1. `images/devbox.toml` and the `ARG` defaults of the Dockerfiles are the only definition.
//! 2. Images are addressed by content keys ([`model::key`]), never by time or ancestry.
//! 3. What the registry already holds, complete on every platform, is not built again.
//! 4. The registry is the only state: stages, verdicts and tags live there.
//! 5. The digest that passed the smoke suite is the digest that gets the tag.
//! 6. Every target is checked before the first tag moves; version tags first, floating tags last.
//! 7. A probe answers present, absent or "cannot tell"; only a clear 404 is absent.
//! 8. Secrets come from the environment and travel by header or standard input.
//!
//! `model` is pure; `tools` reach one outside system each; `phase` holds one file per subcommand and reads like
//! the release checklist. `state` asks the registry what exists for this tree.

pub mod addresses;
pub mod bench;
pub mod cli;
pub mod crane_archive;
pub mod ctx;
pub mod debian_image;
pub mod disk;
pub mod forge;
pub mod image;
pub mod locks;
pub mod model;
pub mod nodes;
pub mod packages;
pub mod page;
pub mod phase;
pub mod promotion;
pub mod recipe;
pub mod setup;
pub mod state;
pub mod summary;
pub mod supply;
pub mod tools;
pub mod upstream;

use std::process::ExitCode;

/// Something that has to be there first (a tool, a stage, a verdict, a credential) is missing.
/// Its message ends with the command that mends it; it makes the exit code 3.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Shorthand for a [`Missing`] error.
pub fn missing(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Missing(message.into()))
}

/// Exit codes: 0 done, 1 failed, 2 wrong usage (clap), 3 a prerequisite is missing.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Missing>() {
        Some(_) => ExitCode::from(3),
        None => ExitCode::from(1),
    }
}

/// Runs the subcommand, and tells CI how it went.
pub fn run(cli: cli::Cli) -> anyhow::Result<()> {
    let ctx = ctx::Ctx::new(&cli)?;
    tools::files::finish_interrupted(&ctx.root, &ctx.root.join(ctx::STATE), ctx.runner.dry_run)?;
    ctx.runner.begin(std::time::Duration::from_secs(60 * cli.command.limit_minutes()));
    let start = std::time::Instant::now();
    let result = dispatch(&ctx, &cli);
    summary::write(&ctx, &cli.command, start, &result);
    if ctx.runner.verbose {
        for (host, sent) in tools::http::sent() {
            eprintln!("{host}: {} requests, {} of them writes", sent.requests, sent.writes);
        }
    }
    result
}

fn dispatch(ctx: &ctx::Ctx, cli: &cli::Cli) -> anyhow::Result<()> {
    use cli::Command;
    match &cli.command {
        Command::Doctor(args) => phase::doctor::run(ctx, args),
        Command::BaseDecide => phase::base_decide::run(ctx).map(drop),
        Command::BuildBase => phase::build_base::run(ctx),
        Command::Build(args) => phase::build::run(ctx, args),
        Command::Smoke(args) => {
            // `--platform` picks from an image of all platforms, where there is one.
            let whole = ctx::Ctx {
                platforms: ctx.config.platforms.clone(),
                ci: ctx.ci.clone(),
                ..ctx::Ctx::new(cli)?
            };
            let staged = phase::smoke::is_staged(&whole, args)?;
            phase::smoke::run(if staged { &whole } else { ctx }, args, &ctx.platforms)
        }
        Command::Publish(args) => phase::publish::run(ctx, args),
        Command::Repair(args) => phase::repair::run(ctx, args),
        Command::Rollback(args) => phase::rollback::run(ctx, args),
        Command::Plan => phase::plan::run(ctx),
        Command::Explain(args) => phase::explain::run(ctx, args),
        Command::Status => phase::status::run(ctx),
        Command::PromoteBaseLatest => phase::promote_base_latest::run(ctx),
        Command::UpdateDescription => phase::update_description::run(ctx),
        Command::Docs(args) => phase::docs::run(ctx, args),
        Command::Bump(args) => phase::bump::run(ctx, args),
        Command::BumpOpencode(args) => phase::bump::opencode(ctx, args),
        Command::Outdated(args) => phase::outdated::run(ctx, args),
        Command::RefreshBase(args) => phase::refresh_base::run(ctx, args),
        Command::NextTag => phase::next_tag::run(ctx),
        Command::Changelog(args) => phase::changelog::run(ctx, args),
        Command::Lock(args) => phase::lock::run(ctx, args),
        Command::Preflight(args) => phase::preflight::run(ctx, args),
        Command::VerifyReproducible(args) => phase::verify_reproducible::run(ctx, args),
        Command::Validate => phase::validate::run(ctx),
        Command::Release(args) => phase::release::run(ctx, args, cli.json),
        Command::Local(args) => phase::local::run(ctx, args),
        Command::Test(args) => phase::test::run(ctx, args),
        Command::Bench(args) => phase::bench::run(ctx, args),
        Command::Fmt => phase::fmt::run(ctx),
        Command::Workflows(args) => phase::workflows::run(ctx, args),
        Command::Reclaim => phase::reclaim::run(ctx),
        Command::Completions(args) => phase::completions::run(args),
    }
}
