//! Refuses images with packages that may not be redistributed, before they are built: what the locks name, with the licences
//! that locks and `images/licences` have for them. Debian's packages are those of its archive's section main, which may.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::image::tree::Tree;
use crate::model::component::Source;
use crate::model::licence::{FACTS, Fact, Licensed, POLICY, Policy, facts};
use crate::model::npm_lock::Lock;
use crate::model::platform::Platform;
use crate::model::python_lock;

/// The policy of the tree.
pub fn policy(tree: &Tree) -> Result<Policy> {
    Policy::parse(tree.text(POLICY)?)
}

/// What is known of the packages of a Python lock, and of what is inside of them.
pub fn known(tree: &Tree, lock: &str) -> Result<Vec<Fact>> {
    let name = lock.rsplit('/').next().unwrap_or_default();
    Ok(facts(tree.text(&format!("{FACTS}/{name}.tsv"))?))
}

/// Refuses a tree whose images would have a package with another licence than the policy allows.
pub fn check(ctx: &Context, tree: &Tree) -> Result<()> {
    let policy = policy(tree)?;
    let mut packages = Vec::new();
    for platform in &ctx.config.platforms {
        packages.extend(licensed(ctx, tree, *platform)?);
    }
    packages.sort();
    packages.dedup();
    let problems: Vec<String> = packages.iter().filter_map(|package| policy.problem(package)).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => bail!("{}", problems.join("\n  ")),
    }
}

/// Everything that the tree's images have on a platform beside Debian's packages.
fn licensed(ctx: &Context, tree: &Tree, platform: Platform) -> Result<Vec<Licensed>> {
    let (mut found, mut done) = (Vec::new(), BTreeSet::new());
    for component in &ctx.config.component {
        let mut add = |name: String, version: &str, says: Option<String>| {
            let (version, component) = (version.to_owned(), component.name.clone());
            found.push(Licensed { name, version, says, component });
        };
        match &component.source {
            Source::Npm(_) => {
                let path = format!("{}/package-lock.json", component.npm_folder());
                let lock = Lock::parse(tree.text(&path)?).context(path)?;
                for package in lock.packages(platform) {
                    add(format!("npm:{}", package.name), &package.version, package.licence);
                }
            }
            Source::Pypi(_) if !done.insert(component.python_lock()) => {}
            Source::Pypi(_) => {
                let lock = component.python_lock();
                let known = known(tree, &lock)?;
                for pin in python_lock::parse(tree.text(&format!("{lock}.txt"))?)? {
                    if pin.applies(platform)? {
                        let is_it = |it: &&Fact| {
                            it.ecosystem == "pypi" && it.name == pin.name && it.version == pin.version
                        };
                        let fact = known.iter().find(is_it).with_context(|| {
                            format!(
                                "{FACTS} does not have {} {}: run `cargo xtask lock`",
                                pin.name, pin.version
                            )
                        })?;
                        add(format!("pypi:{}", fact.name), &fact.version, fact.licence.clone());
                    }
                }
                for fact in known.into_iter().filter(|it| it.ecosystem != "pypi") {
                    add(format!("{}:{}", fact.ecosystem, fact.name), &fact.version, fact.licence);
                }
            }
            Source::Gitea(_) => add(format!("generic:{}", component.name), "", None),
        }
    }
    let parts = ctx.config.base_optional.iter().filter(|part| ctx.config.component(&part.name).is_err());
    found.extend(parts.map(|part| Licensed {
        name: format!("generic:{}", part.name),
        version: String::new(),
        says: None,
        component: part.name.clone(),
    }));
    Ok(found)
}
