//! Whether the files that a build would fetch are available: each is asked for, read to its end and compared with its
//! checksum, and for a missing one the registry is asked why.
//!
//! What was once read with the right checksum is remembered in the ignored state folder and only asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::Serialize;

use crate::context::Context;
use crate::context::sources;
use crate::model::availability::{Evidence, Incomplete, Item, Need, Problem, Verdict, judge};
use crate::model::checksum::Checksum;
use crate::model::component::{Component, Source};
use crate::model::npm_lock::{Lock, Package};
use crate::model::platform::Platform;
use crate::model::python_lock;
use crate::model::release_lock;
use crate::model::retry;
use crate::model::version::Version;
use crate::output::{self, Counter};
use crate::tools::npm::{self, Packument};
use crate::tools::pypi;
use crate::tools::web::{Answer, Web};
use crate::upstream::lock_tools;
use crate::upstream::locks;

/// Requests at once: enough to hide latency, few enough for a registry.
const CONNECTIONS: usize = 12;

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Packages and projects asked for.
    pub items: usize,
    /// Files that were read and hashed, rather than remembered.
    pub read: usize,
    pub problems: Vec<Problem>,
}

/// How far a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The file is there.
    Presence,
    /// And its bytes have the checksum.
    Bytes,
}

/// Everything that the locks name for some platforms. `read` gives the text of a file of the tree.
pub fn closure(
    ctx: &Context,
    components: &[&Component],
    platforms: &[Platform],
    read: &dyn Fn(&str) -> Result<String>,
) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    let mut done = BTreeSet::new();
    for component in components {
        match &component.source {
            Source::Npm(release) => {
                let path = format!("{}/package-lock.json", component.npm_folder());
                let lock = Lock::parse(&read(&path)?).context(path)?;
                let mut packages: BTreeMap<Package, BTreeSet<Platform>> = BTreeMap::new();
                for platform in platforms {
                    for package in lock.packages(*platform) {
                        packages.entry(package).or_default().insert(*platform);
                    }
                }
                let release = (!component.binaries.is_empty()).then(|| release.clone());
                needs.extend(packages.into_iter().map(|(package, platforms)| Need {
                    component: component.name.clone(),
                    item: Item::Npm { package, release: release.clone() },
                    platforms,
                }));
            }
            Source::Pypi(_) if done.insert(component.python_lock()) => {
                let path = format!("{}.txt", component.python_lock());
                for pin in python_lock::parse(&read(&path)?).context(path)? {
                    let mut wanting = BTreeSet::new();
                    for platform in platforms {
                        if pin.applies(*platform)? {
                            wanting.insert(*platform);
                        }
                    }
                    // Components share a lock; what none of them names belongs to the first.
                    let own = components.iter().find(|it| it.source == Source::Pypi(pin.name.clone()));
                    let component = own.unwrap_or(component).name.clone();
                    let item = Item::Python { project: pin.name, version: pin.version, hashes: pin.hashes };
                    needs.push(Need { component, item, platforms: wanting });
                }
            }
            Source::Pypi(_) => {}
            Source::Gitea(_) => needs.extend(releases(ctx, component, platforms, read)?),
        }
    }
    needs.retain(|need| !need.platforms.is_empty());
    Ok(needs)
}

/// The locked release files of a component; none as long as it is not locked.
fn releases(
    ctx: &Context,
    component: &Component,
    platforms: &[Platform],
    read: &dyn Fn(&str) -> Result<String>,
) -> Result<Vec<Need>> {
    let text = read(&component.checksums())?;
    let checksums = release_lock::checksums(&text);
    let Some(version) =
        text.lines().next().and_then(|line| line.rsplit_once(' ')).map(|(_, version)| version)
    else {
        return Ok(Vec::new());
    };
    let address = locks::release_address(ctx, component, version)?;
    let mut needs = Vec::new();
    for platform in platforms {
        let file = release_lock::file(&component.name, *platform);
        let Some(sum) = checksums.get(file.as_str()) else { continue };
        let item = Item::Release { url: format!("{address}/{file}"), checksum: Checksum::sha256(sum)? };
        needs.push(Need { component: component.name.clone(), item, platforms: BTreeSet::from([*platform]) });
    }
    Ok(needs)
}

/// A component's own files in one version, before that is locked: for all platforms, since a lock is for all of them.
pub fn own_files(ctx: &Context, component: &Component, version: &str) -> Vec<Need> {
    let npm = |name: &String, release: Option<&String>| Item::Npm {
        package: Package {
            name: name.clone(),
            version: version.to_owned(),
            integrity: String::new(),
            licence: None,
        },
        release: release.cloned(),
    };
    let need = |item, platforms: &[Platform]| Need {
        component: component.name.clone(),
        item,
        platforms: platforms.iter().copied().collect(),
    };
    match &component.source {
        Source::Npm(package) if component.binaries.is_empty() => {
            vec![need(npm(package, None), &ctx.config.platforms)]
        }
        Source::Npm(package) => {
            let binaries = component.binaries.iter();
            binaries.map(|(platform, name)| need(npm(name, Some(package)), &[*platform])).collect()
        }
        Source::Pypi(project) => {
            let item = Item::Python {
                project: project.clone(),
                version: version.to_owned(),
                hashes: BTreeSet::new(),
            };
            vec![need(item, &ctx.config.platforms)]
        }
        Source::Gitea(_) => Vec::new(),
    }
}

