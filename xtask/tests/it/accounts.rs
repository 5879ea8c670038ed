//! Releases to registries with accounts: the real crane and docker's own configuration before a real registry that asks
//! for a password or a token. Docker alone is a stand-in, which pushes past the accounts.

use std::process::{Command, Output};
use std::sync::Arc;

use registry_lab::{
    Account, DockerConfig, Fault, Immutable, Lab, Login, PullLimit, Registry, Rule, TokenServer,
};

use crate::support::env::{DEBIAN, TestEnv};
use crate::support::releases::CHAIN;

fn ci() -> Account {
    Account::new("ci", "s3cret").may_push("*")
}

fn reader() -> Account {
    Account::new("reader", "s3cret").may_pull("*")
}

/// A tree before a registry with accounts, and an address of the same registry at which nobody asks for one.
pub struct Site {
    pub lab: Lab,
    open: Lab,
    pub world: TestEnv,
    pub config: DockerConfig,
    /// Password for curl, where the registry itself asks.
    login: String,
}

impl Site {
    pub fn new(lab: Lab, login: &Login) -> Self {
        let registry: Arc<Registry> = lab.registry().clone();
        registry.put("debian", "trixie-slim", DEBIAN.as_bytes());
        let (open, world) = (Lab::before(&registry), TestEnv::before(lab.host(), "team/devbox"));
        let config = lab.docker_config(login);
        Self { lab, open, world, config, login: String::new() }
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// A command line of xtask with the login.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.world.command(line);
        command.env("FAKE_PUSH_HOST", self.open.host()).env("FAKE_ACCOUNT", &self.login);
        for (name, value) in self.config.env() {
            command.env(name, if name == "PATH" { self.world.path_before(&value) } else { value });
        }
        command
    }

    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}\n{}", self.lab.transcript());
        format!("{}{error}", String::from_utf8_lossy(&output.stdout))
    }

    #[track_caller]
    pub fn fails(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{line}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
        text
    }

    /// The whole chain; afterwards all public tags are there.
    pub fn release(&self) {
        CHAIN.iter().for_each(|line| drop(self.ok(line)));
        let tags = self.lab.registry().tags("team/devbox");
        for tag in ["v1.18.18", "v1.18.18-omos-with-pi", "latest", "latest-omos-with-pi", "base-latest"] {
            assert!(tags.contains_key(tag), "{tag}: {tags:?}");
        }
    }
}

fn token_lab() -> Lab {
    Lab::start().token_server(TokenServer::new([ci(), reader()]))
}

#[test]
fn a_release_with_htpasswd_runs_by_the_whole_chain() {
    let mut site = Site::new(Lab::start().htpasswd([ci()]), &Login::password("ci", "s3cret"));
    site.login = "ci:s3cret".to_owned();
    site.release();
    site.lab.arm([]);
    site.release();
    assert_eq!(site.lab.counts().writes, 0, "a finished release writes nothing");
}

#[test]
fn a_release_with_tokens_runs_by_the_whole_chain() {
    let site = Site::new(token_lab(), &Login::password("ci", "s3cret"));
    site.release();
    // A mount asks for a token that reads the one repository and writes the other.
    let text = site.lab.transcript();
    let mounts: Vec<&str> = text.lines().filter(|line| line.contains("mount=")).collect();
    assert!(!mounts.is_empty() && mounts.iter().any(|line| line.ends_with(" 201")), "{mounts:#?}");
}

#[test]
fn a_token_may_expire_at_any_request() {
    let site = Site::new(token_lab(), &Login::password("ci", "s3cret"));
    CHAIN[..6].iter().for_each(|line| drop(site.ok(line)));
    // What crane writes, what this program writes, and reads.
    let at = |requests: &str, n| Rule::on(requests, Fault::ExpireTokens).nth(n);
    let rules = [3, 9, 13].map(|n| at("PUT */manifests/*", n)).into_iter();
    site.lab.arm(rules.chain([2, 9, 30].map(|n| at("HEAD */manifests/*", n))));
    site.release();
}

#[test]
fn identity_tokens_and_helpers_are_accounts_too() {
    let lab = token_lab();
    let identity = lab.identity_token("ci");
    let site = Site::new(lab, &Login::Identity(identity));
    site.release();
    for login in [Login::helper("ci", "s3cret"), Login::store("ci", "s3cret")] {
        let site = Site::new(token_lab(), &login);
        site.release();
        assert!(site.config.helper_log().contains("get"));
    }
}

#[test]
fn nobody_is_logged_in_only_when_that_is_true() {
    let site = Site::new(token_lab(), &Login::Nobody);
    let text = site.fails("status", 1);
    assert!(text.contains("nobody is logged in") && text.contains("run `docker login"), "{text}");
    let host = site.lab.host().to_owned();
    for (login, part) in [
        (Login::password("ci", "wrong"), "refuses the login of the account ci (HTTP 401)"),
        (Login::BrokenStore, "cannot be read from docker's configuration"),
        (Login::MissingStore, "cannot be read from docker's configuration"),
        (Login::RegistryToken("abc".to_owned()), "printed no account"),
    ] {
        site.config.set_login(&host, &login);
        let output = site.run("status");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(part), "{part}: {text}");
        assert!(!text.contains("nobody is logged in") && text.contains("docker login"), "{text}");
    }
}

