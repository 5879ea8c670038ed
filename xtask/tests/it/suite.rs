//! The smoke suite itself, with a docker that answers wrongly: what does not work is told, and so is what gave no result.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

/// Containers start, print what a server prints, and can be removed; nothing works in them.
const DOCKER: &str = "#!/bin/sh\ncase $1 in\n  version) echo linux/amd64 ;;\n  create) echo id ;;\n  \
                      start) echo listening on 127.0.0.1 ;;\n  rm | ps | volume) ;;\n  run) [ \"$2\" = --detach ] ;;\n  *) exit 1 ;;\nesac\n";

#[test]
fn a_broken_image_fails_check_by_check() {
    let dir = TempDir::new().unwrap();
    let docker = dir.path().join("docker");
    fs::write(&docker, DOCKER).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let report = dir.path().join("report");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/smoke-test.sh");
    let mut command = Command::new(script);
    command.args(["--image", "broken", "--variant", "base", "--platform", "linux/amd64"]);
    command.args(["--components", "opencode", "--expect", "opencode=1.2.3", "--report"]).arg(&report);
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    // The last line of this check removes the container, which works.
    assert!(text.contains(" - a server with secrets in files is healthy and leaks none # "), "{text}");
    let passed: Vec<&str> = text.lines().filter(|line| line.starts_with("ok ")).collect();
    assert!(passed.is_empty(), "{passed:?}");
    // What was to run inside the container was never answered.
    let planned: usize =
        text.lines().find_map(|line| line.strip_prefix("1..")).and_then(|count| count.parse().ok()).unwrap();
    let failed = text.lines().filter(|line| line.starts_with("not ok ")).count();
    assert!(failed > 40 && failed < planned, "{failed} of {planned}");
    let summary = format!("{failed} of {planned} failed, {} gave no result", planned - failed);
    assert!(text.contains(&summary), "{summary}\n{text}");
    assert!(fs::read_to_string(report).unwrap().contains(&format!("1..{planned}")));
}

/// Under emulation the checks of shared layers run in the variant that the definition names, whatever it is called.
#[test]
fn shared_checks_run_in_one_variant_under_emulation() {
    let dir = TempDir::new().unwrap();
    let docker = dir.path().join("docker");
    fs::write(&docker, DOCKER).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let skipped = |variant: &str, shared: &[&str]| {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/smoke-test.sh"));
        command.args(["--image", "broken", "--variant", variant, "--platform", "linux/arm64"]).args(shared);
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let output = command.env("PATH", path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.contains("# SKIP emulated, and tested in the variant plain")).count()
    };
    assert_eq!(skipped("plain", &["--shared-in", "plain"]), 0);
    assert!(skipped("rich", &["--shared-in", "plain"]) > 40);
}
