//! The real cosign verifies what this pipeline signs, on registries with and without the referrers API, and says so of nothing else.

use std::process::{Command, Output};

use registry_lab::{Referrers, digest};
use xtask::promotion::attest::test_result;

use crate::support::env::{TestEnv, tree};

fn cosign(world: &TestEnv, verb: &str, image: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("cosign");
    command.args([verb, "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"]);
    command.args(arguments).arg(format!("{}/devbox@{image}", world.host)).current_dir(&world.root);
    command.output().unwrap()
}

/// What cosign calls the statements that are attached to an index, and those that only images of a platform have.
const TYPES: [&str; 2] = ["slsaprovenance1", test_result::KIND];
const TYPES_OF_IMAGES: [&str; 2] = ["cyclonedx", "spdxjson"];

/// The commands of cosign in the page for people without this repository, for the images of a test.
fn documented(world: &TestEnv, image: &str) -> Vec<String> {
    let page = std::fs::read_to_string(tree().join("docs/verify.md")).unwrap().replace("\\\n", "");
    let commands = page.lines().filter(|line| line.starts_with("cosign verify"));
    let command = |line: &str| {
        let line = line.replace("docker.io/joakimp/opencode-devbox", &format!("{}/devbox", world.host));
        let line = line.replace("sha256:DIGEST", image);
        line.replacen(" --key", " --allow-http-registry --key", 1)
    };
    commands.map(command).collect()
}

/// Skips on systems without a package of cosign: no release needs it.
#[test]
fn cosign_verifies_every_published_image() {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_debian = system.lines().any(|line| line == "ID=debian");
    if Command::new("cosign").arg("version").output().is_err() && !is_debian {
        println!("skipped: cosign is not installed, and this system has no package of it");
        return;
    }
    for form in [Referrers::Absent, Referrers::Present] {
        let world = TestEnv::new();
        world.lab().set_referrers(form);
        for line in ["build-base", "build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"]
        {
            world.ok(line);
        }
        world.ok("publish --promote-latest");
        let index = world.staged("omos");
        let manifest: serde_json::Value =
            serde_json::from_slice(&world.registry().blob(&index).unwrap()).unwrap();
        let images =
            manifest["manifests"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap());
        for image in images.chain([index.as_str()]) {
            let output = cosign(&world, "verify", image, &["-a", "release=v1.18.18", "-a", "variant=omos"]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{form:?} {image}: {text}");
            assert!(
                String::from_utf8_lossy(&output.stdout).contains(image),
                "{form:?}: it names another image"
            );
            let other = cosign(&world, "verify", image, &["-a", "release=v1.18.17"]);
            assert!(!other.status.success(), "{form:?}");
            let of_image = TYPES_OF_IMAGES.into_iter().filter(|_| image != index);
            for kind in TYPES.into_iter().chain(of_image) {
                let output = cosign(&world, "verify-attestation", image, &["--type", kind]);
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{form:?} {image} {kind}: {text}");
            }
            let other = cosign(&world, "verify-attestation", image, &["--type", "vuln"]);
            assert!(!other.status.success(), "{form:?}");
        }
        let first = manifest["manifests"][0]["digest"].as_str().unwrap();
        let commands = documented(&world, first);
        assert_eq!(commands.len(), 4, "{commands:?}");
        for command in commands {
            let script = format!("set -o pipefail; {command}");
            let output =
                Command::new("bash").args(["-c", &script]).current_dir(&world.root).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{form:?} {command}: {text}");
        }
        let unsigned = world.registry().put("devbox", "unsigned", br#"{"schemaVersion":2,"manifests":[]}"#);
        assert_eq!(unsigned, digest(br#"{"schemaVersion":2,"manifests":[]}"#));
        assert!(!cosign(&world, "verify", &unsigned, &[]).status.success(), "{form:?}");
    }
}
