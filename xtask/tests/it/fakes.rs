//! A release without an engine: a registry in this process, and fake `docker`, `crane` and smoke script that push into
//! it and keep an ordered log of their command lines.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tiny_http::{Header, Method, Request, Response, Server};

#[derive(Clone, Default)]
pub struct Store {
    /// Manifests by `repository:tag` and `repository@digest`.
    manifests: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    pub requests: usize,
    pub writes: usize,
    /// Answers to the next reads of manifests, before the truth.
    pub faults: Vec<u16>,
    /// Every request wants a token, and no token lets the pipeline write.
    pub refuse_writes: bool,
    /// Other files that are there, by path; their content is nobody's concern.
    pub files: HashSet<String>,
    /// The credentials that a token was asked for with.
    pub basic: Option<String>,
}

/// Status, body, and a header.
type Answer = (u16, Vec<u8>, Option<(String, String)>);

impl Store {
    pub fn put(&mut self, repository: &str, reference: &str, body: Vec<u8>) {
        self.manifests.insert(format!("{repository}@{}", digest(&body)), body.clone());
        if !reference.starts_with("sha256:") {
            self.manifests.insert(format!("{repository}:{reference}"), body);
        }
    }

    /// Deletes whatever has this in its name.
    pub fn forget(&mut self, part: &str) {
        self.manifests.retain(|name, _| !name.contains(part));
    }

