//! A checkout of this tree, the programs and servers that a command line finds there, and what it prints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use expect_test::Expect;
use registry_lab::{Address, Client, Lab, Registry, digest};
use tempfile::TempDir;
use xtask::model::promotion::{AttemptId, Promotion};

use crate::support::published::{self, Published};

/// Variables of the machine, of a forge's runner and of a hook of git that would change what a test sees.
const UNSET: [&str; 12] = [
    "ACTIONS",
    "BUILDX_",
    "CI",
    "COSIGN_",
    "DEVBOX_",
    "DOCKERHUB_",
    "FAKE_",
    "GITEA_",
    "GITHUB_",
    "GIT_",
    "INPUT_",
    "SSL_CERT_",
];

/// Those that package managers read.
const PACKAGES: [&str; 4] = ["NPM_CONFIG_", "PIP_", "UV_", "npm_config_"];

/// The key that signs in tests, and its public half.
pub const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPkQ4jPO2ATlin0w8\n\
    Ty8/oDHq296csXkaF6v2vHorsgOhRANCAARqjph2uU80mWwsB/5SKlS9n8LBZ7Tl\n\
    s7O8/i8g1tRpl5QXRpIDfxndRpjUgs2TyYIsdrmGA3BNAKq05MCa0BX8\n\
    -----END PRIVATE KEY-----\n";
pub const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEao6YdrlPNJlsLAf+UipUvZ/CwWe0\n\
    5bOzvP4vINbUaZeUF0aSA38Z3UaY1ILNk8mCLHa5hgNwTQCqtOTAmtAV/A==\n\
    -----END PUBLIC KEY-----\n";

/// An address at which nothing answers.
const NOWHERE: &str = "127.0.0.1:9";

/// The tree that these tests belong to.
pub fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A checkout in a folder of its own. Its command lines see no variable of the machine that would change them, and find the
/// folder's programs first.
pub struct TestEnv {
    pub root: PathBuf,
    pub host: String,
    /// Path of the public repository.
    pub path: String,
    lab: Option<Lab>,
    /// Where the fake docker pushes: what the lab counts is what xtask and crane ask.
    push: Option<Client>,
    published: Option<Arc<Mutex<Published>>>,
    variables: Vec<(&'static str, String)>,
    /// True if package registries and mirrors are the machine's.
    is_local: bool,
    dir: TempDir,
}

/// What a stand-in for the suite does first: its options, and what it tests.
pub const SMOKE_OPTIONS: &str = r#"#!/usr/bin/env bash
set -euo pipefail
while [ $# -gt 0 ]; do
  case $1 in --image) image=$2 ;; --platform) platform=$2 ;; --tap) tap=$2 ;; --prefix) what=${2%: } ;; esac
  shift 2
done
"#;

/// Passes every check, unless the variant is the broken one; a line of the log for each start.
const SMOKE: &str = r#"
echo "smoke $what" >> "$FAKE_LOG"
verdict=ok
if [ "${what% *}" = "${FAKE_BROKEN:-}" ]; then verdict='not ok'; fi
while IFS= read -r name; do echo "$verdict 1 - $name # 0.1 s"; done > "$tap"
[ "$verdict" = ok ]
"#;

/// Checks of each kind of subject, in the suite's own words.
const CHECKS: &str = "check 'the base starts' base any run\ncheck 'opencode answers' opencode any run\n\
                      check 'omos is set up' opencode+bun+omos any run\ncheck 'pi answers' pi any run\n\
                      static 'the labels are there' image any run\n";

const FILES: [(&str, &str); 4] = [
    (
        "images/Dockerfile.base",
        "ARG DEBIAN_SUITE=trixie\nARG DEBIAN_IMAGE=127.0.0.1:9/debian:${DEBIAN_SUITE}-slim\nARG DEBIAN_DATE=20260101\n\
         ARG NODE_VERSION=24.1.0\nARG GITEA_MCP_VERSION=0.1.0\nARG GITEA_MCP_URL=http://127.0.0.1:9\nARG EMBEDDING_MODEL_URL=http://127.0.0.1:9\n",
    ),
    (
        "images/Dockerfile.variant",
        "ARG OPENCODE_VERSION=1.18.18\nARG OMOS_VERSION=2.0.0\nARG BUN_VERSION=1.0.0\nARG PI_VERSION=0.1.0\n\
         ARG INSTALL_OPENCODE=true\nARG INSTALL_OMOS=false\nARG INSTALL_PI=false\n",
    ),
    (
        "CHANGELOG.md",
        "# Changelog\n\n## Unreleased\n\n- A thing.\n\n## v1.18.17\n\n- opencode 1.18.16 → 1.18.17.\n",
    ),
    ("DOCKER_HUB.md", "| `latest` | opencode 1.18.18 |\n"),
];

