//! Each form of a login, as the real `docker login` writes it and as the real crane prints it.
//!
//! `recordings/` holds both; `UPDATE_EXPECT=1` records again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use expect_test::{ExpectFile, expect_file};
use registry_lab::{Account, DockerConfig, Lab, Login, TokenServer};
use serde_json::{Value, json};

use crate::{Run, crane};

fn server() -> TokenServer {
    TokenServer::new([Account::new("ci", "secret").may_push("team/*")])
}

/// The real `docker login`, which needs no engine.
fn docker_login(lab: &Lab, config: &DockerConfig, password: &str) -> Run {
    let mut command = Command::new("docker");
    command.args(["login", "--username", "ci", "--password-stdin", lab.host()]);
    config.log_in(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    Run::from(child.wait_with_output().unwrap())
}

/// Text without this run's host and tokens.
fn plain(lab: &Lab, text: &str) -> String {
    let mut text = text.replace(lab.host(), "REGISTRY");
    while let Some(start) = text.find("lab-") {
        let rest = &text[start + 4..];
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        text = format!("{}TOKEN{}", &text[..start], &rest[end..]);
    }
    text
}

/// What the helper has been given to keep.
fn kept(config: &DockerConfig) -> String {
    let files = fs::read_dir(config.path().join("secrets")).unwrap();
    files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

/// Where `docker login` begins, and what it leaves.
struct Form {
    name: &'static str,
    /// The configuration before.
    before: fn(&str) -> Value,
    has_identity_tokens: bool,
    /// What the lab writes for the same.
    login: fn(token: &str) -> Login,
}

const FORMS: [Form; 5] = [
    Form {
        name: "password",
        before: |_| json!({}),
        has_identity_tokens: false,
        login: |_| Login::password("ci", "secret"),
    },
    Form {
        name: "identity",
        before: |_| json!({}),
        has_identity_tokens: true,
        login: |token| Login::Identity(token.to_owned()),
    },
    Form {
        name: "helper",
        before: |host| json!({ "credHelpers": { host: "lab" } }),
        has_identity_tokens: false,
        login: |_| Login::helper("ci", "secret"),
    },
    Form {
        name: "store",
        before: |_| json!({ "credsStore": "lab" }),
        has_identity_tokens: false,
        login: |_| Login::store("ci", "secret"),
    },
    Form {
        name: "store-identity",
        before: |_| json!({ "credsStore": "lab" }),
        has_identity_tokens: true,
        login: |token| Login::store("<token>", token),
    },
];

fn recorded_path(folder: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(folder).join(name)
}

fn recording(folder: &str, name: &str) -> ExpectFile {
    expect_file![recorded_path(folder, name)]
}

#[test]
fn docker_login_writes_each_form_and_so_does_the_lab() {
    for form in FORMS {
        let server = if form.has_identity_tokens { server() } else { server().without_identity_tokens() };
        let lab = Lab::start().token_server(server);
        let config = lab.docker_config(&Login::Nobody);
        fs::write(config.file(), (form.before)(lab.host()).to_string()).unwrap();
        assert_eq!(docker_login(&lab, &config, "secret").unwrap(), "Login Succeeded", "{}", form.name);
        let text = plain(&lab, &format!("{}\n{}", config.text(), kept(&config)));
        recording("docker-login", &format!("{}.txt", form.name)).assert_eq(&text);
        let ours = lab.docker_config(&(form.login)("lab-0"));
        let parse =
            |config: &DockerConfig| -> Value { serde_json::from_str(&plain(&lab, &config.text())).unwrap() };
        assert_eq!(parse(&ours), parse(&config), "{}", form.name);
        assert_eq!(plain(&lab, &kept(&ours)).trim_end(), plain(&lab, &kept(&config)).trim_end());
    }
}

#[test]
fn docker_login_refuses_a_wrong_password() {
    let lab = Lab::start().token_server(server());
    let config = lab.docker_config(&Login::Nobody);
    let text = docker_login(&lab, &config, "wrong").unwrap_err();
    assert!(text.contains("unauthorized: incorrect username or password"), "{text}");
    lab.set_token_server(None);
    lab.set_htpasswd([Account::new("ci", "secret")]);
    let text = docker_login(&lab, &config, "wrong").unwrap_err();
    assert!(text.contains("401 Unauthorized"), "{text}");
    docker_login(&lab, &config, "secret").unwrap();
    assert!(config.text().contains("\"auth\": \"Y2k6c2VjcmV0\""), "{}", config.text());
}

#[test]
fn crane_prints_each_form() {
    let lab = Lab::start();
    let token = "lab-0";
    for (name, login) in [
        ("nobody", Login::Nobody),
        ("password", Login::password("ci", "secret")),
        ("identity", Login::Identity(token.to_owned())),
        ("registry-token", Login::RegistryToken(token.to_owned())),
        ("helper", Login::helper("ci", "secret")),
        ("helper-identity", Login::helper("<token>", token)),
        ("store", Login::store("ci", "secret")),
        ("empty-store", Login::EmptyStore),
        ("broken-store", Login::BrokenStore),
        ("missing-store", Login::MissingStore),
    ] {
        let run = crane(&lab, &lab.docker_config(&login), "auth get REGISTRY");
        let text = format!("{}{}exit {}\n", run.out, crate::plain(&lab, &run.err), run.code);
        recording("crane-auth-get", &format!("{name}.txt")).assert_eq(&plain(&lab, &text));
    }
}

/// The lab's helper programs answer as `docker-credential-pass` 0.9.6, with whose answers the recordings were made.
#[test]
fn the_helper_answers_as_a_real_one() {
    let config = DockerConfig::new("REGISTRY", &Login::Nobody);
    let play = |helper: &str, file: &str| {
        let recorded = recording("docker-credential-pass", file);
        let text = fs::read_to_string(recorded_path("docker-credential-pass", file)).unwrap();
        let mut played = String::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let command = line.replace("docker-credential-pass", helper);
            let run = Run::of(config.log_in(Command::new("sh").args(["-c", &command])));
            played += &format!("$ {line}\n{}exit {}\n", run.out, run.code);
        }
        recorded.assert_eq(&played);
    };
    play("docker-credential-lab", "session.txt");
    play("docker-credential-broken", "locked.txt");
}

/// A login at another registry is none at this one; Docker Hub has a name of its own.
#[test]
fn a_login_belongs_to_one_registry() {
    let lab = Lab::start();
    let config = lab.docker_config(&Login::password("ci", "secret"));
    let run = crane(&lab, &config, "auth get other.example");
    assert_eq!((run.code, run.out.as_str()), (1, "credentials not found in native keychain\n"));
}
