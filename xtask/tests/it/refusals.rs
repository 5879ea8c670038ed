//! What registries of other makers answer, and docker configurations of other shapes than `docker login` leaves.

use std::fs;
use std::time::Duration;

use registry_lab::{
    Account, DockerConfig, Fault, Immutable, Lab, Login, PullLimit, Refusal, Rule, TokenServer,
};
use xtask::tools::{http, registry::Registry as Client, runner::Runner};

use crate::accounts::{Site, doctor};
use crate::support::env::{TestEnv, script};
use crate::support::releases::CHAIN;
use crate::support::server::{Answer, Server};

fn accounts() -> [Account; 2] {
    [Account::new("ci", "s3cret").may_push("*"), Account::new("reader", "s3cret").may_pull("*")]
}

fn site(refusal: Refusal, name: &str) -> Site {
    let lab = Lab::start().token_server(TokenServer::new(accounts()).refusal(refusal));
    Site::new(lab, &Login::password(name, "s3cret"))
}

/// Gitea answers a token without the right to push with a challenge for Basic.
#[test]
fn a_challenge_after_a_token_is_no_wrong_password() {
    let site = site(Refusal::GiteaUnauthorized, "reader");
    let text = doctor(&site);
    assert!(text.contains("the account reader has no pull,push access to team/devbox"), "{text}");
    assert!(!text.contains("refuses the login"), "{text}");
    site.config.set_login(site.lab.host(), &Login::password("reader", "wrong"));
    let text = doctor(&site);
    assert!(text.contains("refuses the login of the account reader"), "{text}");
    site.config.set_login(site.lab.host(), &Login::password("ci", "s3cret"));
    assert_eq!(doctor(&site), "ok    the accounts may publish to REGISTRY/team/devbox");
}

/// GitHub's token server refuses an account without the right, and a wrong password, in the same way.
#[test]
fn a_refusal_of_the_token_server_is_no_certain_wrong_password() {
    let site = site(Refusal::AtToken, "reader");
    let text = doctor(&site);
    assert!(
        text.contains("the account reader") && text.contains("pull,push access to team/devbox"),
        "{text}"
    );
    assert!(text.contains("requested access to the resource is denied"), "{text}");
    assert!(!text.contains("refuses the login"), "{text}");
    site.config.set_login(site.lab.host(), &Login::password("ci", "s3cret"));
    site.ok("build-base");
}

/// The reason that a registry gives is part of the error.
#[test]
fn the_reason_of_a_registry_is_told() {
    let site = site(Refusal::Unauthorized, "ci");
    site.release();
    site.lab.set_immutable(Immutable::Harbor.tags("latest*"));
    let file = site.world.root.join("images/Dockerfile.variant");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("1.18.18", "1.18.19")).unwrap();
    CHAIN[1..6].iter().for_each(|line| drop(site.ok(line)));
    let text = site.fails("publish --promote-latest", 1);
    assert!(text.contains("'team/devbox:latest' configured as immutable"), "{text}");
    site.lab.set_immutable(None);
    site.lab.arm([Rule::on("PUT */manifests/latest", Fault::Html(413))]);
    let text = site.fails("publish --promote-latest", 1);
    assert!(text.contains("HTTP 413"), "{text}");
    assert!(!text.contains('<'), "a page of a gateway is not quoted: {text}");
}

/// The secret of a helper may live for an hour only, less than a release.
#[test]
fn a_secret_that_expired_is_asked_for_again() {
    let site = site(Refusal::Unauthorized, "ci");
    site.config.set_login(site.lab.host(), &Login::helper("ci", "s3cret"));
    let count = site.config.path().join("count");
    let secret = |text: &str| format!("{{\"ServerURL\":\"x\",\"Username\":\"ci\",\"Secret\":\"{text}\"}}");
    let text = format!(
        "#!/bin/sh\ncat >/dev/null\nif [ -e {0} ]; then echo '{1}'; else touch {0}; echo '{2}'; fi\n",
        count.display(),
        secret("s3cret"),
        secret("expired")
    );
    script(&site.config.path().join("bin/docker-credential-lab"), &text);
    site.ok("build-base");
    // The same before a registry that asks for the password itself.
    let htpasswd = Lab::start().htpasswd([accounts()[0].clone()]);
    let site = Site::new(htpasswd, &Login::helper("ci", "s3cret"));
    fs::remove_file(&count).unwrap();
    script(&site.config.path().join("bin/docker-credential-lab"), &text);
    assert!(site.fails("status", 1).contains("nothing was released"));
}

/// docker reads this variable since 28.3, and crane beside a `config.json` only.
#[test]
fn an_account_that_only_docker_can_see_is_named() {
    let site = Site::new(Lab::start().token_server(TokenServer::new(accounts())), &Login::Nobody);
    let config = DockerConfig::new(site.lab.host(), &Login::password("ci", "s3cret")).text();
    let output = site.command("status").env("DOCKER_AUTH_CONFIG", &config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("nothing was released"), "{text}");
    fs::remove_file(site.config.file()).unwrap();
    let output = site.command("status").env("DOCKER_AUTH_CONFIG", &config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("DOCKER_AUTH_CONFIG") && text.contains("run `docker login"), "{text}");
    assert!(!text.contains("nobody is logged in"), "{text}");
    // Another host's account is none for this one.
    let config = r#"{"auths":{"registry.example":{"auth":"Y2k6eA=="}}}"#;
    let output = site.command("status").env("DOCKER_AUTH_CONFIG", config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("nobody is logged in"), "{text}");
}

