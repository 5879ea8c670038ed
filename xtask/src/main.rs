//! Parses the command line, hands over, prints one line on failure. No decisions live here.

use std::process::ExitCode;

use clap::Parser;
use xtask::model::source::without_accounts;
use xtask::tools::children;

fn main() -> ExitCode {
    end_with_the_reader();
    if let Err(error) = children::end_on_signals() {
        eprintln!("error: cannot handle signals: {error}");
        return ExitCode::FAILURE;
    }
    let cli = xtask::cli::Cli::parse();
    match xtask::cli::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("{error:#}");
            eprintln!("error: {}", without_accounts(&text));
            xtask::error::exit_code(&error)
        }
    }
}

/// Exits quietly on a broken pipe, as other programs do by SIGPIPE, which the standard library ignores.
fn end_with_the_reader() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|text| text.contains("Broken pipe")) {
            children::exit(141);
        }
        told(panic);
    }));
}
