//! What an image contains, from what made it: the list of packages in the base, the locks of this tree, the parts that its key
//! counts in. Asks the registry for one small layer of the base, for manifests and configurations, and for nothing twice.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::context::Context;
use crate::image::base::BuiltBase;
use crate::image::licences;
use crate::image::packages::{self, Lists};
use crate::image::tree::Tree;
use crate::image::variant::StagedVariant;
use crate::model::checksum::Checksum;
use crate::model::component::{Component, Source};
use crate::model::config::Optional;
use crate::model::dockerfile::{self, arg_default};
use crate::model::licence::{Fact, Policy};
use crate::model::npm_lock::{Lock, Package};
use crate::model::oci::{Digest, Manifest};
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::release_lock;
use crate::model::sbom::{Bill, Image, Kind, Licence, Part, purl};
use crate::model::{python_lock, sbom_cyclonedx, sbom_spdx};

/// The project's own files among the components, and the name of its images.
const OWN: &str = "opencode-devbox";

/// A predicate's type, and its document.
pub type Document = (&'static str, Value);

/// What the images of a tree have in common. It is read once for all of them.
pub struct Sources<'a> {
    ctx: &'a Context,
    tree: &'a Tree,
    base: &'a BuiltBase,
    policy: Policy,
    lists: Lists,
}

/// The documents about a variant's image of a platform, or about that of the base. They depend on nothing but the image and the
/// tree that it was made from.
pub fn documents(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    variant: Option<&StagedVariant<'_>>,
    platform: Platform,
) -> Result<Vec<Document>> {
    Sources::read(ctx, tree, base)?.documents(variant, platform)
}

impl<'a> Sources<'a> {
    pub fn read(ctx: &'a Context, tree: &'a Tree, base: &'a BuiltBase) -> Result<Self> {
        let mut sources = Self { ctx, tree, base, policy: licences::policy(tree)?, lists: Lists::new() };
        for (platform, image) in base.index.images() {
            let image = sources.manifest(&base.repository, Some(image))?;
            sources.lists.insert(platform, packages::of_image(ctx, &base.repository, &image)?);
        }
        Ok(sources)
    }

    /// The documents about one image.
    pub fn documents(
        &self,
        variant: Option<&StagedVariant<'_>>,
        platform: Platform,
    ) -> Result<Vec<Document>> {
        let bill = self.bill(variant, platform)?;
        Ok(vec![
            (sbom_cyclonedx::PREDICATE, sbom_cyclonedx::document(&bill)?),
            (sbom_spdx::PREDICATE, sbom_spdx::document(&bill)?),
        ])
    }

    fn bill(&self, variant: Option<&StagedVariant<'_>>, platform: Platform) -> Result<Bill> {
        let base = self.manifest(&self.base.repository, self.base.index.platform(platform))?;
        let (name, image, place) = match variant {
            Some(it) => {
                let image = self.manifest(&it.staging, it.index.platform(platform))?;
                (format!("{OWN} {}", it.variant.name), image, &it.staging)
            }
            None => (format!("{OWN} base image"), base.clone(), &self.base.repository),
        };
        let mut bill = Bill::new(Image {
            name,
            repository: self.base.repository.to_string(),
            created: self.created(place, &image)?,
            digest: image.digest.clone(),
            platform,
            source: self.ctx.config.source.clone(),
        });
        let mut add = |parts: Vec<Part>, layer: Option<&Digest>| {
            for mut part in parts {
                part.layers.extend(layer.cloned());
                bill.add(part);
            }
        };
        let (below, layers) = (digests(&base)?, digests(&image)?);
        let of_base = |holder: &str| {
            let at =
                self.ctx.config.base_layers.iter().position(|it| it.holds.iter().any(|name| name == holder));
            at.and_then(|at| below.get(at))
        };
        // Components first: a part that is one goes by its name.
        for (at, name) in variant.iter().flat_map(|it| &it.variant.components).enumerate() {
            add(self.npm(self.ctx.config.component(name)?, platform)?, layers.get(below.len() + at));
        }
        for (holder, parts) in self.of_base(platform)? {
            add(parts, of_base(&holder));
        }
        for (group, part) in self.debian(platform) {
            add(vec![part], of_base(&format!("debian:{group}")));
        }
        Ok(bill)
    }

