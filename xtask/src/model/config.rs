//! `images/devbox.toml`, the one definition of the family. Refuses unknown words, two variants with one name or suffix,
//! a variant without opencode, and a short description that Docker Hub would cut.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::component::Component;
use super::platform::Platform;
use super::reference::Repository;
use super::version::ReleaseTag;

/// Docker Hub's limits on descriptions, in bytes.
pub const HUB_DESCRIPTION_BYTES: usize = 25_000;
pub const HUB_SHORT_DESCRIPTION_BYTES: usize = 100;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    repository: String,
    pub platforms: Vec<Platform>,
    /// Address of the project, for the OCI label `org.opencontainers.image.source`.
    pub source: String,
    pub short_description: String,
    pub ci: Ci,
    #[serde(default)]
    pub build: Build,
    #[serde(default)]
    pub layers: Layers,
    pub base: Image,
    /// The base's layers in their order.
    pub base_layers: Vec<BaseLayer>,
    /// Parts of the base that come from hosts of their own.
    #[serde(default)]
    pub base_optional: Vec<Optional>,
    pub variants: Image,
    pub variant: Vec<Variant>,
    /// Suffixes of variants that are gone: their floating tags stay where they are.
    #[serde(default)]
    pub retired: Vec<String>,
    pub component: Vec<Component>,
}

/// Where and when the workflows run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ci {
    /// Label of the runner.
    pub runner: String,
    /// Labels of runners of other architectures, by the platform that they run without emulation.
    #[serde(default)]
    pub native: BTreeMap<Platform, String>,
    /// When new versions are looked for, as a line of cron.
    pub refresh: String,
}

/// Who builds, and with what help.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// The builder of buildx, if not the one that the user has chosen.
    pub builder: Option<String>,
    pub emulation: Emulation,
    pub cache: Cache,
}

/// When programs of a platform that no machine at hand has may be emulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emulation {
    Never,
    /// Where the registry is on this machine: a rehearsal has no other machines.
    #[default]
    Local,
    Always,
}

/// When BuildKit's cache is kept in the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    #[default]
    Never,
    /// Where the registry is not on this machine, whose engine keeps a cache of its own.
    Remote,
    Always,
}

/// How layers are compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    #[serde(default)]
    pub compression: Compression,
    /// BuildKit's own choice where there is none.
    pub level: Option<u8>,
}

/// The compressions of OCI layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Zstd,
    Gzip,
}

impl Compression {
    /// What BuildKit calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

impl Layers {
    /// The words of BuildKit's exporter.
    pub fn exporter(&self) -> String {
        let kind = self.compression.name();
        let level = self.level.map_or_else(String::new, |level| format!(",compression-level={level}"));
        format!("compression={kind}{level}")
    }

    /// What the keys record: nothing of the default, so that a tree which does not ask keeps the keys it had.
    pub fn record(&self) -> Option<(String, String)> {
        (*self != Self::default()).then(|| (COMPRESSION.to_owned(), self.exporter()))
    }
}

/// The name under which keys record how layers are compressed.
pub const COMPRESSION: &str = "layers";

/// What one kind of image is built from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub dockerfile: String,
    pub inputs: Vec<String>,
}

/// A layer of the base, and the most that it may have: compressed bytes of one platform, in units of 10^6.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseLayer {
    pub name: String,
    /// Components whose files are in it, and groups of Debian's packages as `debian:<group>`, and the list of packages.
    #[serde(default)]
    pub holds: Vec<String>,
    pub budget_mb: u64,
}

/// A part of the base that comes from a host of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optional {
    pub name: String,
    /// The image contains it.
    pub include: bool,
    /// Address of its file, or of one beside it; `{NAME}` is replaced by that `ARG`'s default in the Dockerfile.
    pub probe: String,
    /// Its checksum, in the same way, where the part is no component with a lock of its own.
    pub sha256: Option<String>,
}

impl Optional {
    /// The build argument that puts it in: `INSTALL_GITEA_MCP` for gitea-mcp.
    pub fn arg(&self) -> String {
        format!("INSTALL_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// A text with the defaults that `arg_default` knows in place of their names; `None` if it does not know one.
    pub fn filled<'a>(text: &str, arg_default: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        let mut parts = text.split('{');
        let mut url = parts.next()?.to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}')?;
            url.push_str(arg_default(name)?);
            url.push_str(rest);
        }
        Some(url)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub name: String,
    /// Empty, or `-name`: what follows the version and `latest` in a tag.
    pub suffix: String,
    pub components: Vec<String>,
    /// Compressed bytes of one platform, in units of 10^6.
    pub budget_mb: u64,
}

impl Variant {
    pub fn version_tag(&self, release: ReleaseTag) -> String {
        format!("{release}{}", self.suffix)
    }

    pub fn latest_tag(&self) -> String {
        format!("latest{}", self.suffix)
    }

    pub fn has(&self, component: &str) -> bool {
        self.components.iter().any(|name| name == component)
    }
}

impl Config {
    /// Parses and checks the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).context("images/devbox.toml")?;
        config.repository()?;
        for (index, variant) in config.variant.iter().enumerate() {
            let twin =
                config.variant[..index].iter().find(|v| v.name == variant.name || v.suffix == variant.suffix);
            if let Some(twin) = twin {
                bail!(
                    "images/devbox.toml: variants {} and {} share a name or suffix",
                    twin.name,
                    variant.name
                );
            }
            if !variant.has("opencode") {
                bail!(
                    "images/devbox.toml: variant {} has no opencode, which every variant ships",
                    variant.name
                );
            }
        }
        config.refuse_shared_paths()?;
        if config.short_description.len() > HUB_SHORT_DESCRIPTION_BYTES {
            bail!(
                "images/devbox.toml: short_description has {} bytes, at most 100 fit",
                config.short_description.len()
            );
        }
        Ok(config)
    }