pub fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Never through a link to a stand-in.
    let _ = fs::remove_file(path);
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Text without keys, commits and digests.
pub fn without_hashes(text: &str) -> String {
    // As many checks at once as this machine has processors.
    let mut parts = text.split("--jobs ");
    let head = parts.next().unwrap_or_default().to_owned();
    let digits = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    let text = parts.fold(head, |text, part| format!("{text}--jobs N{}", digits(part)));
    let mut words: Vec<String> = Vec::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        let hex = word[..end].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        words.push(if hex && matches!(end, 12 | 40 | 64) {
            format!("HASH{}", &word[end..])
        } else {
            word.to_owned()
        });
    }
    words.concat()
}

/// Text without the record of the inputs, which every edit of an input changes.
pub fn without_inputs(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("opencode-devbox.inputs=") {
        Some((head, _)) => format!("{head}opencode-devbox.inputs=INPUTS\"\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// Copies a file, a link or a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    let kind = fs::symlink_metadata(from).unwrap().file_type();
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else if kind.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// The machine's Python itself: what `python3` starts may be a script that looks for it, which takes a dozen programs more.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let ask = ["-c", "import sys; print(sys.executable)"];
        let output = Command::new("python3").args(ask).output().unwrap();
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}

/// Makes the tree of a family whose builds and smoke tests are fake.
fn family(root: &Path) {
    fs::create_dir(root).unwrap();
    for part in ["images", "rootfs"] {
        copy(&tree().join(part), &root.join(part));
    }
    // Versions of its own, so that a bump of the real ones changes no test.
    for (path, text) in FILES {
        fs::write(root.join(path), text).unwrap();
    }
    fs::write(root.join("cosign.pub"), PUBLIC_KEY).unwrap();
    // The fake base is one layer.
    let definition = fs::read_to_string(root.join("images/devbox.toml")).unwrap();
    let (head, rest) = definition.split_once("base_layers = [").unwrap();
    let (_, tail) = rest.split_once("\n]").unwrap();
    let definition = format!(
        "{head}base_layers = [{{ name = \"all of it\", holds = [\"packages\"], budget_mb = 1 }}]{tail}"
    );
    fs::write(root.join("images/devbox.toml"), definition).unwrap();
    script(&root.join("scripts/smoke-test.sh"), &format!("{SMOKE_OPTIONS}{SMOKE}"));
    fs::create_dir_all(root.join("scripts/smoke/topics")).unwrap();
    fs::write(root.join("scripts/smoke/topics/all.bash"), CHECKS).unwrap();
}

/// Makes a file the stand-in for the program of its name (`xtask/test-programs`).
pub fn link_stand_in(file: &Path) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let _ = fs::remove_file(file);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_xtask-test-programs"), file).unwrap();
}

/// The image that everything is built on top of.
pub const DEBIAN: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
    {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"platform":{"os":"linux","architecture":"amd64"},
     "digest":"sha256:d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"},
    {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"platform":{"os":"linux","architecture":"arm64"},
     "digest":"sha256:d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2"}]}"#;

impl TestEnv {
    /// The family's tree with fake builds and smoke tests, before a registry of its own.
    pub fn new() -> Self {
        Self::of(Registry::start())
    }

    /// The same before a lab of its own on this registry.
    pub fn of(registry: Arc<Registry>) -> Self {
        let lab = Lab::with(registry, Address::V4);
        lab.registry().put("debian", "trixie-slim", DEBIAN.as_bytes());
        let mut env = Self::before(lab.host(), "devbox");
        env.stand_in("crane");
        (env.push, env.lab) = (Some(lab.trusted_client()), Some(lab));
        env.variables.push(("FAKE_PUSH_HOST", env.push.as_ref().unwrap().host().to_owned()));
        env
    }

