//! `update-description` and `doctor` before a scripted Docker Hub, with a lab as its registry.

use std::process::{Command, Output};

use registry_lab::{Lab, PullLimit};
use serde_json::{Value, json};

use crate::support::fakes::DEBIAN;
use crate::support::hub::{GET, LOGIN, OLD_LOGIN, PATCH, start};

/// A command line of this tree, for a repository on a Hub whose registry is a lab.
fn command(line: &str, url: &str, registry: &Lab, token: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(line.split(' ')).args(["--repository", "docker.io/you/devbox"]);
    command.env("DOCKERHUB_URL", url).env("DOCKERHUB_USERNAME", "you").env_remove("DOCKERHUB_TOKEN");
    command.env("DOCKERHUB_REGISTRY_URL", format!("http://{}", registry.host()));
    command.env_remove("DEVBOX_RELEASE_TAG").env_remove("INPUT_RELEASE_TAG");
    if let Some(token) = token {
        command.env("DOCKERHUB_TOKEN", token);
    }
    command
}

fn describe(url: &str, registry: &Lab, token: Option<&str>) -> Output {
    command("update-description", url, registry, token).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_description_is_sent_once_and_read_back() {
    let ((url, hub), registry) = (start(200), Lab::start());
    let first = describe(&url, &registry, Some("s3cret"));
    assert!(first.status.success(), "{}", text(&first));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("DOCKER_HUB.md")).unwrap();
    assert_eq!(hub.lock().unwrap().full, page);
    hub.lock().unwrap().short = "old".to_owned();
    assert!(describe(&url, &registry, Some("s3cret")).status.success());
    assert_eq!(
        hub.lock().unwrap().sent,
        ["description full_description", "description"],
        "only what differs"
    );
    hub.lock().unwrap().log.truncate(4);
    let second = describe(&url, &registry, Some("s3cret"));
    assert!(text(&second).contains("up to date"), "{}", text(&second));
    let expected = [LOGIN, GET, PATCH, GET, LOGIN, GET];
    assert_eq!(hub.lock().unwrap().log, expected);
    assert!(!text(&first).contains("s3cret"));
}

/// Docker Hub lets whoever can log in read a repository, and says only there who may edit it.
#[test]
fn an_account_that_may_not_edit_is_found_before_any_write() {
    let (url, hub) = start(200);
    let login = xtask::tools::hub::Hub::login(&account(url)).unwrap();
    let repository = "docker.io/you/devbox".parse().unwrap();
    for (permissions, allowed) in [
        (json!({ "read": true, "write": true, "admin": true }), true),
        (json!({ "read": true, "write": false, "admin": false }), false),
        (Value::Null, false),
    ] {
        hub.lock().unwrap().permissions = permissions;
        let proof = login.prove_edit(&repository);
        assert_eq!(proof.is_ok(), allowed, "{proof:?}");
        if let Err(error) = proof {
            assert!(
                error.to_string().contains("may not edit the description of docker.io/you/devbox"),
                "{error}"
            );
        }
    }
}

/// Each request of an update meets each fault: what passes by itself is tried again, the rest is told, and a second
/// run ends with the description.
#[test]
fn a_fault_at_any_request_is_tried_again_or_told() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("DOCKER_HUB.md")).unwrap();
    for number in 1..=4 {
        for status in [429, 500, 503] {
            let ((url, hub), registry) = (start(200), Lab::start());
            hub.lock().unwrap().fault = Some((number, status));
            let first = describe(&url, &registry, Some("s3cret"));
            assert_eq!(first.status.success(), status != 500, "request {number}, {status}: {}", text(&first));
            let expected = if status == 500 { "HTTP 500" } else { "trying again" };
            assert!(text(&first).contains(expected), "{}", text(&first));
            assert!(describe(&url, &registry, Some("s3cret")).status.success());
            assert_eq!(hub.lock().unwrap().full, page);
        }
    }
}

#[test]
fn missing_and_refused_credentials_are_named() {
    let ((url, hub), registry) = (start(401), Lab::start());
    let none = describe(&url, &registry, None);
    assert_eq!(none.status.code(), Some(3));
    assert!(text(&none).contains("DOCKERHUB_TOKEN"), "{}", text(&none));
    assert!(hub.lock().unwrap().log.is_empty(), "nothing is asked without credentials");
    let refused = describe(&url, &registry, Some("wrong-s3cret"));
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused).contains("refuses the login of you"), "{}", text(&refused));
    assert!(!text(&refused).contains("wrong-s3cret"));
}

#[test]
fn a_dry_run_sends_nothing() {
    let ((url, hub), registry) = (start(200), Lab::start());
    let output = command("update-description --dry-run", &url, &registry, Some("s3cret")).output().unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(
        plan.contains(&format!("PATCH {url}/v2/repositories/you/devbox/")) && !plan.contains("s3cret"),
        "{plan}"
    );
    assert!(hub.lock().unwrap().log.is_empty());
}

/// A server without the present login endpoint has the one that it replaces.
#[test]
fn the_old_login_is_used_where_there_is_no_other() {
    let ((url, hub), registry) = (start(200), Lab::start());
    hub.lock().unwrap().is_old = true;
    let output = describe(&url, &registry, Some("s3cret"));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(hub.lock().unwrap().log[..3], [LOGIN, OLD_LOGIN, GET]);
}

