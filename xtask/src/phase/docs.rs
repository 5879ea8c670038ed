//! Writes DOCKER_HUB.md from its template and the definition, and the passages that other files get from the table of
//! environment variables; `--check` compares instead.

use anyhow::{Context, Result, bail};
use similar::TextDiff;
use std::fmt::Write as _;

use crate::ctx::Ctx;
use crate::model::config::HUB_DESCRIPTION_BYTES;
use crate::model::environment;

const TEMPLATE: &str = "docs/DOCKER_HUB.template.md";
const PAGE: &str = "DOCKER_HUB.md";

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Fail with a diff if a generated file is not up to date
    #[arg(long)]
    pub check: bool,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let mut pages = vec![(PAGE.to_owned(), render(ctx)?)];
    pages.extend(environment::pages(|path| ctx.read(path))?);
    let stale = |page: &(String, String)| there(ctx, &page.0) != page.1;
    let mut diffs = String::new();
    for (path, page) in pages.into_iter().filter(stale) {
        if args.check {
            let old = there(ctx, &path);
            let diff = TextDiff::from_lines(&old, &page);
            write!(diffs, "\n{}", diff.unified_diff().header(&path, "generated"))?;
        } else if ctx.runner.dry_run {
            println!("# write {path}");
        } else {
            std::fs::write(ctx.root.join(&path), page).with_context(|| format!("cannot write {path}"))?;
        }
    }
    if !diffs.is_empty() {
        bail!("generated files are out of date: run `cargo xtask docs`{diffs}");
    }
    Ok(())
}

fn there(ctx: &Ctx, path: &str) -> String {
    std::fs::read_to_string(ctx.root.join(path)).unwrap_or_default()
}

fn render(ctx: &Ctx) -> Result<String> {
    let versions = ctx.versions()?;
    let mut table = String::from("| Tag | Contents |\n|---|---|\n");
    for variant in &ctx.config.variant {
        let mut contents = Vec::new();
        for component in &variant.components {
            let version = versions.iter().find(|(name, _)| name == component);
            let (_, version) = version.with_context(|| format!("no ARG pins the version of {component}"))?;
            contents.push(format!("{component} {version}"));
        }
        writeln!(table, "| `{}` | {} |", variant.latest_tag(), contents.join(", "))?;
    }
    let repository = ctx.config.repository()?;
    let page = ctx.read(TEMPLATE)?.replace("{{variants}}", table.trim_end());
    let page = page.replace("{{repository}}", repository.path()).replace("{{source}}", &ctx.config.source);
    if page.len() > HUB_DESCRIPTION_BYTES {
        bail!(
            "{PAGE} would have {} bytes, Docker Hub takes {HUB_DESCRIPTION_BYTES}: shorten {TEMPLATE}",
            page.len()
        );
    }
    Ok(page)
}
