//! The CNCF distribution registry as a process, and its data as files.
//!
//! It listens on a socket in its scratch folder, so that no two registries ever race for a port. Only the lab's proxy
//! connects to it. A registry that runs already, on a port, can take its place: then its files are out of reach.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::accounts::Account;
use crate::answers::Answers;
use crate::http::{Request, Response};

/// Ends the registry as soon as standard input ends: with the test, however that ends.
const SERVE: &str =
    "command -v docker-registry && { docker-registry serve \"$0\" & read -r _; kill -KILL $!; }";

/// Tags with the digests of their manifests.
pub type Tags = BTreeMap<String, String>;

pub struct Registry {
    process: Mutex<Option<Child>>,
    dir: TempDir,
    /// The port of a registry that runs already.
    port: Option<u16>,
    /// The registry's own accounts.
    accounts: Mutex<Vec<Account>>,
    /// One lock for each tag: the registry replaces the file of a tag in two steps, between which a read fails.
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
    answers: Answers,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The name of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// An empty registry without accounts.
    pub fn start() -> Arc<Self> {
        let registry = Self::new(None);
        registry.run("");
        Arc::new(registry)
    }

    /// A registry that begins with data that [`Self::save`] has stored.
    pub fn restore(from: &Path) -> Arc<Self> {
        let registry = Self::new(None);
        copy(&from.join("data"), &registry.dir.path().join("data"));
        registry.run("");
        Arc::new(registry)
    }

    /// Stores a copy of all data in a folder.
    pub fn save(&self, to: &Path) {
        copy(&self.dir.path().join("data"), &to.join("data"));
    }

    /// The registry at a port of this machine. It has no accounts.
    pub fn at_port(port: u16) -> Arc<Self> {
        Arc::new(Self::new(Some(port)))
    }

