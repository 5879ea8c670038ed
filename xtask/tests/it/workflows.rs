//! The workflows: that they decide nothing, and that a whole release goes through them. Each job runs as a runner runs
//! it: after the jobs it needs, in a clean clone, with files for outputs, environment and summary, and the registry as
//! the only thing that the jobs share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use serde::Deserialize;
use tempfile::TempDir;
use tiny_http::{Header, Response, Server};
use xtask::cli::Cli;

use crate::fakes::World;
use crate::hub;

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
    #[serde(default)]
    strategy: Strategy,
    #[serde(default)]
    env: Table,
    steps: Vec<Step>,
}

#[derive(Default, Deserialize)]
struct Strategy {
    matrix: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Step {
    run: Option<String>,
    #[serde(default)]
    env: Table,
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
        for refused in ["if:", "artifact", "env.", " && ", " || ", "{ inputs."] {
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

/// One run of the publish workflow.
struct Run<'a> {
    /// The repository that each job clones.
    origin: &'a Path,
    /// A command line as the machine of a job runs it.
    command: Commands<'a>,
    hub: &'a str,
    inputs: Table,
    /// The variant whose job fails, and the subcommand at which it does.
    broken: &'a str,
    breaks: &'a str,
    /// Subcommands that are passed over.
    skips: &'a [&'a str],
    /// The tag that is pushed, where the workflow is not started by hand.
    tag: &'a str,
    /// Jobs that have succeeded, each with its value of the matrix.
    done: Vec<(String, String)>,
    summaries: String,
}

impl Run<'_> {
    /// Runs, in the order of `needs`, every job that has not succeeded; tells whether all have in the end.
    fn go(&mut self) -> bool {
        let workflow = workflow("publish");
        let mut left: Vec<&String> = workflow.jobs.keys().collect();
        let mut good = true;
        while !left.is_empty() {
            let waits = |id: &&String| !workflow.jobs[*id].needs.iter().any(|need| left.contains(&need));
            let id = *left.iter().find(|id| waits(id)).expect("no circle");
            left.retain(|other| *other != id);
            let job = &workflow.jobs[id];
            let once = vec![String::new()];
            let values = job.strategy.matrix.get("variant").unwrap_or(&once);
            let needed = |need: &String| {
                let count = workflow.jobs[need].strategy.matrix.get("variant").map_or(1, Vec::len);
                self.done.iter().filter(|(done, _)| done == need).count() == count
            };
            if !job.needs.iter().all(needed) {
                good = false;
                continue;
            }
            for value in values {
                let this = (id.clone(), value.clone());
                if self.done.contains(&this) {
                    continue;
                }
                match self.job(&workflow, job, value) {
                    true => self.done.push(this),
                    false => good = false,
                }
            }
        }
        good
    }

