//! The report of a release in a real browser.

use std::fs;
use std::process::Command;

use crate::container::{Stage, says, text};
use crate::images::image_of;
use crate::support::env::TestEnv;
use crate::support::releases::CHAIN;

const LOOK: &str = include_str!("../devbox/report.mjs");

/// The report of a second release, so that all its parts are there.
fn report(world: &TestEnv) -> String {
    CHAIN.iter().for_each(|line| drop(world.ok(line)));
    let file = world.root.join("images/Dockerfile.variant");
    let recipe = fs::read_to_string(&file).unwrap();
    fs::write(file, recipe.replace("OPENCODE_VERSION=1.18.18", "OPENCODE_VERSION=1.18.19")).unwrap();
    CHAIN.iter().for_each(|line| drop(world.ok(line)));
    let path = world.ok("report --files");
    fs::read_to_string(path.trim()).unwrap()
}

#[test]
fn a_browser_shows_the_report_without_complaint() {
    let world = TestEnv::new();
    let html = report(&world);
    let stage = Stage::new("report");
    let server = stage.start("page", &["--network", "none"], &["sleep", "600"]);
    let recipe = "RUN apt-get -qq update && apt-get -qq -y --no-install-recommends install chromium-headless-shell fonts-dejavu-core >/dev/null\n";
    let chromium = image_of("report", recipe);
    let network = format!("container:{server}");
    let mut docker = Command::new("docker");
    docker.args(["run", "--detach", "--label", &stage.name, "--network", &network]);
    // The page goes in as a variable: an engine elsewhere sees no folder of this machine.
    docker.args(["-e", &format!("PAGE={html}"), "--user", "4242:4242", "-e", "HOME=/tmp", &chromium]);
    let start = "printf %s \"$PAGE\" > /tmp/report.html && exec chromium-headless-shell --no-sandbox \
        --disable-dev-shm-usage --remote-debugging-port=9222 about:blank";
    let started = docker.args(["sh", "-c", start]).output().unwrap();
    assert!(started.status.success(), "{}", text(&started));
    let mut node = Command::new("docker");
    node.args([
        "exec",
        &server,
        "node",
        "--input-type=module",
        "-e",
        LOOK,
        "report",
        "file:///tmp/report.html",
    ]);
    says(&node.output().unwrap(), "nothing is wrong with the page\n");
    drop(stage);
    Command::new("docker").args(["rmi", &chromium]).output().unwrap();
}