/// A server that wants a password, and answers each request that has one by a function of `METHOD path`.
fn guarded(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    guarded_by(&[BASIC], answer)
}

fn guarded_by(challenges: &[&str], answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    let refusal =
        challenges.iter().fold(Answer::status(401), |answer, it| answer.header("WWW-Authenticate", it));
    Server::start(move |request| match request.header("Authorization") {
        Some(_) => answer(&request.line()),
        None => refusal.clone(),
    })
}

fn run(server: &Server, line: &str) -> String {
    let host = &server.host;
    let world = TestEnv::before(host, "team/devbox");
    let config = DockerConfig::new(host, &Login::password("ci", "s3cret"));
    let output = world.command(line).env("DOCKER_CONFIG", config.path()).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const BASIC: &str = "Basic realm=\"x\"";
const NO_TAGS: &str = r#"{"tags":[]}"#;

/// The address of a next page or of an upload may lie on another machine: no password goes there.
#[test]
fn a_password_goes_to_its_own_registry_only() {
    let elsewhere = Server::start(|_| Answer::ok(NO_TAGS));
    let (next, upload) =
        (format!("<{}/page>; rel=\"next\"", elsewhere.url()), format!("{}/upload", elsewhere.url()));
    let server = guarded(move |line| match line {
        line if line.contains("/tags/list") => Answer::ok(NO_TAGS).header("Link", &next),
        line if line.starts_with("POST") => Answer::status(202).header("Location", &upload),
        line if line.ends_with("/v2/") => Answer::ok("{}"),
        _ => Answer::status(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
    });
    let text = run(&server, "status");
    assert!(text.contains("names a page elsewhere"), "{text}");
    run(&server, "doctor");
    // Of the public repository and of the staging one.
    assert_eq!(elsewhere.lines(), ["DELETE /upload"; 2]);
    assert!(elsewhere.requests().iter().all(|request| request.header("Authorization").is_none()));
}

/// A listing whose next page is itself would go on for ever.
#[test]
fn pages_that_lead_back_are_an_error() {
    let server = guarded(|line| {
        let link = format!("<{}>; rel=\"next\"", line.split(' ').nth(1).unwrap());
        Answer::ok(r#"{"tags":["a"]}"#).header("Link", &link)
    });
    let text = run(&server, "status");
    assert!(text.contains("pages lead back"), "{text}");
    assert!(server.lines().len() < 9);
}

/// A registry may offer several ways to log in, some of which are for other programs (RFC 9110, 11.6.1).
#[test]
fn the_challenge_that_can_be_answered_is_answered() {
    let several: [&[&str]; 3] = [
        &["Negotiate", BASIC],
        &["Negotiate, Basic realm=\"x\""],
        &["NTLM", "basic realm=\"a, Bearer b\", charset=\"UTF-8\""],
    ];
    for challenges in several {
        let server = guarded_by(challenges, |line| match line.contains("/tags/list") {
            true => Answer::ok(NO_TAGS),
            false => Answer::status(404).header("Docker-Distribution-Api-Version", "registry/2.0"),
        });
        let text = run(&server, "status");
        assert!(text.contains("nothing was released"), "{text}");
    }
}

/// A login page with status 200 is no image.
#[test]
fn a_page_in_html_is_no_image() {
    let server = guarded(|line| match line.contains("/tags/list") {
        true => Answer::ok(NO_TAGS),
        false => Answer::ok("<html>Log in</html>").header("Content-Type", "text/html"),
    });
    let text = run(&server, "status");
    assert!(text.contains("cannot tell whether") && !text.contains("nothing was released"), "{text}");
}

/// A limit and a clock belong to a registry: Docker Hub's say nothing of another one.
#[test]
fn a_limit_belongs_to_its_registry() {
    let (hub, own) = (Lab::start().pull_limit(PullLimit::from(1)).clock_skew(600), Lab::start());
    for lab in [&hub, &own] {
        lab.registry().put("team/devbox", "latest", crate::support::env::DEBIAN.as_bytes());
    }
    let runner = Runner::new("/tmp".into(), Duration::from_secs(5));
    let client = Client::new(&http::agent(Duration::from_secs(5), ""), None);
    let repository = |lab: &Lab| format!("{}/team/devbox", lab.host()).parse().unwrap();
    for lab in [&own, &hub] {
        client.digest(&runner, &repository(lab), "latest").unwrap().unwrap();
    }
    assert!(client.budget(&repository(&hub)).is_some_and(|it| it.remaining == 1));
    assert_eq!(client.budget(&repository(&own)), None);
    let ahead = client.now(&repository(&hub)) - client.now(&repository(&own));
    assert!((598..=602).contains(&ahead), "{ahead}");
}
