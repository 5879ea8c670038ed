//! Addresses of package registries. The environment names them, as it does for npm and pip; otherwise the tools are asked
//! for their own defaults, so that this project follows what a machine is set up with and names no registry itself.

use anyhow::{Context, Result};

use crate::ctx::Ctx;
use crate::locks;
use crate::model::command::Cmd;

/// The npm registry, without a slash at its end.
pub fn npm_registry(ctx: &Ctx) -> Result<String> {
    if let Some(known) = ctx.settings.npm_registry.clone().or_else(|| ctx.npm_registry.get().cloned()) {
        return Ok(known);
    }
    let text = ctx.runner.read(&locks::toolbox(ctx)?.npm(["config", "get", "registry"]))?;
    Ok(ctx.npm_registry.get_or_init(|| trimmed(&text)).clone())
}

/// The Python package index (PEP 503), without a slash at its end.
pub fn pypi_index(ctx: &Ctx) -> Result<String> {
    if let Some(known) = ctx.settings.pypi_index.clone().or_else(|| ctx.pypi_index.get().cloned()) {
        return Ok(known);
    }
    let configured =
        ctx.runner.probe(&Cmd::new("python3", ["-m", "pip", "config", "get", "global.index-url"]));
    let index = match configured {
        Some(text) => trimmed(&text),
        None => {
            let help = ctx.runner.probe(&Cmd::new("python3", ["-m", "pip", "install", "--help"]));
            help.as_deref().and_then(default_index).context(
                "pip does not say which package index it uses: set PIP_INDEX_URL, or run `cargo xtask doctor --install`",
            )?
        }
    };
    Ok(ctx.pypi_index.get_or_init(|| index).clone())
}

/// Debian's archive of a label, such as `Debian` or `Debian-Security`, in apt's own sources, without a slash at its end.
pub fn debian_archive(ctx: &Ctx, label: &str) -> Option<String> {
    let format = ["indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages"];
    let targets = ctx.runner.probe(&Cmd::new("apt-get", format).arg(format!("Label: {label}")))?;
    targets.lines().find_map(|line| line.strip_suffix(" main")).map(trimmed)
}

/// The default that pip's help gives for `--index-url`.
fn default_index(help: &str) -> Option<String> {
    let (_, rest) = help.split_once("--index-url")?;
    let (_, rest) = rest.split_once("(default")?;
    let (address, _) = rest.split_once(')')?;
    Some(trimmed(address))
}

fn trimmed(address: &str) -> String {
    address.trim().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_index_is_read_from_pips_help() {
        let help = "  -i, --index-url <url>       Base URL of the Python Package Index\n          (default\n  \
                    https://index.example/simple). This should\n  --extra-index-url <url> (default none)";
        assert_eq!(default_index(help).as_deref(), Some("https://index.example/simple"));
        assert_eq!(default_index("usage"), None);
    }
}
