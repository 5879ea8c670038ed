//! The lock files that the pinned versions imply, made by the ecosystems' own tools from the locks that are there: what
//! still satisfies stays, so that the same versions give the same files.
//!
//! Nothing is written into the tree; the caller shows, compares or writes the edits.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::context::Context;
use crate::context::sources;
use crate::model::availability::Incomplete;
use crate::model::component::{Component, Source};
use crate::model::dockerfile::arg_default;
use crate::model::npm_lock::{self, Lock};
use crate::model::python_lock::{self, PYTHON};
use crate::model::release_lock;
use crate::tools::command::cmd;
use crate::tools::files::Edit;
use crate::tools::toolbox::{self, Toolbox};
use crate::tools::web::{Answer, Web};
use crate::upstream::{licences, lock_tools};

/// Versions by component.
pub type Versions = BTreeMap<String, String>;

/// The versions that the Dockerfiles pin. A component without a pin, or a pin without a component, is refused.
pub fn pinned(ctx: &Context) -> Result<Versions> {
    let versions: Versions = ctx.versions()?.into_iter().collect();
    for component in &ctx.config.component {
        if !versions.contains_key(&component.name) {
            bail!("no Dockerfile pins {} by `ARG {}=…`", component.name, component.arg());
        }
    }
    for name in versions.keys() {
        ctx.config.component(name).with_context(|| format!("a Dockerfile pins {name}"))?;
    }
    Ok(versions)
}

/// Where the release files of a version are, by the base's Dockerfile: `ARG <NAME>_URL=`.
pub fn release_address(ctx: &Context, component: &Component, version: &str) -> Result<String> {
    let text = ctx.read(&ctx.config.base.dockerfile)?;
    let arg = component.arg().replace("_VERSION", "_URL");
    let address = arg_default(&text, &arg).with_context(|| format!("no Dockerfile says `ARG {arg}=…`"))?;
    Ok(format!("{address}/v{version}"))
}

/// Resolves the locks of components. With `upgrade`, what is there is no starting point: everything below the pinned
/// versions is taken as new as it may be.
pub fn resolve(
    ctx: &Context,
    components: &[&Component],
    versions: &Versions,
    upgrade: bool,
) -> Result<Vec<Edit>> {
    let toolbox = lock_tools::toolbox(ctx)?;
    let web = Web::new(&ctx.agent);
    let scratch = tempfile::tempdir_in(ctx.state_dir())?;
    let resolver = Resolver {
        ctx,
        toolbox,
        web,
        folder: Utf8PathBuf::try_from(scratch.path().to_owned())?,
        versions,
        upgrade,
    };
    let mut edits = Vec::new();
    let mut done = Vec::new();
    for component in components {
        match component.source {
            Source::Npm(_) => edits.extend(resolver.npm(component)?),
            Source::Pypi(_) if done.contains(&component.python_lock()) => {}
            Source::Pypi(_) => {
                done.push(component.python_lock());
                edits.extend(resolver.python(&component.python_lock())?);
            }
            Source::Gitea(_) => edits.push(resolver.release(component)?),
        }
    }
    Ok(edits)
}

struct Resolver<'a> {
    ctx: &'a Context,
    toolbox: Toolbox,
    web: Web,
    folder: Utf8PathBuf,
    versions: &'a Versions,
    upgrade: bool,
}

