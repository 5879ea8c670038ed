//! The Debian image that everything is built upon. A tag such as `trixie-slim` moves, so it is locked to a digest; where
//! the image's host is not reached, a local registry gets an equivalent that is made from Debian's archive.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::context::Context;
use crate::image::state::{complete, platform_digests};
use crate::model::command::Cmd;
use crate::model::dockerfile::arg_default;
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::tools::files::Edit;

/// As what the commands that take components know it.
pub const NAME: &str = "debian";
/// The digest that the tag is locked to, below a line that names the tag.
pub const LOCK: &str = "images/locks/debian.txt";
/// Makes the equivalent.
const BOOTSTRAP: &str = "scripts/bootstrap-debian.sh";

/// What the base's Dockerfile says of it.
pub struct Pin {
    /// Repository of the official image.
    pub official: Repository,
    /// Its tag, such as `trixie-slim`.
    pub tag: String,
    /// Debian's release, such as `trixie`.
    pub suite: String,
    /// The day of the packages that are taken on top, as `YYYYMMDD`.
    pub date: String,
}

impl Pin {
    /// The first line of its lock.
    fn head(&self) -> String {
        format!("# {}\n", self.official.tag(&self.tag))
    }

    /// The locked digest. A lock of another tag locks nothing.
    fn locked(&self, ctx: &Context) -> Option<String> {
        Some(read(ctx).strip_prefix(&self.head())?.trim().to_owned())
    }
}

pub fn pinned(ctx: &Context) -> Result<Pin> {
    let file = &ctx.config.base.dockerfile;
    let text = ctx.read(file)?;
    let arg = |name| {
        arg_default(&text, name).with_context(|| format!("{file} has no `ARG {name}=…` with a default"))
    };
    let (suite, date) = (arg("DEBIAN_SUITE")?.to_owned(), arg("DEBIAN_DATE")?.to_owned());
    let image = arg("DEBIAN_IMAGE")?.replace("${DEBIAN_SUITE}", &suite);
    let (official, tag) =
        image.rsplit_once(':').with_context(|| format!("{file}: DEBIAN_IMAGE={image} has no tag"))?;
    let official = official.parse().map_err(|why| anyhow::anyhow!("{file}: DEBIAN_IMAGE={image}: {why}"))?;
    Ok(Pin { official, tag: tag.to_owned(), suite, date })
}

/// True unless a local repository lacks its copy, so that [`resolve`] would make one.
pub fn is_made(ctx: &Context, repository: &Repository) -> Result<bool> {
    Ok(!repository.is_loopback() || copy(ctx, &mirror(repository)?, &pinned(ctx)?)?.is_some())
}

fn mirror(repository: &Repository) -> Result<Repository> {
    format!("{}/debian", repository.host()).parse().map_err(|why| anyhow::anyhow!("{why}"))
}

/// A local registry's copy. It is made once, so that a run asks once.
fn copy(ctx: &Context, mirror: &Repository, pin: &Pin) -> Result<Option<Manifest>> {
    let copy = complete(ctx, mirror, &pin.tag)?;
    if let Some(index) = &copy {
        ctx.registry.remember(mirror, &pin.tag, &index.digest);
    }
    Ok(copy)
}

/// The image by digest, and its digest per platform. A local repository uses the copy that was made once, so that its
/// keys stay.
pub fn resolve(ctx: &Context, repository: &Repository) -> Result<(String, BTreeMap<String, String>)> {
    let pin = pinned(ctx)?;
    let mirror = mirror(repository)?;
    let own = if repository.is_loopback() { copy(ctx, &mirror, &pin)? } else { None };
    let (source, index) = match own {
        Some(index) => (mirror, index),
        None => match (official(ctx, &pin), repository.is_loopback()) {
            (Ok(index), _) => (pin.official, index),
            (Err(error), false) => return Err(error),
            (Err(error), true) => {
                ctx.say(format!("{error:#}: {} is made from Debian's archive", mirror.tag(&pin.tag)));
                (mirror.clone(), bootstrap(ctx, &pin, &mirror)?)
            }
        },
    };
    Ok((source.digest(&index.digest), platform_digests(ctx, &index)?))
}

