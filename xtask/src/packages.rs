//! The Debian packages of a base, recorded beside it when it is built, and what Debian's security team has newer.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::addresses;
use crate::ctx::Ctx;
use crate::debian_image;
use crate::model::command::Cmd;
use crate::model::deb_version;
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::state::{self, BASE_LATEST};
use crate::tools::debian;
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

/// Reads the list out of each platform's image and records it beside the base.
pub fn record(ctx: &Ctx, repository: &Repository, base: &Manifest) -> Result<()> {
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
    let (staging, subject) = (state::staging(ctx, repository), base.subject());
    let place = Place::Referrer(&subject);
    let document = serde_json::to_value(&lists)?;
    ctx.registry.put_document(&ctx.runner, &staging, &place, KIND, &BTreeMap::new(), &document).map(drop)
}

/// The security updates that the published base lacks. Without a base, or a record of its packages, that cannot be told.
pub fn security_updates(ctx: &Ctx) -> Result<Vec<Update>> {
    let repository = state::repository(ctx)?;
    let latest = repository.tag(BASE_LATEST);
    let published = ctx.registry.manifest(&ctx.runner, &repository, BASE_LATEST)?;
    let published = published.with_context(|| format!("{latest} is not published"))?;
    let staging = state::staging(ctx, &repository);
    let found = ctx.registry.referrers(&ctx.runner, &staging, &published.digest, KIND)?;
    let document =
        found.into_iter().next_back().with_context(|| format!("{latest} has no record of its packages"))?;
    let lists: Lists = serde_json::from_value(document)?;
    let web = Web::new(&ctx.agent);
    let archive =
        ctx.settings.debian_security.clone().or_else(|| addresses::debian_archive(ctx, "Debian-Security"));
    let archive = archive.context("apt knows no security archive of Debian here: set DEBIAN_SECURITY_URL")?;
    let suite = format!("{}-security", debian_image::pinned(ctx)?.suite);
    let mut updates: BTreeMap<String, Update> = BTreeMap::new();
    for (platform, list) in lists {
        let newest = debian::packages(&web, &archive, &suite, platform.arch())?;
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
