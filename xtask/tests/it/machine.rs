//! The phases that set a machine up, look after it and chain the others, on a machine whose programs are stand-ins.

use std::fs;
use std::ops::Deref;

use serde_json::Value;
use xtask::model::platform::Platform;

use crate::support::env::TestEnv;
use crate::support::server::{Answer, Expecting};

const WORKS: &str = "#!/bin/sh\nexit 0\n";
const LACKING: &str = "#!/bin/sh\nexit 127\n";

/// The file of Debian's archive that `doctor` asks for.
const RELEASE: &str = "HEAD /debian/dists/trixie/InRelease";

/// A tree on a machine that has what a release on this platform needs, and Debian's archive.
struct Machine {
    world: TestEnv,
    archive: Expecting,
}

impl Deref for Machine {
    type Target = TestEnv;

    fn deref(&self) -> &TestEnv {
        &self.world
    }
}

fn machine() -> Machine {
    let world = TestEnv::new();
    for name in ["shellcheck", "python3"] {
        world.program(name, WORKS);
    }
    let archive = Expecting::start([(RELEASE, Answer::status(404))]);
    let echo = format!("echo '{}/debian main'", archive.url());
    world.program("apt-get", &format!("#!/bin/sh\ncase $1 in indextargets) {echo} ;; esac\n"));
    Machine { world, archive }
}

/// Package registries that answer, and the one platform that needs no emulation.
fn settings(world: &TestEnv) -> [(&'static str, String); 2] {
    let at = |path: &str| format!("http://{}/{path}", world.host);
    [("npm_config_registry", at("npm")), ("PIP_INDEX_URL", at("simple"))]
}

/// Exit code, standard output and standard error on the platform of this machine.
fn run(world: &TestEnv, line: &str, env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = world.command(&format!("{line} --platform {}", Platform::host()));
    let output = command.envs(settings(world)).envs(env.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// From now on the archive has the file that `doctor` asks for.
fn serve_archive(machine: &Machine) {
    machine.archive.expect(RELEASE, Answer::status(200));
}

#[test]
fn doctor_tells_all_that_is_missing_at_once_and_how_to_mend_it() {
    let world = machine();
    world.program("crane", LACKING);
    let (code, _, text) = run(&world, "doctor", &[]);
    assert_eq!(code, 3, "{text}");
    contains(
        &text,
        &[
            "ok    engine 28.5.2+dfsg1",
            "ok    buildx 0.29.1+ds1",
            "FAIL  crane is not installed: run `cargo xtask doctor --install`",
            "127.0.0.1:9 does not answer: Debian's archive is used instead",
            "a new base on this machine leaves out gitea-mcp: images/locks/gitea-mcp/checksums.txt does not lock gitea-mcp",
            "FAIL  Debian's archive does not answer at http://",
            "ok    the npm registry answers",
            "error: 2 things are missing on this machine: run `cargo xtask doctor --install`",
        ],
    );
    serve_archive(&world);
    world.program("crane", WORKS);
    let (code, json, text) = run(&world, "doctor --json", &[]);
    assert_eq!(code, 0, "{text}");
    let findings: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert!(findings.len() > 8 && findings.iter().all(|it| it["fix"].is_null() || it["fatal"] == false));
    assert_eq!(world.log(), [""; 0], "it only looks");
}

/// A version that is too old ends a build with exit code 125 an hour later.
#[test]
fn doctor_names_the_version_found_and_the_version_needed() {
    let world = machine();
    serve_archive(&world);
    let docker = "#!/bin/sh\ncase $1 in info) echo '{\"ServerVersion\":\"20.10.24+dfsg1\",\"DriverStatus\":[]}' ;;\n  \
                  buildx) echo github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3 ;; esac\n";
    world.program("docker", docker);
    world.program("crane", "#!/bin/sh\necho v0.19.2\n");
    let (code, _, text) = run(&world, "doctor", &[]);
    assert_eq!(code, 3, "{text}");
    contains(
        &text,
        &[
            "FAIL  engine 20.10.24+dfsg1: 24.0 or newer is needed: upgrade the Docker engine",
            "FAIL  buildx 0.13.1+ds1: 0.19 or newer is needed: run `cargo xtask doctor --install`",
            "FAIL  crane 0.19.2: 0.20 or newer is needed",
        ],
    );
}

#[test]
fn an_engine_that_is_not_there_is_told() {
    let world = machine();
    serve_archive(&world);
    world.program("docker", LACKING);
    let (code, _, text) = run(&world, "doctor", &[]);
    assert_eq!(code, 3, "{text}");
    contains(&text, &["FAIL  no Docker engine answers", "FAIL  buildx is not installed"]);
    contains(
        &run(&world, "build-base", &[]).2,
        &["no Docker engine answers: run `cargo xtask doctor --install`"],
    );
    let closed = [("npm_config_registry", "http://127.0.0.1:9"), ("PIP_INDEX_URL", "http://127.0.0.1:9")];
    let (_, _, text) = run(&world, "doctor", &closed);
    contains(
        &text,
        &["FAIL  the npm registry does not answer at http://127.0.0.1:9", "FAIL  the Python index"],
    );
}

/// Recorded from Podman 5.4.2: its version is no version of Docker, and BuildKit is no part of it.
#[test]
fn podman_is_told_from_an_old_engine() {
    let world = machine();
    serve_archive(&world);
    let podman = |version: &str| {
        let docker = r#"#!/bin/sh
case "$1 $2" in
  info*) echo '{"Driver":"overlay","DriverStatus":[["Backing Filesystem","extfs"]],"ServerVersion":"VERSION","Architecture":"amd64"}' ;;
  version*) echo 'Podman Engine,Conmon,OCI Runtime (crun),' ;;
  "buildx version") echo github.com/docker/buildx 0.29.1 ;;
  "buildx inspect") printf 'Name:          default
Driver:        docker-container

Nodes:
Name:     default
Status:   inactive
' ;;
esac
"#;
        world.program("docker", &docker.replace("VERSION", version));
        run(&world, "doctor", &[])
    };
    let (code, _, text) = podman("5.4.2");
    assert_eq!(code, 0, "{text}");
    let found = "ok    Podman 5.4.2: images are built by a container, the builder opencode-devbox";
    contains(&text, &[found, "warn  Podman and a registry on this machine", "insecure = true"]);
    let (code, _, text) = podman("4.3.1");
    assert_eq!(code, 3, "{text}");
    contains(&text, &["FAIL  Podman 4.3.1: 5.0 or newer is needed: upgrade Podman"]);
}