/// The locked image; where nothing is locked, what its tag stands for now.
fn official(ctx: &Context, pin: &Pin) -> Result<Manifest> {
    let locked = pin.locked(ctx);
    let (name, mend) = match &locked {
        Some(digest) => (digest, ": run `cargo xtask refresh-base`"),
        None => (&pin.tag, ""),
    };
    let found = complete(ctx, &pin.official, name)?;
    found.with_context(|| format!("{} has no complete {name}{mend}", pin.official))
}

/// The lock of the tag: kept if it is one, unless `renew`. A host that does not answer leaves it as it is.
pub fn lock(ctx: &Context, renew: bool) -> Result<Edit> {
    let (pin, before) = (pinned(ctx)?, read(ctx));
    let mut edit = Edit { path: LOCK.to_owned(), after: before.clone(), before };
    if pin.locked(ctx).is_some() && !renew {
        return Ok(edit);
    }
    let reference = pin.official.tag(&pin.tag);
    match ctx.registry.image(&ctx.runner, &pin.official, &pin.tag) {
        Ok(Some(index)) => {
            let lacking = ctx.config.platforms.iter().find(|platform| index.platform(**platform).is_none());
            if let Some(platform) = lacking {
                bail!("{reference} has no image for {platform}");
            }
            edit.after = format!("{}{}\n", pin.head(), index.digest);
        }
        Ok(None) => bail!("there is no {reference}"),
        Err(error) => ctx.say(format!("{reference} is not locked: {error:#}")),
    }
    Ok(edit)
}

/// Why a build that is meant for others may not start: it would not be built upon one certain image.
pub fn problem(ctx: &Context) -> Result<Option<String>> {
    if ctx.is_rehearsal() {
        return Ok(None);
    }
    let pin = pinned(ctx)?;
    if pin.locked(ctx).is_none() {
        let reference = pin.official.tag(&pin.tag);
        return Ok(Some(format!(
            "{LOCK} does not lock {reference}: run `cargo xtask lock {NAME}` and commit it"
        )));
    }
    if let Err(error) = official(ctx, &pin) {
        return Ok(Some(format!("{error:#}")));
    }
    // Its manifest may be known from an earlier run: whether it can still be pulled is another question.
    let gone = match pin.locked(ctx) {
        Some(digest) if !ctx.registry.has(&ctx.runner, &pin.official, &digest)? => Some(digest),
        _ => None,
    };
    Ok(gone
        .map(|digest| format!("{} has no complete {digest}: run `cargo xtask refresh-base`", pin.official)))
}

fn bootstrap(ctx: &Context, pin: &Pin, mirror: &Repository) -> Result<Manifest> {
    let mut cmd = Cmd::new(BOOTSTRAP, ["--suite", &pin.suite, "--date", &pin.date]);
    cmd = cmd.args(["--repository", &mirror.to_string()]);
    for platform in &ctx.platforms {
        cmd = cmd.args(["--platform", &platform.to_string()]);
    }
    if !ctx.read_only {
        ctx.runner.run(&cmd)?;
    }
    if ctx.runner.dry_run {
        // No image has this digest: what a dry run prints from here on names what is not known yet.
        let unknown = format!("sha256:{}", "0".repeat(64));
        let entry = |platform: &Platform| {
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 0, "digest": unknown,
                "platform": { "os": "linux", "architecture": platform.arch() } })
        };
        let manifests: Vec<_> = ctx.platforms.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        return Manifest::parse(index.into_bytes()).map_err(|why| anyhow::anyhow!(why));
    }
    let made = complete(ctx, mirror, &pin.tag)?;
    made.with_context(|| format!("{BOOTSTRAP} left no complete {}", mirror.tag(&pin.tag)))
}

/// The text of the lock; empty where there is none.
fn read(ctx: &Context) -> String {
    ctx.read_if_there(LOCK)
}
