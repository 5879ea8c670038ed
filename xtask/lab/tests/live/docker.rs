//! The real docker and its BuildKit against a lab, as a release uses them.

use std::fs;
use std::process::Command;

use registry_lab::{Account, Lab, Login, TokenServer};

use crate::{Run, crane};

/// Builds an image of one file and pushes it.
fn build(config: &registry_lab::DockerConfig, image: &str) -> Run {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let output = format!("--output=type=image,name={image},push=true");
    let mut command = Command::new("docker");
    command
        .args(["buildx", "build", "--provenance=false", "--quiet", &output])
        .arg(dir.path())
        .env_remove("BUILDX_BUILDER");
    Run::of(config.log_in(&mut command))
}

#[test]
fn docker_pushes_with_a_password_an_identity_token_and_a_helper() {
    let accounts = ["ci", "reader"].map(|name| Account::new(name, "secret").may_pull("team/*"));
    let [ci, reader] = accounts;
    let lab = Lab::start().token_server(TokenServer::new([ci.may_push("team/*"), reader]));
    let image = format!("{}/team/image:latest", lab.host());
    let logins = [
        Login::password("ci", "secret"),
        Login::Identity(lab.identity_token("ci")),
        Login::helper("ci", "secret"),
        Login::store("<token>", &lab.identity_token("ci")),
    ];
    for login in logins {
        let config = lab.docker_config(&login);
        build(&config, &image).unwrap();
        crane(&lab, &config, "manifest REGISTRY/team/image:latest").unwrap();
        lab.registry().remove("team/image");
    }
    let text = build(&lab.docker_config(&Login::password("reader", "secret")), &image).unwrap_err();
    assert!(text.contains("401 Unauthorized") || text.contains("insufficient_scope"), "{text}");
    lab.arm([]);
    build(&lab.docker_config(&Login::Identity(lab.identity_token("ci"))), &image).unwrap();
    let counts = lab.counts();
    assert_eq!(
        (counts.tokens, counts.manifest_gets, counts.manifest_heads),
        (1, 0, 1),
        "{}",
        lab.transcript()
    );
}
