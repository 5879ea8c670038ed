//! Where builds are measured: a registry behind a meter, an empty engine for each round, two copies of the tree that
//! differ in one version. Nothing of it outlives the run, and neither the user's engine nor the tree is touched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

use crate::context::Context;
use crate::error::missing;
use crate::image::tree::Tree;
use crate::image::{debian, disk};
use crate::model::bench::{Cost, Images, Way};
use crate::model::dockerfile::{arg_default, with_arg_default};
use crate::model::progress::Form;
use crate::model::reference::Repository;
use crate::output;
use crate::tools::command::{Cmd, cmd};
use crate::tools::engine::{self, Scratch};
use crate::tools::local::{self, Daemon};
use crate::tools::meter::Meter;
use crate::tools::{crane, process, tree};

/// What a build needs of the tree.
const INPUTS: [&str; 4] = ["images", "rootfs", "scripts", "bench"];

/// The file of the state folder that names the folder of the trees.
const FOLDER: &str = "folder";

pub struct Lab<'a> {
    pub ctx: &'a Context,
    /// Registry and engines keep their data here, on one file system.
    state: Utf8PathBuf,
    registry: Option<Daemon>,
    meter: Meter,
    /// The registry by way of the meter.
    pub host: String,
    /// The Debian image in that registry.
    pub debian: String,
    /// How often a build failed and was started again.
    pub repeats: RefCell<BTreeMap<Way, usize>>,
    folder: TempDir,
}

impl<'a> Lab<'a> {
    /// Sets everything up. `from` is the version of opencode that the older of the two trees pins.
    pub fn open(ctx: &'a Context, from: &str) -> Result<Self> {
        let (free, needed) = (disk::free_below(&ctx.runner, ctx.root.as_str()), needed(ctx.platforms.len()));
        if free.is_some_and(|free| free < needed) {
            return Err(missing(format!(
                "{:.1} GB of disk are free and a benchmark takes up to {:.0}: free some, for instance with \
                 `docker builder prune`",
                free.unwrap_or_default() as f64 / 1e9,
                needed as f64 / 1e9
            )));
        }
        // Asked first, since it may have to be made from Debian's archive: that is no part of what is measured.
        ctx.start_registry()?;
        let debian = debian::ensure(ctx, &ctx.repository()?)?.reference();
        let state = ctx.state_dir().join("bench");
        clear(ctx)?;
        fs::create_dir_all(&state).with_context(|| format!("cannot create {state}"))?;
        let port = local::start_registry(&ctx.runner, &state, true)?;
        let meter = Meter::start(port)?;
        let host = format!("localhost:{}", meter.port);
        let mut lab = Self {
            ctx,
            registry: Daemon::running(&state, "registry"),
            state,
            meter,
            debian: format!("{host}/debian:{}", debian::pinned(ctx)?.tag),
            host,
            repeats: RefCell::default(),
            folder: tempfile::Builder::new().prefix("devbox-bench-").tempdir()?,
        };
        fs::write(lab.state.join(FOLDER), lab.folder("").as_str())?;
        // A copy, so that the program can be rebuilt while the benchmark goes on.
        let program = std::env::current_exe().context("cannot find this program")?;
        fs::copy(&program, lab.folder("xtask"))
            .with_context(|| format!("cannot copy {}", program.display()))?;
        ctx.runner.run(&crane::copy(&debian, &lab.debian))?;
        lab.lay_out_trees(from)?;
        Ok(lab)
    }

    fn lay_out_trees(&mut self, from: &str) -> Result<()> {
        let inputs = INPUTS.map(String::from);
        let entries = Tree::read(&self.ctx.runner, &inputs)?.entries(&inputs);
        tree::lay_out(&entries, &self.new_tree())?;
        tree::lay_out(&entries, &self.old_tree())?;
        let path = self.old_tree().join(&self.ctx.config.variants.dockerfile);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        fs::write(&path, with_arg_default(&text, "OPENCODE_VERSION", from)?)?;
        // Resolving is done when a version is bumped, not when it is built.
        self.ctx.runner.run(&self.xtask(&self.old_tree(), &["lock", "opencode"]))
    }

    fn folder(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from(self.folder.path().to_string_lossy().into_owned()).join(name)
    }

    /// The tree as it is.
    pub fn new_tree(&self) -> Utf8PathBuf {
        self.folder("new")
    }

    /// The tree with the older opencode.
    pub fn old_tree(&self) -> Utf8PathBuf {
        self.folder("old")
    }

