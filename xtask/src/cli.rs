//! The command line: global options and the command, and what every run does around it.

use std::time::Instant;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use crate::context::{self, Context};
use crate::image::summary;
use crate::output;
use crate::phase::Command;
use crate::settings::Options;
use crate::tools::{files, http, logs};

/// Builds, tests and publishes the opencode-devbox images.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a prerequisite is missing (the message names the fix),
/// 130 or 143 ended by Ctrl-C or SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

/// Runs the command and reports its result to CI.
pub fn run(cli: &Cli) -> Result<()> {
    let Cli { options, command } = cli;
    let mut ctx = Context::new(options, command.target())?;
    files::finish_interrupted(&ctx.root, &ctx.root.join(context::STATE), ctx.runner.dry_run)?;
    if let Some(name) = command.shown_live().filter(|_| ctx.may_show_live(options)) {
        ctx.runner.logs = Some(logs::begin(&ctx.root.join(context::STATE).join("logs"))?);
        output::begin_live(name);
    }
    ctx.runner.begin(command.deadline());
    let start = Instant::now();
    let result = command.run(&ctx, options, &Cli::command());
    output::end_live();
    summary::write(&ctx, command.listed_variants(), start, &result);
    if ctx.runner.verbose {
        for (host, sent) in http::sent() {
            output::note(format!("{host}: {} requests, {} of them writes", sent.requests, sent.writes));
        }
    }
    result
}
