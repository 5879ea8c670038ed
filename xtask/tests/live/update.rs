//! `devbox update-check` of a real image against a real registry.

use std::process::Command;

use crate::container::{Stage, says};

fn crane(args: &[&str]) {
    let output = Command::new("crane").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn update_check_compares_the_image_with_its_floating_tag() {
    let stage = Stage::new("update");
    let repository = format!("{}/live/update-check", stage.image.split('/').next().unwrap());
    let version = stage.run(&["--entrypoint", "/bin/sh"], &["-c", "opencode --version"]);
    let version = String::from_utf8(version.stdout).unwrap().trim().to_owned();
    let asked = format!("DEVBOX_UPDATE_REPOSITORY={repository}");
    let check = |options: &[&str], code: i32, line: &str| {
        let output = stage.run(&[options, &["-e", &asked]].concat(), &["devbox", "update-check"]);
        says(&output, line);
        assert_eq!(output.status.code(), Some(code), "{line}");
    };
    let (first, second) = (format!("v{version}"), format!("v{version}b"));
    for tag in ["latest", &first] {
        crane(&["copy", &stage.image, &format!("{repository}:{tag}")]);
    }
    let host = ["--network", "host"];
    check(&host, 0, &format!("up to date: this is {first}, with opencode {version}\n"));
    // Another build of the same version: its labels are all that the check reads.
    let platform = xtask::model::platform::Platform::host().to_string();
    let newer = format!("{repository}:{second}");
    let label = "opencode-devbox.key=000000000000";
    crane(&["mutate", "--platform", &platform, "--label", label, "--tag", &newer, &stage.image]);
    crane(&["copy", &newer, &format!("{repository}:latest")]);
    let text = format!("a newer image is out: {second}, another build with the same opencode {version}\n");
    check(&host, 10, &text);
    check(&["--network", "none"], 3, "devbox: cannot tell whether a newer image is out: ");
}
