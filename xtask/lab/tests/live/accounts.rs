use std::process::Command;
use std::time::Duration;

use expect_test::expect;
use registry_lab::{Account, Entry, Fault, Lab, Login, Refusal, Rule, TokenServer};

use crate::{Run, crane, nobody, plain, push, transcript};

fn ci() -> Account {
    Account::new("ci", "secret").may_push("team/*")
}

fn reader() -> Account {
    Account::new("reader", "secret").may_pull("team/*")
}

fn lab() -> Lab {
    Lab::start().token_server(TokenServer::new([ci(), reader()]).public("public/*"))
}

#[test]
fn htpasswd_is_the_registrys_own() {
    let lab = Lab::start().htpasswd([ci()]);
    let config = lab.docker_config(&Login::password("ci", "secret"));
    let digest = push(&lab, &config, "any/image:latest", "1");
    for login in [Login::Nobody, Login::password("ci", "wrong")] {
        let config = lab.docker_config(&login);
        let text = crane(&lab, &config, "manifest REGISTRY/any/image:latest").unwrap_err();
        assert!(text.contains("UNAUTHORIZED: authentication required"), "{text}");
    }
    lab.set_htpasswd([]);
    assert_eq!(crane(&lab, &nobody(&lab), "digest REGISTRY/any/image:latest").unwrap(), digest);
}

/// A lab with one image, whose log is empty.
fn with_image() -> Lab {
    let lab = lab();
    push(&lab, &lab.docker_config(&Login::password("ci", "secret")), "team/image:latest", "1");
    lab.arm([]);
    lab
}