    /// The same before the registry at `host`, with the machine's crane.
    pub fn before(host: &str, path: &str) -> Self {
        let dir = TempDir::new().unwrap();
        family(&dir.path().join("tree"));
        let mut env = Self::empty(dir, host, path);
        env.stand_in("docker");
        // No program is started to find out what the machine's package managers are set to.
        env.program("apt-get", &format!("#!/bin/sh\necho 'http://{NOWHERE}/debian main'\n"));
        env.program("npm", &format!("#!/bin/sh\necho 'http://{NOWHERE}/npm'\n"));
        let help = format!("  -i, --index-url <url>  Base URL (default http://{NOWHERE}/simple).");
        let python = format!(
            "#!/bin/sh\ncase $* in '-m pip install --help') echo '{help}' ;; *) exec '{}' \"$@\" ;; esac\n",
            python().display()
        );
        env.program("python3", &python);
        env.variables.push(("SSL_CERT_FILE", env.root.join("CHANGELOG.md").to_str().unwrap().to_owned()));
        env.variables.push(("GIT_DIR", "/nonexistent".to_owned()));
        env
    }

    /// With the machine's docker, package registries and mirrors in place of stand-ins.
    pub fn on_this_machine(mut self) -> Self {
        for name in ["docker", "apt-get", "npm", "python3"] {
            fs::remove_file(self.bin().join(name)).unwrap();
        }
        self.is_local = true;
        self
    }

    /// A Git clone of the whole tree with locks of its own versions, whose registries and forge are one server.
    pub fn clone_of_tree() -> Self {
        let dir = TempDir::new().unwrap();
        published::copy_tree(&dir.path().join("tree"));
        Self::before_packages(dir)
    }

