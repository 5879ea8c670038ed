//! The workflows as text: generated, pinned, bounded, and without decisions. `act` runs them on the engine of the forges.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Parser;
use serde::Deserialize;
use xtask::cli::Cli;

use crate::support::env::TestEnv;
use crate::support::server::{Answer, Server};

type Table = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Workflow {
    concurrency: Table,
    permissions: Table,
    #[serde(default)]
    env: Table,
    jobs: BTreeMap<String, Job>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Job {
    #[serde(default)]
    needs: Vec<String>,
    timeout_minutes: u32,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    run: Option<String>,
    uses: Option<String>,
    /// Values may be truth values.
    #[serde(default)]
    with: BTreeMap<String, serde_yaml_ng::Value>,
}

/// The `action.yml` of a stand-in, whose inputs are those of the real action at the pinned commit.
#[derive(Deserialize)]
struct Action {
    inputs: BTreeMap<String, serde_yaml_ng::Value>,
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn workflow(name: &str) -> Workflow {
    let text = fs::read_to_string(tree().join(format!(".gitea/workflows/{name}.yml"))).unwrap();
    serde_yaml_ng::from_str(&text).unwrap()
}

/// The text with each `${{ name }}` replaced; anything but a name would be a decision.
fn filled(text: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = text.split("${{ ");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" }}").unwrap();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        assert!(plain && !name.starts_with("env."), "{text} decides something");
        filled += &value(name);
        filled += rest;
    }
    filled
}

#[test]
fn a_release_goes_to_the_defined_repository() {
    let text = fs::read_to_string(tree().join("images/devbox.toml")).unwrap();
    let repository = xtask::model::config::Config::parse(&text).unwrap().repository().unwrap();
    assert_eq!(workflow("publish").env["DEVBOX_REPOSITORY"], repository.to_string());
}

fn words(run: &str) -> Vec<String> {
    // One compilation for all jobs: cargo cannot be asked yet.
    if let Some(verb) = run.strip_prefix("scripts/share-xtask ") {
        assert!(["share", "take"].contains(&verb), "{run}");
        return vec![verb.to_owned()];
    }
    let line = run.strip_prefix("cargo ").unwrap_or_else(|| panic!("logic in a workflow: {run}"));
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    if line == "xtask --version" {
        return words;
    }
    Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{run}: {error}"));
    words
}

#[test]
fn workflows_are_generated_pinned_bounded_and_decide_nothing() {
    let check = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["workflows", "--check"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let mut lines = 0;
    for name in ["publish", "refresh", "validate"] {
        let text = fs::read_to_string(tree().join(format!(".gitea/workflows/{name}.yml"))).unwrap();
        // The one choice: a queue is named after the release, however that was started.
        let text = text.replace("github.event.inputs.release_tag || github.ref_name", "");
        // `inputs` exists on manual runs only: on other events an engine may pass the expression on as text.
        for refused in ["if:", "env.", " && ", " || ", "{ inputs."] {
            assert!(!text.contains(refused), "{name} has {refused:?}");
        }
        let workflow = workflow(name);
        assert!(workflow.concurrency.contains_key("group"));
        assert_eq!(workflow.permissions, Table::from([("contents".into(), "read".into())]));
        for (id, job) in &workflow.jobs {
            assert!((1..=180).contains(&job.timeout_minutes), "{name} {id}");
            assert!(job.needs.iter().all(|need| workflow.jobs.contains_key(need)), "{name} {id}");
            for run in job.steps.iter().filter_map(|step| step.run.as_ref()) {
                words(&filled(run, |_| "omos".to_owned()));
                lines += 1;
            }
        }
    }
    assert!(lines > 20, "{lines}");
}

/// An unknown input is a warning on a forge, and what it should do does not happen.
#[test]
fn actions_get_only_inputs_that_they_have() {
    let mut names = std::collections::BTreeSet::new();
    for name in ["publish", "refresh", "validate"] {
        for step in workflow(name).jobs.into_values().flat_map(|job| job.steps) {
            let Some(uses) = step.uses else { continue };
            let action = uses.split(['/', '@']).nth(1).unwrap().to_owned();
            let text =
                fs::read_to_string(tree().join(format!("xtask/tests/live/act/{action}/action.yml"))).unwrap();
            let stand_in: Action = serde_yaml_ng::from_str(&text).unwrap();
            for input in step.with.keys() {
                assert!(stand_in.inputs.contains_key(input), "{uses} has no input {input}");
            }
            names.insert(action);
        }
    }
    assert_eq!(names.len(), 8, "{names:?}");
}

fn git(folder: &Path, args: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]);
    let status = command.args(args).current_dir(folder).env_remove("GIT_DIR").status().unwrap();
    assert!(status.success(), "git {args:?}");
}

