//! Security updates that Debian has and the published base does not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::context::{Context, sources};
use crate::image::base::BASE_LATEST;
use crate::image::{debian, packages};
use crate::model::deb_version;
use crate::model::platform::Platform;
use crate::tools::debian::Suite;
use crate::tools::web::Web;

/// A package of a base that has a security update.
#[derive(Clone, Debug, Serialize)]
pub struct Update {
    pub package: String,
    pub has: String,
    pub newest: String,
    pub platforms: BTreeSet<Platform>,
}

/// The security updates that are missing in the published base.
pub fn find(ctx: &Context) -> Result<Vec<Update>> {
    let repository = ctx.repository()?;
    let latest = repository.tag(BASE_LATEST);
    let published = ctx.registry.manifest(&ctx.runner, &repository, BASE_LATEST)?;
    let published = published.with_context(|| format!("{latest} is not published"))?;
    let staging = ctx.staging(&repository);
    let found = ctx.registry.referrers(&ctx.runner, &staging, &published.digest, packages::KIND)?;
    let lists: packages::Lists = match found.into_iter().next_back() {
        Some(document) => serde_json::from_value(document)?,
        None => packages::read(ctx, &repository, &published)
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