/// The classic store holds one platform of an image, so a builder in a container builds there.
#[test]
fn a_classic_image_store_gets_a_builder_in_a_container() {
    let world = machine();
    serve_archive(&world);
    let docker = r#"#!/bin/sh
case "$1 $2" in
  info*) echo '{"ServerVersion":"26.1.4","DriverStatus":[["Backing Filesystem","extfs"]]}'; exit ;;
  "buildx inspect") [ -e "$FAKE_LOG.builder" ] || { [ "$3" = default ] && echo 'Platforms: linux/amd64, linux/386'; exit 1; } ;;
  "buildx create")
    echo "docker $*" >>"$FAKE_LOG"
    [ -z "${FAKE_REFUSES:-}" ] || { echo 'denied' >&2; exit 1; }
    : >"$FAKE_LOG.builder" ;;
  "buildx b"*) echo "docker $* on ${BUILDX_BUILDER:-none}" >>"$FAKE_LOG"; exit 1 ;;
esac
"#;
    world.program("docker", docker);
    let (code, _, text) = run(&world, "doctor", &[]);
    assert_eq!(code, 0, "{text}");
    let store = "ok    engine 26.1.4 with the classic image store: images are built by a container, the builder opencode-devbox";
    contains(&text, &[store]);
    let (code, _, text) = run(&world, "build-base", &[("FAKE_REFUSES", "1")]);
    assert_eq!(code, 1, "{text}");
    contains(&text, &["containerd-snapshotter", "DEVBOX_BUILDKIT_IMAGE", "denied"]);
    world.log();

    let create =
        "docker buildx create --name opencode-devbox --driver=docker-container --driver-opt=network=host";
    run(&world, "build-base", &[("DEVBOX_BUILDKIT_IMAGE", "mirror/buildkit:1")]);
    run(&world, "build-base", &[]);
    let log = world.log();
    assert_eq!(log[0], format!("{create} --driver-opt=image=mirror/buildkit:1"));
    assert!(!log[1..].iter().any(|line| line.contains("create")), "it is created once: {log:?}");
    // A builder that was named is used as it is.
    let (_, _, text) = run(&world, "doctor", &[("BUILDX_BUILDER", "mine")]);
    contains(&text, &["images are built by the builder mine"]);
}