#[test]
fn crane_gets_a_token_for_what_it_does() {
    let lab = with_image();
    crane(&lab, &lab.docker_config(&Login::password("ci", "secret")), "tag REGISTRY/team/image:latest v1")
        .unwrap();
    expect![[r#"
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab 200
        GET /v2/team/image/manifests/latest 200
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apush%2Cpull&service=registry.lab 200
        PUT /v2/team/image/manifests/v1 201
    "#]]
    .assert_eq(&transcript(&lab));
}

#[test]
fn an_identity_token_is_exchanged_by_a_post() {
    let lab = with_image();
    let token = lab.identity_token("ci");
    for login in
        [Login::Identity(token.clone()), Login::helper("<token>", &token), Login::store("<token>", &token)]
    {
        crane(&lab, &lab.docker_config(&login), "digest REGISTRY/team/image:latest").unwrap();
    }
    expect![[r#"
        GET /v2/ 401
        POST /token 200
        HEAD /v2/team/image/manifests/latest 200
        GET /v2/ 401
        POST /token 200
        HEAD /v2/team/image/manifests/latest 200
        GET /v2/ 401
        POST /token 200
        HEAD /v2/team/image/manifests/latest 200
    "#]]
    .assert_eq(&transcript(&lab));
    lab.revoke_identity_tokens();
    let config = lab.docker_config(&Login::Identity(token));
    let text = crane(&lab, &config, "digest REGISTRY/team/image:latest").unwrap_err();
    assert!(text.contains("401 Unauthorized"), "{text}");
}

/// crane sends a refused write once more without its body, and reports that instead of the refusal.
#[test]
fn an_account_without_a_right_gets_a_token_without_it() {
    let lab = with_image();
    let reader = lab.docker_config(&Login::password("reader", "secret"));
    crane(&lab, &reader, "digest REGISTRY/team/image:latest").unwrap();
    lab.arm([]);
    let text = crane(&lab, &reader, "tag REGISTRY/team/image:latest v1").unwrap_err();
    expect![[r#"
        Error: Put "http://REGISTRY/v2/team/image/manifests/v1": http: ContentLength=423 with Body length 0
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab 200
        GET /v2/team/image/manifests/latest 200
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apush%2Cpull&service=registry.lab 200
        PUT /v2/team/image/manifests/v1 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull%2Cpush&scope=repository%3Ateam%2Fimage%3Apush%2Cpull&service=registry.lab 200
    "#]].assert_eq(&(plain(&lab, &text) + &transcript(&lab)));
    lab.set_token_server(TokenServer::new([self::reader()]).refusal(Refusal::Forbidden));
    let text = crane(&lab, &reader, "tag REGISTRY/team/image:latest v1").unwrap_err();
    assert!(text.contains("DENIED: requested access to the resource is denied"), "{text}");
}

#[test]
fn anonymous_tokens_pull_from_public_repositories_only() {
    let lab = Lab::start();
    for image in ["public/image:latest", "team/image:latest"] {
        push(&lab, &nobody(&lab), image, "1");
    }
    lab.set_token_server(TokenServer::new([ci()]).public("public/*"));
    let nobody = nobody(&lab);
    crane(&lab, &nobody, "digest REGISTRY/public/image:latest").unwrap();
    for line in ["digest REGISTRY/team/image:latest", "tag REGISTRY/public/image:latest v1"] {
        lab.arm([]);
        crane(&lab, &nobody, line).unwrap_err();
        let is_refused = |it: &Entry| it.target.contains("/manifests/") && it.status == Some(401);
        assert!(lab.log().iter().any(is_refused), "{}", lab.transcript());
    }
}

#[test]
fn a_wrong_password_is_refused_by_the_token_server() {
    let lab = lab();
    let wrong = lab.docker_config(&Login::password("ci", "wrong"));
    let text = crane(&lab, &wrong, "digest REGISTRY/public/image:latest").unwrap_err();
    assert!(text.contains("401"), "{text}");
}

/// An expired token ends a read of crane in one more token, and a write in an error.
#[test]
fn crane_renews_a_token_that_expires_before_a_read() {
    let lab = with_image();
    let config = lab.docker_config(&Login::password("ci", "secret"));
    lab.arm([Rule::on("HEAD */manifests/*", Fault::ExpireTokens).nth(1)]);
    crane(&lab, &config, "digest REGISTRY/team/image:latest").unwrap();
    expect![[r#"
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab 200
        HEAD /v2/team/image/manifests/latest 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab 200
        HEAD /v2/team/image/manifests/latest 200
    "#]]
    .assert_eq(&transcript(&lab));
    lab.arm([Rule::on("PUT */manifests/*", Fault::ExpireTokens).nth(1)]);
    let text = crane(&lab, &config, "tag REGISTRY/team/image:latest v1").unwrap_err();
    expect![[r#"
        Error: Put "http://REGISTRY/v2/team/image/manifests/v1": http: ContentLength=423 with Body length 0
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab 200
        GET /v2/team/image/manifests/latest 200
        GET /v2/ 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apush%2Cpull&service=registry.lab 200
        PUT /v2/team/image/manifests/v1 401
        GET /token?scope=repository%3Ateam%2Fimage%3Apull%2Cpush&scope=repository%3Ateam%2Fimage%3Apush%2Cpull&service=registry.lab 200
    "#]].assert_eq(&(plain(&lab, &text) + &transcript(&lab)));
}

#[test]
fn a_token_server_can_fail() {
    let lab = with_image();
    let config = lab.docker_config(&Login::password("ci", "secret"));
    lab.set_token_server(TokenServer::new([ci()]).failing_with(403));
    let text = crane(&lab, &config, "digest REGISTRY/team/image:latest").unwrap_err();
    expect![[r#"
        HEAD request failed, falling back on GET: GET http://REGISTRY/token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab: DENIED: the registry fails as the test asks
        Error: GET http://REGISTRY/token?scope=repository%3Ateam%2Fimage%3Apull&service=registry.lab: DENIED: the registry fails as the test asks
    "#]].assert_eq(&plain(&lab, &text));
    lab.set_token_server(TokenServer::new([ci()]));
    lab.arm([Rule::on("GET /token*", Fault::Status(503)).times(1)]);
    crane(&lab, &config, "digest REGISTRY/team/image:latest").unwrap();
    assert_eq!(lab.counts().tokens, 2);
    // A token that nobody can use in time.
    lab.set_token_server(TokenServer::new([ci()]).lifetime(Duration::ZERO));
    crane(&lab, &config, "digest REGISTRY/team/image:latest").unwrap_err();
}

#[test]
fn a_trusted_client_needs_no_account() {
    let lab = with_image();
    let ping = |host: &str| {
        let url = format!("http://{host}/v2/team/image/tags/list");
        Run::of(Command::new("curl").args(["-sSf", &url])).ok
    };
    let trusted = lab.trusted_client();
    assert_eq!((ping(trusted.host()), ping(lab.host())), (true, false));
    lab.set_token_server(None);
    lab.set_htpasswd([ci()]);
    assert_eq!((ping(trusted.host()), ping(lab.host())), (true, false));
}
