//! Parts of the base that come from hosts of their own, apart from the package registries. `images/devbox.toml` says which
//! of them the image contains, and locks in this repository hold their checksums.
//!
//! A release to a public registry contains all of them or is refused. Only a rehearsal on this machine may leave out a
//! part whose host gives no clear answer; what it leaves out is in the base's key.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use crate::context::Context;
use crate::model::availability::{Item, Need};
use crate::model::checksum::Checksum;
use crate::model::config::Optional;
use crate::model::dockerfile::arg_default;
use crate::model::platform::Platform;
use crate::model::release_lock;
use crate::tools::source::{self, Look};

/// How long a rehearsal waits for the host of a part.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The parts that the tree includes.
pub fn included(ctx: &Context) -> impl Iterator<Item = &Optional> {
    ctx.config.base_optional.iter().filter(|part| part.include)
}

/// The base's recipe, whose `ARG` defaults addresses and checksums refer to.
fn recipe(ctx: &Context) -> String {
    ctx.read_if_there(&ctx.config.base.dockerfile)
}

/// Why the bytes of a part cannot be verified, with the command that locks it.
pub fn unlocked(ctx: &Context, part: &Optional) -> Option<String> {
    let recipe = recipe(ctx);
    let default = |name: &str| arg_default(&recipe, name);
    let file = &ctx.config.base.dockerfile;
    let Some(component) = ctx.config.component.iter().find(|component| component.name == part.name) else {
        let sum = part.sha256.as_ref().and_then(|sum| Optional::filled(sum, default));
        let locked = sum.is_some_and(|sum| Checksum::sha256(&sum).is_ok());
        return (!locked).then(|| {
            format!("{file} has no SHA-256 of {}: write it into the ARG that sha256 names", part.name)
        });
    };
    let (lock, version) = (component.checksums(), default(&component.arg()).unwrap_or_default());
    let locked = release_lock::locks(&ctx.read_if_there(&lock), &component.name, version);
    (!locked).then(|| {
        format!(
            "{lock} does not lock {0} {version}: run `cargo xtask lock {0}` where its host is reached and commit it, or \
             set include = false for {0} in images/devbox.toml",
            part.name
        )
    })
}

/// Why a build that is meant for others may not start: parts of it are not locked. None in a rehearsal.
pub fn problems(ctx: &Context) -> Vec<String> {
    if ctx.is_rehearsal() {
        return Vec::new();
    }
    included(ctx).filter_map(|part| unlocked(ctx, part)).collect()
}

/// The parts that a rehearsal leaves out, each with its reason: those that are not locked and those whose host gives no
/// clear answer. All hosts are asked at once.
pub fn left_out(ctx: &Context) -> BTreeMap<String, String> {
    let agent = &ctx.agent;
    let recipe = recipe(ctx);
    let look = |url: Option<String>| match url {
        Some(url) => source::look(agent, &url, PATIENCE),
        None => Look::Unknown("its recipe names no address".to_owned()),
    };
    thread::scope(|scope| {
        let ask = |part: &'_ Optional| {
            let (name, unlocked) = (part.name.clone(), unlocked(ctx, part));
            let url = Optional::filled(&part.probe, |name| arg_default(&recipe, name));
            (name, unlocked, scope.spawn(move || look(url)))
        };
        let asked: Vec<_> = included(ctx).map(ask).collect();
        let answers = asked.into_iter().map(|(name, unlocked, look)| (name, unlocked, look.join().ok()));
        answers.filter_map(|(name, unlocked, look)| Some((name, reason(unlocked, look)?))).collect()
    })
}

/// A clear 404 is no reason: the tree wants a file that does not exist, which the build says.
fn reason(unlocked: Option<String>, look: Option<Look>) -> Option<String> {
    match look {
        _ if unlocked.is_some() => unlocked,
        Some(Look::Present | Look::Absent) => None,
        Some(Look::Unknown(why)) => Some(format!("its host cannot be asked: {why}")),
        None => Some("its host cannot be asked".to_owned()),
    }
}

/// The files of the parts that are no components, which have files of their own.
pub fn files(ctx: &Context, platforms: &[Platform]) -> Vec<Need> {
    let recipe = recipe(ctx);
    let default = |name: &str| arg_default(&recipe, name);
    let need = |part: &Optional| {
        let checksum = Checksum::sha256(&Optional::filled(part.sha256.as_ref()?, default)?).ok()?;
        let item = Item::Release { url: Optional::filled(&part.probe, default)?, checksum };
        let platforms: BTreeSet<Platform> = platforms.iter().copied().collect();
        Some(Need { component: part.name.clone(), item, platforms })
    };
    included(ctx).filter_map(need).collect()
}
