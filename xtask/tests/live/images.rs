//! Images that the live tests start from.

use std::process::Command;

/// Debian's image in the registry of the live tests, made where it is missing as `build-base` makes it.
pub fn debian() -> String {
    let live = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let repository = format!("{}/debian", live.split('/').next().unwrap());
    let image = format!("{repository}:trixie-slim");
    if !Command::new("crane").args(["digest", &image]).output().unwrap().status.success() {
        let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let recipe = std::fs::read_to_string(tree.join("images/Dockerfile.base")).unwrap();
        let date = xtask::model::dockerfile::arg_default(&recipe, "DEBIAN_DATE").unwrap();
        let host = xtask::model::platform::Platform::host().to_string();
        let mut make = Command::new(tree.join("scripts/bootstrap-debian.sh"));
        make.args(["--suite", "trixie", "--date", date, "--platform", &host, "--repository", &repository]);
        assert!(make.status().unwrap().success());
    }
    image
}

/// Builds an image on Debian with one step, and returns its name.
pub fn image_of(name: &str, recipe: &str) -> String {
    let debian = debian();
    let name = format!("opencode-devbox-test-{name}:latest");
    let recipe = format!("FROM {debian}\n{recipe}");
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), recipe).unwrap();
    let mut build = Command::new("docker");
    build.args(["buildx", "build", "--quiet", "--load", "--tag", &name]).arg(folder.path());
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    name
}
