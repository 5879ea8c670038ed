//! Checks the tree without building it: definition, generated files, changelog, locks, scripts, Dockerfiles.

use anyhow::{Result, bail};

use crate::ctx::Ctx;
use crate::model::command::Cmd;
use crate::phase::{changelog, docs, lock};
use crate::tools::docker;

pub fn run(ctx: &Ctx) -> Result<()> {
    docker::require_engine(&ctx.runner)?;
    let listed = ctx
        .runner
        .read(&Cmd::new("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let is_script = |path: &&str| {
        let text = std::fs::read(ctx.root.join(path)).unwrap_or_default();
        // Files that shells read have no first line that names one.
        let sourced = path.ends_with(".sh") || path.ends_with(".bash");
        sourced
            || text.starts_with(b"#!")
                && (text.starts_with(b"#!/usr/bin/env bash") || text.starts_with(b"#!/bin/"))
    };
    let scripts: Vec<&str> = listed.split('\0').filter(is_script).collect();
    let mut checks = vec![Cmd::new("shellcheck", scripts)];
    for image in [&ctx.config.base, &ctx.config.variants] {
        // The checks read the Dockerfile only, so nothing has to be pulled for them.
        let cmd = Cmd::new("docker", ["buildx", "build", "--check", "--file", &image.dockerfile]);
        checks.push(cmd.args(["--build-arg=DEBIAN_IMAGE=scratch", "--build-arg=BASE_IMAGE=scratch", "."]));
    }
    // All problems at once, rather than one a run.
    let mut problems: Vec<String> =
        checks.iter().filter_map(|check| ctx.runner.run(check).err()).map(|e| format!("{e:#}")).collect();
    let generated = [
        docs::run(ctx, &docs::Args { check: true, sizes: None }),
        changelog::run(ctx, &changelog::Args { action: changelog::Action::Check }),
        lock::run(ctx, &lock::Args { check: true, ..lock::Args::default() }),
    ];
    problems.extend(generated.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")));
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}