/// What it would do, as root and as anybody; on other systems it says what a release needs.
#[test]
fn doctor_installs_only_what_is_missing() {
    let world = machine();
    world.program("id", "#!/bin/sh\necho 0\n");
    assert_eq!(run(&world, "doctor --install --dry-run", &[]).1, "", "nothing is missing");
    for name in ["docker", "dockerd", "crane"] {
        world.program(name, LACKING);
    }
    let (code, plan, text) = run(&world, "doctor --install --dry-run", &[]);
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is = |name: &str| system.lines().any(|line| line == format!("ID={name}"));
    if !is("debian") && !is("ubuntu") {
        return contains(&text, &["only Debian and Ubuntu can be set up", "qemu"]);
    }
    assert_eq!(code, 0, "a dry run reports and goes on: {text}");
    contains(&plan, &["apt-get -qq -o Dpkg::Use-Pty=0 update", "--no-install-recommends"]);
    assert!(!plan.contains("python3") && !plan.contains("qemu"), "{plan}");
    let started = ["dockerd", "systemctl enable --now docker"].iter().any(|line| plan.contains(line));
    assert!(started, "{plan}");
    if is("debian") {
        let suite = format!("URIs: {}/debian\nSuites: forky\n", world.archive.url());
        let packages = "docker.io/forky docker-cli/forky containerd/forky docker-buildx/forky crane/forky";
        contains(&plan, &[&suite, "Pin-Priority: 50", packages]);
    }
    world.program("id", "#!/bin/sh\necho 1000\n");
    world.program("sudo", "#!/bin/sh\nexit 1\n");
    let (code, _, text) = run(&world, "doctor --install --dry-run", &[]);
    assert_eq!(code, 3, "{text}");
    contains(&text, &["needs root: run the same command as root, or allow sudo without a password"]);
    // Hosted runners have no root and a sudo that asks for no password.
    world.program("sudo", WORKS);
    let (code, plan, text) = run(&world, "doctor --install --dry-run", &[]);
    assert_eq!(code, 0, "{text}");
    contains(&plan, &["sudo --non-interactive env DEBIAN_FRONTEND=noninteractive apt-get -qq"]);
    if is("debian") {
        contains(&plan, &["sudo --non-interactive install -D --mode=644 /dev/stdin /etc/apt/preferences.d/"]);
    }
}