    /// Components of variants have paths of their own: a verdict on the layer of one holds beside every other.
    fn refuse_shared_paths(&self) -> Result<()> {
        let owned: Vec<(&str, String)> = self
            .component
            .iter()
            .flat_map(|it| {
                it.paths.iter().map(|path| (it.name.as_str(), format!("{}/", path.trim_end_matches('/'))))
            })
            .collect();
        for (at, (one, path)) in owned.iter().enumerate() {
            let twin =
                owned[..at].iter().find(|(_, other)| path.starts_with(other) || other.starts_with(path));
            if let Some((other, _)) = twin {
                bail!("images/devbox.toml: {one} and {other} share the path {}", path.trim_end_matches('/'));
            }
        }
        let in_variants = self.variant.iter().flat_map(|it| &it.components);
        for name in in_variants {
            if self.component(name)?.paths.is_empty() {
                bail!(
                    "images/devbox.toml: {name} has a layer and no paths: name the files that its layer may hold"
                );
            }
        }
        Ok(())
    }

    /// True for the floating tag of a variant that is gone.
    pub fn is_retired(&self, tag: &str) -> bool {
        self.retired.iter().any(|suffix| tag == format!("latest{suffix}"))
    }

    /// Where the family is published.
    pub fn repository(&self) -> Result<Repository> {
        self.repository.parse().map_err(|why| anyhow::anyhow!("images/devbox.toml: repository: {why}"))
    }

    /// The component of that name, or an error that lists the valid names.
    pub fn component(&self, name: &str) -> Result<&Component> {
        self.component.iter().find(|component| component.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.component.iter().map(|c| c.name.as_str()).collect();
            anyhow::anyhow!("no component {name:?}; choose from: {}", names.join(", "))
        })
    }

    /// The variant of that name, or an error that lists the valid names.
    pub fn variant(&self, name: &str) -> Result<&Variant> {
        self.variant.iter().find(|variant| variant.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.variant.iter().map(|v| v.name.as_str()).collect();
            anyhow::anyhow!("no variant {name:?}; choose from: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_compression_than_the_default_is_recorded() {
        let layers = |text| toml::from_str::<Layers>(text).expect("layers");
        assert_eq!((layers("").exporter().as_str(), layers("").record()), ("compression=zstd", None));
        assert_eq!(layers("compression = \"zstd\"").record(), None);
        let gzip = layers("compression = \"gzip\"\nlevel = 6").record();
        assert_eq!(gzip, Some((COMPRESSION.to_owned(), "compression=gzip,compression-level=6".to_owned())));
        assert!(toml::from_str::<Layers>("compression = \"lzma\"").is_err());
    }

    const TEXT: &str = include_str!("../../../images/devbox.toml");

    #[track_caller]
    fn refused(from: &str, to: &str, why: &str) {
        assert!(TEXT.contains(from), "{from}");
        let error = Config::parse(&TEXT.replacen(from, to, 1)).expect_err("a mistake");
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }

    #[test]
    fn mistakes_in_the_definition_are_named() {
        refused("name = \"omos\"\nsuffix", "name = \"base\"\nsuffix", "variants base and base share a name");
        refused("suffix = \"-omos\"", "suffix = \"\"", "variants base and omos share a name or suffix");
        refused("components = [\"opencode\"]", "components = []", "variant base has no opencode");
        refused(
            "paths = [\"/opt/pi\", ",
            "paths = [\"/opt/omos/x\", ",
            "pi and omos share the path /opt/omos/x",
        );
        refused("paths = [\"/opt/pi\", \"/usr/local/bin/pi\"]\n", "", "pi has a layer and no paths");
        let config = Config::parse(TEXT).expect("a definition");
        let long = |bytes: usize| format!("short_description = \"{}\"", "x".repeat(bytes));
        let line = format!("short_description = \"{}\"", config.short_description);
        assert!(Config::parse(&TEXT.replace(&line, &long(HUB_SHORT_DESCRIPTION_BYTES))).is_ok());
        refused(&line, &long(HUB_SHORT_DESCRIPTION_BYTES + 1), "has 101 bytes");
    }

    #[test]
    fn variants_are_found_by_name_and_tagged_by_suffix() {
        let config = Config::parse(TEXT).expect("a definition");
        let omos = config.variant("omos").expect("a variant");
        let release = "v1.18.18b".parse().expect("a release");
        assert_eq!(
            (omos.name.as_str(), omos.version_tag(release).as_str(), omos.latest_tag().as_str()),
            ("omos", "v1.18.18b-omos", "latest-omos")
        );
        assert!(omos.has("bun") && !omos.has("pi"));
        assert_eq!(config.component("bun").expect("a component").name, "bun");
        for error in [config.variant("x").err(), config.component("x").err()] {
            assert!(error.is_some_and(|error| error.to_string().contains("choose from: ")));
        }
    }

    #[test]
    fn an_optional_part_is_asked_for_where_the_dockerfile_says() {
        let text = "name = \"gitea-mcp\"\ninclude = true\nprobe = \"{URL}/v{V}/sums.txt\"";
        let part: Optional = toml::from_str(text).expect("a part");
        assert_eq!(part.arg(), "INSTALL_GITEA_MCP");
        assert!(toml::from_str::<Optional>("name = \"x\"\nprobe = \"\"").is_err(), "the tree decides");
        let default = |name: &str| match name {
            "URL" => Some("https://x.example"),
            "V" => Some("1.2"),
            _ => None,
        };
        let url = Optional::filled(&part.probe, default);
        assert_eq!(url.as_deref(), Some("https://x.example/v1.2/sums.txt"));
        assert_eq!(Optional::filled(&part.probe, |_| None), None);
    }
}
