//! A scripted Docker Hub on a loopback port.
//!
//! Paths, fields and statuses are those of Docker's OpenAPI description of the Hub API ("Create access token", "Get
//! repository in a namespace", "Update repository immutable tags"); an answer about a repository has the fields that
//! public records of it show.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::server::{Answer, Server};

pub const LOGIN: &str = "POST /v2/auth/token";
pub const OLD_LOGIN: &str = "POST /v2/users/login";
pub const GET: &str = "GET /v2/namespaces/you/repositories/devbox";
pub const PATCH: &str = "PATCH /v2/repositories/you/devbox/";

/// What the scripted Hub shows, and the requests it got as `METHOD path`.
#[derive(Default)]
pub struct Hub {
    pub full: String,
    pub short: String,
    /// Fields of each edit.
    pub sent: Vec<String>,
    pub log: Vec<String>,
    /// What the account may do.
    pub permissions: Value,
    pub immutable: Value,
    /// True for a server without the endpoint that replaces the old login.
    pub is_old: bool,
    /// The status of every edit that is not allowed.
    pub refuses_edits: Option<u16>,
    /// Answers a request with this status instead, once: the number of the request, from 1, and the status.
    pub fault: Option<(usize, u16)>,
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
    let hub = Arc::new(Mutex::new(Hub {
        permissions: json!({ "read": true, "write": true, "admin": true }),
        immutable: json!({ "enabled": false, "rules": [".*"] }),
        ..Hub::default()
    }));
    let shared = hub.clone();
    let server = Server::start(move |request| {
        let (mut hub, line) = (shared.lock().unwrap(), request.line());
        hub.log.push(line.clone());
        let turn = hub.log.len();
        if let Some((_, status)) = hub.fault.take_if(|(number, _)| *number == turn) {
            return Answer::status(status);
        }
        let auth = request.header("Authorization");
        assert!(auth.is_some() || request.method == "POST", "{line}");
        let (status, answer) = hub.answer(&line, auth, &request.body, login_status);
        Answer::json(status, &answer)
    });
    (server.url(), hub)
}