/// Ubuntu and macOS have no package of crane: its project's archive is taken, by the checksum that this tree locks.
#[test]
fn crane_comes_from_its_archive_where_no_package_has_it() {
    let world = machine();
    serve_archive(&world);
    world.program("crane", LACKING);
    world.program("apt-cache", "#!/bin/sh\nprintf 'crane:\\n  Candidate: (none)\\n'\n");
    world.program("id", "#!/bin/sh\necho 1000\n");
    world.program("sudo", LACKING);
    let (machine, version) = (if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }, "0.20.7");
    let file = format!("go-containerregistry_Linux_{machine}.tar.gz");
    let folder = world.root.with_file_name("archive");
    crate::support::env::script(&folder.join("crane"), "#!/bin/sh\necho 0.20.7\n");
    let pack = std::process::Command::new("tar").args(["-czf", &file, "crane"]).current_dir(&folder).status();
    assert!(pack.unwrap().success());
    let bytes = fs::read(folder.join(&file)).unwrap();
    let sum = registry_lab::digest(&bytes).trim_start_matches("sha256:").to_owned();
    let list: String = ["Linux_x86_64", "Linux_arm64", "Darwin_x86_64", "Darwin_arm64"]
        .map(|name| format!("{sum}  go-containerregistry_{name}.tar.gz\n"))
        .concat();
    let paths = [&*file, "checksums.txt"].map(|name| format!("GET /v{version}/{name}"));
    let server = Expecting::start([(&*paths[0], Answer::ok(bytes.clone())), (&*paths[1], Answer::ok(list))]);
    let url = server.url();

    for os in ["ubuntu", "fedora"] {
        world.program(
            "cat",
            &format!("#!/bin/sh\n[ \"$1\" != /etc/os-release ] || exec echo ID={os}\nexec /bin/cat \"$@\"\n"),
        );
        let programs = world.root.join(".devbox/tools/bin");
        let _ = fs::remove_dir_all(&programs);
        let _ = fs::remove_dir_all(world.root.join("xtask"));
        let install = |env: &str| run(&world, "doctor --install", &[("DEVBOX_CRANE_URL", env)]);
        let (code, _, text) = install(&url);
        assert_eq!(code, 3, "{text}");
        let refused = format!(
            "xtask/crane/checksums.txt has no checksum of {file} {version}: run `cargo xtask lock crane`"
        );
        contains(&text, &[&refused]);
        let lock = |text: &str| {
            fs::create_dir_all(world.root.join("xtask/crane")).unwrap();
            fs::write(world.root.join("xtask/crane/checksums.txt"), text).unwrap();
        };
        lock(&format!("# crane {version}\n{}  {file}\n", "0".repeat(64)));
        contains(&install(&url).2, &[&format!("{file} has other bytes than its lock")]);
        assert!(!programs.join("crane").exists());
        lock(&format!("# crane 0.1.0\n{sum}  {file}\n"));
        contains(&install(&url).2, &[&refused]);
        // The lock is made from what the project publishes.
        let (code, _, text) = run(&world, "lock crane", &[("DEVBOX_CRANE_URL", &url)]);
        assert_eq!(code, 0, "{text}");
        contains(&install("http://127.0.0.1:9").2, &["127.0.0.1:9"]);
        let (code, _, text) = install(&url);
        assert_eq!(code, 0, "without root or apt: {text}");
        contains(&text, &["ok    crane 0.20.7"]);
        assert_eq!(fs::read(programs.join("crane")).unwrap(), fs::read(folder.join("crane")).unwrap());
    }
}

/// The lock of this tree has the archives of all systems.
#[test]
fn crane_is_locked_for_all_systems() {
    let text =
        fs::read_to_string(crate::support::env::tree().join(xtask::upstream::crane_archive::LOCK)).unwrap();
    assert!(xtask::model::release_lock::locks(&text, "crane", xtask::upstream::crane_archive::VERSION));
    let sums = xtask::model::release_lock::checksums(&text);
    assert!(
        sums.len() == 4 && sums.values().all(|sum| xtask::model::checksum::Checksum::sha256(sum).is_ok())
    );
}

/// An unprivileged container cannot mount binfmt_misc, and the engine of a virtual machine has another kernel: a container with
/// the engine's rights registers the emulator.
#[test]
fn emulation_is_set_up_from_a_container_if_needed() {
    let world = machine();
    serve_archive(&world);
    let docker = r#"#!/bin/sh
case "$1 $2" in
  info*) echo '{"ServerVersion":"28.5.2","DriverStatus":["io.containerd.snapshotter.v1"]}' ;;
  "buildx version") echo buildx 0.29.1 ;;
  "buildx inspect") echo "Platforms: linux/amd64*, linux/386$(cat "$FAKE_LOG.emulates" 2>/dev/null)" ;;
  run*) echo "docker $*" >>"$FAKE_LOG"; echo ', linux/arm64' >"$FAKE_LOG.emulates" ;;
