//! The three ways to build the family that a benchmark compares, as commands on one scratch engine and one repository.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use serde_json::json;

use crate::bench::lab::Lab;
use crate::context::sources;
use crate::image::secrets::Secrets;
use crate::model::bench::{self, Way};
use crate::model::config::Variant;
use crate::model::dockerfile;
use crate::model::progress::Form;
use crate::model::reference::Repository;
use crate::tools::command::{Cmd, cmd};
use crate::tools::engine::Scratch;
use crate::tools::{crane, docker};

/// The plain ways.
pub const RECIPE: &str = "bench/Dockerfile";

/// How often a build is tried.
const TRIES: usize = 3;

/// One engine and one repository, in which a family is built from nothing.
pub struct Round<'a> {
    pub lab: &'a Lab<'a>,
    pub way: Way,
    pub variants: &'a [&'a Variant],
    pub engine: Scratch<'a>,
    pub repository: Repository,
    /// What was occupied before the engine was started.
    pub empty: u64,
}

impl<'a> Round<'a> {
    pub fn begin(lab: &'a Lab<'a>, way: Way, variants: &'a [&'a Variant], number: usize) -> Result<Self> {
        let empty = lab.occupied();
        let repository = lab.repository(&format!("{way}-{number}/opencode-devbox"))?;
        Ok(Self { lab, way, variants, engine: lab.engine(&way.to_string())?, repository, empty })
    }

    /// Where the variants' images are.
    pub fn images(&self) -> Repository {
        if self.way == Way::Ours { self.repository.staging() } else { self.repository.clone() }
    }

    /// The variants' tags in a round's repository, without those that are known.
    pub fn tags(&self, known: &[(String, String)]) -> Result<Vec<(String, String)>> {
        let repository = self.images().to_string();
        let listed = self.lab.ctx.runner.read(&crane::tags(&repository))?;
        let pair = |tag: &str| {
            let (variant, _) = tag.rsplit_once('-')?;
            let ours = self.variants.iter().any(|it| it.name == variant);
            ours.then(|| (variant.to_owned(), tag.to_owned()))
        };
        Ok(listed.lines().filter_map(pair).filter(|pair| !known.contains(pair)).collect())
    }

    pub fn base(&self) -> Result<()> {
        let tree = self.lab.new_tree();
        let cmd = match self.way {
            Way::Original => self.plain_build("base", &tree, None)?.arg("--output=type=cacheonly"),
            Way::Plain => {
                let output =
                    format!("--output=type=image,name={},push=true,store=false", self.repository.tag("base"));
                self.plain_build("shared", &tree, None)?.arg(output)
            }
            Way::Ours => self.ours(&tree, "build-base"),
        };
        self.insist(&cmd)
    }

    /// Runs a build up to three times, as a person who waits for the images would. Failed runs count too. Ours tries again
    /// by itself, where that helps; the plain ways can fail for what an `npm install` left out.
    fn insist(&self, cmd: &Cmd) -> Result<()> {
        let runner = &self.lab.ctx.runner;
        for _ in 1..TRIES {
            match runner.run(cmd) {
                Err(error) if self.way != Way::Ours => {
                    self.lab.ctx.say(format!("{}: {error:#}; starting it again", self.way));
                    *self.lab.repeats.borrow_mut().entry(self.way).or_default() += 1;
                }
                ended => return ended,
            }
        }
        runner.run(cmd)
    }

    pub fn variants(&self, old: bool) -> Result<()> {
        let tree = if old { self.lab.old_tree() } else { self.lab.new_tree() };
        match self.way {
            Way::Original => self.variants.iter().try_for_each(|variant| {
                let reference = self.plain_reference(&tree, variant)?;
                let output = format!("--output=type=image,name={reference},push=true,store=false");
                self.insist(&self.plain_build("original", &tree, Some(variant))?.arg(output))
            }),
            Way::Plain => self.insist(&self.plain_bake(&tree)?),
            Way::Ours => {
                let names = self.variants.iter().map(|variant| variant.name.clone());
                self.insist(&self.ours(&tree, "build").args(names))
            }
        }
    }

    fn ours(&self, tree: &Utf8Path, phase: &str) -> Cmd {
        let cmd = self.lab.xtask(tree, &[phase]).shown(format!("{}: {phase}", self.way), Form::Lines, None);
        let cmd = cmd.arg(format!("--repository={}", self.repository));
        let platforms = self.lab.platforms();
        self.engine.on(cmd.args(platforms.iter().map(|platform| format!("--platform={platform}"))))
    }

    fn plain_reference(&self, tree: &Utf8Path, variant: &Variant) -> Result<String> {
        let dockerfile = &self.lab.ctx.config.variants.dockerfile;
        let version = self.lab.pinned(tree, dockerfile, "OPENCODE_VERSION")?;
        Ok(self.repository.tag(&format!("{}-{version}", variant.name)))
    }

    fn plain_args(&self, tree: &Utf8Path, variant: Option<&Variant>) -> Result<BTreeMap<String, String>> {
        let config = &self.lab.ctx.config;
        let base = self.lab.ctx.read(&config.base.dockerfile)?;
        let packages = bench::packages(&base).context("the base's Dockerfile has no list of packages")?;
        let mut args = BTreeMap::from([
            ("DEBIAN_IMAGE".to_owned(), self.lab.debian.clone()),
            ("PACKAGES".to_owned(), packages),
        ]);
        for (name, version) in self.lab.ctx.versions()? {
            args.insert(config.component(&name)?.arg(), version);
        }
        let version = self.lab.pinned(tree, &config.variants.dockerfile, "OPENCODE_VERSION")?;
        args.insert("OPENCODE_VERSION".to_owned(), version);
        for (component, switch) in dockerfile::switches(&self.lab.ctx.read(RECIPE)?) {
            args.insert(switch, variant.is_some_and(|variant| variant.has(&component)).to_string());
        }
        args.extend(sources::build_args(self.lab.ctx));
        Ok(args)
    }

    pub fn plain_build(&self, target: &str, tree: &Utf8Path, variant: Option<&Variant>) -> Result<Cmd> {
        let progress = self.lab.ctx.runner.build_progress();
        let name = variant.map_or(target, |variant| &variant.name);
        let mut cmd = cmd!("docker buildx build {progress}");
        cmd = cmd.shown(format!("{}: {name}", self.way), self.lab.form(&[]), None);
        cmd = cmd.args([format!("--file={tree}/{RECIPE}"), format!("--target={target}")]);
        cmd = cmd.arg(format!("--platform={}", self.lab.platforms().join(",")));
        for (name, value) in self.plain_args(tree, variant)? {
            cmd = cmd.arg(format!("--build-arg={name}={value}"));
        }
        let secrets = Secrets::new(self.lab.ctx);
        cmd = cmd.args(secrets.specs.iter().map(|spec| format!("--secret={spec}")));
        Ok(self.engine.on(secrets.give(cmd.arg(tree.as_str()))))
    }

    fn plain_bake(&self, tree: &Utf8Path) -> Result<Cmd> {
        let secrets = Secrets::new(self.lab.ctx);
        let mut targets = serde_json::Map::new();
        for variant in self.variants {
            let mut args = self.plain_args(tree, Some(variant))?;
            args.insert("UPON".to_owned(), self.repository.tag("base"));
            let tag = self.plain_reference(tree, variant)?;
            let mut target = bench::plain_target(tree.as_str(), &args, &tag, &secrets.specs);
            target["platforms"] = json!(self.lab.platforms());
            targets.insert(variant.name.clone(), target);
        }
        let names: Vec<String> = targets.keys().cloned().collect();
        let definition = json!({ "group": { "default": { "targets": names } }, "target": targets });
        let cmd = docker::bake(&definition, None, self.lab.ctx.runner.build_progress());
        let cmd = cmd.shown(format!("{}: variants", self.way), self.lab.form(&names), None);
        Ok(self.engine.on(secrets.give(cmd)))
    }
}
