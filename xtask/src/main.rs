//! Parses the command line, hands over, prints one line on failure. No decisions live here.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use xtask::{cli, error, output, tools::children};

fn main() -> ExitCode {
    exit_on_broken_pipe();
    let done = children::end_on_signals().context("cannot handle signals");
    match done.and_then(|()| cli::run(&cli::Cli::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("error: {error:#}"));
            error::exit_code(&error)
        }
    }
}

/// Exits quietly on a broken pipe, as other programs do by SIGPIPE, which the standard library ignores.
fn exit_on_broken_pipe() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|text| text.contains("Broken pipe")) {
            children::exit(141);
        }
        report(panic);
    }));
}