    /// A folder's tree, whose registries and forge are one server.
    pub fn before_packages(dir: TempDir) -> Self {
        let (host, published) = published::serve();
        let mut env = Self::empty(dir, &host, "devbox");
        env.published = Some(published);
        env.variables.push(("npm_config_registry", format!("http://{host}/npm")));
        env.variables.push(("PIP_INDEX_URL", format!("http://{host}/simple")));
        for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
            env.set(name, "T");
        }
        for name in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
            env.set(name, "t@example.org");
        }
        env
    }

    fn empty(dir: TempDir, host: &str, path: &str) -> Self {
        let (host, path) = (host.to_owned(), path.to_owned());
        let (root, bin) = (dir.path().join("tree"), dir.path().join("bin"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        // Not a script: a shell passes no variable on whose name has a slash, as those of npm's accounts have.
        std::os::unix::fs::symlink(python(), bin.join("python3")).unwrap();
        let (lab, push, published, variables) = (None, None, None, vec![("COSIGN_KEY", KEY.to_owned())]);
        Self { root, host, path, lab, push, published, variables, is_local: false, dir }
    }

    /// Sets a variable of all command lines from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    /// The folder alone, without what serves it.
    pub fn into_folder(self) -> TempDir {
        self.dir
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    /// Puts the stand-in for a program before all others on PATH.
    pub fn stand_in(&self, name: &str) {
        link_stand_in(&self.bin().join(name));
    }

    /// Puts a program before all others on PATH.
    pub fn program(&self, name: &str, text: &str) {
        script(&self.bin().join(name), text);
    }

    /// Leaves one variant of the family.
    pub fn keep_variant(&self, name: &str) {
        let file = self.root.join("images/devbox.toml");
        let text = fs::read_to_string(&file).unwrap();
        let (head, rest) = text.split_once("[[variant]]").unwrap();
        let (variants, tail) = rest.split_once("[[component]]").unwrap();
        let kept =
            variants.split("[[variant]]").find(|it| it.contains(&format!("name = \"{name}\""))).unwrap();
        let kept = kept.split("\n\n").next().unwrap();
        fs::write(&file, format!("{head}[[variant]]{kept}\n\n[[component]]{tail}")).unwrap();
    }

    /// From now on so many gigabytes of disk are free, as POSIX's df prints them. Text of a shell may take the number's place.
    pub fn disk(&self, gigabytes: &str) {
        let head = "Filesystem 1024-blocks Used Available Capacity Mounted on";
        let line = format!("/dev/sda 1 1 $(({gigabytes} * 976563)) 1% /");
        self.program("df", &format!("#!/bin/sh\necho '{head}'\necho \"{line}\"\n"));
    }

    /// A search path on which the programs of this checkout come first.
    pub fn path_before(&self, path: &str) -> String {
        format!("{}:{path}", self.bin().display())
    }

    /// Changes the definition of the family.
    #[track_caller]
    pub fn configure(&self, from: &str, to: &str) {
        assert!(self.try_configure(from, to), "{from}");
    }

    /// The same, and false where the text is not there.
    pub fn try_configure(&self, from: &str, to: &str) -> bool {
        let file = self.root.join("images/devbox.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        text.contains(from)
    }

    fn log_file(&self) -> PathBuf {
        self.root.with_file_name("log")
    }

    /// Command lines that changed something since the last call.
    pub fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let _ = fs::remove_file(self.log_file());
        let reads = [
            "docker info",
            "docker buildx version",
            "docker buildx ls",
            "docker buildx inspect",
            "docker buildx build --quiet",
            "docker run --rm --network=none",
            "crane auth",
            "crane blob",
            "crane version",
        ];
        let changes = |line: &&str| !reads.iter().any(|read| line.starts_with(read));
        let mut lines: Vec<String> =
            text.lines().filter(changes).map(|line| self.without_chance(line)).collect();
        // Images are tested side by side.
        lines.chunk_by_mut(|a, b| a.starts_with("smoke ") && b.starts_with("smoke ")).for_each(<[_]>::sort);
        lines
    }

    /// Text without what differs between two runs: port, folder, and the keys, which every edit of an input changes.
    pub fn without_chance(&self, text: &str) -> String {
        without_hashes(&text.replace(&self.host, "REGISTRY").replace(self.root.to_str().unwrap(), "ROOT"))
    }

    /// The definition that the last bake of images got.
    pub fn bake(&self) -> String {
        self.definition("log.bake")
    }

    /// The definition that the last bake of a cache got.
    pub fn cache(&self) -> String {
        self.definition("log.cache")
    }

    fn definition(&self, file: &str) -> String {
        self.without_chance(&without_inputs(&fs::read_to_string(self.root.with_file_name(file)).unwrap()))
    }

    /// A command line of xtask that works on this checkout.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(line.split(' ')).current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let packages = PACKAGES.iter().filter(|_| !self.is_local);
            if UNSET.iter().chain(packages).any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("PATH", self.path_before(&std::env::var("PATH").unwrap()));
        if !self.is_local {
            command.env("HOME", self.dir.path().join("home"));
        }
        command.env("DEVBOX_ROOT", &self.root).env("FAKE_LOG", self.log_file());
        command.env("DEVBOX_REPOSITORY", format!("{}/{}", self.host, self.path));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.run_with(line, &[])
    }

    pub fn run_with(&self, line: &str, env: &[(&str, &str)]) -> Output {
        self.command(line).envs(env.iter().copied()).output().unwrap()
    }

    /// Standard output of a run that has to succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.both(line).0
    }

    /// Standard error of a run that has to succeed.
    #[track_caller]
    pub fn notes(&self, line: &str) -> String {
        self.both(line).1
    }

    /// Standard output and error of a run that has to succeed.
    #[track_caller]
    pub fn both(&self, line: &str) -> (String, String) {
        let output = self.run(line);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (shown, told) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{line}: {told}");
        (shown, told)
    }

    /// Standard error of a run that has to end with a code.
    #[track_caller]
    pub fn fails(&self, line: &str, code: i32) -> String {
        self.fails_with(line, &[], code)
    }

    /// The same with variables. A run that fails leaves a Git clone as it was.
    #[track_caller]
    pub fn fails_with(&self, line: &str, env: &[(&str, &str)], code: i32) -> String {
        let status = || self.published.is_some().then(|| self.git("status --porcelain"));
        let before = status();
        let output = self.run_with(line, env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {text}");
        assert_eq!(status(), before, "{line} changed the tree");
        text
    }

    /// Compares everything that a command line prints, and its exit code, with a snapshot; `UPDATE_EXPECT=1` renews it.
    #[track_caller]
    pub fn prints(&self, line: &str, expected: &Expect) {
        self.prints_with(line, &[], expected);
    }

    #[track_caller]
    pub fn prints_with(&self, line: &str, env: &[(&str, &str)], expected: &Expect) {
        let output = self.run_with(line, env);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (shown, told) = (text(&output.stdout), text(&output.stderr));
        let mut all = match (shown.is_empty(), told.is_empty()) {
            (_, true) => shown,
            (true, false) => told,
            (false, false) => format!("{shown}--- stderr\n{told}"),
        };
        match output.status.code() {
            Some(0) => {}
            Some(code) => all += &format!("--- exit code {code}\n"),
            None => all += "--- killed\n",
        }
        expected.assert_eq(&self.without_chance(&all));
    }

    /// Runs a command line in a process group of its own, which the lab's faults strike. Returns its exit code (nothing
    /// if it was killed) and standard error.
    pub fn struck(&self, line: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = self.command(line);
        command.envs(env.iter().copied()).process_group(0);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.lab().set_process_group(child.id());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// Runs a command line on a terminal of 100 columns. Returns its exit code and all that it wrote there, in order.
    pub fn on_terminal(&self, line: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let size = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&controller, size).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let open = || fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut command = self.command(line);
        command.env("TERM", "xterm").envs(env.iter().copied());
        let mut child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        // This process keeps no end of its own open, so that the reader sees the end.
        drop(command);
        let reader = std::thread::spawn(move || {
            let (mut text, mut controller) = (Vec::new(), fs::File::from(controller));
            // Linux ends the reading of a terminal that nobody writes to with an error.
            let _ = std::io::Read::read_to_end(&mut controller, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let code = child.wait().unwrap().code();
        (code, reader.join().unwrap())
    }

    pub fn git(&self, line: &str) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=T", "-c", "user.email=t@example.org"]).args(line.split(' '));
        for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"] {
            command.env_remove(name);
        }
        let output = command.current_dir(&self.root).output().unwrap();
        assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn commit(&self, message: &str) {
        self.git("add --all");
        self.git(&format!("commit --quiet --message {message}"));
    }

    /// What the server of a Git clone has.
    pub fn published(&self) -> MutexGuard<'_, Published> {
        self.published.as_ref().unwrap().lock().unwrap()
    }

    /// Requests to that server since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.published().log)
    }

    /// The lab of a checkout that has its own.
    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().unwrap()
    }

    pub fn registry(&self) -> &Arc<Registry> {
        self.lab().registry()
    }

    /// The digest of the staged image of a variant.
    pub fn staged(&self, variant: &str) -> String {
        let tags = self.registry().tags("devbox-staging");
        let is_key = |tag: &str| {
            let key = tag.strip_prefix(variant).and_then(|rest| rest.strip_prefix('-'));
            key.is_some_and(|key| key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        tags.into_iter().find(|(tag, _)| is_key(tag)).unwrap().1
    }

    /// Writes so far, those of the fake docker included.
    pub fn writes(&self) -> usize {
        self.lab().counts().writes + self.push.as_ref().unwrap().counts().writes
    }

    /// The document under a tag of the staging repository.
    pub fn document(&self, tag: &str) -> serde_json::Value {
        let digest = self.registry().tag("devbox-staging", tag).unwrap();
        let manifest = self.registry().blob(&digest).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        serde_json::from_str(manifest["annotations"]["opencode-devbox.document"].as_str().unwrap()).unwrap()
    }

    /// Stores an attempt at a promotion as another machine would have left it.
    pub fn plant(&self, id: &AttemptId, promotion: &Promotion) {
        let document = serde_json::to_string(promotion).unwrap();
        let empty = serde_json::json!({ "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": digest(b"{}"), "size": 2 });
        let manifest = serde_json::json!({ "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.opencode-devbox.promotion.v1+json",
            "config": empty, "layers": [empty], "annotations": { "opencode-devbox.document": document } });
        self.registry().put("devbox-staging", &id.tag(), &serde_json::to_vec(&manifest).unwrap());
    }

    /// Public tags with their digests, sorted, without those of content keys and of listings of signatures.
    pub fn tags(&self) -> Vec<(String, String)> {
        let is_internal =
            |tag: &str| tag.starts_with("base-") && tag != "base-latest" || tag.starts_with("sha256-");
        let is_public = |(tag, _): &(String, String)| !is_internal(tag);
        self.registry().tags("devbox").into_iter().filter(is_public).collect()
    }
}
