//! No build step resolves anything: the stages that fetch are built while metadata is out of reach.
//!
//! npm gets files and nothing else: every other address of its registry is refused. The Python index cannot be left out,
//! since it is what tells where a file is; so it lists the locked files and no other, and gives no metadata of them.
//! What is asked for beyond that is written down, and has to be nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use xtask::model::python_lock;
use xtask::tools::{http, web::Web};

use crate::support::server::{Answer, Server};

const SIMPLE: &str = "application/vnd.pypi.simple.v1+json";

/// The registries behind the sealed ones, as this machine's tools name them.
fn upstream(name: &str) -> String {
    std::env::var(name).expect("run through `cargo xtask test`")
}

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Checksums that the Python locks name, by project.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let read = |name| std::fs::read_to_string(root().join("images/locks/python").join(name)).unwrap();
    let pins = ["tools.txt", "mempalace.txt"].map(|name| python_lock::parse(&read(name)).unwrap());
    pins.into_iter().flatten().map(|pin| (pin.name, pin.hashes)).collect()
}

/// The page of a project, with the locked files only.
fn page(web: &Web, project: &str, hashes: &BTreeSet<String>) -> anyhow::Result<Vec<u8>> {
    let index = upstream("DEVBOX_LIVE_PYPI");
    let page: Value = web.json(&format!("{index}/{project}/"), SIMPLE).required(project)?;
    let files = page["files"].as_array().unwrap().iter();
    let files = files.filter(|file| hashes.contains(file["hashes"]["sha256"].as_str().unwrap()));
    let files = files
        .map(|file| json!({ "filename": file["filename"], "url": file["url"], "hashes": file["hashes"] }));
    let files: Vec<Value> = files.collect();
    let page = json!({ "meta": { "api-version": "1.0" }, "name": project, "files": files });
    Ok(page.to_string().into_bytes())
}

/// Starts the registries; the list gets what was refused.
fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
    let refused = Arc::new(Mutex::new(Vec::new()));
    let (web, locked) = (http::agent(Duration::from_secs(60), ""), locked());
    let shared = refused.clone();
    let server = Server::start(move |request| answer(&Web::new(&web), &locked, &shared, &request.path));
    (server.url(), refused)
}

fn answer(
    web: &Web,
    locked: &BTreeMap<String, BTreeSet<String>>,
    refused: &Mutex<Vec<String>>,
    url: &str,
) -> Answer {
    let project = url.strip_prefix("/simple/").map(|rest| rest.trim_end_matches('/'));
    let body = match (project.and_then(|name| Some((name, locked.get(name)?))), url.strip_prefix("/npm")) {
        (Some((project, hashes)), _) => page(web, project, hashes),
        (None, Some(path)) if path.contains("/-/") => {
            web.bytes(&format!("{}{path}", upstream("DEVBOX_LIVE_NPM"))).required(path)
        }
        _ => {
            refused.lock().unwrap().push(url.to_owned());
            return Answer::status(403);
        }
    };
    let kind = if project.is_some() { SIMPLE } else { "application/octet-stream" };
    match body {
        Ok(body) => Answer::ok(body).header("Content-Type", kind),
        // The real registry did not answer: the installer asks again.
        Err(_) => Answer::status(503),
    }
}

#[test]
fn no_build_step_resolves_anything() {
    let debian = crate::images::debian();
    let (address, refused) = serve();
    let stages = [
        ("base", "tools"),
        ("base", "mempalace"),
        ("variant", "opencode"),
        ("variant", "bun"),
        ("variant", "omos"),
        ("variant", "pi"),
    ];
    for (file, target) in stages {
        let mut command = Command::new("docker");
        command.args([
            "buildx",
            "build",
            "--progress=plain",
            "--network=host",
            "--no-cache",
            "--output=type=cacheonly",
        ]);
        command.arg(format!("--file=images/Dockerfile.{file}")).arg(format!("--target={target}"));
        for argument in [
            format!("DEBIAN_IMAGE={debian}"),
            format!("npm_config_registry={address}/npm"),
            format!("PIP_INDEX_URL={address}/simple"),
            format!("UV_DEFAULT_INDEX={address}/simple"),
        ] {
            command.arg(format!("--build-arg={argument}"));
        }
        command.arg("--secret=id=ca,src=/etc/ssl/certs/ca-certificates.crt");
        let output = command.arg(".").current_dir(root()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{target}: {text}\nrefused: {:?}", refused.lock().unwrap());
        println!("{target} is built of locked files alone");
    }
    assert_eq!(*refused.lock().unwrap(), [""; 0], "metadata was asked for");
}