/// `doctor` is asked what a release would be refused.
pub fn doctor(site: &Site) -> String {
    let output = site.run("doctor");
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours = |line: &&str| line.contains("publish") || line.contains("manifest reads");
    lines.lines().filter(ours).collect::<Vec<_>>().join("\n").replace(site.lab.host(), "REGISTRY")
}

#[test]
fn doctor_tells_the_truth_about_accounts() {
    let site = Site::new(token_lab(), &Login::password("ci", "s3cret"));
    assert_eq!(doctor(&site), "ok    the accounts may publish to REGISTRY/team/devbox");
    let host = site.lab.host().to_owned();
    site.config.set_login(&host, &Login::Nobody);
    let text = doctor(&site);
    assert!(text.contains("nobody is logged in to REGISTRY") && text.contains("FAIL"), "{text}");
    site.config.set_login(&host, &Login::password("ci", "wrong"));
    let text = doctor(&site);
    assert!(text.contains("refuses the login of the account ci") && !text.contains("may publish"), "{text}");
    site.config.set_login(&host, &Login::password("reader", "s3cret"));
    let text = doctor(&site);
    assert!(text.contains("the account reader has no pull,push access to team/devbox"), "{text}");
    assert!(!text.contains("may publish"), "{text}");
}

#[test]
fn doctor_and_publish_know_the_limit_of_manifest_reads() {
    let site = Site::new(token_lab(), &Login::password("ci", "s3cret"));
    CHAIN[..6].iter().for_each(|line| drop(site.ok(line)));
    site.lab.set_pull_limit(PullLimit::from(5));
    let text = doctor(&site);
    assert!(
        text.contains("of 5 manifest reads are left") && text.contains("a release needs about"),
        "{text}"
    );
    site.lab.arm([]);
    let text = site.fails("publish --promote-latest", 3);
    assert!(text.contains("more manifest reads and the promotion needs"), "{text}");
    assert!(site.lab.registry().tags("team/devbox").keys().all(|tag| tag.starts_with("base-")));
    site.lab.set_pull_limit(None);
    site.ok("publish --promote-latest");
}

/// A first release, and a pull request without an account: what cannot be read counts as missing.
#[test]
fn plan_works_before_the_repository_can_be_read() {
    let site = Site::new(token_lab(), &Login::Nobody);
    let text = site.ok("plan");
    assert!(text.contains("cannot be read here, so its images count as missing"), "{text}");
    assert!(text.contains("nothing is published yet"), "{text}");
}

#[test]
fn tags_that_may_not_move_stop_a_promotion_whole() {
    let site = Site::new(token_lab(), &Login::password("ci", "s3cret"));
    site.release();
    let before = site.lab.registry().tags("team/devbox");
    site.lab.set_immutable(Immutable::Harbor.tags("latest*"));
    let file = site.world.root.join("images/Dockerfile.variant");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("1.18.18", "1.18.19")).unwrap();
    CHAIN[1..6].iter().for_each(|line| drop(site.ok(line)));
    let text = site.fails("publish --promote-latest", 1);
    assert!(text.contains("cannot set the tag latest"), "{text}");
    let after = site.lab.registry().tags("team/devbox");
    for (tag, digest) in before {
        assert_eq!(after[&tag], digest, "{tag}");
    }
}

/// Docker Hub gives a token with fewer scopes than it was asked for, and refuses only what is then tried.
#[test]
fn a_refusal_names_account_repository_and_scope() {
    let site = Site::new(token_lab(), &Login::password("reader", "s3cret"));
    let text = site.fails("build-base", 1);
    assert!(text.contains("the account reader has no pull,push access to team/devbox-staging"), "{text}");
}

/// The right to push is proved by beginning an upload, which leaves nothing behind.
#[test]
fn the_right_to_push_is_proved_without_writing() {
    use std::time::Duration;
    use xtask::tools::{http, registry::Registry as Client, runner::Runner};
    let site = Site::new(Lab::start(), &Login::Nobody);
    let runner = Runner::new(site.world.root.to_str().unwrap().into(), Duration::from_secs(5));
    let client = Client::new(&http::agent(Duration::from_secs(5), ""), None);
    let repository = format!("{}/team/devbox", site.lab.host()).parse().unwrap();
    client.prove_push(&runner, &repository).unwrap();
    let registry = site.lab.registry();
    assert!(registry.tags("team/devbox").is_empty() && registry.manifests("team/devbox").is_empty());
    let writes: Vec<_> = site.lab.log().into_iter().map(|entry| entry.method).collect();
    assert_eq!(writes.last().map(String::as_str), Some("DELETE"), "the upload is cancelled");
    site.lab.set_token_server(TokenServer::new([ci()]));
    let error = client.prove_push(&runner, &repository).unwrap_err().to_string();
    assert!(error.contains("HTTP 401") && error.contains("pull,push"), "{error}");
}