    fn manifest(&self, repository: &Repository, image: Option<&Digest>) -> Result<Manifest> {
        let digest = image.context("an index without its image")?;
        let found = self.ctx.registry.manifest(&self.ctx.runner, repository, digest)?;
        found.with_context(|| format!("{} does not exist", repository.digest(digest)))
    }

    /// When the image was made, which is the time of its commit; in seconds since 1970.
    fn created(&self, repository: &Repository, image: &Manifest) -> Result<i64> {
        let config = image.config().context("an image without a configuration")?;
        let config = self.ctx.registry.blob(&self.ctx.runner, repository, config)?;
        let created = config["created"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(created.map_or(0, jiff::Timestamp::as_second))
    }

    /// Debian's packages with the groups of their layers: name, version, architecture, checksum, group, licences.
    fn debian(&self, platform: Platform) -> Vec<(String, Part)> {
        let list = self.lists.get(&platform).map_or("", String::as_str);
        let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
        // Its version begins with that of the release.
        let release = rows.iter().find(|row| row[0] == "base-files").and_then(|row| row.get(1));
        let release: &str = release.and_then(|it| it.split(['.', '+']).next()).unwrap_or_default();
        let part = |row: &Vec<&str>| {
            let column = |at: usize| row.get(at).copied().unwrap_or_default();
            let (name, version, arch) = (column(0), column(1), column(2));
            let words: Vec<String> =
                column(5).split(", ").filter(|it| !it.is_empty()).map(str::to_owned).collect();
            let part = Part {
                qualifiers: format!("arch={arch}&distro=debian-{release}"),
                licence: (!words.is_empty()).then_some(Licence::Words(words)),
                checksum: column(3).strip_prefix("sha256:").and_then(|sum| Checksum::sha256(sum).ok()),
                ..part(name, version, purl("deb/debian", name, version))
            };
            (column(4).to_owned(), part)
        };
        rows.iter().map(part).collect()
    }

    /// What a component's lock of npm names.
    fn npm(&self, component: &Component, platform: Platform) -> Result<Vec<Part>> {
        let path = format!("{}/package-lock.json", component.npm_folder());
        let lock = Lock::parse(self.tree.text(&path)?).context(path)?;
        let itself = match (&component.source, component.binaries.get(&platform)) {
            (_, Some(binary)) => binary.as_str(),
            (Source::Npm(package), None) => package.as_str(),
            _ => "",
        };
        let part = |package: Package| {
            let is_itself = package.name == itself;
            let name = if is_itself { &component.name } else { &package.name };
            Part {
                kind: if is_itself { Kind::Program } else { Kind::Library },
                checksum: Checksum::integrity(&package.integrity).ok(),
                licence: self.licence(&format!("npm:{}", package.name), package.licence.as_deref()),
                ..part(name, &package.version, purl("npm", &package.name, &package.version))
            }
        };
        Ok(lock.packages(platform).into_iter().map(part).collect())
    }

    /// What the base has beside Debian's packages, by the holder of its layer.
    fn of_base(&self, platform: Platform) -> Result<Vec<(String, Vec<Part>)>> {
        let config = &self.ctx.config;
        let key = self.base.key.as_ref().map(ToString::to_string).unwrap_or_default();
        let licence = Some(Licence::Expression("MIT".to_owned()));
        let own = Part { kind: Kind::Program, licence, ..part(OWN, &key, purl("generic", OWN, &key)) };
        let mut found = vec![(OWN.to_owned(), vec![own])];
        let mut done = BTreeSet::new();
        for component in config.component.iter().filter(|it| matches!(it.source, Source::Pypi(_))) {
            if done.insert(component.python_lock()) {
                found.push((component.name.clone(), self.python(component, platform)?));
            }
        }
        let is_in = |part: &&Optional| self.base.inputs.args.get(&part.arg()).is_some_and(|it| it == "true");
        for optional in config.base_optional.iter().filter(is_in) {
            found.push((optional.name.clone(), vec![self.optional(optional, platform)?]));
        }
        Ok(found)
    }

    /// What a lock of Python names, and what is known to be inside of it.
    fn python(&self, first: &Component, platform: Platform) -> Result<Vec<Part>> {
        let (lock, mut parts) = (first.python_lock(), Vec::new());
        let shares: Vec<&Component> =
            self.ctx.config.component.iter().filter(|it| it.python_lock() == lock).collect();
        let known = licences::known(self.tree, &lock)?;
        for pin in python_lock::parse(self.tree.text(&format!("{lock}.txt"))?)? {
            if !pin.applies(platform)? || shares.iter().any(|it| it.uninstalls.contains(&pin.name)) {
                continue;
            }
            let component = shares.iter().find(|it| it.source == Source::Pypi(pin.name.clone()));
            let is_it =
                |it: &&Fact| it.ecosystem == "pypi" && it.name == pin.name && it.version == pin.version;
            let fact = known.iter().find(is_it);
            let name = component.map_or(&pin.name, |it| &it.name);
            // A project of another name is how a program of others comes.
            let kind = if *name == pin.name { "pypi" } else { "generic" };
            parts.push(Part {
                kind: if component.is_some() { Kind::Program } else { Kind::Library },
                checksum: fact.and_then(|fact| fact.checksum(platform)),
                licence: self
                    .licence(&format!("pypi:{}", pin.name), fact.and_then(|it| it.licence.as_deref())),
                ..part(name, &pin.version, purl(kind, name, &pin.version))
            });
        }
        parts.extend(known.iter().filter(|it| it.ecosystem != "pypi").map(|fact| Part {
            licence: self.licence(&format!("{}:{}", fact.ecosystem, fact.name), fact.licence.as_deref()),
            ..part(&fact.name, &fact.version, purl(&fact.ecosystem, &fact.name, &fact.version))
        }));
        Ok(parts)
    }

    /// A part of the base that comes from a host of its own.
    fn optional(&self, optional: &Optional, platform: Platform) -> Result<Part> {
        let (config, name) = (&self.ctx.config, &optional.name);
        let recipe = self.tree.text(&config.base.dockerfile)?;
        let licence = self.licence(&format!("generic:{name}"), None);
        let Ok(component) = config.component(name) else {
            let default = |name: &str| arg_default(recipe, name);
            let sum = optional.sha256.as_ref().and_then(|it| Optional::filled(it, default));
            let address = Optional::filled(&optional.probe, default).unwrap_or_default();
            // Its archive is named by its folder: …/all-MiniLM-L6-v2/onnx.tar.gz.
            let version = address.rsplit('/').nth(1).unwrap_or_default();
            return Ok(Part {
                kind: Kind::Model,
                checksum: sum.and_then(|sum| Checksum::sha256(&sum).ok()),
                licence,
                ..part(name, version, purl("generic", name, version))
            });
        };
        let version = self.version(component)?;
        let lock = self.tree.text(&component.checksums())?;
        let sums = release_lock::checksums(lock);
        let sum = sums.get(release_lock::file(name, platform).as_str());
        let checksum = sum.and_then(|sum| Checksum::sha256(sum).ok());
        Ok(Part {
            kind: Kind::Program,
            checksum,
            licence,
            ..part(name, &version, purl("generic", name, &version))
        })
    }

    fn licence(&self, package: &str, says: Option<&str>) -> Option<Licence> {
        let known = self.policy.expression(package, says).map(Licence::Expression);
        known.or_else(|| Some(Licence::Words(vec![says?.to_owned()])))
    }

    /// The pinned version of a component.
    fn version(&self, component: &Component) -> Result<String> {
        for file in [&self.ctx.config.base.dockerfile, &self.ctx.config.variants.dockerfile] {
            let versions = dockerfile::versions(self.tree.text(file)?);
            if let Some((_, version)) = versions.into_iter().find(|(name, _)| *name == component.name) {
                return Ok(version);
            }
        }
        anyhow::bail!("no Dockerfile pins {} by `ARG {}=…`", component.name, component.arg())
    }
}

fn digests(image: &Manifest) -> Result<Vec<Digest>> {
    let digests = image.layers().into_iter().map(|(digest, _)| digest.parse());
    digests.collect::<Result<_, String>>().map_err(|why| anyhow::anyhow!(why))
}

/// A library of which nothing more is known.
fn part(name: &str, version: &str, purl: String) -> Part {
    Part {
        name: name.to_owned(),
        version: version.to_owned(),
        purl,
        qualifiers: String::new(),
        kind: Kind::Library,
        licence: None,
        checksum: None,
        layers: BTreeSet::new(),
    }
}
