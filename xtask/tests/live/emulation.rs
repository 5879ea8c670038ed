//! What an emulated program gives, which takes minutes: `cargo xtask test` runs it beside the other live tests.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use camino::Utf8Path;
use registry_lab::{Address, Lab};
use xtask::model::platform::Platform;

/// The architecture that this machine has not.
pub fn foreign() -> &'static str {
    if Platform::host() == Platform::LinuxAmd64 { "arm64" } else { "amd64" }
}

/// Packages with maintainer scripts of several kinds: alternatives, accounts, locales, triggers. Python's bytecode takes
/// minutes of emulation.
const PACKAGES: &str = "less locales sudo tzdata";

/// The foreign base is installed with tools of the build platform; an ordinary, emulated installation gives the same.
#[test]
fn a_foreign_base_is_what_an_emulated_installation_gives() {
    let tree = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(tree.join("images/Dockerfile.base")).unwrap();
    let packages = xtask::model::bench::packages(&text).unwrap();
    let (head, rest) = text.split_once("--no-install-recommends \\\n  awscli").unwrap();
    let (_, tail) = rest.split_once("\nfor locale").unwrap();
    assert!(PACKAGES.split(' ').all(|name| packages.contains(name)));
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("Dockerfile");
    // What is cut out of packages that are not here.
    let is_elsewhere = |line: &str| {
        line.starts_with("find /usr/") || line.contains("git config") || line == "rm /etc/gitconfig"
    };
    let tail: Vec<_> = tail.lines().filter(|line| !is_elsewhere(line)).collect();
    let recipe = format!("{head}--no-install-recommends {PACKAGES}\nfor locale{}\n", tail.join("\n"));
    // Debian is as new as its archive here, and an emulated apt needs a minute each time that it makes its cache.
    let recipe = recipe.replace("apt autoclean\n", "").replace("apt upgrade -y\n", "");
    let recipe = recipe.replace(
        "-qq -o Dir::Cache=/apt/",
        "-qq -o Dir::Cache=/apt/ -o Dir::Cache::pkgcache=/tmp/packages.bin",
    );
    fs::write(&file, recipe).unwrap();
    let foreign = foreign();
    // Debian of the foreign platform, in a registry of its own: other tests have one platform and its digest in their keys.
    let lab = Lab::at(Address::Name);
    let mut command = Command::new(tree.join("scripts/bootstrap-debian.sh"));
    command.args(["--suite", "trixie", "--date", "20260101"]);
    command.args(["--platform", "linux/amd64", "--platform", "linux/arm64"]);
    // Steps take minutes under emulation: what they print shows that they go on.
    let made = command.args(["--repository", &format!("{}/debian", lab.host())]).status().unwrap();
    assert!(made.success());
    let install = |name: &str, more: &[String]| {
        let folder = scratch.path().join(name);
        let mut command = Command::new("docker");
        command.args(["buildx", "build", "--progress=plain", "--target=debian", "--no-cache-filter=debian"]);
        command.args([format!("--file={}", file.display()), format!("--platform=linux/{foreign}")]);
        let debian = format!("{}/debian:trixie-slim", lab.host());
        command.arg(format!("--build-arg=DEBIAN_IMAGE={debian}")).args(more);
        command.arg("--secret=id=ca,src=/etc/ssl/certs/ca-certificates.crt");
        command.arg(format!("--build-arg=PIP_INDEX_URL={}", std::env::var("DEVBOX_LIVE_PYPI").unwrap()));
        command.arg(format!("--output=type=local,dest={}", folder.display())).arg(".").current_dir(tree);
        assert!(command.status().unwrap().success(), "{name}");
        let mut find = Command::new("find");
        find.args([".", "-printf", "%P %y %m %U %G %l\n"]).current_dir(&folder);
        let facts = String::from_utf8(find.output().unwrap().stdout).unwrap();
        let facts: BTreeSet<String> = facts.lines().map(str::to_owned).collect();
        (folder, facts)
    };
    let (ours, facts) = install("ours", &[]);
    let (plain, expected) = install("plain", &[format!("--build-arg=BUILDARCH={foreign}")]);
    assert!(facts.len() > 2000, "{}", facts.len());
    let differing: Vec<_> = facts.symmetric_difference(&expected).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    let diff = Command::new("diff").args(["-rq", "--no-dereference"]).args([&ours, &plain]).output().unwrap();
    let diff = String::from_utf8(diff.stdout).unwrap();
    // dpkg keeps the list of diversions as it was before the last one ended; diff compares no devices, find did.
    let passed_over =
        |line: &&str| line.contains("var/lib/dpkg/diversions-old") || line.ends_with("special file");
    let differing: Vec<_> = diff.lines().filter(|line| !passed_over(line)).collect();
    assert_eq!(differing, [""; 0]);
}
