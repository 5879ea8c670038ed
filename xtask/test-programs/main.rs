//! Stand-ins for the programs that a release starts, as one program that acts by the name it was started with, as busybox
//! does. Each appends its command line to the file that `FAKE_LOG` names.
#![allow(clippy::disallowed_methods, reason = "not part of the pipeline")]

mod docker;
mod push;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut words = std::env::args();
    let started = words.next().unwrap_or_default();
    let args: Vec<String> = words.collect();
    match Path::new(&started).file_name().and_then(|name| name.to_str()) {
        Some("docker") => docker::run(&args),
        Some("crane") => real("crane", &args),
        _ => {
            eprintln!("{started}: no stand-in has this name");
            ExitCode::from(127)
        }
    }
}

/// The value of a variable; nothing if it is unset or empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Appends a line to the log, or to the file beside it that has this ending.
fn log(ending: &str, line: &str) {
    let Some(file) = variable("FAKE_LOG") else { return };
    // One write, so that lines of programs that run side by side stay whole.
    let opened = OpenOptions::new().create(true).append(true).open(format!("{file}{ending}"));
    if let Err(error) = opened.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes())) {
        eprintln!("{file}{ending}: {error}");
    }
}

/// The real program, which is the next one on PATH.
fn real(name: &str, args: &[String]) -> ExitCode {
    log("", &format!("{name} {}", args.join(" ")));
    let path = variable("PATH").unwrap_or_default();
    let rest = path.split_once(':').map_or("", |(_, rest)| rest);
    let found = rest.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file());
    let Some(file) = found else {
        eprintln!("{name}: not found");
        return ExitCode::from(127);
    };
    let error = Command::new(&file).args(args).env("PATH", rest).exec();
    eprintln!("{}: {error}", file.display());
    ExitCode::from(126)
}