esac
"#;
    world.program("docker", docker);
    // Programs below setpriv have the rights of a container.
    let doctor = |line: &str, bounding: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set", bounding, env!("CARGO_BIN_EXE_xtask")]).args(line.split(' '));
        command.args(["--platform", "linux/amd64", "--platform", "linux/arm64"]);
        for (name, value) in world.command("doctor").get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.envs(settings(&world)).current_dir(&world.root).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let helper =
        "docker run --rm --privileged docker.io/tonistiigi/binfmt:qemu-v10.2.3@sha256:HASH --install arm64";
    let (_, plan, text) = doctor("doctor --install --dry-run", "+all");
    assert!(
        plan.contains("update-binfmts --enable qemu-aarch64") && !plan.contains("privileged"),
        "{plan}{text}"
    );
    let (_, _, text) = doctor("doctor", "-sys_admin");
    contains(&text, &["FAIL  linux/arm64 cannot be run here"]);
    let (succeeds, _, text) = doctor("doctor --install", "-sys_admin");
    assert!(succeeds, "{text}");
    assert_eq!(world.log(), [helper]);
    contains(&text, &["ok    emulation of linux/arm64"]);
    assert!(!text.contains("apt-get"), "no package helps there: {text}");
}

/// A registry that knows nothing, in place of the real one: it reads its port from the same configuration.
const REGISTRY: &str = r#"#!/usr/bin/env python3
import http.server, re, sys
if sys.argv[1] in ("--version", "garbage-collect"): sys.exit()
port = int(re.search(r'127\.0\.0\.1:(\d+)', open(sys.argv[2]).read())[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"errors":[{"code":"NAME_UNKNOWN"}]}'
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

#[test]
fn the_local_registry_is_started_shown_and_stopped() {
    let world = TestEnv::new();
    world.program("docker-registry", REGISTRY);
    let local = |line: &str| {
        let output = world.command(line).env_remove("DEVBOX_REPOSITORY").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, _, text) = local("status");
    assert_eq!(code, 3, "looking starts nothing: {text}");
    contains(&text, &["no registry of this project runs on this machine: run `cargo xtask local up`"]);
    let (_, shown, _) = local("local status");
    contains(&shown, &["registry: not started by this project", "engine: not started by this project"]);

    assert_eq!(local("repair").0, 3, "nor does a repair");

    let (code, _, text) = local("local up");
    assert_eq!(code, 0, "{text}");
    contains(&text, &["$ docker-registry serve"]);
    contains(&local("repair").2, &["no promotion was interrupted: nothing to repair"]);
    let (code, _, text) = local("local gc");
    assert_eq!(code, 0, "{text}");
    contains(&text, &["$ docker-registry garbage-collect", "0 records of the build cache deleted"]);
    contains(&local("repair").2, &["no promotion was interrupted: nothing to repair"]);
    let status: Value = serde_json::from_str(&local("local status --json").1).unwrap();
    let (pid, port) = (&status["registry"]["pid"], &status["registry"]["port"]);
    contains(&local("local status").1, &[&format!("registry: process {pid}, localhost:{port}")]);
    let (_, _, text) = local("local up");
    assert!(!text.contains("docker-registry serve"), "it runs already: {text}");

    // Smoke tests have pulled images of this registry, which go with it; those of others stay.
    let images = format!(
        "localhost:{port}/a:1 localhost:{port}/a@sha256:1\\nlocalhost:{port}/b:<none> localhost:{port}/b@sha256:2\\nother/c:1 other/c@sha256:3\\n"
    );
    world.program(
        "docker",
        &format!("#!/bin/sh\necho \"docker $*\" >> $FAKE_LOG\n[ \"$2\" != ls ] || printf '{images}'\n"),
    );
    let (_, plan, _) = local("local down --purge --dry-run");
    let removed = format!("docker image rm localhost:{port}/a:1 localhost:{port}/b@sha256:2\n");
    contains(&plan, &[&removed, &format!("kill -TERM {pid}\n"), "rm -r "]);
    contains(&local("local status").1, &[&format!("process {pid}")]);
    let (code, _, text) = local("local down --purge");
    assert_eq!(code, 0, "{text}");
    contains(&text, &[removed.trim(), "registry stopped", ".devbox removed"]);
    assert!(!world.root.join(".devbox").exists());
    contains(&local("local status").1, &["registry: not started by this project, or stopped"]);
}

#[test]
fn a_registry_that_does_not_start_is_told() {
    let world = TestEnv::new();
    world.program("docker-registry", "#!/bin/sh\n[ \"$1\" = --version ] || exit 127\n");
    let output = world.command("local up").env_remove("DEVBOX_REPOSITORY").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    // Which of the two is seen first is up to chance: that the process is gone, or that nobody answers.
    let told = ["registry ended at once", "does not answer on port"].iter().any(|part| text.contains(part));
    assert!(told && text.contains("registry.log"), "{text}");
}

#[test]
fn release_chains_the_phases_and_ends_with_what_stands_where() {
    let world = machine();
    serve_archive(&world);
    for line in ["build-base", "build"] {
        let (code, _, text) = run(&world, line, &[]);
        assert_eq!(code, 0, "{text}");
    }
    let (code, table, text) = run(&world, "release", &[]);
    assert_eq!(code, 0, "{text}");
    let at = |step: &str| text.find(step).unwrap_or_else(|| panic!("no {step} in: {text}"));
    let steps = [
        "[1/8] doctor",
        "[2/8] preflight",
        "[3/8] base",
        "[4/8] variants",
        "[5/8] smoke",
        "[6/8] publish",
        "[7/8] base-latest",
        "[8/8] description",
    ];
    assert!(steps.is_sorted_by_key(|step| at(step)), "{text}");
    contains(&text, &["everything is built: nothing has to be fetched", "release v1.18.18 in"]);
    let run_line = format!(
        "docker run --rm -it --platform {} {}/devbox:latest-omos-with-pi",
        Platform::host(),
        world.host
    );
    contains(&table, &[&run_line, "done in"]);
    assert_eq!(world.tags().len(), 9);
    // The same again, for machines: no command runs.
    world.log();
    let (code, json, text) = run(&world, "release --json", &[]);
    assert_eq!(code, 0, "{text}");
    let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last["images"].as_array().unwrap().len(), 4);
    assert_eq!(world.log(), [""; 0]);
}