/// Registries, and what was read from them before.
pub struct Supply {
    pub web: Web,
    pub npm_registry: String,
    pub pypi_index: String,
    quiet: bool,
    /// One empty file per checksum that was read once.
    known: Utf8PathBuf,
    read: AtomicUsize,
}

impl Supply {
    pub fn new(ctx: &Context) -> Result<Self> {
        let known = ctx.state_dir().join("verified");
        fs::create_dir_all(&known).with_context(|| format!("cannot create {known}"))?;
        let (npm, pypi) = (lock_tools::npm_registry(ctx)?, sources::pypi_index(ctx)?);
        Ok(Self {
            web: Web::with_accounts(&ctx.agent, [&npm, &pypi]),
            npm_registry: npm.url,
            pypi_index: pypi.url,
            quiet: ctx.runner.quiet,
            known,
            read: AtomicUsize::new(0),
        })
    }

    /// Checks all needs, several at once. Until `wait` is over, what may still come is asked for again: what is propagating
    /// or rate limited, and what got no clear answer.
    pub fn check(&self, needs: &[Need], depth: Depth, wait: Duration) -> Report {
        let end = Instant::now() + wait;
        self.read.store(0, Ordering::Relaxed);
        let mut open: Vec<&Need> = needs.iter().collect();
        let mut round = 0;
        loop {
            let results = self.round(&open, depth);
            let problems: Vec<Problem> = results.iter().flatten().cloned().collect();
            let passing = |p: &Problem| {
                matches!(
                    p.verdict,
                    Verdict::Propagating { .. } | Verdict::RateLimited { .. } | Verdict::CannotTell { .. }
                )
            };
            let pause = Duration::from_secs(5 << round.min(4)).min(retry::LONGEST_WAIT);
            let hopeless = problems.iter().any(|problem| !passing(problem));
            if problems.is_empty() || hopeless || Instant::now() + pause > end {
                return Report { items: needs.len(), read: self.read.load(Ordering::Relaxed), problems };
            }
            if !self.quiet {
                output::note(format!(
                    "{} files are not available yet: asking again in {} s",
                    problems.len(),
                    pause.as_secs()
                ));
            }
            thread::sleep(pause);
            round += 1;
            let failed = open.iter().zip(&results).filter(|(_, problems)| !problems.is_empty());
            open = failed.map(|(need, _)| *need).collect();
        }
    }

