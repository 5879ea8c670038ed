//! The workflows: that they decide nothing, and that a whole release goes through them. Each job runs as a runner runs
//! it: after the jobs it needs, in a clean clone, with files for outputs, environment and summary, and the registry as
//! the only thing that the jobs share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use serde::Deserialize;
use tempfile::TempDir;
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
    uses: Option<String>,
    run: Option<String>,
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
        for refused in ["if:", "artifact", "env.", " && ", " || "] {
            assert!(!text.contains(refused), "{name} has {refused:?}");
        }
        let workflow = workflow(name);
        assert!(workflow.concurrency.contains_key("group"));
        assert_eq!(workflow.permissions, Table::from([("contents".into(), "read".into())]));
        for (id, job) in &workflow.jobs {
            assert!((1..=180).contains(&job.timeout_minutes), "{name} {id}");
            assert!(job.needs.iter().all(|need| workflow.jobs.contains_key(need)), "{name} {id}");
            for uses in job.steps.iter().filter_map(|step| step.uses.as_ref()) {
                let (_, commit) = uses.split_once('@').unwrap();
                assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{uses}");
            }
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
    world: &'a World,
    hub: &'a str,
    inputs: Table,
    /// The variant whose smoke test fails.
    broken: &'a str,
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
        git(&self.world.root, &["clone", "--quiet", ".", clone.to_str().unwrap()]);
        let value = |name: &str| match name.split_once('.').unwrap() {
            ("matrix", _) => variant.to_owned(),
            ("inputs", input) => self.inputs.get(input).cloned().unwrap_or_default(),
            ("secrets", "DOCKERHUB_USERNAME") => "you".to_owned(),
            ("secrets", "DOCKERHUB_TOKEN") => "s3cret".to_owned(),
            _ => String::new(),
        };
        let env = workflow.env.iter().chain(&job.env).filter(|(name, _)| *name != "DEVBOX_REPOSITORY");
        let env: Table = env.map(|(name, text)| (name.clone(), filled(text, value))).collect();
        for (number, run) in job.steps.iter().filter_map(|step| step.run.as_ref()).enumerate() {
            let words = words(&filled(run, value));
            // These set up a machine or read the package registries, and have tests of their own.
            if ["doctor", "reclaim", "preflight"].contains(&words[1].as_str()) {
                continue;
            }
            let mut command = self.world.command(&words[1..].join(" "));
            command.env_remove("GIT_DIR").env("DEVBOX_ROOT", &clone).current_dir(&clone);
            command.envs(&env).env("CI", "true").env("GITHUB_ACTIONS", "true");
            if self.inputs.is_empty() {
                command.env("GITHUB_REF_TYPE", "tag").env("GITHUB_REF_NAME", "v1.18.18");
            }
            let file = |name: &str| -> PathBuf { place.path().join(format!("{name}-{number}")) };
            for name in ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"] {
                fs::write(file(name), "").unwrap();
                command.env(name, file(name));
            }
            if words[1] == "update-description" {
                command.env("DEVBOX_REPOSITORY", "docker.io/you/devbox").env("DOCKERHUB_URL", self.hub);
            }
            let output = command.env("FAKE_BROKEN", self.broken).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!text.contains("s3cret"), "{text}");
            assert_eq!(text.matches("::group::").count(), text.matches("::endgroup::").count(), "{text}");
            self.summaries += &fs::read_to_string(file("GITHUB_STEP_SUMMARY")).unwrap();
            if !output.status.success() {
                assert!(self.broken == variant && words[1] == "smoke", "{run}: {text}");
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

/// A repository whose tag is to be released.
fn repository() -> World {
    let world = World::new();
    fs::write(
        world.root.join("CHANGELOG.md"),
        "# Changelog\n\n## Unreleased\n\n## v1.18.18 - 2026-11-24\n\n- A thing.\n",
    )
    .unwrap();
    git(&world.root, &["init", "--quiet"]);
    git(&world.root, &["add", "--all"]);
    git(&world.root, &["commit", "--quiet", "--message=Release"]);
    git(&world.root, &["tag", "v1.18.18"]);
    world
}

fn run<'a>(world: &'a World, hub: &'a str, inputs: &[(&str, &str)]) -> Run<'a> {
    let inputs = inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Run { world, hub, inputs, broken: "none", done: Vec::new(), summaries: String::new() }
}

/// Failures 1, 2 and 3: a variant that fails holds all back, and a rerun of what failed completes all.
#[test]
fn a_release_goes_through_the_jobs_and_a_rerun_does_what_is_missing() {
    let world = repository();
    let (url, hub) = hub::start(200);
    let mut first = run(&world, &url, &[]);
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
    let writes = world.store.lock().unwrap().writes;
    for inputs in [&[][..], &[("release_tag", "v1.18.18"), ("promote_latest", "true")]] {
        assert!(run(&world, &url, inputs).go());
        assert_eq!(world.log(), [""; 0]);
        assert_eq!(world.store.lock().unwrap().writes, writes);
    }
}

#[test]
fn a_manual_run_may_leave_all_floating_names_where_they_are() {
    let world = repository();
    let (url, hub) = hub::start(200);
    let mut manual = run(&world, &url, &[("release_tag", "v1.18.18"), ("promote_latest", "false")]);
    assert!(manual.go());
    let names: Vec<String> = world.tags().into_iter().map(|(tag, _)| tag).collect();
    assert_eq!(names, ["v1.18.18", "v1.18.18-omos", "v1.18.18-omos-with-pi", "v1.18.18-with-pi"]);
    assert!(hub.lock().unwrap().sent.is_empty());
    assert!(manual.summaries.contains("promote_latest is false"), "skipped with a word");
}

/// It deletes toolchains, so nothing but a runner of a forge may call it.
#[test]
fn reclaim_refuses_outside_a_runner_and_looks_before_it_deletes() {
    let world = World::new();
    assert!(world.fails("reclaim", &[("CI", "true")], 3).contains("GITHUB_ACTIONS"));
    let actions = [("GITHUB_ACTIONS", "true")];
    world.program("df", "#!/bin/sh\nprintf 'Avail\\n90000000000\\n'\n");
    let output = world.xtask_with("reclaim --dry-run", &actions);
    assert!(String::from_utf8_lossy(&output.stderr).contains("90 GB are free, enough"));
    world.program("df", "#!/bin/sh\nprintf 'Avail\\n9000000000\\n'\n");
    let output = world.xtask_with("reclaim --dry-run", &actions);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("docker builder prune --force --filter until=168h"), "{text}");
    assert_eq!(world.log(), [""; 0]);
}
