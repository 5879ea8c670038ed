//! What is published of each component, and which of it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use crate::context::Context;
use crate::model::component::{Component, Source};
use crate::model::platform::Platform;
use crate::model::python_lock;
use crate::model::version::Version;
use crate::tools::files::Edit;
use crate::tools::gitea::Gitea;
use crate::tools::{npm, pypi};
use crate::upstream::availability::{self, Depth, Supply, own_files};
use crate::upstream::locks;

/// What upstream has published of a component, newest first. Pre-releases do not count.
#[derive(Debug, Default)]
pub struct Upstream {
    pub published: Vec<Version>,
    /// The version that upstream calls the latest.
    pub latest: Option<Version>,
    /// Versions that upstream says not to use, each with its reason.
    pub deprecated: BTreeMap<Version, String>,
    /// Those whose metadata names a file for every platform.
    pub whole: Vec<Version>,
    /// Publication times, where the registry reports them.
    pub times: BTreeMap<Version, Timestamp>,
}

/// How many versions are tried whose own files are there but perhaps not those of their dependencies.
const TRIES: usize = 5;

/// The locks of a component in one version, which is neither in the tree nor going there yet. Every file that they name
/// is checked; one that is not available is an error, and [`availability::Incomplete`] where the registry says so clearly.
pub fn locked(
    ctx: &Context,
    supply: &Supply,
    component: &Component,
    to: Version,
    depth: Depth,
    wait: Duration,
) -> Result<Vec<Edit>> {
    let mut versions = locks::pinned(ctx)?;
    versions.insert(component.name.clone(), to.to_string());
    let edits = locks::resolve(ctx, &[component], &versions, false)?;
    let texts: BTreeMap<&str, &str> = edits.iter().map(|e| (e.path.as_str(), e.after.as_str())).collect();
    let needs =
        availability::closure(ctx, &[component], &ctx.config.platforms, &|path| match texts.get(path) {
            Some(text) => Ok((*text).to_owned()),
            None => ctx.read(path),
        })?;
    let problems = supply.check(&needs, depth, wait).problems;
    if !problems.is_empty() {
        let lacking = availability::lines(&problems);
        let message = format!("{} {to} is not available with its dependencies: {lacking}", component.name);
        return Err(availability::error(&problems, message));
    }
    Ok(edits)
}

impl Upstream {
    /// Versions above one, newest first, that are worth trying with their dependencies.
    pub fn candidates(&self, above: Version, newest: Version) -> Vec<Version> {
        let between = |version: &&Version| **version > above && **version <= newest;
        self.whole
            .iter()
            .filter(between)
            .filter(|it| self.follows(above, **it))
            .take(TRIES)
            .copied()
            .collect()
    }

    /// True if `latest` may go from one version to another: not beyond what upstream calls the latest, to nothing that it
    /// says not to use, and not into a new major version, which is taken only by name.
    pub fn follows(&self, from: Version, to: Version) -> bool {
        to.0 == from.0 && self.latest.is_none_or(|latest| to <= latest) && !self.deprecated.contains_key(&to)
    }

    /// The newest version of a later major, up to the one that upstream calls the latest.
    pub fn new_major(&self, from: Version) -> Option<Version> {
        let later = |version: &&Version| version.0 > from.0 && self.follows(**version, **version);
        self.whole.iter().find(later).copied()
    }
}

impl Supply {
    /// Asks for all versions of a component.
    pub fn upstream(&self, ctx: &Context, component: &Component) -> Result<Upstream> {
        let ask = |name: &String| {
            let packument = npm::packument(&self.web, &self.npm_registry, name);
            packument.required(&format!("npm package {name}"))
        };
        let mut upstream = match &component.source {
            Source::Npm(package) => {
                let release = ask(package)?;
                let mut whole = release.releases();
                for binary in component.binaries.values() {
                    let has = ask(binary)?.releases();
                    whole.retain(|version| has.contains(version));
                }
                let published = release.releases();
                let time = |version: &Version| Some((*version, release.published(&version.to_string())?));
                let times = published.iter().filter_map(time).collect();
                let (latest, deprecated) = (release.latest(), release.deprecated());
                Upstream { whole, times, published, latest, deprecated }
            }
            Source::Pypi(project) => {
                let files = pypi::files(&self.web, &self.pypi_index, project);
                python_upstream(&files.required(&format!("Python project {project}"))?, &ctx.config.platforms)
            }
            Source::Gitea(repository) => gitea_upstream(ctx, component, repository)?,
        };
        upstream.published.sort_by(|a, b| b.cmp(a));
        upstream.whole.sort_by(|a, b| b.cmp(a));
        Ok(upstream)
    }

