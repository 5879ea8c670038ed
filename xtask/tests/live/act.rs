//! The workflows on the engine that runs them: the real act, jobs on this machine, before a registry with accounts and
//! a scripted Docker Hub. Stand-ins of the actions are in `act/`; builds and smoke tests are those of `fakes`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use registry_lab::{Account, Lab, TokenServer};
use tempfile::TempDir;

use crate::support::env::{DEBIAN, KEY, TestEnv};
use crate::support::hub::{self, Hub};
use crate::support::published;
use crate::support::server::{Answer, Server};

/// The token of Docker Hub: no log shows it and no step without need has it.
const CANARY: &str = "c4n4ry-s3cret";
const REPOSITORY: &str = "you/devbox";
const TAG: &str = "v1.18.18";
const CARGO: &str = include_str!("act/cargo");

/// A repository on a forge, and what its jobs reach.
struct Forge {
    lab: Lab,
    open: Lab,
    world: TestEnv,
    hub_url: String,
    hub: Arc<Mutex<Hub>>,
    dir: TempDir,
    /// The image of job containers; jobs run on this machine where there is none.
    container: Option<String>,
    /// More variables of the jobs.
    env: Vec<(&'static str, String)>,
}

/// Subcommands that a job passes over: machine, package registries, pull requests and comparisons with Docker Hub have tests
/// of their own.
const SKIPS: &str = "doctor reclaim preflight test release outdated bump refresh-base";

/// How a run of a workflow ended.
struct Run {
    success: bool,
    text: String,
    /// `job: line` of each step, in order.
    steps: Vec<String>,
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

impl Forge {
    fn new() -> Self {
        let lab = Self::lab();
        lab.registry().put("debian", "trixie-slim", DEBIAN.as_bytes());
        let world = TestEnv::before(lab.host(), REPOSITORY);
        Self::of(lab, world)
    }

    fn lab() -> Lab {
        Lab::start().token_server(TokenServer::new([Account::new("you", CANARY).may_push("*")]))
    }

    /// The tree, committed and tagged.
    fn of(lab: Lab, world: TestEnv) -> Self {
        let open = Lab::before(lab.registry());
        world.program("cargo", CARGO);
        let workflows = world.root.join(".gitea/workflows");
        fs::create_dir_all(&workflows).unwrap();
        fs::copy(tree().join(".gitea/README.md"), world.root.join(".gitea/README.md")).unwrap();
        fs::copy(tree().join("scripts/share-xtask"), world.root.join("scripts/share-xtask")).unwrap();
        world.ok("workflows");
        let changelog = format!("# Changelog\n\n## Unreleased\n\n## {TAG} - 2026-11-24\n\n- A thing.\n");
        fs::write(world.root.join("CHANGELOG.md"), changelog).unwrap();
        let (hub_url, hub) = hub::start(200);
        let (container, env) = (None, vec![("ACT_SKIPS", SKIPS.to_owned())]);
        let forge = Self { lab, open, world, hub_url, hub, dir: TempDir::new().unwrap(), container, env };
        forge.git(&["init", "--quiet", "--initial-branch=main"]);
        forge.git(&["remote", "add", "origin", "https://forge.invalid/you/devbox.git"]);
        for message in ["First", "Release"] {
            forge.git(&["add", "--all"]);
            forge.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        }
        forge.git(&["tag", TAG]);
        forge.git(&["update-ref", "refs/pull/7/merge", "HEAD"]);
        forge.git(&["clone", "--quiet", "--mirror", ".", forge.origin().to_str().unwrap()]);
        forge
    }

    /// The repository that jobs clone.
    fn origin(&self) -> PathBuf {
        self.dir.path().join("origin.git")
    }

    /// Jobs reach the API of a Gitea server, and its token is among the secrets.
    fn on_gitea(&mut self, host: &str) {
        self.env.push(("GITEA_URL", format!("http://{host}")));
        self.env.push(("GITEA_REPOSITORY", "you/devbox".to_owned()));
    }

    fn git(&self, args: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
        let status = command.current_dir(&self.world.root).env_remove("GIT_DIR").status().unwrap();
        assert!(status.success(), "git {args:?}");
    }

