//! What the pinned versions name: the `[[component]]` stanzas of `images/devbox.toml`. Refuses nothing itself:
//! [`super::config`] checks what it reads.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::platform::Platform;

/// Something whose version a person pins as `ARG <NAME>_VERSION=`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub name: String,
    pub source: Source,
    /// The npm package that holds the program of a platform; empty for a package with dependencies.
    #[serde(default)]
    pub binaries: BTreeMap<Platform, String>,
    /// Optional dependencies that are kept out of the lock.
    #[serde(default)]
    pub leave_out: Vec<String>,
    /// Locked Python packages that the Dockerfile takes out again.
    #[serde(default)]
    pub uninstalls: Vec<String>,
    /// The most that the component's layer may have, compressed, in units of 10^6 bytes; for those with a layer of their
    /// own in a variant.
    pub budget_mb: Option<u64>,
    /// A line of shell that prints the version inside the image.
    pub version_command: Option<String>,
    /// The check of its server expects the version as well, so the version command runs natively only.
    #[serde(default)]
    pub version_in_health: bool,
    /// What the component's layer may hold, for those with a layer of their own in a variant.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Name of the Python lock file, where it is not the component's own.
    lock: Option<String>,
    /// Address of the release notes, with `{version}` for the version.
    notes: String,
}

/// Where versions are published.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A package of the npm registry.
    Npm(String),
    /// A project of the Python package index.
    Pypi(String),
    /// A repository whose releases a Gitea server holds, as `owner/name`.
    Gitea(String),
}

impl Component {
    /// The name of the Dockerfile argument that pins the version.
    pub fn arg(&self) -> String {
        format!("{}_VERSION", self.name.to_uppercase().replace('-', "_"))
    }

    /// Where a person reads what a version brings.
    pub fn notes(&self, version: &str) -> String {
        self.notes.replace("{version}", version)
    }

    /// The folder of an npm component's lock, below the repository's root.
    pub fn npm_folder(&self) -> String {
        format!("images/locks/{}", self.name)
    }

    /// The checksums of a component that comes as release files, below the repository's root.
    pub fn checksums(&self) -> String {
        format!("images/locks/{}/checksums.txt", self.name)
    }

    /// The Python lock file of the component without its extension, below the repository's root.
    pub fn python_lock(&self) -> String {
        format!("images/locks/python/{}", self.lock.as_ref().unwrap_or(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(toml: &str) -> Component {
        toml::from_str(&format!("name = \"gitea-mcp\"\nnotes = \"https://x/v{{version}}\"\n{toml}"))
            .expect("a component")
    }

    #[test]
    fn names_and_places_follow_from_the_name() {
        let it = component("source.pypi = \"x\"");
        assert_eq!(
            (it.arg().as_str(), it.notes("1.2.3").as_str()),
            ("GITEA_MCP_VERSION", "https://x/v1.2.3")
        );
        assert_eq!(it.npm_folder(), "images/locks/gitea-mcp");
        assert_eq!(it.checksums(), "images/locks/gitea-mcp/checksums.txt");
        assert_eq!(it.python_lock(), "images/locks/python/gitea-mcp");
        assert_eq!(
            component("source.pypi = \"x\"\nlock = \"tools\"").python_lock(),
            "images/locks/python/tools"
        );
    }
}