/// Commits a tree whose changelog has the release, and tags it.
fn commit(root: &Path, tag: &str) {
    let changelog = format!("# Changelog\n\n## Unreleased\n\n## {tag} - 2026-11-24\n\n- A thing.\n");
    fs::write(root.join("CHANGELOG.md"), changelog).unwrap();
    git(root, &["init", "--quiet"]);
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message=Release"]);
    git(root, &["tag", tag]);
}

/// A repository whose tag is to be released.
fn repository() -> TestEnv {
    let world = TestEnv::new();
    commit(&world.root, "v1.18.18");
    world
}

/// An engine passes on as text what it cannot evaluate, such as an input of another event.
#[test]
fn an_expression_that_an_engine_did_not_evaluate_is_refused() {
    let world = TestEnv::new();
    for name in ["INPUT_RELEASE_TAG", "INPUT_PROMOTE_LATEST", "DOCKERHUB_TOKEN", "DEVBOX_STALL_SECONDS"] {
        let text = world.fails_with("publish", &[(name, "${{ inputs.x }}")], 1);
        let line = format!("error: {name} holds the expression of a workflow as text");
        assert!(text.starts_with(&line) && text.lines().count() == 1, "{text}");
    }
    let text = world.fails_with("publish", &[("INPUT_PROMOTE_LATEST", "yes")], 1);
    assert_eq!(text, "error: INPUT_PROMOTE_LATEST=yes: expected true or false\n");
}

/// A checkout in a workflow keeps no token, so git gets it with the push: for the forge's server and no other.
#[test]
fn a_push_has_the_token_of_the_server_that_it_goes_to() {
    let server = Server::start(|request| {
        let status = if request.header("Authorization").is_some() { 403 } else { 401 };
        Answer::status(status).header("WWW-Authenticate", "Basic realm=\"forge\"")
    });
    let url = server.url();
    let seen = || -> Vec<String> {
        let requests = server.requests();
        requests.iter().filter_map(|it| Some(it.header("Authorization")?.to_owned())).collect()
    };
    let world = repository();
    git(&world.root, &["remote", "add", "origin", &format!("{url}/you/devbox.git")]);
    git(&world.root, &["branch", "topic"]);
    let root = camino::Utf8PathBuf::from_path_buf(world.root.clone()).unwrap();
    let runner = xtask::tools::runner::Runner::new(root, std::time::Duration::from_secs(60));
    let push = |server: &str| xtask::tools::git::push(&runner, "topic", server, "t0k3n").unwrap_err();
    assert!(!format!("{:#}", push("http://127.0.0.1:1")).contains("t0k3n"));
    assert_eq!(seen(), [""; 0], "another server's token");
    assert!(!format!("{:#}", push(&url)).contains("t0k3n"));
    assert_eq!(seen(), ["Basic eC1hY2Nlc3MtdG9rZW46dDBrM24="]);
}

/// It deletes toolchains, so nothing but a runner of a forge may call it.
#[test]
fn reclaim_refuses_outside_a_runner_and_looks_before_it_deletes() {
    let world = TestEnv::new();
    assert!(world.fails_with("reclaim", &[("CI", "true")], 3).contains("GITHUB_ACTIONS"));
    let actions = [("GITHUB_ACTIONS", "true")];
    world.disk("90");
    let output = world.run_with("reclaim --dry-run", &actions);
    assert!(String::from_utf8_lossy(&output.stderr).contains("90 GB are free, enough"));
    world.disk("9");
    let output = world.run_with("reclaim --dry-run", &actions);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let label = "label=org.opencontainers.image.source=https://gitea.jordbo.se/joakimp/opencode-devbox";
    let prune = format!("docker image prune --all --force --filter {label} --filter until=168h");
    assert!(text.contains(&prune), "{text}");
    // The engine may be that of other projects, and a machine that runs jobs keeps what it has.
    assert!(!text.contains("builder prune") && !text.contains("system prune"), "{text}");
    let is_container = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    assert!(is_container || !text.contains("rm -rf"), "{text}");
    assert_eq!(world.log(), [""; 0]);
}
