//! crane from its project's release archive, for systems without a package of it: Ubuntu, macOS. The checksums in
//! [`LOCK`] pin the archive; the program goes into this tree's own tools. Refuses an archive that is not locked.

use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use crate::context::Context;
use crate::error::missing;
use crate::model::checksum::Checksum;
use crate::model::release_lock;
use crate::output;
use crate::tools::command::cmd;
use crate::tools::files::Edit;
use crate::tools::web::{Answer, Web};

/// The name by which `cargo xtask lock` and packages know it.
pub const NAME: &str = "crane";
/// The version that is installed. After a change, `cargo xtask lock crane` writes its checksums.
pub const VERSION: &str = "0.20.7";
/// SHA-256 of each platform's archive, as the project publishes them, below a line that names the version.
pub const LOCK: &str = "xtask/crane/checksums.txt";

/// The archives of the systems that a release may run on, as goreleaser names them.
const FILES: [&str; 4] = [
    "go-containerregistry_Linux_x86_64.tar.gz",
    "go-containerregistry_Linux_arm64.tar.gz",
    "go-containerregistry_Darwin_x86_64.tar.gz",
    "go-containerregistry_Darwin_arm64.tar.gz",
];

/// The archive of this machine.
fn file() -> &'static str {
    FILES[usize::from(cfg!(target_arch = "aarch64")) + 2 * usize::from(cfg!(target_os = "macos"))]
}

fn address(ctx: &Context, file: &str) -> String {
    format!("{}/v{VERSION}/{file}", ctx.settings.crane_url)
}

/// Puts crane where every program of this run finds it first.
pub fn install(ctx: &Context) -> Result<()> {
    let (file, text) = (file(), ctx.read_if_there(LOCK));
    let sum = release_lock::checksums(&text).get(file).copied();
    let sum = sum.filter(|_| release_lock::locks(&text, NAME, VERSION)).ok_or_else(|| {
        missing(format!(
            "{LOCK} has no checksum of {file} {VERSION}: run `cargo xtask lock {NAME}` where its host is reached, or \
             install crane by hand"
        ))
    })?;
    let (checksum, url) = (Checksum::sha256(sum).with_context(|| LOCK)?, address(ctx, file));
    let programs = ctx.runner.programs.clone();
    ctx.say(format!("installing crane {VERSION} from {url}"));
    let scratch = tempfile::tempdir().context("cannot make a folder")?;
    let scratch = Utf8Path::from_path(scratch.path()).context("a folder's name is not UTF-8")?;
    let archive = scratch.join(file);
    let unpack = cmd!("tar -xzf {archive} -C {scratch} {NAME}");
    if ctx.runner.dry_run {
        output::line(format!("# {url} into {programs}/{NAME}, by its checksum"));
        return Ok(());
    }
    Web::new(&ctx.agent).save(&url, &checksum, &archive)?;
    ctx.runner.read(&unpack)?;
    fs::create_dir_all(&programs).with_context(|| format!("cannot create {programs}"))?;
    // Copied into the target folder first: a folder of scratch files may be on another file system.
    let (next, place) = (programs.join(".crane"), programs.join(NAME));
    fs::copy(scratch.join(NAME), &next).with_context(|| format!("cannot write {next}"))?;
    fs::rename(&next, &place).with_context(|| format!("cannot write {place}"))
}

/// The checksums of the pinned version, as its project publishes them. A lock that fits is kept, unless `renew`.
pub fn lock(ctx: &Context, renew: bool) -> Result<Edit> {
    let before = ctx.read_if_there(LOCK);
    let mut edit = Edit { path: LOCK.to_owned(), after: before.clone(), before };
    if release_lock::locks(&edit.before, NAME, VERSION) && !renew {
        return Ok(edit);
    }
    let url = address(ctx, "checksums.txt");
    match Web::new(&ctx.agent).bytes(&url) {
        Answer::Present(bytes) => {
            let files = FILES.map(str::to_owned);
            let locked = release_lock::select(&String::from_utf8_lossy(&bytes), NAME, VERSION, &files);
            edit.after = locked.map_err(|file| anyhow::anyhow!("{url} names no {file}"))?;
        }
        Answer::Absent => bail!("{url} does not exist"),
        other => ctx.say(format!("{NAME} {VERSION} is not locked: {}", other.reason())),
    }
    Ok(edit)
}
