//! `update-description` and `doctor` before a scripted Docker Hub on a loopback port, with a lab as its registry.
//!
//! Paths, fields and statuses are those of Docker's OpenAPI description of the Hub API ("Create access token", "Get
//! repository in a namespace", "Update repository immutable tags"); an answer about a repository has the fields that
//! public records of it show.

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use registry_lab::{Lab, PullLimit};
use serde_json::{Value, json};
use tiny_http::{Header, Method, Response, Server};

use crate::fakes::DEBIAN;

const LOGIN: &str = "POST /v2/auth/token";
const OLD_LOGIN: &str = "POST /v2/users/login";
const GET: &str = "GET /v2/namespaces/you/repositories/devbox";
const PATCH: &str = "PATCH /v2/repositories/you/devbox/";

/// What the scripted Hub shows, and the requests it got as `METHOD path`.
#[derive(Default)]
pub struct Hub {
    full: String,
    short: String,
    /// Fields of each edit.
    pub sent: Vec<String>,
    log: Vec<String>,
    /// What the account may do.
    permissions: Value,
    immutable: Value,
    /// True for a server without the endpoint that replaces the old login.
    is_old: bool,
    /// The status of every edit that is not allowed.
    refuses_edits: Option<u16>,
    /// Answers a request with this status instead, once: the number of the request, from 1, and the status.
    fault: Option<(usize, u16)>,
}

impl Hub {
    fn answer(&mut self, request: &str, auth: Option<&str>, body: &str, login_status: u16) -> (u16, Value) {
        let sent: Value = serde_json::from_str(body).unwrap_or_default();
        if request == OLD_LOGIN || request == LOGIN && !self.is_old {
            let (name, secret, token) = match request {
                LOGIN => ("identifier", "secret", "access_token"),
                _ => ("username", "password", "token"),
            };
            assert!(sent[name] == "you" && sent[secret].is_string(), "{sent}");
            return match login_status {
                200 => (200, json!({ token: "t0k3n" })),
                status => (status, json!({ "errinfo": null, "message": "unauthorized" })),
            };
        }
        if ![GET, PATCH].contains(&request) {
            return (404, json!({ "errinfo": null, "message": "not found" }));
        }
        assert_eq!(auth, Some("Bearer t0k3n"));
        if request == PATCH {
            if let Some(status) = self.refuses_edits {
                return (status, json!({ "errinfo": null, "message": "permission denied" }));
            }
            let fields: Vec<String> = sent.as_object().unwrap().keys().cloned().collect();
            self.sent.push(fields.join(" "));
            let text = |name: &str, old: &str| sent[name].as_str().unwrap_or(old).to_owned();
            self.full = text("full_description", &self.full);
            self.short = text("description", &self.short);
        }
        let repository = json!({ "user": "you", "name": "devbox", "namespace": "you", "repository_type": "image",
            "status": 1, "status_description": "active", "description": self.short, "is_private": false,
            "star_count": 0, "pull_count": 1, "collaborator_count": 0, "affiliation": "owner", "hub_user": "you",
            "full_description": self.full, "permissions": self.permissions, "media_types": [],
            "content_types": ["image"], "categories": [], "immutable_tags_settings": self.immutable });
        (200, repository)
    }
}

/// Starts a Hub that answers the login with `login_status`.
pub fn start(login_status: u16) -> (String, Arc<Mutex<Hub>>) {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let hub = Arc::new(Mutex::new(Hub {
        permissions: json!({ "read": true, "write": true, "admin": true }),
        immutable: json!({ "enabled": false, "rules": [".*"] }),
        ..Hub::default()
    }));
    let shared = hub.clone();
    thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let mut body = String::new();
            request.as_reader().read_to_string(&mut body).unwrap();
            let mut hub = shared.lock().unwrap();
            let line = format!("{} {}", request.method(), request.url());
            hub.log.push(line.clone());
            let turn = hub.log.len();
            if let Some((_, status)) = hub.fault.take_if(|(number, _)| *number == turn) {
                request.respond(Response::empty(status)).unwrap();
                continue;
            }
            let auth = request.headers().iter().find(|header| header.field.equiv("Authorization"));
            let auth = auth.map(|header| header.value.to_string());
            assert!(auth.is_some() || *request.method() == Method::Post, "{line}");
            let (status, answer) = hub.answer(&line, auth.as_deref(), &body, login_status);
            let json = Header::from_bytes("Content-Type", "application/json").unwrap();
            let response = Response::from_string(answer.to_string()).with_status_code(status);
            request.respond(response.with_header(json)).unwrap();
        }
    });
    (url, hub)
}

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