    /// A challenge for a request without a token, or whose token is not enough; the token where one is asked for.
    fn guard(&mut self, request: &Request) -> Option<Answer> {
        let header = |name: &'static str| request.headers().iter().find(|it| it.field.equiv(name));
        let value = |name| header(name).map(|it| it.value.to_string()).unwrap_or_default();
        if request.url().starts_with("/token") {
            self.basic = Some(value("Authorization"));
            return Some((200, br#"{"token":"read-only"}"#.to_vec(), None));
        }
        // The fake docker pushes by curl, with rights of its own.
        let writes = !matches!(request.method(), Method::Get | Method::Head);
        if value("User-Agent").starts_with("curl") || (!value("Authorization").is_empty() && !writes) {
            return None;
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"registry\"", value("Host"));
        Some((401, Vec::new(), Some(("WWW-Authenticate".into(), challenge))))
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The API of a registry, as far as the pipeline uses it.
fn serve(store: &mut Store, request: &mut Request) -> Answer {
    store.requests += 1;
    let url = request.url().trim_start_matches("/v2/").to_owned();
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    if store.refuse_writes
        && let Some(answer) = store.guard(request)
    {
        return answer;
    }
    let method = request.method().clone();
    if let Some((repository, reference)) = url.split_once("/manifests/") {
        if method == Method::Put {
            store.writes += 1;
            store.put(repository, reference, body);
            return (201, Vec::new(), None);
        }
        if !store.faults.is_empty() {
            return (store.faults.remove(0), Vec::new(), None);
        }
        let joint = if reference.starts_with("sha256:") { '@' } else { ':' };
        return match store.manifests.get(&format!("{repository}{joint}{reference}")) {
            Some(manifest) => (200, manifest.clone(), None),
            None => (404, br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.to_vec(), None),
        };
    }
    if store.files.contains(request.url()) {
        return (200, Vec::new(), None);
    }
    // Like the distribution registry before version 3, this one has no referrers API.
    let Some((repository, blob)) = url.split_once("/blobs/") else {
        return (404, b"404 page not found".to_vec(), None);
    };
    match method {
        Method::Post => {
            (202, Vec::new(), Some(("Location".into(), format!("/v2/{repository}/blobs/uploads/1?s=1"))))
        }
        Method::Put => {
            store.writes += 1;
            store.blobs.insert(digest(&body), body);
            (201, Vec::new(), None)
        }
        _ => match store.blobs.get(blob) {
            Some(bytes) => (200, bytes.clone(), None),
            None => (404, Vec::new(), None),
        },
    }
}

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

/// A copy of the tree whose outside world is fake.
pub struct World {
    pub root: PathBuf,
    pub store: Arc<Mutex<Store>>,
    pub host: String,
    /// Path of the public repository.
    pub path: String,
    _dir: TempDir,
}

pub const DOCKER: &str = include_str!("fakes/docker");
const CRANE: &str = include_str!("fakes/crane");

const SMOKE: &str = r#"#!/usr/bin/env bash
echo "smoke $4 $6" >> "$FAKE_LOG"
[ "$4" != "${FAKE_BROKEN:-}" ]
"#;

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
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The image that everything is built upon.
pub const DEBIAN: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
    {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"platform":{"os":"linux","architecture":"amd64"},
     "digest":"sha256:d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"},
    {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"platform":{"os":"linux","architecture":"arm64"},
     "digest":"sha256:d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2"}]}"#;

impl World {
    /// A tree before a registry in this process, with a fake crane.
    pub fn new() -> Self {
        let server = Server::http("127.0.0.1:0").unwrap();
        let world = Self::before(&server.server_addr().to_string(), "devbox");
        script(&world.root.with_file_name("bin").join("crane"), CRANE);
        let shared = world.store.clone();
        thread::spawn(move || {
            for mut request in server.incoming_requests() {
                let (status, body, header) = serve(&mut shared.lock().unwrap(), &mut request);
                let mut response = Response::from_data(body).with_status_code(status);
                if let Some((name, value)) = header {
                    response.add_header(Header::from_bytes(name, value).unwrap());
                }
                // A client that was killed no longer listens.
                let _ = request.respond(response);
            }
        });
        world.store.lock().unwrap().put("debian", "trixie-slim", DEBIAN.into());
        world
    }

    /// A tree before the registry at `host`, with the machine's own crane.
    pub fn before(host: &str, path: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for part in ["images", "rootfs"] {
            assert!(Command::new("cp").arg("-r").arg(tree.join(part)).arg(&root).status().unwrap().success());
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
        script(&root.join("scripts/smoke-test.sh"), SMOKE);
        script(&dir.path().join("bin/docker"), DOCKER);
        let store = Arc::new(Mutex::new(Store::default()));
        Self { root, store, host: host.to_owned(), path: path.to_owned(), _dir: dir }
    }

    /// Puts a program before all others on PATH.
    pub fn program(&self, name: &str, text: &str) {
        script(&self.root.with_file_name("bin").join(name), text);
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
            "docker buildx build --quiet",
            "docker run --rm --network=none",
            "crane auth",
            "crane version",
        ];
        let changes = |line: &&str| !reads.iter().any(|read| line.starts_with(read));
        text.lines().filter(changes).map(|line| self.without_chance(line)).collect()
    }

    /// Text without what differs between two runs: port, folder, and the keys, which every edit of an input changes.
    fn without_chance(&self, text: &str) -> String {
        let text = text.replace(&self.host, "REGISTRY").replace(self.root.to_str().unwrap(), "ROOT");
        let mut words: Vec<String> = Vec::new();
        for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
            let hex = word[..end].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            words.push(if hex && matches!(end, 12 | 64) {
                format!("HASH{}", &word[end..])
            } else {
                word.to_owned()
            });
        }
        words.concat()
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
        let text = fs::read_to_string(self.root.with_file_name(file)).unwrap();
        // Every edit of an input changes the record of the inputs.
        let lines = text.lines().map(|line| match line.split_once("opencode-devbox.inputs=") {
            Some((head, _)) => format!("{head}opencode-devbox.inputs=INPUTS\"\n"),
            None => format!("{line}\n"),
        });
        self.without_chance(&lines.collect::<String>())
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

    /// The digest of a staged variant.
    pub fn staged(&self, variant: &str) -> String {
        let store = self.store.lock().unwrap();
        let key = |name: &str| name.strip_prefix(variant)?.strip_prefix('-').map(str::len);
        let tag = |name: &str| key(name.strip_prefix("devbox-staging:")?);
        let found = store.manifests.iter().filter(|(name, _)| tag(name) == Some(12));
        found.map(|(_, bytes)| digest(bytes)).last().unwrap()
    }

    /// Requests and writes so far.
    pub fn counts(&self) -> (usize, usize) {
        let store = self.store.lock().unwrap();
        (store.requests, store.writes)
    }

    /// The document under `repository:tag`.
    pub fn document(&self, name: &str) -> serde_json::Value {
        let manifest = self.store.lock().unwrap().manifests[name].clone();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        serde_json::from_str(manifest["annotations"]["opencode-devbox.document"].as_str().unwrap()).unwrap()
    }

    /// Public tags with their digests, sorted.
    pub fn tags(&self) -> Vec<(String, String)> {
        let store = self.store.lock().unwrap();
        let public = store.manifests.iter().filter_map(|(name, bytes)| {
            let tag = name.strip_prefix("devbox:")?;
            (!tag.starts_with("base-") || tag == "base-latest").then(|| (tag.to_owned(), digest(bytes)))
        });
        let mut tags: Vec<_> = public.collect();
        tags.sort();
        tags
    }
}