    /// One job in a clone of its own.
    fn job(&mut self, workflow: &Workflow, job: &Job, variant: &str) -> bool {
        let place = TempDir::new().unwrap();
        let clone = place.path().join("clone");
        git(self.origin, &["clone", "--quiet", ".", clone.to_str().unwrap()]);
        let value = |name: &str| match name.split_once('.').unwrap() {
            ("matrix", _) => variant.to_owned(),
            ("github", field) => {
                let input = field.strip_prefix("event.inputs.").unwrap_or_else(|| panic!("{name}"));
                self.inputs.get(input).cloned().unwrap_or_default()
            }
            ("secrets", "DOCKERHUB_USERNAME") => "you".to_owned(),
            ("secrets", "DOCKERHUB_TOKEN") => "s3cret".to_owned(),
            _ => String::new(),
        };
        let env = workflow.env.iter().chain(&job.env).filter(|(name, _)| *name != "DEVBOX_REPOSITORY");
        let env: Table = env.map(|(name, text)| (name.clone(), filled(text, value))).collect();
        let runs = job.steps.iter().filter_map(|step| Some((step.run.as_ref()?, &step.env)));
        for (number, (run, secrets)) in runs.enumerate() {
            let words = words(&filled(run, value));
            if self.skips.contains(&words[1].as_str()) {
                continue;
            }
            let mut command = (self.command)(&words[1..].join(" "));
            command.env_remove("GIT_DIR").env("DEVBOX_ROOT", &clone).current_dir(&clone);
            command.envs(&env).envs(secrets.iter().map(|(name, text)| (name, filled(text, value))));
            command.env("CI", "true").env("GITHUB_ACTIONS", "true");
            if self.inputs.is_empty() {
                command.env("GITHUB_REF_TYPE", "tag").env("GITHUB_REF_NAME", self.tag);
            }
            let file = |name: &str| -> PathBuf { place.path().join(format!("{name}-{number}")) };
            for name in ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"] {
                fs::write(file(name), "").unwrap();
                command.env(name, file(name));
            }
            if words[1] == "update-description" {
                // Its registry is the one that the images went to.
                let registry = command.get_envs().find(|(name, _)| *name == "DEVBOX_REPOSITORY");
                let registry = registry.unwrap().1.unwrap().to_str().unwrap().split('/').next().unwrap();
                let registry = format!("http://{registry}");
                command.env("DOCKERHUB_REGISTRY_URL", registry).env("DOCKERHUB_URL", self.hub);
                command.env("DEVBOX_REPOSITORY", "docker.io/you/devbox");
            }
            let output = command.env("FAKE_BROKEN", self.broken).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!text.contains("s3cret"), "{text}");
            assert_eq!(text.matches("::group::").count(), text.matches("::endgroup::").count(), "{text}");
            self.summaries += &fs::read_to_string(file("GITHUB_STEP_SUMMARY")).unwrap();
            if !output.status.success() {
                assert!(self.broken == variant && words[1] == self.breaks, "{run}: {text}");
                return false;
            }
        }
        true
    }
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
fn repository() -> World {
    let world = World::new();
    commit(&world.root, "v1.18.18");
    world
}

type Commands<'a> = &'a dyn Fn(&str) -> Command;

fn run<'a>(world: &'a World, command: Commands<'a>, hub: &'a str, inputs: &[(&str, &str)]) -> Run<'a> {
    let inputs = inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // What is passed over sets up a machine or reads the package registries, and has tests of its own.
    let (skips, tag) = (&["doctor", "reclaim", "preflight"], "v1.18.18");
    let (done, summaries) = (Vec::new(), String::new());
    let origin = &world.root;
    Run { origin, command, hub, inputs, broken: "none", breaks: "smoke", skips, tag, done, summaries }
}

/// Failures 1, 2 and 3: a variant that fails holds all back, and a rerun of what failed completes all.
#[test]
fn a_release_goes_through_the_jobs_and_a_rerun_does_what_is_missing() {
    let world = repository();
    let (url, hub) = hub::start(200);
    let command = |line: &str| world.command(line);
    let mut first = run(&world, &command, &url, &[]);
    first.broken = "omos";
    assert!(!first.go());
    assert_eq!(world.tags(), [], "nothing public has moved");
    assert!(first.done.contains(&("variant".into(), "with-pi".into())), "the others have their verdict");
    assert!(!first.done.iter().any(|(job, _)| job == "publish"));
    assert!(first.summaries.contains("### `smoke omos`: failed in"), "{}", first.summaries);

    // Rerun of the failed jobs.
    world.log();
    first.broken = "none";
    assert!(first.go());
    let log = world.log();
    assert!(!log.iter().any(|line| line.starts_with("docker")), "nothing is built again: {log:?}");
    let smokes: Vec<_> = log.iter().filter(|line| line.starts_with("smoke")).collect();
    assert_eq!(smokes, ["smoke omos linux/amd64", "smoke omos linux/arm64"]);
    assert_eq!(world.tags().len(), 9);
    assert_eq!(hub.lock().unwrap().sent.len(), 1);
    for part in [
        "### `build omos`: done in",
        "has to be built",
        "nothing is published yet",
        "| with-pi | linux/arm64 | `sha256:",
        "| passed in 0 s |",
        "release notes and pull requests are left out",
    ] {
        assert!(first.summaries.contains(part), "{part} in {}", first.summaries);
    }

    // Rerun of all jobs, and the same as a manual run.
    let writes = world.writes();
    for inputs in [&[][..], &[("release_tag", "v1.18.18"), ("promote_latest", "true")]] {
        assert!(run(&world, &command, &url, inputs).go());
        assert_eq!(world.log(), [""; 0]);
        assert_eq!(world.writes(), writes);
    }
}

