//! Addresses of package registries. The environment and the tools' own settings name them, so that this project follows
//! what a machine is set up with and names no registry itself.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::model::source::Source;
use crate::tools::command::cmd;

/// The Python package index (PEP 503): the configured one, or pip's own default.
pub fn pypi_index(ctx: &Context) -> Result<Source> {
    if let Some(known) = configured_pypi(ctx) {
        return Ok(known);
    }
    if let Some(known) = ctx.pypi_index.get() {
        return Ok(known.clone());
    }
    let help = ctx.runner.probe(&cmd!("python3 -m pip install --help"));
    let index = help.as_deref().and_then(default_index).context(
        "pip does not name its package index: set PIP_INDEX_URL, or run `cargo xtask doctor --install`",
    )?;
    Ok(ctx.pypi_index.get_or_init(|| index).clone())
}

/// The npm registry that this machine is set up with, by the environment or the user's `.npmrc`.
pub fn configured_npm(ctx: &Context) -> Option<Source> {
    let settings = &ctx.settings;
    settings.npm_registry.clone().or_else(|| settings.npmrc.as_deref().and_then(npmrc_registry))
}

/// The Python index that this machine is set up with, by the environment or pip's own settings. pip itself is not needed.
pub fn configured_pypi(ctx: &Context) -> Option<Source> {
    let settings = &ctx.settings;
    settings.pypi_index.clone().or_else(|| settings.pip_settings.iter().find_map(|text| pip_index(text)))
}

/// Build arguments for the package registries that this machine is set up with, so that a build takes its files from where
/// they were checked. They are in no key: the locks hold for every mirror. Accounts are not among them.
pub fn build_args(ctx: &Context) -> BTreeMap<String, String> {
    let (npm, pypi) = (configured_npm(ctx), configured_pypi(ctx));
    let sources = [("npm_config_registry", &npm), ("PIP_INDEX_URL", &pypi), ("UV_DEFAULT_INDEX", &pypi)];
    let args = sources.into_iter().filter_map(|(name, source)| Some((name, source.as_ref()?.url.clone())));
    args.map(|(name, url)| (name.to_owned(), url)).collect()
}

/// Debian's archive of a label, such as `Debian` or `Debian-Security`, in apt's own sources.
pub fn debian_archive(ctx: &Context, label: &str) -> Option<Source> {
    let targets = ctx.runner.probe(&cmd!(
        "apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' 'Label: '{label}"
    ))?;
    targets.lines().find_map(|line| line.strip_suffix(" main")).map(Source::from)
}

/// The line `registry=` of npm's settings; one that needs a variable is left to npm.
fn npmrc_registry(text: &str) -> Option<Source> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "registry").then(|| value.trim().trim_matches('"'))
    });
    value.filter(|value| !value.contains("${")).map(Source::from)
}

/// `index-url` of pip's settings: for `install` or `global`, in either spelling.
fn pip_index(text: &str) -> Option<Source> {
    let mut section = "";
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        }
        let Some((name, value)) =
            line.split_once(['=', ':']).map(|(name, value)| (name.trim(), value.trim()))
        else {
            continue;
        };
        let is_index = matches!(name, "index-url" | "index_url") && !value.is_empty();
        if is_index && (section == "install" || section == "global" && found.is_none()) {
            found = Some(Source::from(value));
        }
    }
    found
}

/// The default that pip's help gives for `--index-url`.
fn default_index(help: &str) -> Option<Source> {
    let (_, rest) = help.split_once("--index-url")?;
    let (_, rest) = rest.split_once("(default")?;
    let (address, _) = rest.split_once(')')?;
    Some(Source::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_index_is_read_from_pips_help() {
        let help = "  -i, --index-url <url>       Base URL of the Python Package Index\n          (default\n  \
                    https://index.example/simple). This should\n  --extra-index-url <url> (default none)";
        assert_eq!(default_index(help), Some(Source::from("https://index.example/simple")));
        assert_eq!(default_index("usage"), None);
    }

    #[test]
    fn the_index_of_pips_settings_is_read() {
        let text = "[global]\ncert = /ca\nindex-url = http://h/simple/\n[list]\nindex-url = http://no\n";
        assert_eq!(pip_index(text), Some(Source::from("http://h/simple")));
        let install = format!("{text}[install]\nindex_url: http://user:pw@h/other\n");
        assert_eq!(pip_index(&install), Some(Source::from("http://user:pw@h/other")));
        assert_eq!(pip_index("[global]\n# index-url = http://h\nindex-url =\n"), None);
    }

    #[test]
    fn the_registry_of_the_users_settings_is_read() {
        let text = "fund=false\n@s:registry=http://other\n registry = \"http://h/npm/\"\n";
        assert_eq!(npmrc_registry(text), Some(Source::from("http://h/npm")));
        assert_eq!(npmrc_registry("registry=${MIRROR}\n"), None);
        assert_eq!(npmrc_registry("@s:registry=http://other\n"), None);
    }
}
