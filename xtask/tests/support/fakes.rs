//! A release without an engine: a tree before a registry lab, with the real registry and the real crane, and stand-ins
//! for docker and the smoke script that keep an ordered log of their command lines.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use registry_lab::{Address, Client, Lab, Registry, digest};
use tempfile::TempDir;
use xtask::model::promotion::{AttemptId, Promotion};

/// A command line of xtask that finds the programs of a folder first, and nothing of the forge that runs this test.
pub fn command(line: &str, programs: &Path) -> Command {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(line.split(' ')).env("PATH", path);
    for name in
        ["ACTIONS", "ENV", "OUTPUT", "REF_NAME", "REF_TYPE", "REPOSITORY", "SERVER_URL", "STEP_SUMMARY"]
    {
        command.env_remove(format!("GITHUB_{name}"));
    }
    command.env_remove("INPUT_RELEASE_TAG").env_remove("INPUT_PROMOTE_LATEST").env_remove("BUILDX_BUILDER");
    command
}

/// The tree that these tests belong to.
pub fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A copy of the tree whose builds and smoke tests are fake.
pub struct World {
    pub root: PathBuf,
    pub host: String,
    /// Path of the public repository.
    pub path: String,
    lab: Option<Lab>,
    /// Where the fake docker pushes: what the lab counts is what xtask and crane ask.
    push: Option<Client>,
    _dir: TempDir,
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

impl World {
    /// A tree before a registry of its own.
    pub fn new() -> Self {
        Self::of(Registry::start())
    }

    /// A tree before a lab of its own on this registry.
    pub fn of(registry: Arc<Registry>) -> Self {
        let lab = Lab::with(registry, Address::V4);
        lab.registry().put("debian", "trixie-slim", DEBIAN.as_bytes());
        let mut world = Self::before(lab.host(), "devbox");
        world.stand_in("crane");
        (world.push, world.lab) = (Some(lab.trusted_client()), Some(lab));
        world
    }

    /// A tree before the registry at `host`, with the machine's crane.
    pub fn before(host: &str, path: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        for part in ["images", "rootfs"] {
            assert!(
                Command::new("cp").arg("-r").arg(tree().join(part)).arg(&root).status().unwrap().success()
            );
        }
        // Versions of its own, so that a bump of the real ones changes no test.
        for (path, text) in FILES {
            fs::write(root.join(path), text).unwrap();
        }
        // The fake base is one layer.
        let definition = fs::read_to_string(root.join("images/devbox.toml")).unwrap();
        let (head, rest) = definition.split_once("base_layers = [").unwrap();
        let (_, tail) = rest.split_once("\n]").unwrap();
        let definition = format!("{head}base_layers = [{{ name = \"all of it\", budget_mb = 1 }}]{tail}");
        fs::write(root.join("images/devbox.toml"), definition).unwrap();
        script(&root.join("scripts/smoke-test.sh"), &format!("{SMOKE_OPTIONS}{SMOKE}"));
        fs::create_dir_all(root.join("scripts/smoke/topics")).unwrap();
        fs::write(root.join("scripts/smoke/topics/all.bash"), CHECKS).unwrap();
        link_stand_in(&dir.path().join("bin/docker"));
        Self { root, host: host.to_owned(), path: path.to_owned(), lab: None, push: None, _dir: dir }
    }

    /// Puts the stand-in for a program before all others on PATH.
    pub fn stand_in(&self, name: &str) {
        link_stand_in(&self.root.with_file_name("bin").join(name));
    }

    /// Puts a program before all others on PATH.
    pub fn program(&self, name: &str, text: &str) {
        script(&self.root.with_file_name("bin").join(name), text);
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

    /// A search path on which the programs of this world come first.
    pub fn path_before(&self, path: &str) -> String {
        format!("{}:{path}", self.root.with_file_name("bin").display())
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

    pub fn xtask(&self, line: &str) -> Output {
        self.xtask_with(line, &[])
    }

    pub fn xtask_with(&self, line: &str, env: &[(&str, &str)]) -> Output {
        self.command(line).envs(env.iter().copied()).output().unwrap()
    }

    /// A command line of xtask that works on this tree.
    pub fn command(&self, line: &str) -> Command {
        let mut command = command(line, &self.root.with_file_name("bin"));
        command.env("DEVBOX_ROOT", &self.root).env("FAKE_LOG", self.log_file());
        command.env("SSL_CERT_FILE", self.root.join("CHANGELOG.md"));
        command.env("DEVBOX_REPOSITORY", format!("{}/{}", self.host, self.path));
        if let Some(push) = &self.push {
            command.env("FAKE_PUSH_HOST", push.host());
        }
        command.env("GIT_DIR", "/nonexistent").current_dir(&self.root);
        command
    }

    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let output = self.xtask(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a run that has to end with a code.
    #[track_caller]
    pub fn fails(&self, line: &str, env: &[(&str, &str)], code: i32) -> String {
        let output = self.xtask_with(line, env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {text}");
        text
    }

    /// Standard error of a run that has to succeed.
    #[track_caller]
    pub fn notes(&self, line: &str) -> String {
        let output = self.xtask(line);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {text}");
        text
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

    /// The lab of a world that has its own.
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

    /// Public tags with their digests, sorted, without those of content keys.
    pub fn tags(&self) -> Vec<(String, String)> {
        let is_public = |(tag, _): &(String, String)| !tag.starts_with("base-") || tag == "base-latest";
        self.registry().tags("devbox").into_iter().filter(is_public).collect()
    }
}
