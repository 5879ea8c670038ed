//! Changes the pinned opencode version: the ARG, the changelog and the generated page, all or none of them.

use anyhow::{Context, Result, bail};
use similar::TextDiff;
use std::fs;

use crate::ctx::Ctx;
use crate::model::dockerfile;
use crate::model::version::Version;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The new version, such as 1.14.44
    pub version: Version,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    let old = ctx.opencode_version()?;
    let new = args.version;
    if old == new {
        ctx.say(format!("opencode is at {new} already"));
        return Ok(());
    }
    let (dockerfile, page) = (&ctx.config.variants.dockerfile, "DOCKER_HUB.md");
    // Everything is computed before anything is written.
    let mut edits = Vec::new();
    for path in [dockerfile.as_str(), "CHANGELOG.md", page] {
        let before = ctx.read(path)?;
        let after = match path {
            "CHANGELOG.md" => changelog(&before, old, new)?,
            path if path == page => before.replace(&format!("opencode {old}"), &format!("opencode {new}")),
            _ => dockerfile::with_arg_default(&before, "OPENCODE_VERSION", &new.to_string())
                .context(path.to_owned())?,
        };
        edits.push((path, before, after));
    }
    for (path, before, after) in &edits {
        print!("{}", TextDiff::from_lines(before, after).unified_diff().header(path, path));
    }
    if ctx.runner.dry_run {
        return Ok(());
    }
    let mut ready = Vec::new();
    for (path, _, after) in &edits {
        let file = tempfile::NamedTempFile::new_in(&ctx.root)?;
        fs::write(file.path(), after).with_context(|| format!("cannot write {path}"))?;
        fs::set_permissions(file.path(), fs::metadata(ctx.root.join(path))?.permissions())?;
        ready.push((path, file));
    }
    for (path, file) in ready {
        file.persist(ctx.root.join(path)).with_context(|| format!("cannot replace {path}"))?;
    }
    Ok(())
}

/// Adds the bump to the Unreleased section, in place of an earlier bump that was not released.
fn changelog(text: &str, old: Version, new: Version) -> Result<String> {
    const HEADING: &str = "## Unreleased\n";
    let Some((head, rest)) = text.split_once(HEADING) else {
        bail!("CHANGELOG.md has no `## Unreleased` section")
    };
    let (section, later) = match rest.find("\n## ") {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let mut from = old.to_string();
    let mut kept = Vec::new();
    for line in section.lines() {
        match line.strip_prefix("- opencode ").and_then(|bump| bump.split_once(" → ")) {
            Some((first, _)) => from = first.to_owned(),
            None => kept.push(line),
        }
    }
    let bump =
        if from == new.to_string() { String::new() } else { format!("- opencode {from} → {new}.\n") };
    let kept = kept.join("\n");
    let kept = kept.trim();
    let kept = if kept.is_empty() { String::new() } else { format!("{kept}\n") };
    Ok(format!("{head}{HEADING}\n{bump}{kept}{later}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bump_replaces_an_unreleased_bump_and_a_bump_back_leaves_none() {
        let text = "# Changelog\n\n## Unreleased\n\n- Added a thing.\n\n## v1.18.18\n\n- first\n";
        let once = changelog(text, Version(1, 18, 18), Version(1, 18, 19)).expect("edit");
        assert!(once.contains("- opencode 1.18.18 → 1.18.19.\n- Added a thing.\n\n## v1.18.18"), "{once}");
        let twice = changelog(&once, Version(1, 18, 19), Version(1, 18, 20)).expect("edit");
        assert!(twice.contains("1.18.18 → 1.18.20.") && !twice.contains("1.18.19"), "{twice}");
        assert_eq!(changelog(&twice, Version(1, 18, 20), Version(1, 18, 18)).expect("edit"), text);
    }
}
