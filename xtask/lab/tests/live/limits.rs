use std::time::Duration;

use expect_test::expect;
use registry_lab::{Account, Immutable, Lab, Login, PullLimit, RetryAfter, TokenServer};

use crate::{crane, header, nobody, plain, push, transcript};

#[test]
fn only_gets_of_manifests_are_pulls() {
    let lab = Lab::start();
    let config = nobody(&lab);
    push(&lab, &config, "image:latest", "1");
    lab.set_pull_limit(PullLimit::from(3));
    let left = || header(&lab, "-I", "/v2/image/manifests/latest", "ratelimit-remaining").unwrap();
    assert_eq!(left(), "3;w=21600");
    crane(&lab, &config, "digest REGISTRY/image:latest").unwrap();
    assert_eq!(left(), "3;w=21600");
    crane(&lab, &config, "tag REGISTRY/image:latest v1").unwrap();
    assert_eq!(left(), "2;w=21600");
    // crane asks for the manifest, then for the config.
    crane(&lab, &config, "config REGISTRY/image:latest").unwrap();
    assert_eq!(left(), "1;w=21600");
    assert_eq!(header(&lab, "-I", "/v2/image/manifests/latest", "ratelimit-limit").unwrap(), "3;w=21600");
    assert_eq!(header(&lab, "-I", "/v2/", "ratelimit-limit"), None);
}

#[test]
fn with_nothing_left_a_head_succeeds_and_a_get_fails() {
    let lab = Lab::start();
    let config = nobody(&lab);
    let digest = push(&lab, &config, "image:latest", "1");
    lab.set_pull_limit(PullLimit::from(0).retry_after(RetryAfter::Seconds(30)));
    lab.arm([]);
    assert_eq!(crane(&lab, &config, "digest REGISTRY/image:latest").unwrap(), digest);
    let text = crane(&lab, &config, "manifest REGISTRY/image:latest").unwrap_err();
    expect![[r#"
        Error: fetching manifest REGISTRY/image:latest: GET http://REGISTRY/v2/image/manifests/latest: TOOMANYREQUESTS: You have reached your pull rate limit.
        GET /v2/ 200
        HEAD /v2/image/manifests/latest 200
        GET /v2/ 200
        GET /v2/image/manifests/latest 429
    "#]].assert_eq(&(plain(&lab, &text) + &transcript(&lab)));
    assert_eq!(header(&lab, "-i", "/v2/image/manifests/latest", "retry-after").unwrap(), "30");
}

#[test]
fn a_limit_belongs_to_an_account_and_its_window_ends() {
    let accounts = ["a", "b"].map(|name| Account::new(name, "secret").may_push("*"));
    let lab = Lab::start().token_server(TokenServer::new(accounts).public("*"));
    let [a, b] = ["a", "b"].map(|name| lab.docker_config(&Login::password(name, "secret")));
    push(&lab, &a, "image:latest", "1");
    lab.set_pull_limit(PullLimit::from(1));
    for config in [&a, &b, &nobody(&lab)] {
        crane(&lab, config, "manifest REGISTRY/image:latest").unwrap();
        crane(&lab, config, "manifest REGISTRY/image:latest").unwrap_err();
    }
    lab.set_pull_limit(PullLimit::from(1).window(Duration::from_secs(1)));
    crane(&lab, &a, "manifest REGISTRY/image:latest").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    crane(&lab, &a, "manifest REGISTRY/image:latest").unwrap();
}

#[test]
fn an_immutable_tag_keeps_its_digest() {
    let lab = Lab::start();
    let config = nobody(&lab);
    let first = push(&lab, &config, "team/image:v1", "1");
    push(&lab, &config, "team/image:v2", "2");
    lab.set_immutable(Immutable::DockerHub.tags("v*"));
    let tag = |from: &str, to: &str| crane(&lab, &config, &format!("tag REGISTRY/team/image:{from} {to}"));
    let mut text = String::new();
    for style in [Immutable::DockerHub, Immutable::Harbor, Immutable::Ecr, Immutable::Quay] {
        lab.set_immutable(style.tags("v*"));
        text += &plain(&lab, &tag("v2", "v1").unwrap_err());
        let refuses_all = matches!(style, Immutable::Harbor | Immutable::Ecr);
        assert_eq!(tag("v1", "v1").ok, !refuses_all, "{style:?}: the digest that it has");
    }
    expect![[r#"
        Error: PUT http://REGISTRY/v2/team/image/manifests/v1: DENIED: the tag is immutable
        Error: PUT http://REGISTRY/v2/team/image/manifests/v1: PRECONDITION: Failed to process request due to 'team/image:v1' configured as immutable.
        Error: PUT http://REGISTRY/v2/team/image/manifests/v1: TAG_INVALID: The image tag 'v1' already exists in the 'team/image' repository and cannot be overwritten because the repository is immutable.
        Error: PUT http://REGISTRY/v2/team/image/manifests/v1: TAG_ALREADY_EXISTS: tag was already pushed
    "#]].assert_eq(&text);
    assert_eq!(lab.registry().tag("team/image", "v1"), Some(first));
    tag("v1", "v1").unwrap();
    tag("v1", "v3").unwrap();
    tag("v1", "latest").unwrap();
    tag("v2", "latest").unwrap();
    lab.set_immutable(None);
    tag("v2", "v1").unwrap();
}

#[test]
fn crane_follows_the_pages_of_tags() {
    let lab = Lab::start().tags_per_page(2);
    let config = nobody(&lab);
    push(&lab, &config, "image:v1", "1");
    for tag in ["v2", "v3", "v4", "v5"] {
        crane(&lab, &config, &format!("tag REGISTRY/image:v1 {tag}")).unwrap();
    }
    lab.arm([]);
    assert_eq!(crane(&lab, &config, "ls REGISTRY/image").unwrap(), "v1\nv2\nv3\nv4\nv5");
    expect![[r#"
        GET /v2/ 200
        GET /v2/image/tags/list?n=1000 200
        GET /v2/image/tags/list?last=v2&n=2 200
        GET /v2/image/tags/list?last=v4&n=2 200
    "#]]
    .assert_eq(&transcript(&lab));
    crane(&lab, &config, "ls REGISTRY/unknown").unwrap_err();
}
