//! The Debian image that all images are built on top of. A tag such as `trixie-slim` moves, so it is locked to a digest; where
//! the image's host is not reached, a local registry gets an equivalent that is made from Debian's archive.

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::error::missing;
use crate::model::dockerfile::arg_default;
use crate::model::oci::CompleteIndex;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::tools::command::cmd;
use crate::tools::files::Edit;

/// As what the commands that take components know it.
pub const NAME: &str = "debian";
/// The digest that the tag is locked to, below a line that names the tag.
pub const LOCK: &str = "images/locks/debian.txt";
/// Makes the equivalent.
const BOOTSTRAP: &str = "scripts/bootstrap-debian.sh";

/// The Debian image that the base's Dockerfile names.
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

/// The Debian image of a build, complete on every platform.
#[derive(Clone, Debug)]
pub struct Debian {
    repository: Repository,
    tag: String,
    /// `None` in a dry run that would make the image.
    pub index: Option<CompleteIndex>,
}

impl Debian {
    /// The image by digest, or by tag where a dry run would make it.
    pub fn reference(&self) -> String {
        match &self.index {
            Some(index) => self.repository.digest(&index.digest),
            None => self.repository.tag(&self.tag),
        }
    }
}

/// True unless a local repository has no copy, so that [`ensure`] would make one.
pub fn is_made(ctx: &Context, repository: &Repository) -> Result<bool> {
    let copy = || copy(ctx, &mirror(repository)?, &pinned(ctx)?, &ctx.platforms);
    Ok(!repository.is_loopback() || copy()?.is_some())
}

fn mirror(repository: &Repository) -> Result<Repository> {
    format!("{}/debian", repository.host()).parse().map_err(|why| anyhow::anyhow!("{why}"))
}

/// A local registry's copy. It is made once, so that a run asks once.
fn copy(
    ctx: &Context,
    mirror: &Repository,
    pin: &Pin,
    platforms: &[Platform],
) -> Result<Option<CompleteIndex>> {
    let copy = ctx.registry.complete(&ctx.runner, mirror, &pin.tag, platforms)?;
    if let Some(index) = &copy {
        ctx.registry.remember(mirror, &pin.tag, &index.digest);
    }
    Ok(copy)
}

/// Finds the image that bases in this repository are built on. A local repository uses the copy that was made once, so
/// that its keys stay.
pub fn find(ctx: &Context, repository: &Repository, platforms: &[Platform]) -> Result<Debian> {
    let pin = pinned(ctx)?;
    match look(ctx, &pin, repository, platforms)? {
        Ok(debian) => Ok(debian),
        Err(_) if ctx.runner.dry_run => {
            Ok(Debian { repository: mirror(repository)?, tag: pin.tag, index: None })
        }
        Err(error) => Err(missing(format!(
            "{error:#}, and {} is not made yet: run `cargo xtask build-base`",
            mirror(repository)?.tag(&pin.tag)
        ))),
    }
}

/// The same; a local registry gets its copy where it has none and the official image is not available.
pub fn ensure(ctx: &Context, repository: &Repository) -> Result<Debian> {
    let pin = pinned(ctx)?;
    match look(ctx, &pin, repository, &ctx.platforms)? {
        Ok(debian) => Ok(debian),
        Err(error) => {
            let mirror = mirror(repository)?;
            ctx.say(format!("{error:#}: {} is made from Debian's archive", mirror.tag(&pin.tag)));
            bootstrap(ctx, &pin, mirror)
        }
    }
}

/// The image, or why a local registry needs a copy of its own.
fn look(ctx: &Context, pin: &Pin, repository: &Repository, platforms: &[Platform]) -> Result<Result<Debian>> {
    if repository.is_loopback() {
        let mirror = mirror(repository)?;
        if let Some(index) = copy(ctx, &mirror, pin, platforms)? {
            return Ok(Ok(Debian { repository: mirror, tag: pin.tag.clone(), index: Some(index) }));
        }
    }
    match official(ctx, pin, platforms) {
        Ok(index) => {
            Ok(Ok(Debian { repository: pin.official.clone(), tag: pin.tag.clone(), index: Some(index) }))
        }
        Err(error) if repository.is_loopback() => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// The locked image; where nothing is locked, the image that its tag points at now.
fn official(ctx: &Context, pin: &Pin, platforms: &[Platform]) -> Result<CompleteIndex> {
    let locked = pin.locked(ctx);
    let (name, fix) = match &locked {
        Some(digest) => (digest, ": run `cargo xtask refresh-base`"),
        None => (&pin.tag, ""),
    };
    let found = ctx.registry.complete(&ctx.runner, &pin.official, name, platforms)?;
    found.with_context(|| format!("{} has no complete {name}{fix}", pin.official))
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

/// Why a build for a public registry may not start: its Debian image is not certain.
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
    if let Err(error) = official(ctx, &pin, &ctx.platforms) {
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

fn bootstrap(ctx: &Context, pin: &Pin, mirror: Repository) -> Result<Debian> {
    let (Pin { suite, date, .. }, repository) = (pin, mirror.to_string());
    let platforms = ctx.platforms.iter().flat_map(|platform| ["--platform".to_owned(), platform.to_string()]);
    ctx.runner
        .run(&cmd!("{BOOTSTRAP} --suite {suite} --date {date} --repository {repository} {platforms...}"))?;
    let tag = pin.tag.clone();
    if ctx.runner.dry_run {
        return Ok(Debian { repository: mirror, tag, index: None });
    }
    let made = copy(ctx, &mirror, pin, &ctx.platforms)?;
    let index = made.with_context(|| format!("{BOOTSTRAP} left no complete {}", mirror.tag(&tag)))?;
    Ok(Debian { repository: mirror, tag, index: Some(index) })
}

/// The text of the lock; empty where there is none.
fn read(ctx: &Context) -> String {
    ctx.read_if_there(LOCK)
}