/// Stores an image as the published one of a release, under its version tag and the floating tag.
fn publish(registry: &Lab, release: &str) {
    let manifest = DEBIAN.replace(
        "\"schemaVersion\":2",
        &format!("\"schemaVersion\":2,\"annotations\":{{\"r\":\"{release}\"}}"),
    );
    for tag in [release, "latest"] {
        registry.registry().put("you/devbox", tag, manifest.as_bytes());
    }
}

#[test]
fn a_rerun_of_an_older_release_leaves_the_newer_page() {
    let ((url, hub), registry) = (start(200), Lab::start());
    publish(&registry, "v1.2.3");
    assert!(describe(&url, &registry, Some("s3cret")).status.success());
    assert_eq!(hub.lock().unwrap().sent.len(), 1, "latest is at an older release");
    publish(&registry, "v999.0.0");
    hub.lock().unwrap().full = "the page of v999.0.0".to_owned();
    let output = describe(&url, &registry, Some("s3cret"));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("latest is at v999.0.0, newer than this tree: the description stays"));
    assert_eq!(hub.lock().unwrap().full, "the page of v999.0.0");
    // The same version under a later letter is newer than the release that is named.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let recipe = std::fs::read_to_string(root.join("images/Dockerfile.variant")).unwrap();
    let pinned = xtask::model::dockerfile::arg_default(&recipe, "OPENCODE_VERSION").unwrap();
    publish(&registry, &format!("v{pinned}b"));
    let output = command("update-description", &url, &registry, Some("s3cret"))
        .args(["--release-tag", &format!("v{pinned}")])
        .output()
        .unwrap();
    assert!(text(&output).contains("the description stays"), "{}", text(&output));
    assert_eq!(hub.lock().unwrap().sent.len(), 1);
}

/// What `doctor` says about publishing: what keeps a release back, and what it goes without. `publish` asks the same.
fn findings(url: &str, registry: &Lab) -> (Vec<String>, Vec<String>) {
    let output = command("doctor --json", url, registry, Some("s3cret")).output().unwrap();
    let found: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let lines = |fatal: bool| {
        let bad = found.iter().filter(|it| it["what"] == "publishing" && it["fatal"] == fatal);
        bad.map(Value::to_string).collect()
    };
    (lines(true), lines(false))
}

/// An organization's access token may push images, and may not edit the description: that is told and stops nothing.
/// Tags that the Hub keeps where they are stop a release before its first write.
#[test]
fn doctor_tells_a_missing_right_and_immutable_tags_apart() {
    let ((url, hub), registry) = (start(200), Lab::start());
    hub.lock().unwrap().permissions = json!({ "read": true, "write": false, "admin": false });
    hub.lock().unwrap().refuses_edits = Some(403);
    hub.lock().unwrap().immutable = json!({ "enabled": true, "rules": ["v[0-9].*", "^latest-omos$"] });
    let (problems, warnings) = findings(&url, &registry);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("docker.io/you/devbox keeps latest-omos immutable (^latest-omos$)"));
    let told = "may not edit the description of docker.io/you/devbox";
    assert!(warnings.iter().any(|it| it.contains(told)), "{warnings:?}");
    let output = describe(&url, &registry, Some("s3cret"));
    let warned = text(&output).contains(&format!("warning: the Docker Hub account {told}"));
    assert!(output.status.success() && warned, "{}", text(&output));
}

/// Before the first release no repository has a manifest with which the registry names its limit.
#[test]
fn doctor_knows_the_limit_before_the_first_release() {
    let ((url, _), registry) = (start(200), Lab::start());
    registry.registry().put("ratelimitpreview/test", "latest", DEBIAN.as_bytes());
    registry.set_pull_limit(PullLimit::from(3));
    let text = text(&command("doctor", &url, &registry, Some("s3cret")).output().unwrap());
    assert!(text.contains("3 of 3 manifest reads are left at docker.io"), "{text}");
    assert!(text.contains("a release needs about"), "{text}");
}

fn account(url: String) -> xtask::tools::hub::Account {
    xtask::tools::hub::Account {
        url,
        username: "you".into(),
        secret: "s3cret".into(),
        agent: xtask::tools::http::agent(std::time::Duration::from_secs(5), ""),
    }
}

#[test]
fn immutable_tags_are_those_that_a_rule_names_whole() {
    let (url, hub) = start(200);
    let login = xtask::tools::hub::Hub::login(&account(url)).unwrap();
    for (settings, kept) in [
        (json!({ "enabled": false, "rules": [".*"] }), [false, false]),
        (json!({ "enabled": true, "rules": [".*"] }), [true, true]),
        (json!({ "enabled": true, "rules": [] }), [true, true]),
        (json!({ "enabled": true, "rules": ["v.*", ".*-RELEASE"] }), [false, true]),
        (json!({ "enabled": true, "rules": ["^latest-omos$"] }), [false, false]),
        (Value::Null, [false, false]),
    ] {
        hub.lock().unwrap().immutable = settings.clone();
        let immutable = login.immutable_tags(&"docker.io/you/devbox".parse().unwrap()).unwrap();
        assert_eq!(["latest", "v1.2.3"].map(|tag| immutable.keeps(tag).is_some()), kept, "{settings}");
    }
}
