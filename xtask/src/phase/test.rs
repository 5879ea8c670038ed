//! All tests, cheapest first. `--fast` leaves out what needs an engine. Refuses nothing itself; the first failure ends
//! it.

use std::thread;

use anyhow::Result;

use crate::addresses;
use crate::ctx::Ctx;
use crate::missing;
use crate::model::command::Cmd;
use crate::phase::{doctor, validate};
use crate::tools::{crane, local};

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only what needs no Docker engine: format, lints, unit and black-box tests; crane and docker-registry have to be there
    #[arg(long)]
    pub fast: bool,
    /// Every crash point and race instead of a sample, which takes hours
    #[arg(long, conflicts_with = "fast")]
    pub exhaustive: bool,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let cargo = |line: &str| ctx.runner.run(&Cmd::new("cargo", line.split(' ')));
    cargo("fmt --all --check")?;
    cargo("clippy --locked --workspace --all-targets -- -D warnings")?;
    // The black-box tests run the real crane before real registries.
    match args.fast {
        true => require(ctx)?,
        false => doctor::run(ctx, &doctor::Args { install: true })?,
    }
    // The black-box tests wait for servers and programs more than they compute.
    let threads = thread::available_parallelism().map_or(1, usize::from) * 3;
    let tests = Cmd::new("cargo", ["test", "--locked", "--workspace"]);
    ctx.runner.run(&tests.env("RUST_TEST_THREADS", threads.to_string()))?;
    // The image's own program, which is Python.
    ctx.runner.run(&Cmd::new("python3", "-m unittest discover -q -s xtask/tests/devbox".split(' ')))?;
    if args.fast {
        return Ok(());
    }
    // The rest is the real thing: a release of one variant through a real engine into a real registry.
    validate::run(ctx)?;
    // The registries that the release is tried on behave as the tests believe.
    cargo("test --locked --package registry-lab -- --ignored")?;
    let repository = local::repository(&ctx.runner, &ctx.state_dir())?;
    let live = Cmd::new(
        "cargo",
        [
            "test",
            "--locked",
            "--package",
            "xtask",
            "--test",
            "it",
            "--",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ],
    );
    let live = live.env("DEVBOX_LIVE_REPOSITORY", format!("{}/live/opencode-devbox", repository.host()));
    let live = live.env("DEVBOX_TEST_EXHAUSTIVE", if args.exhaustive { "1" } else { "0" });
    let act = validate::python_tool(ctx, "act")?.join("bin/act");
    let live = live.env("DEVBOX_LIVE_ACT", act.as_str());
    let live = live.env("DEVBOX_LIVE_NPM", addresses::npm_registry(ctx)?.url);
    ctx.runner.run(&live.env("DEVBOX_LIVE_PYPI", addresses::pypi_index(ctx)?.url))
}

/// The programs that the black-box tests start.
fn require(ctx: &Ctx) -> Result<()> {
    for cmd in [crane::version(), Cmd::new("docker-registry", ["--version"])] {
        if ctx.runner.probe(&cmd).is_none() {
            return Err(missing(format!(
                "{} is not installed: run `cargo xtask doctor --install`",
                cmd.program
            )));
        }
    }
    Ok(())
}
