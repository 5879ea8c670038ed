//! The Debian packages of a base, recorded beside it when it is built, and what Debian's security team has newer.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::context::Context;
use crate::context::sources;
use crate::image::debian;
use crate::image::state::{self, BASE_LATEST};
use crate::model::command::Cmd;
use crate::model::deb_version;
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::tools::debian::Suite;
use crate::tools::registry::Place;
use crate::tools::web::Web;

/// The media type of the record.
const KIND: &str = "application/vnd.opencode-devbox.debian-packages.v1+json";
/// Where the base's Dockerfile leaves the list.
pub const LIST: &str = "/usr/share/devbox/debian-packages.tsv";

/// Name, version and architecture of each package as lines, by platform.
type Lists = BTreeMap<Platform, String>;

/// A package whose security update a base lacks.
#[derive(Clone, Debug, Serialize)]
pub struct Update {
    pub package: String,
    pub has: String,
    pub newest: String,
    pub platforms: BTreeSet<Platform>,
}

/// Records the lists of a base beside it, unless they are recorded. A run may have ended between the push of a base and its
/// record.
pub fn ensure_recorded(ctx: &Context, repository: &Repository, base: &Manifest) -> Result<()> {
    let staging = state::staging(ctx, repository);
    let digest = base.digest.to_string();
    if !ctx.registry.referrers(&ctx.runner, &staging, &digest, KIND)?.is_empty() {
        return Ok(());
    }
    if ctx.runner.dry_run {
        println!("# record the Debian packages of {}", repository.digest(&digest));
        return Ok(());
    }
    let lists = read(ctx, repository, base)
        .with_context(|| format!("cannot record the Debian packages of {}", repository.digest(&digest)))?;
    let (subject, document) = (base.subject(), serde_json::to_value(&lists)?);
    let place = Place::Referrer(&subject);
    ctx.registry.put_document(&ctx.runner, &staging, &place, KIND, &BTreeMap::new(), &document).map(drop)
}

/// Reads the list out of each platform's image.
fn read(ctx: &Context, repository: &Repository, base: &Manifest) -> Result<Lists> {
    let mut lists = Lists::new();
    for platform in &ctx.platforms {
        let digest = base.platform(*platform).context("a complete index lacks a platform")?;
        let options = [
            "run",
            "--rm",
            "--network",
            "none",
            "--platform",
            &platform.to_string(),
            "--entrypoint",
            "/bin/cat",
        ];
        let cmd = Cmd::new("docker", options).args([repository.digest(digest).as_str(), LIST]);
        lists.insert(*platform, ctx.runner.read(&cmd)?);
    }
    Ok(lists)
}

/// The security updates that are missing in the published base.
pub fn security_updates(ctx: &Context) -> Result<Vec<Update>> {
    let repository = state::repository(ctx)?;
    let latest = repository.tag(BASE_LATEST);
    let published = ctx.registry.manifest(&ctx.runner, &repository, BASE_LATEST)?;
    let published = published.with_context(|| format!("{latest} is not published"))?;
    let staging = state::staging(ctx, &repository);
    let found = ctx.registry.referrers(&ctx.runner, &staging, &published.digest, KIND)?;
    let lists: Lists = match found.into_iter().next_back() {
        Some(document) => serde_json::from_value(document)?,
        None => read(ctx, &repository, &published)
            .with_context(|| format!("{latest} has no record of its packages and its list cannot be read"))?,
    };
    let archive =
        ctx.settings.debian_security.clone().or_else(|| sources::debian_archive(ctx, "Debian-Security"));
    let archive = archive.context("apt has no security archive of Debian here: set DEBIAN_SECURITY_URL")?;
    let web = Web::with_accounts(&ctx.agent, [&archive]);
    let suite = format!("{}-security", debian::pinned(ctx)?.suite);
    let keyring = ctx.settings.debian_keyring.as_deref();
    let suite = Suite::open(&ctx.runner, &web, &archive.url, &suite, keyring)?;
    let mut updates: BTreeMap<String, Update> = BTreeMap::new();
    for (platform, list) in lists {
        let newest = suite.packages(&web, platform.arch())?;
        for (package, has, newest) in behind(&list, &newest) {
            let update = Update { package: package.clone(), has, newest, platforms: BTreeSet::new() };
            updates.entry(package).or_insert(update).platforms.insert(platform);
        }
    }
    Ok(updates.into_values().collect())
}

/// Packages of a list that the archive has newer: name, version in the list, version in the archive.
fn behind(list: &str, newest: &BTreeMap<String, String>) -> Vec<(String, String, String)> {
    let lacks = |line: &str| {
        let mut fields = line.split('\t');
        let (package, has) = (fields.next()?, fields.next()?);
        let newest = newest.get(package).filter(|newest| deb_version::compare(has, newest).is_lt())?;
        Some((package.to_owned(), has.to_owned(), newest.clone()))
    };
    list.lines().filter_map(lacks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_packages_of_the_list_are_behind() {
        let newest = [("a", "1.1"), ("b", "1:0.5"), ("c", "9")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let list = "a\t1.0\tamd64\nb\t1:0.5\tall\nd\t1\tamd64\n";
        let found = behind(list, &newest.into_iter().collect());
        assert_eq!(found, [("a".to_owned(), "1.0".to_owned(), "1.1".to_owned())]);
    }
}