    fn round(&self, needs: &[&Need], depth: Depth) -> Vec<Vec<Problem>> {
        let counter = Counter::new(needs.len() as u64, self.quiet);
        let results = Mutex::new(vec![Vec::new(); needs.len()]);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS.min(needs.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(need) = needs.get(at) else { break };
                        counter.show(need.label());
                        let problems = self.one(need, depth);
                        results.lock().unwrap_or_else(PoisonError::into_inner)[at] = problems;
                        counter.add_one();
                    }
                });
            }
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(&self, need: &Need, depth: Depth) -> Vec<Problem> {
        match &need.item {
            Item::Npm { package, release } => {
                let found = self.npm(package, release.as_deref(), depth);
                found
                    .err()
                    .map(|verdict| need.problem(need.label(), &need.platforms, verdict))
                    .into_iter()
                    .collect()
            }
            Item::Python { project, version, hashes } => self.python(need, project, version, hashes, depth),
            Item::Release { url, checksum } => {
                let verdict = match self.file(url, checksum, depth) {
                    Ok(true) => return Vec::new(),
                    Ok(false) => judge(&Evidence { locked: true, ..Evidence::default() }, Timestamp::now()),
                    Err(verdict) => verdict,
                };
                vec![need.problem(need.label(), &need.platforms, verdict)]
            }
        }
    }

    /// Every file of a version that an installer may take on one of the platforms.
    fn python(
        &self,
        need: &Need,
        project: &str,
        version: &str,
        hashes: &BTreeSet<String>,
        depth: Depth,
    ) -> Vec<Problem> {
        let files = match pypi::files(&self.web, &self.pypi_index, project).known() {
            Ok(files) => files.unwrap_or_default(),
            Err(verdict) => return vec![need.problem(need.label(), &need.platforms, verdict)],
        };
        let wanted = |file: &&pypi::File| match hashes.is_empty() {
            true => file.wheel_version() == Some(version),
            false => hashes.contains(file.sha256()),
        };
        let newest = files.iter().filter_map(|file| file.wheel_version()?.parse::<Version>().ok()).max();
        let locked = !hashes.is_empty();
        let unlisted = Evidence { locked, newest: newest.map(|it| it.to_string()), ..Evidence::default() };
        let files: Vec<&pypi::File> = files.iter().filter(wanted).collect();
        let mut problems = Vec::new();
        for platform in &need.platforms {
            if !files.iter().any(|file| python_lock::wheel_fits(&file.filename, *platform)) {
                let verdict = match files.is_empty() {
                    true => judge(&unlisted, Timestamp::now()),
                    false => Verdict::NeverExisted { why: "the release has no wheel for it".to_owned() },
                };
                problems.push(need.problem(need.label(), &BTreeSet::from([*platform]), verdict));
            }
        }
        for file in files {
            if let (true, Some(why)) = (locked, file.withdrawn()) {
                problems.push(need.problem(
                    file.filename.clone(),
                    &need.platforms,
                    Verdict::Withdrawn { why },
                ));
                continue;
            }
            let fits = |platform: &&Platform| python_lock::wheel_fits(&file.filename, **platform);
            let platforms: BTreeSet<Platform> = need.platforms.iter().filter(fits).copied().collect();
            if platforms.is_empty() {
                continue;
            }
            if let Err(verdict) = self.wheel(file, locked, depth) {
                problems.push(need.problem(file.filename.clone(), &platforms, verdict));
            }
        }
        problems
    }

    fn wheel(&self, file: &pypi::File, locked: bool, depth: Depth) -> Result<(), Verdict> {
        let checksum = Checksum::sha256(file.sha256()).map_err(cannot_tell)?;
        if self.file(&file.url, &checksum, depth)? {
            return Ok(());
        }
        let evidence = Evidence { listed: true, published: file.uploaded(), locked, ..Evidence::default() };
        Err(judge(&evidence, Timestamp::now()))
    }

    /// Metadata and tarball of a package.
    fn npm(&self, package: &Package, release: Option<&str>, depth: Depth) -> Result<(), Verdict> {
        let registry = &self.npm_registry;
        let Package { name, version, integrity, .. } = package;
        let mut packument = None;
        let manifest = match npm::manifest(&self.web, registry, name, version).known()? {
            Some(manifest) => Some(manifest),
            // Not every registry gives single versions.
            None => {
                packument = npm::packument(&self.web, registry, name).known()?;
                packument.as_mut().and_then(|packument| packument.versions.remove(version))
            }
        };
        let Some(manifest) = manifest else {
            return Err(self.why_unlisted(package, packument.as_ref(), release));
        };
        let listed = &manifest.dist.integrity;
        if !integrity.is_empty() && listed != integrity {
            return Err(Verdict::Differs { detail: format!("the registry says {listed:?}") });
        }
        let checksum = Checksum::integrity(listed).map_err(cannot_tell)?;
        // The address that a build asks for, whatever the metadata says.
        if self.file(&npm::tarball(registry, name, version), &checksum, depth)? {
            return Ok(());
        }
        let packument = npm::packument(&self.web, registry, name).known()?;
        let published = packument.and_then(|packument| packument.published(version));
        let evidence =
            Evidence { listed: true, published, locked: !integrity.is_empty(), ..Evidence::default() };
        Err(judge(&evidence, Timestamp::now()))
    }

    /// Why the metadata of a package does not name a version.
    fn why_unlisted(
        &self,
        package: &Package,
        packument: Option<&Packument>,
        release: Option<&str>,
    ) -> Verdict {
        let ask = |name| npm::packument(&self.web, &self.npm_registry, name);
        let of_release = match release.map(ask) {
            Some(Answer::Present(release)) => release.published(&package.version),
            _ => None,
        };
        let evidence = Evidence {
            listed: false,
            published: packument.and_then(|packument| packument.published(&package.version)),
            release: of_release,
            locked: !package.integrity.is_empty(),
            newest: packument
                .and_then(|packument| packument.releases().iter().max().map(ToString::to_string)),
        };
        judge(&evidence, Timestamp::now())
    }

    /// True if the file is there and its bytes have the checksum; false on a clear 404.
    fn file(&self, url: &str, checksum: &Checksum, depth: Depth) -> Result<bool, Verdict> {
        let known = self.known.join(checksum.id());
        if depth == Depth::Presence || known.exists() {
            return Ok(self.web.is_there(url).known()?.is_some());
        }
        match self.web.checksum(url, checksum).known()? {
            None => Ok(false),
            Some(found) if found == *checksum => {
                self.read.fetch_add(1, Ordering::Relaxed);
                fs::write(&known, "")
                    .map_err(|error| cannot_tell(format!("cannot write {known}: {error}")))?;
                Ok(true)
            }
            Some(found) => Err(Verdict::Differs { detail: format!("they hash to {}", found.id()) }),
        }
    }
}

/// The error for problems: [`Incomplete`] unless a registry gave no clear answer.
pub fn error(problems: &[Problem], message: String) -> anyhow::Error {
    let unclear = |p: &Problem| matches!(p.verdict, Verdict::CannotTell { .. } | Verdict::RateLimited { .. });
    if problems.iter().any(unclear) {
        anyhow::anyhow!(message)
    } else {
        anyhow::Error::new(Incomplete(message))
    }
}

/// All problems in one line.
pub fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn cannot_tell(why: impl std::fmt::Display) -> Verdict {
    Verdict::CannotTell { why: why.to_string() }
}
