//! The least that any way to build a bump of opencode has to do: download the new files, unpack them, compress them as a
//! layer, push that. The platforms run at the same time.

use std::fs;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use camino::Utf8Path;

use crate::context::Context;
use crate::error::missing;
use crate::model::checksum::Checksum;
use crate::model::npm_lock::{Lock, Package};
use crate::model::reference::Repository;
use crate::tools::command::cmd;
use crate::tools::npm;
use crate::tools::runner::Runner;
use crate::tools::web::Web;
use crate::upstream::lock_tools;

/// Seconds for all platforms. `folder` has to be empty, `repository` new.
pub fn seconds(ctx: &Context, folder: &Utf8Path, repository: &Repository) -> Result<f64> {
    if ctx.runner.probe(&cmd!("zstd --version")).is_none() {
        return Err(missing("zstd is not installed: run `apt-get install zstd`"));
    }
    let registry = lock_tools::npm_registry(ctx)?;
    let component = ctx.config.component("opencode")?;
    let lock = Lock::parse(&ctx.read(&format!("{}/package-lock.json", component.npm_folder()))?)?;
    let mut files = Vec::new();
    for platform in &ctx.platforms {
        let wanted = component.binaries.get(platform).context("opencode has no program for a platform")?;
        let package = lock.packages(*platform).into_iter().find(|package| package.name == *wanted);
        files.push(package.with_context(|| format!("the lock of opencode has no {wanted}"))?);
    }
    let start = Instant::now();
    thread::scope(|scope| {
        let one = |package| {
            let web = Web::with_accounts(&ctx.agent, [&registry]);
            let (registry, runner) = (registry.url.as_str(), &ctx.runner);
            scope.spawn(move || layer(runner, &web, registry, package, folder, repository))
        };
        let threads: Vec<_> = files.iter().map(one).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow!("a thread ended"))?)
    })?;
    Ok(start.elapsed().as_secs_f64())
}

fn layer(
    runner: &Runner,
    web: &Web,
    registry: &str,
    package: &Package,
    folder: &Utf8Path,
    repository: &Repository,
) -> Result<()> {
    let Package { name, version, integrity, .. } = package;
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    let file = folder.join("layer.tar.gz");
    web.save(&npm::tarball(registry, name, version), &Checksum::integrity(integrity)?, &file)?;
    runner.run(&cmd!("gzip --decompress {file}"))?;
    let layer = format!("{folder}/layer.tar");
    runner.run(&cmd!("zstd --quiet -3 --single-thread {layer}"))?;
    let tag = repository.tag(&name.replace(['@', '/'], ""));
    let layer = format!("--new_layer={layer}.zst");
    runner.run(&cmd!("crane append --oci-empty-base {layer} --new_tag {tag}"))
}