#[test]
fn a_dry_run_of_a_release_prints_its_commands_only() {
    let world = machine();
    serve_archive(&world);
    for line in ["build-base", "build"] {
        let (code, _, text) = run(&world, line, &[]);
        assert_eq!(code, 0, "{text}");
    }
    world.log();
    let writes = world.writes();
    let (code, plan, text) = run(&world, "release --dry-run", &[]);
    assert_eq!(code, 0, "{plan}{text}");
    contains(&plan, &["scripts/smoke-test.sh --image", "--prefix 'omos-with-pi linux/amd64: '"]);
    assert_eq!((world.log(), world.writes()), (vec![], writes));
}

#[test]
fn test_runs_the_cheapest_first_and_stops_at_what_fails() {
    let world = machine();
    world.program("cargo", "#!/bin/sh\necho \"cargo $*\" >> $FAKE_LOG\n[ \"$1\" != \"${FAKE_FAILS:-}\" ]\n");
    world.program("python3", "#!/bin/sh\necho \"python3 $*\" >> $FAKE_LOG\n");
    assert_eq!(run(&world, "test --fast", &[]).0, 0);
    let all = [
        "cargo fmt --all --check",
        "cargo clippy --locked --workspace --all-targets -- -D warnings",
        "cargo clippy --locked --workspace --test live -- -D warnings",
        "cargo test --locked --workspace",
        "python3 -m unittest discover -q -s xtask/tests/devbox",
    ];
    assert_eq!(world.log(), all);
    assert_eq!(run(&world, "test --fast", &[("FAKE_FAILS", "clippy")]).0, 1);
    assert_eq!(world.log(), all[..2]);
}

