//! What the real crane and the real docker do with each behaviour of the lab. `cargo xtask test` runs them.
#![allow(clippy::disallowed_methods, reason = "tests run clients")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod deletion;
mod docker;
mod faults;
mod lag;
mod limits;
mod logins;
mod referrers;

use std::fs;
use std::process::{Command, Output};

use registry_lab::{DockerConfig, Lab, Login};

/// How a program ended, and what it printed.
struct Run {
    ok: bool,
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (ok, code) = (output.status.success(), output.status.code().unwrap_or(-1));
        Self { ok, code, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Run {
    fn of(command: &mut Command) -> Self {
        command.output().unwrap().into()
    }

    #[track_caller]
    fn unwrap(self) -> String {
        assert!(self.ok, "{}", self.err);
        self.out.trim_end().to_owned()
    }

    #[track_caller]
    fn unwrap_err(self) -> String {
        assert!(!self.ok, "{}", self.out);
        self.err
    }
}

/// Runs crane with a login; `REGISTRY` in the arguments is the lab's host.
fn crane(lab: &Lab, config: &DockerConfig, line: &str) -> Run {
    let line = line.replace("REGISTRY", lab.host());
    Run::of(config.log_in(Command::new("crane").args(line.split(' '))))
}

fn nobody(lab: &Lab) -> DockerConfig {
    lab.docker_config(&Login::Nobody)
}

/// Pushes an image of one small file, made of a text, with crane.
#[track_caller]
fn push(lab: &Lab, config: &DockerConfig, image: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), text).unwrap();
    let layer = dir.path().join("layer.tar");
    let options = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0"];
    let made = Command::new("tar")
        .args(options)
        .arg("-cf")
        .arg(&layer)
        .arg("-C")
        .arg(dir.path())
        .arg("file")
        .status();
    assert!(made.unwrap().success());
    let line = format!("append --new_layer {} --new_tag REGISTRY/{image}", layer.display());
    crane(lab, config, &line).unwrap().rsplit('@').next().unwrap().to_owned()
}

/// A header of an answer that curl gets.
fn header(lab: &Lab, option: &str, path: &str, name: &str) -> Option<String> {
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    let url = format!("http://{}{path}", lab.host());
    let text = Run::of(Command::new("curl").args(["-sS", option, "-H", accept, &url])).unwrap();
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
}

/// The log of a lab, without what differs between two runs.
fn transcript(lab: &Lab) -> String {
    plain(lab, &lab.transcript())
}

/// Text of crane or of a log, without what differs between two runs: port, time, digests.
fn plain(lab: &Lab, text: &str) -> String {
    let text = text.replace(lab.host(), "REGISTRY").replace(&lab.host().replace(':', "%3A"), "REGISTRY");
    let text: String = text.lines().map(|line| without_client(without_time(line)) + "\n").collect();
    without_digests(&text)
}

/// A line of crane's log without its time.
fn without_time(line: &str) -> &str {
    let is_time = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"/: ".contains(&byte));
    match line.split_at_checked("2026/11/30 10:56:21 ".len()) {
        Some((time, rest)) if is_time(time) => rest,
        _ => line,
    }
}

/// A line without the client's own port.
fn without_client(line: &str) -> String {
    match line.split_once("tcp 127.0.0.1:") {
        Some((head, rest)) => {
            format!("{head}tcp CLIENT{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}

/// `sha256:…` with letters instead of digests, in the order of their appearance.
fn without_digests(text: &str) -> String {
    let mut known: Vec<String> = Vec::new();
    let text = text.replace("sha256%3A", "sha256:");
    let mut parts = text.split("sha256:");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(part.len());
        let place = known.iter().position(|digest| *digest == part[..end]).unwrap_or_else(|| {
            known.push(part[..end].to_owned());
            known.len() - 1
        });
        result += &format!("DIGEST-{}{}", char::from(b'A' + u8::try_from(place).unwrap()), &part[end..]);
    }
    result
}