    fn new(port: Option<u16>) -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            process: Mutex::default(),
            dir,
            port,
            accounts: Mutex::default(),
            locks: Mutex::default(),
            answers: Answers::default(),
        }
    }

    /// Restarts the registry with its own Basic authentication. Without accounts, it has none again.
    pub(crate) fn set_htpasswd(&self, accounts: &[Account]) {
        self.stop();
        self.answers.forget();
        *self.accounts.lock().unwrap() = accounts.to_vec();
        if accounts.is_empty() {
            return self.run("");
        }
        let file = self.dir.path().join("htpasswd");
        // The cheapest hash that bcrypt knows: the registry computes it for every request.
        let line =
            |account: &Account| format!("{}:{}\n", account.name, bcrypt::hash(&account.password, 4).unwrap());
        fs::write(&file, accounts.iter().map(line).collect::<String>()).unwrap();
        self.run(&format!("auth: {{htpasswd: {{realm: lab, path: {file:?}}}}}\n"));
    }

    /// Gives a request an account, if the registry asks for one.
    pub(crate) fn authorize(&self, request: &mut Request) {
        request.headers.remove(AUTHORIZATION);
        if let Some(account) = self.accounts.lock().unwrap().first() {
            request.headers.insert(AUTHORIZATION, account.basic());
        }
    }

    fn run(&self, auth: &str) {
        let (socket, data) = (self.socket(), self.dir.path().join("data"));
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {data:?}}}, delete: {{enabled: true}}}}\n\
             http: {{net: unix, addr: {socket:?}}}\n{auth}"
        );
        let file = self.dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", SERVE]).arg(&file).stdin(Stdio::piped());
        // It lives for seconds, and would spend a third of its work on its garbage.
        command.env("GOGC", "off").env("GOMEMLIMIT", "256MiB");
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while self.connect().is_err() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "docker-registry is not installed: run `cargo xtask doctor --install`");
            assert!(start.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            thread::sleep(Duration::from_millis(10));
        }
        *self.process.lock().unwrap() = Some(process);
    }

    fn stop(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
        let _ = fs::remove_file(self.socket());
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn connect(&self) -> io::Result<Upstream> {
        Ok(match self.port {
            Some(port) => Upstream::Tcp(TcpStream::connect(("127.0.0.1", port))?),
            None => Upstream::Unix(UnixStream::connect(self.socket())?),
        })
    }

    /// Passes a request on. `client` is where the rest of a large body comes from.
    pub(crate) fn ask(&self, request: &Request, client: Option<&TcpStream>) -> io::Result<Response> {
        // Others may write to a registry that the lab did not start.
        let question = self.answers.question(request).filter(|_| self.port.is_none());
        if let Some(answer) = question.as_ref().and_then(|question| self.answers.find(question)) {
            return Ok(answer);
        }
        let mut server = self.connect()?;
        if !request.is_read() {
            self.answers.note_write(&request.method);
        }
        request.send(&mut server, client)?;
        let answer = Response::read(server, request.method == Method::HEAD);
        match question {
            _ if !request.is_read() => self.answers.note_write(&request.method),
            Some(question) => {
                if let Ok(answer) = &answer {
                    self.answers.keep(question, answer);
                }
            }
            None => {}
        }
        answer
    }

    /// The lock of a tag, for writing or reading it.
    pub(crate) fn lock(&self, repository: &str, tag: &str) -> Arc<RwLock<()>> {
        self.locks.lock().unwrap().entry(format!("{repository}:{tag}")).or_default().clone()
    }

    fn root(&self) -> PathBuf {
        assert!(self.port.is_none(), "the files of a registry that the lab did not start are out of reach");
        self.dir.path().join("data/docker/registry/v2")
    }

    fn repository(&self, path: &str) -> PathBuf {
        self.root().join("repositories").join(path)
    }

    fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.root().join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// Copies all repositories below a name: links to blobs, which all repositories share.
    pub fn copy(&self, from: &str, to: &str) {
        copy(&self.repository(from), &self.repository(to));
        self.answers.forget();
    }

    /// Deletes all repositories below a name.
    pub fn remove(&self, path: &str) {
        fs::remove_dir_all(self.repository(path)).unwrap();
        self.answers.forget();
    }

    /// Deletes a tag or a manifest of a repository, and the tags of a manifest with it.
    pub fn forget(&self, repository: &str, reference: &str) {
        let manifests = self.repository(repository).join("_manifests");
        let remove = |path: PathBuf| fs::remove_dir_all(path).unwrap();
        match reference.strip_prefix("sha256:") {
            None => remove(manifests.join("tags").join(reference)),
            Some(hex) => {
                for tag in self.tags(repository).iter().filter(|(_, digest)| *digest == reference) {
                    remove(manifests.join("tags").join(tag.0));
                }
                remove(manifests.join("revisions/sha256").join(hex));
            }
        }
        self.answers.forget();
    }

    /// Stores a blob. Returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let hex = digest.trim_start_matches("sha256:");
        write(&self.blob_file(&digest), bytes);
        write(&self.repository(repository).join(format!("_layers/sha256/{hex}/link")), digest.as_bytes());
        self.answers.forget();
        digest
    }

    /// Stores a manifest under a tag, without what it refers to. Returns its digest.
    pub fn put(&self, repository: &str, tag: &str, manifest: &[u8]) -> String {
        let digest = digest(manifest);
        let hex = digest.trim_start_matches("sha256:");
        write(&self.blob_file(&digest), manifest);
        let manifests = self.repository(repository).join("_manifests");
        write(&manifests.join(format!("revisions/sha256/{hex}/link")), digest.as_bytes());
        write(&manifests.join(format!("tags/{tag}/index/sha256/{hex}/link")), digest.as_bytes());
        write(&manifests.join(format!("tags/{tag}/current/link")), digest.as_bytes());
        self.answers.forget();
        digest
    }

    /// All tags of a repository as they are now, whatever a lag shows to clients.
    pub fn tags(&self, repository: &str) -> Tags {
        let folder = self.repository(repository).join("_manifests/tags");
        let names = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter_map(|tag| Some((tag.clone(), self.tag(repository, &tag)?))).collect()
    }

    /// Every digest that a tag ever had: the registry keeps them.
    pub fn tag_history(&self, repository: &str, tag: &str) -> Vec<String> {
        let index = self.repository(repository).join("_manifests/tags").join(tag).join("index/sha256");
        let names = fs::read_dir(index).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.map(|name| format!("sha256:{}", name.into_string().unwrap())).collect()
    }

    /// The digest that a tag has now.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        if self.port.is_some() {
            return self.ask_for(repository, tag);
        }
        let file = self.repository(repository).join("_manifests/tags").join(tag).join("current/link");
        // The folder of a tag is made before its link is written.
        fs::read_to_string(file).ok().filter(|digest| !digest.is_empty())
    }

    fn ask_for(&self, repository: &str, tag: &str) -> Option<String> {
        let mut server = self.connect().ok()?;
        let request = Request::head(&format!("/v2/{repository}/manifests/{tag}"));
        request.send(&mut server, None).ok()?;
        let response = Response::read(server, true).ok()?;
        Some(response.headers.get("docker-content-digest")?.to_str().ok()?.to_owned())
    }

    /// The bytes of a manifest or another blob.
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.blob_file(digest)).ok()
    }

    /// The digests of all manifests of a repository, in the order in which they were last pushed.
    pub fn manifests(&self, repository: &str) -> Vec<String> {
        let folder = self.repository(repository).join("_manifests/revisions/sha256");
        let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
        let timed = entries.filter_map(|entry| {
            // A deleted manifest keeps its folder, without the link.
            let time = fs::metadata(entry.path().join("link")).ok()?.modified().unwrap();
            Some((time, format!("sha256:{}", entry.file_name().into_string().unwrap())))
        });
        let mut digests: Vec<_> = timed.collect();
        digests.sort();
        digests.into_iter().map(|(_, digest)| digest).collect()
    }
}

/// Writes a file below folders that may be missing.
fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Copies a folder, with the times of its files: the order of pushes.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A connection to the registry.
#[derive(Debug)]
pub(crate) enum Upstream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Upstream {
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }
}

impl Read for Upstream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl Write for Upstream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
