//! The real thing: one variant through a real engine into a real registry. `cargo xtask test` prepares the machine and
//! asks for these tests; they fail, rather than skip, where the engine or the registry is missing.

use std::process::Command;

fn xtask(args: &[&str]) -> (bool, String) {
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    // The platform of this machine: the other one is the same code and a longer wait.
    let host = xtask::model::platform::Platform::host().to_string();
    command.args(args).args(["--repository", &repository, "--platform", &host]);
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    println!("{text}");
    (output.status.success(), text)
}

#[test]
#[ignore = "needs a Docker engine and a registry; `cargo xtask test` runs it"]
fn one_variant_is_released_and_a_second_run_finds_nothing_to_do() {
    let (ok, text) = xtask(&["release", "--only", "base"]);
    assert!(ok && text.contains("docker run --rm"), "{text}");
    let (ok, text) = xtask(&["release", "--only", "base"]);
    assert!(ok && text.contains("nothing to publish"), "{text}");
    assert!(!text.contains("$ "), "a second run ran something: {text}");
}
