//! Security updates that Debian has and the published base does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::context::{Context, sources};
use crate::image::base::BASE_LATEST;
use crate::image::{debian, packages};
use crate::model::platform::Platform;
use crate::model::{deb_changelog, deb_version};
use crate::tools::debian::{Package, Suite};
use crate::tools::web::Web;

/// A package of a base that has a security update.
#[derive(Clone, Debug, Serialize)]
pub struct Update {
    pub package: String,
    pub has: String,
    pub newest: String,
    pub platforms: BTreeSet<Platform>,
    /// The vulnerabilities that it fixes, by the CVE ids that the package's changelog names.
    pub fixes: BTreeSet<String>,
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.package, self.has, self.newest)?;
        match self.fixes.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.fixes.iter().cloned().collect::<Vec<_>>().join(", ")),
        }
    }
}

/// The most changelogs that are read, each from a package of the archive.
const CHANGELOGS: usize = 20;

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
    let mut packages = BTreeMap::new();
    for (platform, list) in lists {
        let newest = suite.packages(&web, platform.arch())?;
        for (package, has, newest) in behind(&list, &newest) {
            let fixes = BTreeSet::new();
            let update = Update {
                package: package.clone(),
                has,
                newest: newest.version.clone(),
                platforms: BTreeSet::new(),
                fixes,
            };
            packages.insert(package.clone(), newest);
            updates.entry(package).or_insert(update).platforms.insert(platform);
        }
    }
    name_fixes(ctx, &web, &suite, &packages, &mut updates);
    Ok(updates.into_values().collect())
}

/// Adds the vulnerabilities that each update fixes. Packages of one source share a changelog, which the smallest of them is
/// asked for. An update whose changelog cannot be read is reported without any.
fn name_fixes(
    ctx: &Context,
    web: &Web,
    suite: &Suite,
    packages: &BTreeMap<String, Package>,
    updates: &mut BTreeMap<String, Update>,
) {
    let mut of_source: BTreeMap<&str, Vec<(&String, &Package)>> = BTreeMap::new();
    for (name, package) in packages {
        of_source.entry(&package.source).or_default().push((name, package));
    }
    if of_source.len() > CHANGELOGS {
        ctx.say(format!(
            "{} source packages have updates: the changelogs of {CHANGELOGS} are read",
            of_source.len()
        ));
    }
    for (source, mut binaries) in of_source.into_iter().take(CHANGELOGS) {
        binaries.sort_by_key(|(_, package)| package.size);
        // The folder of documentation of a package may be a link to that of another one.
        let mut read = binaries.iter().take(2).map(|(name, package)| suite.changelog(web, name, package));
        let changelog = match read.find_map(Result::transpose) {
            Some(Ok(changelog)) => changelog,
            Some(Err(error)) => {
                ctx.say(format!("cannot tell what the update of {source} fixes: {error:#}"));
                continue;
            }
            None => continue,
        };
        for (name, _) in binaries {
            if let Some(update) = updates.get_mut(name) {
                update.fixes = deb_changelog::fixed_since(&changelog, &update.has);
            }
        }
    }
}

/// Packages of a list that the archive has newer: name, version in the list, package in the archive.
fn behind(list: &str, newest: &BTreeMap<String, Package>) -> Vec<(String, String, Package)> {
    let lacks = |line: &str| {
        let mut fields = line.split('\t');
        let (package, has) = (fields.next()?, fields.next()?);
        let newest =
            newest.get(package).filter(|newest| deb_version::compare(has, &newest.version).is_lt())?;
        Some((package.to_owned(), has.to_owned(), newest.clone()))
    };
    list.lines().filter_map(lacks).collect()
}
