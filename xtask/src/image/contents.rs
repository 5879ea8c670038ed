//! What the layers of an image hold: files with their sizes, and which Debian package a file belongs to. Reads the layers
//! themselves.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::image::component_layer;
use crate::model::oci::Manifest;
use crate::model::reference::Repository;

/// Where dpkg keeps the list of a package's files.
const LISTS: &str = "var/lib/dpkg/info/";

/// The files of one layer with their sizes, by path.
pub type Files = BTreeMap<String, u64>;

/// The layers of one image.
#[derive(Default)]
pub struct Contents {
    /// By digest.
    pub layers: BTreeMap<String, Files>,
    /// The Debian package of each file that has one.
    owners: HashMap<String, String>,
}

impl Contents {
    /// Reads these layers of an image. One that cannot be read is reported, and has no files here.
    pub fn read(ctx: &Context, repository: &Repository, image: &Manifest, digests: &[String]) -> Self {
        let mut contents = Self::default();
        for digest in digests {
            if let Err(error) = contents.read_layer(ctx, repository, image, digest) {
                ctx.say(format!("warning: the files of a layer are unknown: {error:#}"));
            }
        }
        contents
    }

    fn read_layer(
        &mut self,
        ctx: &Context,
        repository: &Repository,
        image: &Manifest,
        digest: &str,
    ) -> Result<()> {
        let tar = component_layer::open(&ctx.registry, &ctx.runner, repository, image, digest)?;
        let (mut archive, mut files) = (tar::Archive::new(tar), Files::new());
        for entry in archive.entries()? {
            let mut entry = entry.with_context(|| format!("cannot read {repository}@{digest}"))?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            let package = path.strip_prefix(LISTS).and_then(|name| name.strip_suffix(".list"));
            if let Some(package) = package.map(|name| name.split(':').next().unwrap_or(name).to_owned()) {
                let mut list = String::new();
                entry.read_to_string(&mut list)?;
                let owned =
                    list.lines().map(|line| (line.trim_start_matches('/').to_owned(), package.clone()));
                self.owners.extend(owned);
            }
            files.insert(path, entry.size());
        }
        self.layers.insert(digest.to_owned(), files);
        Ok(())
    }

    /// Bytes of a layer by what they belong to: a Debian package, a package of npm or Python, else a folder.
    pub fn parts(&self, digest: &str) -> BTreeMap<String, u64> {
        let mut parts = BTreeMap::new();
        for (path, bytes) in self.layers.get(digest).into_iter().flatten() {
            *parts.entry(self.part(path)).or_default() += bytes;
        }
        parts
    }

    fn part(&self, path: &str) -> String {
        // A merged /usr: packages may list a file by its old name.
        let owner = |path: &str| self.owners.get(path);
        if let Some(package) = owner(path).or_else(|| path.strip_prefix("usr/").and_then(owner)) {
            return package.clone();
        }
        for folder in ["/node_modules/", "/site-packages/", "/dist-packages/"] {
            let Some((_, rest)) = path.split_once(folder) else { continue };
            let words = if rest.starts_with('@') { 2 } else { 1 };
            return rest.split('/').take(words).collect::<Vec<_>>().join("/");
        }
        let folders: Vec<&str> = path.split('/').take(3).collect();
        format!("/{}", folders.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_a_package_or_a_folder() {
        let mut contents = Contents::default();
        contents.owners.insert("usr/bin/git".to_owned(), "git".to_owned());
        contents.owners.insert("bin/ls".to_owned(), "coreutils".to_owned());
        let part = |path: &str| contents.part(path);
        assert_eq!([part("usr/bin/git"), part("usr/bin/ls")], ["git", "coreutils"]);
        assert_eq!(part("opt/omos/node_modules/@oven/bun/x"), "@oven/bun");
        assert_eq!(part("opt/m/lib/python3.13/site-packages/numpy/a.so"), "numpy");
        assert_eq!(part("opt/go/bin/gofmt"), "/opt/go/bin");
    }
}