    /// Starts a workflow by an event, with the smoke test of one variant broken.
    fn run(&self, workflow: &str, event: &str, payload: &str, broken: &str) -> Run {
        let path = |name: &str| self.dir.path().join(name);
        fs::write(path("event.json"), payload).unwrap();
        fs::write(path("log"), "").unwrap();
        let act = std::env::var("DEVBOX_LIVE_ACT").expect("run through `cargo xtask test`");
        let mut command = Command::new(act);
        command.arg(event).arg("--workflows").arg(format!(".gitea/workflows/{workflow}.yml"));
        match &self.container {
            None => command.args(["--platform", "ubuntu-latest=-self-hosted"]),
            Some(image) => self.in_container(&mut command, image),
        };
        command.arg("--action-offline-mode");
        command.args(["--no-skip-checkout", "--no-cache-server", "--eventpath"]).arg(path("event.json"));
        for uses in self.actions() {
            let name = uses.split(['/', '@']).nth(1).unwrap();
            let folder = tree().join("xtask/tests/live/act").join(name);
            command.arg(format!("--local-repository={uses}={}", folder.display()));
        }
        let secrets = [("DOCKERHUB_USERNAME", "you"), ("DOCKERHUB_TOKEN", CANARY), ("GITHUB_TOKEN", CANARY)];
        // A secret of a forge may be one line only.
        let key = KEY.replace('\n', "");
        let secrets = [secrets[0], secrets[1], ("COSIGN_KEY", key.as_str()), secrets[2]];
        // A forge gives a pull request no secret but the token of the job.
        let given = secrets.iter().skip(if event == "pull_request" { 3 } else { 0 });
        let mut lines: String = given.map(|(name, value)| format!("{name}={value}\n")).collect();
        if self.env.iter().any(|(name, _)| *name == "GITEA_URL") && event != "pull_request" {
            lines += &format!("GITEA_TOKEN={CANARY}\n");
        }
        fs::write(path("secrets"), lines).unwrap();
        command.arg("--secret-file").arg(path("secrets"));
        self.surroundings(&mut command).env("FAKE_BROKEN", broken);
        let output = command.current_dir(&self.world.root).output().unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains(CANARY), "{text}");
        let steps = fs::read_to_string(path("log")).unwrap();
        Run { success: output.status.success(), text, steps: steps.lines().map(str::to_owned).collect() }
    }

    /// Jobs in containers of an image, with the engine of this machine and its network. What the stand-ins read is mounted.
    fn in_container<'a>(&self, command: &'a mut Command, image: &str) -> &'a mut Command {
        let dir = self.dir.path().display();
        let cargo = self.world.root.with_file_name("bin").join("cargo");
        let xtask = env!("CARGO_BIN_EXE_xtask");
        let mounts =
            format!("-v {dir}:{dir} -v {}:/usr/local/bin/cargo:ro -v {xtask}:{xtask}:ro", cargo.display());
        command.args(["--platform", &format!("ubuntu-latest={image}"), "--pull=false", "--rm"]);
        command.args(["--container-options", &mounts]);
        let mut surroundings = Command::new("true");
        for (name, value) in self.surroundings(&mut surroundings).get_envs() {
            let (name, value) = (name.to_str().unwrap(), value.and_then(|value| value.to_str()));
            let is_ours = ["ACT_", "DOCKERHUB_"].iter().any(|start| name.starts_with(start))
                || self.env.iter().any(|(own, _)| *own == name);
            if let Some(value) = value.filter(|_| is_ours) {
                command.args(["--env", &format!("{name}={value}")]);
            }
        }
        command
    }

    /// Each action that a workflow uses, as it names it.
    fn actions(&self) -> BTreeSet<String> {
        let mut actions = BTreeSet::new();
        for entry in fs::read_dir(self.world.root.join(".gitea/workflows")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let uses = text.lines().filter_map(|line| line.trim().strip_prefix("- uses: "));
            actions.extend(uses.map(|uses| uses.split(' ').next().unwrap().to_owned()));
        }
        actions
    }

    /// What jobs find on their machine. No secret is in it: jobs on this machine inherit the environment of act.
    fn surroundings<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (name, value) in self.world.command("status").get_envs() {
            match value {
                Some(value)
                    if !["DEVBOX_REPOSITORY", "GIT_DIR", "COSIGN_KEY"].iter().any(|it| name == *it) =>
                {
                    command.env(name, value)
                }
                _ => command.env_remove(name),
            };
        }
        let home = self.dir.path().join("home");
        fs::create_dir_all(&home).unwrap();
        let (lab, canary) = (format!("http://{}", self.lab.host()), self.dir.path().join("canary"));
        fs::write(&canary, CANARY).unwrap();
        command.env("FAKE_PUSH_HOST", self.open.host()).env("DOCKERHUB_URL", &self.hub_url);
        command.env("DOCKERHUB_REGISTRY_URL", lab).env("ACT_HOST", self.lab.host());
        command.env("ACT_LOG", self.dir.path().join("log")).env("ACT_CANARY_FILE", &canary);
        command.env("ACT_ORIGIN", self.origin()).env("ACT_XTASK", env!("CARGO_BIN_EXE_xtask"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env_remove("XDG_CACHE_HOME").env_remove("DOCKER_CONFIG").env("HOME", home)
    }

    fn publish(&self, event: &str, payload: &str, broken: &str) -> Run {
        self.run("publish", event, payload, broken)
    }

    /// Public tags, without those of content keys and those that list signatures.
    fn tags(&self) -> Vec<String> {
        let tags = self.lab.registry().tags(REPOSITORY).into_keys();
        tags.filter(|tag| !tag.starts_with("sha256-") && (!tag.starts_with("base-") || tag == "base-latest"))
            .collect()
    }

    fn descriptions(&self) -> usize {
        self.hub.lock().unwrap().sent.len()
    }
}