    /// A folder for files of one measurement.
    pub fn scratch(&self, name: &str) -> Result<Utf8PathBuf> {
        let folder = self.folder(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A version that a tree pins.
    pub fn pinned(&self, tree: &Utf8Path, dockerfile: &str, name: &str) -> Result<String> {
        let text = fs::read_to_string(tree.join(dockerfile))?;
        let version = arg_default(&text, name).with_context(|| format!("{dockerfile} has no {name}"))?;
        Ok(version.to_owned())
    }

    /// A command of this program on another tree.
    pub fn xtask(&self, tree: &Utf8Path, words: &[&str]) -> Cmd {
        let xtask = self.folder("xtask");
        cmd!("{xtask} {words...}").env("DEVBOX_ROOT", tree.as_str())
    }

    /// The platforms that are built, as words of a command line.
    pub fn platforms(&self) -> Vec<String> {
        self.ctx.platforms.iter().map(ToString::to_string).collect()
    }

    /// How BuildKit's progress on these targets is read.
    pub fn form(&self, targets: &[String]) -> Form {
        Form::Build { targets: targets.to_vec(), platforms: self.platforms() }
    }

    pub fn repository(&self, path: &str) -> Result<Repository> {
        format!("{}/{path}", self.host).parse().map_err(|why| anyhow::anyhow!("{why}"))
    }

    /// An engine that has nothing yet.
    pub fn engine(&self, name: &str) -> Result<Scratch<'a>> {
        Scratch::start(&self.ctx.runner, &self.state, name)
    }

    /// Bytes that are occupied where engines and registry keep their data, by whomever.
    pub fn occupied(&self) -> u64 {
        disk::occupied_below(&self.ctx.runner, self.state.as_str()).unwrap_or_default()
    }

    /// Does something and returns what it took. Disk is counted from `empty` on.
    pub fn measure(
        &self,
        engine: &Scratch<'_>,
        empty: u64,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Cost> {
        let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        self.flush()?;
        let before = self.counters(engine);
        let start = Instant::now();
        let result = thread::scope(|scope| {
            let (done, peak, folder, runner) = (&done, &peak, &self.state, &self.ctx.runner);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    peak.fetch_max(
                        disk::occupied_below(runner, folder.as_str()).unwrap_or_default(),
                        Ordering::Relaxed,
                    );
                    thread::sleep(Duration::from_millis(500));
                }
            });
            let result = work();
            let seconds = start.elapsed().as_secs_f64();
            done.store(true, Ordering::Relaxed);
            result.map(|()| seconds)
        });
        let after = self.counters(engine);
        let [cpu, pushed, requests, writes] = std::array::from_fn(|index| after[index] - before[index]);
        let disk = peak.into_inner().saturating_sub(empty) as f64;
        Ok(Cost { seconds: result?, cpu, pushed, requests, writes, disk })
    }

    /// Waits until what was written before is on the disk, so that it takes no time of what is measured next.
    pub fn flush(&self) -> Result<()> {
        self.ctx.runner.read(&cmd!("sync --file-system").arg(self.state.as_str())).map(drop)
    }

    /// Processor seconds, bytes sent to the registry, requests, and those among them that write.
    fn counters(&self, engine: &Scratch<'_>) -> [f64; 4] {
        let registry = self.registry.as_ref().map(|daemon| daemon.pid);
        let pids = engine.pids().into_iter().chain(registry).chain([std::process::id()]);
        let cpu = pids.map(process::cpu_seconds).sum();
        let log = fs::read_to_string(self.state.join("registry.log")).unwrap_or_default();
        // Other lines of the log are the registry's own words on requests that it refused.
        let requests = || log.lines().filter(|line| line.contains(" HTTP/1.1\" "));
        let reads = requests().filter(|line| line.contains("\"GET /") || line.contains("\"HEAD /")).count();
        [cpu, self.meter.sent() as f64, requests().count() as f64, (requests().count() - reads) as f64]
    }

    /// The layers of images in the registry, by variant and platform; `tags` names the tag of each variant.
    pub fn images(&self, repository: &Repository, tags: &[(String, String)]) -> Result<Images> {
        let mut images = Images::new();
        let registry = &self.ctx.registry;
        for (variant, tag) in tags {
            let index = registry.image(&self.ctx.runner, repository, tag)?;
            let index = index.with_context(|| format!("{} is not there", repository.tag(tag)))?;
            for platform in &self.ctx.platforms {
                let digest = index.platform(*platform).context("an index without a platform")?;
                let image = registry.manifest(&self.ctx.runner, repository, digest)?;
                let layers = image.context("an index without its image")?.layers();
                images.insert((variant.clone(), *platform), layers);
            }
        }
        Ok(images)
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.take() {
            let stopped = registry.stop(&self.ctx.runner, &self.state, "registry");
            if let Err(error) = stopped.and_then(|()| Ok(fs::remove_dir_all(&self.state)?)) {
                output::note(format!("the registry of the benchmark is not removed: {error:#}"));
            }
        }
    }
}

/// Removes the remains of a killed benchmark. A running benchmark is recognised by its engine.
pub fn clear(ctx: &Context) -> Result<()> {
    if ctx.runner.dry_run {
        return Ok(());
    }
    let state = ctx.state_dir().join("bench");
    let names = fs::read_dir(&state).into_iter().flatten().flatten();
    let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for name in names.iter().filter_map(|name| name.strip_prefix("engine-")).filter(|it| !it.contains('.')) {
        if Daemon::running(&state, &format!("engine-{name}")).is_some() {
            bail!("a benchmark runs in this tree: wait until it ends");
        }
        engine::clear(&ctx.runner, &state, name)?;
    }
    if let Some(registry) = Daemon::running(&state, "registry") {
        registry.stop(&ctx.runner, &state, "registry")?;
    }
    let folder = fs::read_to_string(state.join(FOLDER)).unwrap_or_default();
    for folder in [Utf8Path::new(&folder), &state].into_iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {folder}"))?;
    }
    Ok(())
}

/// Bytes that one way takes at most, in its engine and in the registry, with as many platforms.
fn needed(platforms: usize) -> u64 {
    9_000_000_000 * platforms as u64
}
