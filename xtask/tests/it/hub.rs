//! `update-description` and `doctor` before a scripted Docker Hub, with a lab as its registry.

use std::process::Output;
use std::sync::{Arc, Mutex, MutexGuard};

use registry_lab::{Lab, PullLimit};
use serde_json::{Value, json};

use crate::support::env::{DEBIAN, TestEnv};
use crate::support::hub::{GET, Hub, LOGIN, OLD_LOGIN, PATCH, start};

/// A checkout whose repository is on a Hub, with a lab as the Hub's registry.
struct Site {
    env: TestEnv,
    hub: Arc<Mutex<Hub>>,
    url: String,
    registry: Lab,
}

impl Site {
    /// The Hub answers the login with this status.
    fn new(login_status: u16) -> Self {
        let ((url, hub), registry) = (start(login_status), Lab::start());
        let mut env = TestEnv::before("docker.io", "you/devbox");
        env.set("DOCKERHUB_URL", &url);
        env.set("DOCKERHUB_USERNAME", "you");
        env.set("DOCKERHUB_REGISTRY_URL", &format!("http://{}", registry.host()));
        Self { env, hub, url, registry }
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap()
    }

    fn run(&self, line: &str) -> Output {
        self.env.run_with(line, &[("DOCKERHUB_TOKEN", "s3cret")])
    }

    fn describe(&self) -> Output {
        self.run("update-description")
    }

    /// Stores an image as the published one of a release, under its version tag and the floating tag.
    fn publish(&self, release: &str) {
        let manifest = DEBIAN.replace(
            "\"schemaVersion\":2",
            &format!("\"schemaVersion\":2,\"annotations\":{{\"r\":\"{release}\"}}"),
        );
        for tag in [release, "latest"] {
            self.registry.registry().put("you/devbox", tag, manifest.as_bytes());
        }
    }