#[test]
fn fmt_formats_the_whole_workspace() {
    let world = TestEnv::new();
    world.program("cargo", "#!/bin/sh\necho \"cargo $*\" >> $FAKE_LOG\n");
    world.ok("fmt");
    assert_eq!(world.log(), ["cargo fmt --all"]);
}

/// Without another repository, the tools that only a local registry needs are asked for too, and a disk that is
/// nearly full is told, but stops nobody.
#[test]
fn doctor_asks_for_what_a_local_release_needs() {
    let world = machine();
    serve_archive(&world);
    for name in ["docker-registry", "mmdebstrap", "shellcheck"] {
        world.program(name, LACKING);
    }
    world.disk("9");
    let local = |line: &str| {
        let mut command = world.command(line);
        command.envs(settings(&world)).env_remove("DEVBOX_REPOSITORY");
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, _, text) = local("doctor");
    assert_eq!(code, 3, "{text}");
    let warning = "warn  9 GB of disk are free: a cold release wants 15 GB: `cargo xtask local down --purge` frees some";
    let start = "ok    local registry: started when it is needed";
    contains(
        &text,
        &[
            "FAIL  docker-registry is not installed",
            "FAIL  mmdebstrap is not installed",
            "FAIL  shellcheck is not",
            warning,
            start,
        ],
    );
    // The other platform is emulated or not, which is this machine's affair; either is told.
    let foreign = if Platform::host() == Platform::LinuxAmd64 { "linux/arm64" } else { "linux/amd64" };
    let emulated = text.contains(&format!("ok    emulation of {foreign}"));
    assert!(emulated || text.contains(&format!("FAIL  {foreign} cannot be run here")), "{text}");
    world.program("id", "#!/bin/sh\necho 0\n");
    let (_, plan, _) = local("doctor --install --dry-run");
    if plan.contains("apt-get") {
        contains(&plan, &["docker-registry mmdebstrap", "arch-test"]);
        assert_eq!(plan.contains("update-binfmts --enable qemu-"), !emulated, "{plan}");
    }
    world.program("df", "#!/bin/sh\nexit 1\n");
    contains(&local("doctor").2, &["warn  free disk space: cannot tell"]);
    // Where emulation is not allowed, nothing is missing for it.
    world.configure("emulation = \"always\"", "emulation = \"never\"");
    contains(&local("doctor").2, &[&format!("ok    {foreign} is left to its own machines")]);
    assert!(!local("doctor --install --dry-run").1.contains("qemu"));
}

/// `rm` is a stand-in here, since it would delete. A machine that runs jobs keeps its toolchains unless the forge throws it
/// away, and an engine keeps what is not this project's.
#[test]
fn reclaim_frees_what_no_job_uses() {
    let world = TestEnv::new();
    world.disk("9");
    world.program("rm", "#!/bin/sh\necho \"rm $*\" >> $FAKE_LOG\n");
    world.program("sudo", "#!/bin/sh\necho \"sudo $*\" >> $FAKE_LOG\n");
    world.program("id", "#!/bin/sh\necho 1000\n");
    let reclaim = |environment: &str| {
        let env = [("GITHUB_ACTIONS", "true"), ("RUNNER_ENVIRONMENT", environment)];
        let output = world.run_with("reclaim", &env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("9 GB were free, now 9 GB"), "{text}");
        let mut log = world.log();
        let prune = "docker image prune --all --force --filter label=org.opencontainers.image.source=";
        assert!(log.pop().is_some_and(|line| line.starts_with(prune)), "{text}");
        // The toolchains are those of the machine of this test.
        assert!(log.iter().all(|line| line.starts_with("sudo --non-interactive rm -rf /")), "{log:?}");
        (log.len(), text)
    };
    reclaim("github-hosted");
    let is_container = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::exists(path).unwrap());
    let (deletions, text) = reclaim("self-hosted");
    assert!(is_container || (deletions == 0 && text.contains("its toolchains stay")), "{text}");
}