impl Run {
    #[track_caller]
    fn succeeds(self) -> Self {
        assert!(self.success, "{}", self.text);
        self
    }

    fn has(&self, step: &str) -> bool {
        self.steps.iter().any(|it| it.split(" +").next() == Some(step))
    }
}

const PUSH: &str = r#"{"ref":"refs/tags/v1.18.18"}"#;
const VERSIONS: [&str; 4] = ["v1.18.18", "v1.18.18-omos", "v1.18.18-omos-with-pi", "v1.18.18-with-pi"];

fn by_hand(promote: &str) -> String {
    format!(r#"{{"ref":"refs/heads/main","inputs":{{"release_tag":"{TAG}","promote_latest":{promote}}}}}"#)
}

/// A pushed tag is released; a variant that fails holds all back, and the next run does only what is missing.
#[test]
fn a_pushed_tag_is_released_after_a_job_that_failed() {
    let forge = Forge::new();
    let first = forge.publish("push", PUSH, "omos");
    assert!(!first.success && first.text.contains("smoke omos"), "{}", first.text);
    for part in [
        "### `smoke omos`: failed in",
        "### `build omos`: done in",
        "has to be built",
        "nothing is published yet",
        "| with-pi | linux/arm64 | `sha256:",
        "| 0 | `docker run --rm -it ",
    ] {
        assert!(first.text.contains(part), "{part} in {}", first.text);
    }
    // No engine answers the action that sets emulation up: `doctor` decides what that means.
    assert!(first.has("build-base: setup-qemu-action arm64 cache-image=false"), "{:?}", first.steps);
    assert!(first.has("build-base: setup-buildx-action docker cache-binary=false"), "{:?}", first.steps);
    assert!(first.has("variant: smoke with-pi"), "the others have their verdict: {:?}", first.steps);
    assert!(!first.steps.iter().any(|step| step.starts_with("publish")), "{:?}", first.steps);
    assert_eq!(forge.tags(), [""; 0], "nothing public has moved");
    forge.world.log();

    let second = forge.publish("push", PUSH, "none").succeeds();
    let log = forge.world.log();
    assert!(!log.iter().any(|line| line.starts_with("docker")), "nothing is built again: {log:?}");
    assert_eq!(log.iter().filter(|line| line.starts_with("smoke omos ")).count(), 2, "{log:?}");
    let floating = ["base-latest", "latest", "latest-omos", "latest-omos-with-pi", "latest-with-pi"];
    assert_eq!(forge.tags(), [&floating[..], &VERSIONS].concat());
    assert_eq!(forge.descriptions(), 1);

    // Who saw a secret, and when: never what compiles, and only steps after the login.
    let lines = |found: &str| -> BTreeSet<&str> {
        let steps = second.steps.iter().filter(|step| step.contains(found));
        steps.filter_map(|step| step.split(' ').nth(1)).collect()
    };
    assert_eq!(lines(" +secret"), BTreeSet::from(["doctor", "publish", "update-description"]));
    assert_eq!(lines(" +file"), BTreeSet::new());
    assert!(!second.steps.iter().any(|step| step.ends_with(": cache")), "{:?}", second.steps);

    let writes = forge.lab.counts().writes;
    for payload in [PUSH, &by_hand("true")] {
        let event = if payload == PUSH { "push" } else { "workflow_dispatch" };
        forge.publish(event, payload, "none").succeeds();
        assert_eq!(forge.lab.counts().writes, writes, "a finished release writes nothing");
    }
    assert_eq!(forge.descriptions(), 1);
}

/// The first job compiles for all; a program that is not the one whose checksum it told is thrown away, and a forge without
/// artifacts costs time only.
#[test]
fn one_job_compiles_for_the_others() {
    for tampers in [false, true] {
        let mut forge = Forge::new();
        let artifacts = forge.dir.path().join("artifacts");
        fs::create_dir(&artifacts).unwrap();
        forge.env.push(("ACT_ARTIFACTS", artifacts.display().to_string()));
        if tampers {
            forge.env.push(("ACT_TAMPERS", "yes".to_owned()));
        }
        let run = forge.publish("push", PUSH, "none").succeeds();
        assert_eq!(forge.tags().len(), 9);
        let (first, others): (Vec<&String>, Vec<&String>) = run
            .steps
            .iter()
            .filter(|step| !step.contains("setup-"))
            .partition(|step| step.starts_with("base-decide: "));
        assert!(!first.iter().any(|step| step.contains("+shared")), "{first:?}");
        assert!(others.iter().all(|step| step.contains("+shared") != tampers), "{others:?}");
        assert_eq!(
            others.iter().filter(|step| step.contains(": --version")).count(),
            if tampers { 8 } else { 16 }
        );
        assert_eq!(run.text.contains("is not the one that this run has compiled"), tampers, "{}", run.text);
        assert!(!others.iter().any(|step| step.contains(" +file")), "{others:?}");
    }
}

/// The image of job containers, from the Debian image in the local registry. BuildKit's cache has it after the first time.
fn runner_image(debian: &str) -> String {
    let name = "opencode-devbox-test-runner:latest";
    let mut build = Command::new("docker");
    build.args([
        "buildx",
        "build",
        "--quiet",
        "--load",
        "--tag",
        name,
        "--build-arg",
        &format!("DEBIAN={debian}"),
    ]);
    let output = build.arg(tree().join("xtask/tests/live/act/runner")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    name.to_owned()
}

/// Serves the release archive of crane, which holds the crane of this machine, and returns its address and its lock.
fn crane_archive() -> (String, String) {
    let output = Command::new("sh")
        .args(["-c", "tar -czf - -C \"$(dirname \"$(command -v crane)\")\" crane"])
        .output()
        .unwrap();
    let bytes = output.stdout;
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    let sum = registry_lab::digest(&bytes);
    let lock = format!(
        "# crane {}\n{}  go-containerregistry_Linux_{machine}.tar.gz\n",
        xtask::upstream::crane_archive::VERSION,
        sum.trim_start_matches("sha256:")
    );
    let server = Server::start(move |_| Answer::ok(bytes.clone()));
    (server.url(), lock)
}

/// What the smoke test of this test asks: the engine runs what was staged, and files reach it in a volume.
const SUITE: &str = r#"
while IFS= read -r name; do echo "ok 1 - $name # 0.1 s"; done > "$tap"
work=$(mktemp -d)
echo content >"$work/file"
id=$(docker create --network=none --platform "$platform" --volume /brought "$image" sh -c 'cat /brought/file')
docker cp --quiet "$work/." "$id:/brought"
[ "$(docker start --attach "$id" | tail -n 1)" = content ]
docker rm --volumes "$id"
"#;

/// Job containers of Gitea's and GitHub's usual image, with the host's socket: Ubuntu without crane and pip, where no folder of
/// the job is known to the engine and no emulator can be registered. Images are built and published for real.
#[test]
fn a_pushed_tag_is_released_from_job_containers() {
    let debian = crate::images::debian();
    let lab = Forge::lab();
    let open = Lab::before(lab.registry());
    let mirror = format!("{}/debian:trixie-slim", open.host());
    assert!(Command::new("crane").args(["copy", &debian, &mirror]).status().unwrap().success());
    let world = crate::engines::small(lab.host(), REPOSITORY);
    let (url, lock) = crane_archive();
    fs::create_dir_all(world.root.join("xtask/crane")).unwrap();
    fs::write(world.root.join(xtask::upstream::crane_archive::LOCK), lock).unwrap();
    let host = xtask::model::platform::Platform::host();
    world.configure("platforms = [\"linux/amd64\", \"linux/arm64\"]", &format!("platforms = [\"{host}\"]"));
    world.keep_variant("base");
    world.configure(
        "{ name = \"all of it\", holds = [\"packages\"], budget_mb = 1 }",
        "{ name = \"Debian\", budget_mb = 100 }, { name = \"files\", holds = [\"packages\"], budget_mb = 100 }",
    );
    crate::support::env::script(
        &world.root.join("scripts/smoke-test.sh"),
        &format!("{}{SUITE}", crate::support::env::SMOKE_OPTIONS),
    );
    let mut forge = Forge::of(lab, world);
    forge.container = Some(runner_image(&debian));
    let registry = format!("http://{}", forge.lab.host());
    forge.env = vec![
        ("ACT_SKIPS", "reclaim preflight".to_owned()),
        ("DEVBOX_CRANE_URL", url),
        ("PIP_INDEX_URL", registry.clone()),
        ("npm_config_registry", registry),
    ];
    let run = forge.publish("push", PUSH, "none").succeeds();
    println!("{}", run.text);
    assert_eq!(forge.tags(), ["base-latest", "latest", TAG]);
    assert_eq!(forge.descriptions(), 1);
    for job in
        ["base-decide", "build-base", "variant", "publish", "promote-base-latest", "update-description"]
    {
        assert!(run.has(&format!("{job}: doctor --install")), "{:?}", run.steps);
    }
    assert!(run.text.contains("installing crane") && !run.text.contains("apt-get"), "{}", run.text);
    assert!(!run.steps.iter().any(|step| step.ends_with(" +file")), "{:?}", run.steps);
}

/// Forges send a checkbox as a truth value or as text. The notes are written in the first run only.
#[test]
fn a_manual_run_moves_the_floating_tags_only_if_asked_to() {
    let mut forge = Forge::new();
    let (host, gitea) = published::serve();
    gitea.lock().unwrap().releases = Some(Vec::new());
    forge.on_gitea(&host);
    for promote in ["false", "\"false\""] {
        let run = forge.publish("workflow_dispatch", &by_hand(promote), "none").succeeds();
        assert!(run.text.contains("promote_latest is false"), "{}", run.text);
        assert_eq!(forge.tags(), VERSIONS);
        assert_eq!(forge.descriptions(), 0);
    }
    let run = forge.publish("workflow_dispatch", &by_hand("true"), "none").succeeds();
    assert_eq!(forge.tags().len(), 9);
    assert_eq!(forge.descriptions(), 1);
    assert!(run.has("update-description: changelog attach"), "{:?}", run.steps);
    let gitea = gitea.lock().unwrap();
    let releases = gitea.releases.as_ref().unwrap();
    assert_eq!((releases.len(), releases[0]["tag_name"].as_str()), (1, Some(TAG)));
    assert!(releases[0]["body"].as_str().unwrap().contains("- A thing."), "{releases:?}");
    let writes: Vec<&String> = gitea.log.iter().filter(|line| !line.starts_with("GET ")).collect();
    let (files, notes): (Vec<_>, Vec<_>) = writes.into_iter().partition(|line| line.contains("/assets"));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(files.iter().any(|line| line.contains("?name=report-v1.18.18.html")), "{files:?}");
}

#[test]
fn a_pull_request_sees_no_secret_and_a_schedule_runs() {
    let forge = Forge::new();
    let request = r#"{"number":7,"pull_request":{"number":7,"head":{"ref":"topic"},"base":{"ref":"main"}}}"#;
    let jobs = ["plan", "test", "rehearse"];
    for (event, payload) in [("pull_request", request), ("push", r#"{"ref":"refs/heads/main"}"#)] {
        let run = forge.run("validate", event, payload, "none").succeeds();
        for job in jobs {
            assert!(run.steps.iter().any(|step| step.starts_with(&format!("{job}: "))), "{:?}", run.steps);
            assert!(run.has(&format!("{job}: cache")), "{:?}", run.steps);
        }
        assert!(!run.steps.iter().any(|step| step.contains('+')), "{:?}", run.steps);
        assert_eq!(forge.tags(), [""; 0]);
    }
    let run = forge.run("refresh", "schedule", r#"{"ref":"refs/heads/main"}"#, "none").succeeds();
    let steps: Vec<&str> = run.steps.iter().map(String::as_str).collect();
    let expected = ["--version", "outdated", "bump all latest --pull-request"]
        .into_iter()
        .chain(["refresh-base --if-behind --pull-request"])
        .map(|line| format!("propose: {line}"))
        .collect::<Vec<_>>();
    assert_eq!(steps, expected);
}