    /// What `doctor` says about publishing: what keeps a release back, and what it goes without. `publish` asks the same.
    fn findings(&self) -> (Vec<String>, Vec<String>) {
        let output = self.run("doctor --json");
        let found: Vec<Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let lines = |fatal: bool| {
            let bad = found.iter().filter(|it| it["what"] == "publishing" && it["fatal"] == fatal);
            bad.map(Value::to_string).collect()
        };
        (lines(true), lines(false))
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_description_is_sent_once_and_read_back() {
    let site = Site::new(200);
    let first = site.describe();
    assert!(first.status.success(), "{}", text(&first));
    let page = site.env.read("DOCKER_HUB.md");
    assert_eq!(site.hub().full, page);
    site.hub().short = "old".to_owned();
    assert!(site.describe().status.success());
    assert_eq!(site.hub().sent, ["description full_description", "description"], "only what differs");
    site.hub().log.truncate(4);
    let second = site.describe();
    assert!(text(&second).contains("up to date"), "{}", text(&second));
    let expected = [LOGIN, GET, PATCH, GET, LOGIN, GET];
    assert_eq!(site.hub().log, expected);
    assert!(!text(&first).contains("s3cret"));
}

/// Docker Hub lets whoever can log in read a repository, and says only there who may edit it.
#[test]
fn an_account_that_may_not_edit_is_found_before_any_write() {
    let site = Site::new(200);
    let login = xtask::tools::hub::Hub::login(&account(site.url.clone())).unwrap();
    let repository = "docker.io/you/devbox".parse().unwrap();
    for (permissions, allowed) in [
        (json!({ "read": true, "write": true, "admin": true }), true),
        (json!({ "read": true, "write": false, "admin": false }), false),
        (Value::Null, false),
    ] {
        site.hub().permissions = permissions;
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
    for number in 1..=4 {
        for status in [429, 500, 503] {
            let site = Site::new(200);
            site.hub().fault = Some((number, status));
            let first = site.describe();
            assert_eq!(first.status.success(), status != 500, "request {number}, {status}: {}", text(&first));
            let expected = if status == 500 { "HTTP 500" } else { "trying again" };
            assert!(text(&first).contains(expected), "{}", text(&first));
            assert!(site.describe().status.success());
            assert_eq!(site.hub().full, site.env.read("DOCKER_HUB.md"));
        }
    }
}

#[test]
fn missing_and_refused_credentials_are_named() {
    let site = Site::new(401);
    let none = site.env.run("update-description");
    assert_eq!(none.status.code(), Some(3));
    assert!(text(&none).contains("DOCKERHUB_TOKEN"), "{}", text(&none));
    assert!(site.hub().log.is_empty(), "nothing is asked without credentials");
    let refused = site.env.run_with("update-description", &[("DOCKERHUB_TOKEN", "wrong-s3cret")]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused).contains("refuses the login of you"), "{}", text(&refused));
    assert!(!text(&refused).contains("wrong-s3cret"));
}

#[test]
fn a_dry_run_sends_nothing() {
    let site = Site::new(200);
    let output = site.run("update-description --dry-run");
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(
        plan.contains(&format!("PATCH {}/v2/repositories/you/devbox/", site.url)) && !plan.contains("s3cret"),
        "{plan}"
    );
    assert!(site.hub().log.is_empty());
}

/// A server without the present login endpoint has the one that it replaces.
#[test]
fn the_old_login_is_used_where_there_is_no_other() {
    let site = Site::new(200);
    site.hub().is_old = true;
    let output = site.describe();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(site.hub().log[..3], [LOGIN, OLD_LOGIN, GET]);
}

#[test]
fn a_rerun_of_an_older_release_leaves_the_newer_page() {
    let site = Site::new(200);
    site.publish("v1.2.3");
    assert!(site.describe().status.success());
    assert_eq!(site.hub().sent.len(), 1, "latest is at an older release");
    site.publish("v999.0.0");
    site.hub().full = "the page of v999.0.0".to_owned();
    let output = site.describe();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("latest is at v999.0.0, newer than this tree: the description stays"));
    assert_eq!(site.hub().full, "the page of v999.0.0");
    // The same version under a later letter is newer than the release that is named.
    let recipe = site.env.read("images/Dockerfile.variant");
    let pinned = xtask::model::dockerfile::arg_default(&recipe, "OPENCODE_VERSION").unwrap();
    site.publish(&format!("v{pinned}b"));
    let output = site.run(&format!("update-description --release-tag v{pinned}"));
    assert!(text(&output).contains("the description stays"), "{}", text(&output));
    assert_eq!(site.hub().sent.len(), 1);
}

/// An organization's access token may push images, and may not edit the description: that is told and stops nothing.
/// Tags that the Hub keeps where they are stop a release before its first write.
#[test]
fn doctor_tells_a_missing_right_and_immutable_tags_apart() {
    let site = Site::new(200);
    site.hub().permissions = json!({ "read": true, "write": false, "admin": false });
    site.hub().refuses_edits = Some(403);
    site.hub().immutable = json!({ "enabled": true, "rules": ["v[0-9].*", "^latest-omos$"] });
    let (problems, warnings) = site.findings();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("docker.io/you/devbox keeps latest-omos immutable (^latest-omos$)"));
    let told = "may not edit the description of docker.io/you/devbox";
    assert!(warnings.iter().any(|it| it.contains(told)), "{warnings:?}");
    let output = site.describe();
    let warned = text(&output).contains(&format!("warning: the Docker Hub account {told}"));
    assert!(output.status.success() && warned, "{}", text(&output));
}

/// Before the first release no repository has a manifest with which the registry names its limit.
#[test]
fn doctor_knows_the_limit_before_the_first_release() {
    let site = Site::new(200);
    site.registry.registry().put("ratelimitpreview/test", "latest", DEBIAN.as_bytes());
    site.registry.set_pull_limit(PullLimit::from(3));
    let text = text(&site.run("doctor"));
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
    let site = Site::new(200);
    let login = xtask::tools::hub::Hub::login(&account(site.url.clone())).unwrap();
    for (settings, kept) in [
        (json!({ "enabled": false, "rules": [".*"] }), [false, false]),
        (json!({ "enabled": true, "rules": [".*"] }), [true, true]),
        (json!({ "enabled": true, "rules": [] }), [true, true]),
        (json!({ "enabled": true, "rules": ["v.*", ".*-RELEASE"] }), [false, true]),
        (json!({ "enabled": true, "rules": ["^latest-omos$"] }), [false, false]),
        (Value::Null, [false, false]),
    ] {
        site.hub().immutable = settings.clone();
        let immutable = login.immutable_tags(&"docker.io/you/devbox".parse().unwrap()).unwrap();
        assert_eq!(["latest", "v1.2.3"].map(|tag| immutable.keeps(tag).is_some()), kept, "{settings}");
    }
}