impl Resolver<'_> {
    /// `package.json` and `package-lock.json` of a component.
    fn npm(&self, component: &Component) -> Result<[Edit; 2]> {
        let version = &self.versions[&component.name];
        // npm names the lock after its folder.
        let folder = self.folder.join(&component.name);
        fs::create_dir(&folder)?;
        let there = component.npm_folder();
        let manifest = npm_lock::manifest(component, version)?;
        fs::write(folder.join("package.json"), &manifest)?;
        let lock = folder.join("package-lock.json");
        let before = self.read(&format!("{there}/package-lock.json"));
        if !self.upgrade && !before.is_empty() {
            fs::write(&lock, &before)?;
        }
        self.npm_install(&folder).with_context(|| format!("{} {version}", component.name))?;
        if !component.leave_out.is_empty() {
            // npm knows no way to refuse an optional dependency for good: it is taken out, and npm prunes the rest.
            let text = npm_lock::without_optional(&fs::read_to_string(&lock)?, &component.leave_out)?;
            fs::write(&lock, text)?;
            self.npm_install(&folder)?;
        }
        let after = fs::read_to_string(&lock)?;
        let problems = Lock::parse(&after)?.problems(component, version);
        if !problems.is_empty() {
            bail!(Incomplete(format!("the lock of {} {version} {}", component.name, problems.join("; it "))));
        }
        Ok([
            Edit {
                before: self.read(&format!("{there}/package.json")),
                path: format!("{there}/package.json"),
                after: manifest,
            },
            Edit { path: format!("{there}/package-lock.json"), before, after },
        ])
    }

    fn npm_install(&self, folder: &Utf8Path) -> Result<()> {
        let url = lock_tools::npm_registry(self.ctx)?.url;
        let install = cmd!(
            "npm install --prefix {folder} --package-lock-only --omit-lockfile-registry-resolved --registry={url}/
            --ignore-scripts --no-audit --no-fund --loglevel=error"
        );
        let Err(error) = self.ctx.runner.read(&self.toolbox.npm(install)) else { return Ok(()) };
        match npm_lock::unresolved(&error.to_string()) {
            Some(lacking) => bail!(Incomplete(format!("the registry has no {lacking}, which it requires"))),
            None => Err(error),
        }
    }

    /// The checksums of release files. The part is optional, so a host that does not answer leaves the lock as it is.
    fn release(&self, component: &Component) -> Result<Edit> {
        let version = &self.versions[&component.name];
        let path = component.checksums();
        let before = self.read(&path);
        if release_lock::locks(&before, &component.name, version) && !self.upgrade {
            return Ok(Edit { path, after: before.clone(), before });
        }
        let url = format!("{}/checksums.txt", release_address(self.ctx, component, version)?);
        let after = match self.web.bytes(&url) {
            Answer::Present(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let locked = release_lock::lock(&text, &component.name, version, &self.ctx.config.platforms);
                locked.map_err(|file| Incomplete(format!("{url} names no {file}")))?
            }
            Answer::Absent => bail!(Incomplete(format!("there is no {url}"))),
            other => {
                self.ctx.say(format!("{} is not locked: {}", component.name, other.reason()));
                before.clone()
            }
        };
        Ok(Edit { path, before, after })
    }

    /// The `.in` and `.txt` of a Python lock, and what its packages say of themselves, with every component that shares it.
    fn python(&self, lock: &str) -> Result<[Edit; 3]> {
        let shares = |component: &&Component| {
            matches!(component.source, Source::Pypi(_)) && component.python_lock() == lock
        };
        let mut wanted: Vec<String> = Vec::new();
        for component in self.ctx.config.component.iter().filter(shares) {
            if let Source::Pypi(project) = &component.source {
                wanted.push(format!("{project}=={}\n", self.versions[&component.name]));
            }
        }
        wanted.sort();
        let (source, target) = (self.folder.join("lock.in"), self.folder.join("lock.txt"));
        fs::write(&source, wanted.concat())?;
        let before = self.read(&format!("{lock}.txt"));
        // What the output file holds, uv prefers.
        fs::write(&target, if self.upgrade { "" } else { &before })?;
        let index = toolbox::index(&sources::pypi_index(self.ctx)?);
        // uv's resolver runs on any Python and gets the target version as an option; it must not download that version.
        self.ctx.runner.read(&self.toolbox.uv(cmd!(
            "uv pip compile --quiet --no-config --universal
            --python python3 --no-python-downloads --python-version {PYTHON}
            --generate-hashes --no-header --no-annotate --no-emit-index-url --only-binary :all:
            --default-index {index} {source} --output-file {target}"
        )))?;
        let after = fs::read_to_string(&target)?;
        python_lock::parse(&after).with_context(|| format!("{lock}.txt as uv writes it"))?;
        let licences = licences::resolve(self.ctx, &self.toolbox, &self.folder, lock, &after)?;
        Ok([
            Edit {
                path: format!("{lock}.in"),
                before: self.read(&format!("{lock}.in")),
                after: wanted.concat(),
            },
            Edit { path: format!("{lock}.txt"), before, after },
            licences,
        ])
    }

    /// The text of a file of the tree; empty where there is none.
    fn read(&self, path: &str) -> String {
        self.ctx.read_if_there(path)
    }
}
