//! The description on Docker Hub, from its template, the definition, the pinned versions and the sizes of the last
//! release. Refuses a placeholder without a value, and a page longer than Docker Hub takes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::config::{Config, HUB_DESCRIPTION_BYTES};
use super::environment::Environment;
use super::platform::Platform;
use super::table::{Kind, Table};

pub const TEMPLATE: &str = "docs/DOCKER_HUB.template.md";
pub const PAGE: &str = "DOCKER_HUB.md";

/// What the images of a release weigh, as `docs --sizes` records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The release that was weighed.
    pub release: String,
    /// Compressed bytes of all layers, by variant and platform.
    pub bytes: BTreeMap<String, BTreeMap<Platform, u64>>,
}

/// The page. `versions` are the pinned ones by component. A page that Docker Hub would truncate is refused.
pub fn render(
    config: &Config,
    template: &str,
    versions: &BTreeMap<String, String>,
    sizes: &Sizes,
    environment: &Environment,
) -> Result<String> {
    let mut page = template.replace("{{variants}}", &variants(config, versions, sizes)?);
    let passages = [
        ("run", environment.run_options()?),
        ("environment", environment.variables_markdown()),
        ("volumes", environment.volumes_markdown()),
        ("repository", config.repository()?.path().to_owned()),
        ("source", config.source.clone()),
        ("opencode", versions.get("opencode").cloned().unwrap_or_default()),
    ];
    for (name, text) in passages {
        page = page.replace(&format!("{{{{{name}}}}}"), &text);
    }
    if let Some((_, rest)) = page.split_once("{{") {
        bail!("{TEMPLATE}: no value is known for {{{{{}", rest.split('\n').next().unwrap_or_default());
    }
    if page.len() > HUB_DESCRIPTION_BYTES {
        bail!(
            "{PAGE} would have {} bytes, Docker Hub takes {HUB_DESCRIPTION_BYTES}: shorten {TEMPLATE}",
            page.len()
        );
    }
    Ok(page)
}

/// The table of the variants' tags.
fn variants(config: &Config, versions: &BTreeMap<String, String>, sizes: &Sizes) -> Result<String> {
    let weighed = !sizes.bytes.is_empty();
    let platforms: Vec<Platform> = config.platforms.iter().copied().filter(|_| weighed).collect();
    let columns = [("Tag", Kind::Code), ("Contents", Kind::Text)].into_iter();
    let mut table =
        Table::new(columns.chain(platforms.iter().map(|platform| (platform.arch(), Kind::Number))));
    for variant in &config.variant {
        let mut contents = Vec::new();
        for component in &variant.components {
            let version = versions.get(component);
            let version = version.with_context(|| format!("no ARG pins the version of {component}"))?;
            contents.push(format!("{component} {version}"));
        }
        let bytes = |platform| sizes.bytes.get(&variant.name).and_then(|sizes| sizes.get(platform));
        let megabytes = |bytes: &u64| format!("{} MB", (bytes + 500_000) / 1_000_000);
        let weights = platforms.iter().map(|platform| bytes(platform).map(megabytes).unwrap_or_default());
        table.add([variant.latest_tag(), contents.join(", ")].into_iter().chain(weights));
    }
    let mut table = table.markdown().trim_end().to_owned();
    if weighed {
        table += &format!("\n\nDownload sizes are those of {}.", sizes.release);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(template: &str, sizes: &Sizes) -> Result<String> {
        let config = Config::parse(include_str!("../../../images/devbox.toml")).expect("a definition");
        let versions = ["opencode", "bun", "omos", "pi"].map(|name| (name.to_owned(), "1.2.3".to_owned()));
        let environment = include_str!("../../../rootfs/usr/share/devbox/environment.toml");
        let environment = Environment::parse(environment).expect("a table");
        render(&config, template, &versions.into(), sizes, &environment)
    }

    #[test]
    fn a_page_lists_the_variants_and_what_they_weigh() {
        let text = page("{{variants}}\n", &Sizes::default()).expect("a page");
        let head = "| Tag | Contents |\n|---|---|\n| `latest` | opencode 1.2.3 |\n| `latest-omos` | opencode 1.2.3, ";
        assert!(text.starts_with(head), "{text}");
        assert!(!text.contains("Download sizes"), "{text}");
        let base = BTreeMap::from([(Platform::LinuxAmd64, 565_500_000)]);
        let sizes =
            Sizes { release: "v1.2.3".to_owned(), bytes: BTreeMap::from([("base".to_owned(), base)]) };
        let text = page("{{variants}}\n", &sizes).expect("a page");
        let head = "| Tag | Contents | amd64 | arm64 |\n|---|---|--:|--:|\n| `latest` | opencode 1.2.3 | 566 MB | |\n";
        assert!(text.starts_with(head), "{text}");
        assert!(text.ends_with("Download sizes are those of v1.2.3.\n"), "{text}");
    }

    #[test]
    fn a_page_may_have_as_many_bytes_as_docker_hub_takes() {
        let of = |bytes| page(&"x".repeat(bytes), &Sizes::default());
        assert!(of(HUB_DESCRIPTION_BYTES).is_ok());
        assert!(of(HUB_DESCRIPTION_BYTES + 1).is_err_and(|error| error.to_string().contains("shorten")));
        assert!(page("{{nobody}}", &Sizes::default()).is_err());
    }
}