#[test]
fn a_manual_run_may_leave_all_floating_names_where_they_are() {
    let world = repository();
    let (url, hub) = hub::start(200);
    let command = |line: &str| world.command(line);
    let inputs = [("release_tag", "v1.18.18"), ("promote_latest", "false")];
    let mut manual = run(&world, &command, &url, &inputs);
    assert!(manual.go());
    let names: Vec<String> = world.tags().into_iter().map(|(tag, _)| tag).collect();
    assert_eq!(names, ["v1.18.18", "v1.18.18-omos", "v1.18.18-omos-with-pi", "v1.18.18-with-pi"]);
    assert!(hub.lock().unwrap().sent.is_empty());
    assert!(manual.summaries.contains("promote_latest is false"), "skipped with a word");
}

/// Passes everything on to docker, but for the build of one variant.
const DOCKER: &str = r#"#!/usr/bin/env bash
set -euo pipefail
PATH=${PATH#*:}
[ "$1 $2" = "buildx bake" ] || exec docker "$@"
definition=$(cat)
if grep -q -- "-staging:$FAKE_BROKEN-[0-9a-f]*\"" <<<"$definition"; then
  echo "failed to solve: this machine is broken" >&2
  exit 1
fi
exec docker "$@" <<<"$definition"
"#;

/// A suite of one check: it proves that the engine runs what was staged. The real one is run by `live.rs` on one variant
/// and by the workflow Validate on all; four more rounds of it would take longer than all other tests together.
const SUITE: &str = r#"#!/usr/bin/env bash
set -euo pipefail
docker run --rm --network=none --platform "$6" "$2" opencode --version
"#;

/// A release into a repository of its own, so that nothing of it is there before. Its images go when it ends.
struct Live {
    repository: String,
    dir: TempDir,
}

impl Live {
    fn new() -> Self {
        let live = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
        let host = live.split('/').next().unwrap();
        let repository = format!("{host}/workflow-{}/opencode-devbox", std::process::id());
        Self { repository, dir: TempDir::new().unwrap() }
    }

    /// This tree as it lies here, for the platform of this machine: the other one is the same code and a longer wait.
    fn tree(&self) -> PathBuf {
        let root = self.dir.path().join("tree");
        let copy = "git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t \"$1\"";
        fs::create_dir(&root).unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-ec", copy, "bash"]).arg(&root).current_dir(tree());
        assert!(shell.status().unwrap().success());
        let file = root.join("images/devbox.toml");
        let host = xtask::model::platform::Platform::host();
        let text = fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.starts_with("platforms = ")).unwrap();
        crate::fakes::script(&root.join("scripts/smoke-test.sh"), SUITE);
        fs::write(&file, text.replace(line, &format!("platforms = [\"{host}\"]"))).unwrap();
        root
    }

    fn command(&self, line: &str) -> Command {
        let mut command = crate::fakes::command(line, &self.dir.path().join("bin"));
        command.env("DEVBOX_REPOSITORY", &self.repository);
        for (name, of) in [("npm_config_registry", "DEVBOX_LIVE_NPM"), ("PIP_INDEX_URL", "DEVBOX_LIVE_PYPI")]
        {
            command.env(name, std::env::var(of).expect("run through `cargo xtask test`"));
        }
        command
    }

    /// Public tags with their digests, but for the base's key.
    fn tags(&self) -> Table {
        let crane = |args: &[&str]| {
            let output = Command::new("crane").args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let names = crane(&["ls", &self.repository]);
        let public = names.lines().filter(|name| !name.starts_with("base-") || *name == "base-latest");
        let digest = |name: &str| crane(&["digest", &format!("{}:{name}", self.repository)]);
        public.map(|name| (name.to_owned(), digest(name))).collect()
    }

    /// The base that the other live tests use, so that it is not built again.
    fn copy_base(&self, root: &Path) {
        let live = std::env::var("DEVBOX_LIVE_REPOSITORY").unwrap();
        let mut command = self.command("build-base");
        command.env("DEVBOX_REPOSITORY", &live).env("DEVBOX_ROOT", root).current_dir(root);
        assert!(command.status().unwrap().success());
        let json =
            command_json(self.command("base-decide --json").env("DEVBOX_ROOT", root).current_dir(root));
        let tag = format!("base-{}", json["key"].as_str().unwrap());
        let (from, to) = (format!("{live}:{tag}"), format!("{}:{tag}", self.repository));
        assert!(Command::new("crane").args(["copy", &from, &to]).status().unwrap().success());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let script = format!(
            "docker image ls --digests --format '{{{{.Repository}}}}@{{{{.Digest}}}}' | grep '^{}' | xargs -r docker image rm -f",
            self.repository
        );
        // What cannot be removed is left: the test's own result matters more.
        let _ = Command::new("sh").args(["-c", &script]).output();
    }
}

fn command_json(command: &mut Command) -> serde_json::Value {
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

/// The same with a real engine and a real registry: a job fails, is run again, and then all jobs are.
#[test]
#[ignore = "needs a Docker engine and a registry; `cargo xtask test` runs it"]
fn a_real_release_goes_through_the_jobs_of_the_workflow() {
    let live = Live::new();
    let root = live.tree();
    let text = fs::read_to_string(root.join("images/Dockerfile.variant")).unwrap();
    let tag = format!("v{}", xtask::model::dockerfile::arg_default(&text, "OPENCODE_VERSION").unwrap());
    commit(&root, &tag);
    live.copy_base(&root);
    crate::fakes::script(&live.dir.path().join("bin/docker"), DOCKER);
    let (url, hub) = hub::start(200);
    let command = |line: &str| live.command(line);
    let start = || Run {
        origin: &root,
        command: &command,
        hub: &url,
        inputs: Table::new(),
        broken: "none",
        breaks: "build",
        // It would delete toolchains of this machine.
        skips: &["reclaim"],
        tag: &tag,
        done: Vec::new(),
        summaries: String::new(),
    };
    let mut first = Run { broken: "omos", ..start() };
    assert!(!first.go());
    assert_eq!(live.tags(), Table::new(), "nothing public has moved");
    assert!(first.done.contains(&("variant".into(), "with-pi".into())), "the others have their verdict");

    first.broken = "none";
    first.summaries.clear();
    assert!(first.go(), "the failed job and what needs it");
    assert!(
        first.summaries.contains("### `smoke omos`: done in") && !first.summaries.contains("with-pi`: done")
    );
    let tags = live.tags();
    let names =
        ["base-latest", "latest", "latest-omos", "latest-omos-with-pi", "latest-with-pi"].map(String::from);
    let versions = ["", "-omos", "-omos-with-pi", "-with-pi"].map(|suffix| format!("{tag}{suffix}"));
    assert!(tags.keys().eq(names.iter().chain(&versions)), "{tags:?}");
    for suffix in ["", "-omos", "-omos-with-pi", "-with-pi"] {
        assert_eq!(tags[&format!("latest{suffix}")], tags[&format!("{tag}{suffix}")]);
    }
    assert_eq!(hub.lock().unwrap().sent.len(), 1);

    // The machine is set up, and every file was found.
    let mut again = Run { skips: &["reclaim", "doctor", "preflight"], ..start() };
    assert!(again.go(), "all jobs once more");
    assert!(again.summaries.contains("nothing to publish") && again.summaries.contains("passed before"));
    assert_eq!(live.tags(), tags);
    assert_eq!(hub.lock().unwrap().sent.len(), 1, "the description stands");
}

/// An engine passes on as text what it cannot evaluate, such as an input of another event.
#[test]
fn an_expression_that_an_engine_did_not_evaluate_is_refused() {
    let world = World::new();
    for name in ["INPUT_RELEASE_TAG", "INPUT_PROMOTE_LATEST", "DOCKERHUB_TOKEN", "DEVBOX_STALL_SECONDS"] {
        let text = world.fails("publish", &[(name, "${{ inputs.x }}")], 1);
        let line = format!("error: {name} holds the expression of a workflow as text");
        assert!(text.starts_with(&line) && text.lines().count() == 1, "{text}");
    }
    let text = world.fails("publish", &[("INPUT_PROMOTE_LATEST", "yes")], 1);
    assert_eq!(text, "error: INPUT_PROMOTE_LATEST=yes: expected true or false\n");
}

/// A checkout in a workflow keeps no token, so git gets it with the push: for the forge's server and no other.
#[test]
fn a_push_has_the_token_of_the_server_that_it_goes_to() {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = seen.clone();
    thread::spawn(move || {
        for request in server.incoming_requests() {
            let account = request.headers().iter().find(|it| it.field.equiv("Authorization"));
            shared.lock().unwrap().extend(account.map(|it| it.value.to_string()));
            let status = if account.is_some() { 403 } else { 401 };
            let challenge = Header::from_bytes("WWW-Authenticate", "Basic realm=\"forge\"").unwrap();
            request.respond(Response::empty(status).with_header(challenge)).unwrap();
        }
    });
    let world = repository();
    git(&world.root, &["remote", "add", "origin", &format!("{url}/you/devbox.git")]);
    git(&world.root, &["branch", "topic"]);
    let root = camino::Utf8PathBuf::from_path_buf(world.root.clone()).unwrap();
    let runner = xtask::tools::runner::Runner::new(root, std::time::Duration::from_secs(60));
    let push = |server: &str| xtask::tools::git::push(&runner, "topic", server, "t0k3n").unwrap_err();
    assert!(!format!("{:#}", push("http://127.0.0.1:1")).contains("t0k3n"));
    assert_eq!(*seen.lock().unwrap(), [""; 0], "another server's token");
    assert!(!format!("{:#}", push(&url)).contains("t0k3n"));
    assert_eq!(*seen.lock().unwrap(), ["Basic eC1hY2Nlc3MtdG9rZW46dDBrM24="]);
}

/// It deletes toolchains, so nothing but a runner of a forge may call it.
#[test]
fn reclaim_refuses_outside_a_runner_and_looks_before_it_deletes() {
    let world = World::new();
    assert!(world.fails("reclaim", &[("CI", "true")], 3).contains("GITHUB_ACTIONS"));
    let actions = [("GITHUB_ACTIONS", "true")];
    world.disk("90");
    let output = world.xtask_with("reclaim --dry-run", &actions);
    assert!(String::from_utf8_lossy(&output.stderr).contains("90 GB are free, enough"));
    world.disk("9");
    let output = world.xtask_with("reclaim --dry-run", &actions);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let label = "label=org.opencontainers.image.source=https://hub.docker.com/r/joakimp/opencode-devbox";
    let prune = format!("docker image prune --all --force --filter {label} --filter until=168h");
    assert!(text.contains(&prune), "{text}");
    // The engine may be that of other projects, and a machine that runs jobs keeps what it has.
    assert!(!text.contains("builder prune") && !text.contains("system prune"), "{text}");
    let is_container = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    assert!(is_container || !text.contains("rm -rf"), "{text}");
    assert_eq!(world.log(), [""; 0]);
}