    /// The newest version that `latest` may go to from a version and whose own files are there for every platform.
    pub fn newest_complete(
        &self,
        ctx: &Context,
        component: &Component,
        upstream: &Upstream,
        from: Version,
    ) -> Option<Version> {
        let complete = |version: &&Version| {
            let files = own_files(ctx, component, &version.to_string());
            self.check(&files, Depth::Presence, Duration::ZERO).problems.is_empty()
        };
        upstream.whole.iter().filter(|version| upstream.follows(from, **version)).find(complete).copied()
    }
}

fn python_upstream(files: &[pypi::File], platforms: &[Platform]) -> Upstream {
    let mut upstream = Upstream::default();
    let mut fitting: BTreeMap<Version, BTreeSet<Platform>> = BTreeMap::new();
    for file in files {
        let Some(version) = file.wheel_version().and_then(|text| text.parse::<Version>().ok()) else {
            continue;
        };
        let fits = platforms.iter().filter(|platform| python_lock::wheel_fits(&file.filename, **platform));
        fitting.entry(version).or_default().extend(fits);
        if let Some(uploaded) = file.uploaded() {
            upstream.times.insert(version, uploaded);
        }
    }
    upstream.whole =
        fitting.iter().filter(|(_, has)| has.len() == platforms.len()).map(|(v, _)| *v).collect();
    upstream.published = fitting.into_keys().collect();
    upstream
}

/// Releases on the host that the base's Dockerfile names; each holds the files of all platforms.
fn gitea_upstream(ctx: &Context, component: &Component, repository: &str) -> Result<Upstream> {
    let address = locks::release_address(ctx, component, "")?;
    let server = address.split('/').take(3).collect::<Vec<_>>().join("/");
    let releases = Gitea::new(&server, repository, None, &ctx.agent).releases()?;
    let mut upstream = Upstream::default();
    for release in releases.iter().filter(|release| !release.draft && !release.prerelease) {
        let Some(version) = release.tag_name.strip_prefix('v').and_then(|text| text.parse().ok()) else {
            continue;
        };
        upstream.published.push(version);
        if let Some(time) = release.published_at.as_ref().and_then(|text| text.parse().ok()) {
            upstream.times.insert(version, time);
        }
    }
    upstream.whole = upstream.published.clone();
    Ok(upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn upstream(versions: &[&str], latest: &str, deprecated: &[&str]) -> Upstream {
        let mut whole: Vec<Version> = versions.iter().map(|text| version(text)).collect();
        whole.sort_by(|a, b| b.cmp(a));
        let deprecated = deprecated.iter().map(|text| (version(text), "broken".to_owned())).collect();
        Upstream {
            published: whole.clone(),
            whole,
            latest: Some(version(latest)),
            deprecated,
            ..Upstream::default()
        }
    }

    #[test]
    fn latest_is_what_upstream_says_within_the_major_that_is_pinned() {
        let majors = ["2.0.0", "2.0.1", "2.0.2", "2.0.3", "2.0.4", "2.0.5"];
        let all = [&["1.18.18", "1.18.19", "1.18.20", "1.19.0"][..], &majors].concat();
        let after = |it: &Upstream| -> Vec<String> {
            it.candidates(version("1.18.18"), version("9.0.0")).iter().map(ToString::to_string).collect()
        };
        let new = upstream(&all, "2.0.4", &["2.0.4"]);
        assert_eq!(after(&new), ["1.19.0", "1.18.20", "1.18.19"], "a new major hides no patch");
        assert_eq!(new.new_major(version("1.18.18")), Some(version("2.0.3")));
        let old = upstream(&all, "1.18.20", &["1.18.20"]);
        assert_eq!(after(&old), ["1.18.19"], "nothing beyond the latest, nothing deprecated");
        assert_eq!(old.new_major(version("1.18.18")), None);
    }
}
