//! `update-description` against a scripted Docker Hub on a loopback port.

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use tiny_http::{Header, Method, Response, Server};

/// What the scripted Hub shows, and the requests it got as `METHOD path`.
#[derive(Default)]
pub struct Hub {
    full: String,
    short: String,
    /// Fields of each edit.
    pub sent: Vec<String>,
    log: Vec<String>,
    /// What the account may do, as a repository says it.
    permissions: serde_json::Value,
    /// Answers a request with this status instead, once: the number of the request, from 1, and the status.
    fault: Option<(usize, u16)>,
}

/// Starts a Hub that answers the login with `login_status`.
pub fn start(login_status: u16) -> (String, Arc<Mutex<Hub>>) {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let hub = Arc::new(Mutex::new(Hub::default()));
    let shared = hub.clone();
    thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let mut body = String::new();
            request.as_reader().read_to_string(&mut body).unwrap();
            let mut hub = shared.lock().unwrap();
            hub.log.push(format!("{} {}", request.method(), request.url()));
            let turn = hub.log.len();
            if let Some((_, status)) = hub.fault.take_if(|(number, _)| *number == turn) {
                request.respond(Response::empty(status)).unwrap();
                continue;
            }
            let (status, answer) = match request.method() {
                Method::Post => (login_status, serde_json::json!({ "token": "t0k3n" })),
                method => {
                    let auth = request.headers().iter().find(|h| h.field.equiv("Authorization")).unwrap();
                    assert_eq!(auth.value, "Bearer t0k3n");
                    if *method == Method::Patch {
                        let sent: serde_json::Value = serde_json::from_str(&body).unwrap();
                        let fields: Vec<String> = sent.as_object().unwrap().keys().cloned().collect();
                        hub.sent.push(fields.join(" "));
                        let text = |name: &str, old: &str| sent[name].as_str().unwrap_or(old).to_owned();
                        hub.full = text("full_description", &hub.full);
                        hub.short = text("description", &hub.short);
                    }
                    (
                        200,
                        serde_json::json!({ "full_description": hub.full, "description": hub.short,
                            "permissions": hub.permissions }),
                    )
                }
            };
            let json = Header::from_bytes("Content-Type", "application/json").unwrap();
            let response = Response::from_string(answer.to_string()).with_status_code(status);
            request.respond(response.with_header(json)).unwrap();
        }
    });
    (url, hub)
}

fn describe(url: &str, token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["update-description", "--repository", "docker.io/you/devbox"]);
    command.env("DOCKERHUB_URL", url).env("DOCKERHUB_USERNAME", "you").env_remove("DOCKERHUB_TOKEN");
    if let Some(token) = token {
        command.env("DOCKERHUB_TOKEN", token);
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_description_is_sent_once_and_read_back() {
    let (url, hub) = start(200);
    let first = describe(&url, Some("s3cret"));
    assert!(first.status.success(), "{}", text(&first));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("DOCKER_HUB.md")).unwrap();
    assert_eq!(hub.lock().unwrap().full, page);
    hub.lock().unwrap().short = "old".to_owned();
    assert!(describe(&url, Some("s3cret")).status.success());
    assert_eq!(
        hub.lock().unwrap().sent,
        ["description full_description", "description"],
        "only what differs"
    );
    hub.lock().unwrap().log.truncate(4);
    let second = describe(&url, Some("s3cret"));
    assert!(text(&second).contains("up to date"), "{}", text(&second));
    let repository = "/v2/repositories/you/devbox/";
    let (get, patch) = (format!("GET {repository}"), format!("PATCH {repository}"));
    let login = "POST /v2/users/login".to_owned();
    let expected = [login.clone(), get.clone(), patch, get.clone(), login, get];
    assert_eq!(hub.lock().unwrap().log, expected);
    assert!(!text(&first).contains("s3cret"));
}

/// Docker Hub lets whoever can log in read a repository, and says only there who may edit it.
#[test]
fn an_account_that_may_not_edit_is_found_out_before_anything_is_written() {
    let (url, hub) = start(200);
    let account = xtask::tools::hub::Account {
        url,
        username: "you".into(),
        secret: "s3cret".into(),
        agent: xtask::tools::http::agent(std::time::Duration::from_secs(5), ""),
    };
    let login = xtask::tools::hub::Hub::login(&account).unwrap();
    let repository = "docker.io/you/devbox".parse().unwrap();
    for (permissions, allowed) in [
        (serde_json::json!({ "read": true, "write": true, "admin": true }), true),
        (serde_json::json!({ "read": true, "write": false, "admin": false }), false),
        (serde_json::Value::Null, false),
    ] {
        hub.lock().unwrap().permissions = permissions;
        let proof = login.prove_edit(&repository);
        assert_eq!(proof.is_ok(), allowed, "{proof:?}");
        if let Err(error) = proof {
            assert!(error.to_string().contains("may not edit docker.io/you/devbox"), "{error}");
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
            let (url, hub) = start(200);
            hub.lock().unwrap().fault = Some((number, status));
            let first = describe(&url, Some("s3cret"));
            assert_eq!(first.status.success(), status != 500, "request {number}, {status}: {}", text(&first));
            let expected = if status == 500 { "HTTP 500" } else { "trying again" };
            assert!(text(&first).contains(expected), "{}", text(&first));
            assert!(describe(&url, Some("s3cret")).status.success());
            assert_eq!(hub.lock().unwrap().full, page);
        }
    }
}

#[test]
fn missing_and_refused_credentials_are_named() {
    let (url, hub) = start(401);
    let none = describe(&url, None);
    assert_eq!(none.status.code(), Some(3));
    assert!(text(&none).contains("DOCKERHUB_TOKEN"), "{}", text(&none));
    assert!(hub.lock().unwrap().log.is_empty(), "nothing is asked without credentials");
    let refused = describe(&url, Some("wrong-s3cret"));
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused).contains("refuses the login of you"), "{}", text(&refused));
    assert!(!text(&refused).contains("wrong-s3cret"));
}

#[test]
fn a_dry_run_sends_nothing() {
    let (url, hub) = start(200);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["update-description", "--dry-run", "--repository", "docker.io/you/devbox"]);
    command.env("DOCKERHUB_URL", &url).env("DOCKERHUB_USERNAME", "you").env("DOCKERHUB_TOKEN", "s3cret");
    let output = command.output().unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(
        plan.contains(&format!("PATCH {url}/v2/repositories/you/devbox/")) && !plan.contains("s3cret"),
        "{plan}"
    );
    assert!(hub.lock().unwrap().log.is_empty());
}
