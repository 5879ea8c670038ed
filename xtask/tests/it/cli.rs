//! What a user meets: help, mistakes, exit codes.

use std::process::{Command, Output};

use clap::CommandFactory;

fn xtask(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(args).env_remove("DEVBOX_REPOSITORY").env_remove("DEVBOX_RELEASE_TAG");
    command.output().unwrap()
}

#[track_caller]
fn refused(args: &[&str], code: i32, part: &str) {
    let output = xtask(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(part), "{text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
}

#[test]
fn a_mistake_gets_one_line_that_names_the_fix() {
    refused(&["smoke", "omo"], 1, "choose from: base, omos, with-pi, omos-with-pi");
    refused(&["build", "nope"], 1, "no variant \"nope\"");
    refused(&["bump-opencode", "1.18"], 2, "three numbers such as 1.18.18");
    refused(&["publish", "--release-tag", "v1.18.18a"], 2, "never ends in a");
    refused(&["build", "--platform", "linux/s390x"], 2, "linux/amd64 or linux/arm64");
    refused(&["publish", "--repository", "a/b:latest"], 2, "without tag");
    refused(
        &["publish", "--repository", "docker.io/you/devbox", "--only", "base"],
        1,
        "publish part of a release",
    );
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    for command in xtask::cli::Cli::command().get_subcommands() {
        let output = xtask(&[command.get_name(), "--help"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("Example"), "{}: {text}", command.get_name());
    }
}

#[test]
fn completions_name_the_subcommands() {
    let text = String::from_utf8(xtask(&["completions", "bash"]).stdout).unwrap();
    assert!(text.contains("promote-base-latest"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_to_tell_of() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["completions", "bash"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(141), true));
}
