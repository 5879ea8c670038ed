//! The table of environment variables and volumes, and the passages that README, `.env.example`, the compose files and
//! the dev container get from it. The image reads the same table when it starts. Refuses a page whose marked passages
//! are missing, doubled or out of order.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::table::{self, Table};

/// Where the table lies: in the image's own files.
pub const TABLE: &str = "rootfs/usr/share/devbox/environment.toml";

/// Files with generated passages. Each takes the passages that it has markers for.
pub const FILES: [&str; 5] = [
    "README.md",
    ".env.example",
    "compose.yaml",
    "examples/egress/compose.yaml",
    ".devcontainer/devcontainer.json",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    pub(super) variable: Vec<Variable>,
    pub(super) volume: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    group: String,
    pub(super) kind: Kind,
    default: Option<String>,
    help: String,
    /// The image's business: which provider of which agent a key belongs to.
    #[serde(rename = "provider")]
    _provider: Option<toml::Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Text,
    Switch,
    Id,
    Path,
    Secret,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) path: String,
    holds: String,
}

/// The files with their generated passages brought up to date: path and new text of each.
pub fn pages(read: impl Fn(&str) -> Result<String>) -> Result<Vec<(String, String)>> {
    let table = Environment::parse(&read(TABLE)?)?;
    let passages = table.passages()?;
    let mut pages = Vec::new();
    for file in FILES {
        let mut text = read(file)?;
        let mut found = false;
        for (name, passage) in &passages {
            if let Some(new) = splice(&text, name, passage).with_context(|| file.to_owned())? {
                text = new;
                found = true;
            }
        }
        if !found {
            bail!("{file} has no line with `generated: NAME`");
        }
        pages.push((file.to_owned(), text));
    }
    Ok(pages)
}

impl Environment {
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context(TABLE)
    }

    /// All passages by the name that their markers carry.
    fn passages(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("variables", self.variables_markdown()),
            ("volumes", self.volumes_markdown()),
            ("run", self.run_options()?),
            ("env", self.env_example()?),
            ("environment", self.compose_environment()?),
            ("secrets", self.compose_secrets()?),
            ("secret files", self.compose_secret_files()?),
            ("mounts", self.compose_mounts()?),
            ("volume names", self.compose_volumes()?),
            ("dev container mounts", self.devcontainer_mounts()?),
            ("dev container environment", self.devcontainer_environment()?),
        ])
    }

    pub(super) fn variables_markdown(&self) -> String {
        let mut table = Table::new(["Variable", "Default", "Meaning"].map(|name| (name, table::Kind::Text)));
        let mut group = "";
        for variable in &self.variable {
            if variable.group != group {
                group = &variable.group;
                table.add([format!("**{group}**"), String::new(), String::new()]);
            }
            let default = variable.default.as_ref().map_or_else(String::new, |value| format!("`{value}`"));
            let also = if variable.kind == Kind::Secret { ", `…_FILE`" } else { "" };
            table.add([format!("`{}`{also}", variable.name), default, variable.help.clone()]);
        }
        table.markdown()
    }

    pub(super) fn volumes_markdown(&self) -> String {
        let mut table = Table::new([
            ("Volume", table::Kind::Code),
            ("Mounted on", table::Kind::Code),
            ("Holds", table::Kind::Text),
        ]);
        for volume in &self.volume {
            table.add([&volume.name, &volume.path, &volume.holds].map(ToString::to_string));
        }
        table.markdown()
    }

    pub(super) fn run_options(&self) -> Result<String> {
        let mut text = String::from(
            "```sh\ndocker run --rm -it -e PUID=$(id -u) -e PGID=$(id -g) \\\n  -v \"$PWD:/workspace\" \\\n",
        );
        for volume in &self.volume {
            writeln!(text, "  -v {}:{} \\", volume.name, volume.path)?;
        }
        text.push_str("  joakimp/opencode-devbox:latest opencode\n```\n");
        Ok(text)
    }

    fn env_example(&self) -> Result<String> {
        let mut text = String::new();
        let mut group = "";
        for variable in &self.variable {
            if variable.group != group {
                group = &variable.group;
                writeln!(text, "\n# {group}")?;
            }
            writeln!(text, "# {}", variable.help)?;
            let default = variable.default.as_deref().unwrap_or_default();
            writeln!(text, "#{}={default}", variable.name)?;
            if variable.kind == Kind::Secret {
                writeln!(text, "#{}_FILE=", variable.name)?;
            }
        }
        Ok(text)
    }

    /// Names without a value: compose passes on what the shell or `.env` sets, and nothing else. The file of a secret has
    /// another path in the container than on the host.
    fn compose_environment(&self) -> Result<String> {
        let mut text = String::new();
        // The same is true of the agent's socket; the compose file says which.
        for variable in self.variable.iter().filter(|variable| variable.name != "SSH_AUTH_SOCK") {
            writeln!(text, "    - {}", variable.name)?;
            if variable.kind == Kind::Secret {
                let (name, file) = (&variable.name, variable.name.to_lowercase());
                writeln!(text, "    - {name}_FILE=${{{name}_FILE:+/run/secrets/{file}}}")?;
            }
        }
        Ok(text)
    }

    fn secrets(&self) -> impl Iterator<Item = &Variable> {
        self.variable.iter().filter(|variable| variable.kind == Kind::Secret)
    }

    fn compose_secrets(&self) -> Result<String> {
        let mut text = String::new();
        for variable in self.secrets() {
            writeln!(text, "    - {}", variable.name.to_lowercase())?;
        }
        Ok(text)
    }

    /// Compose wants a file for each secret, so one that is not given is an empty one.
    fn compose_secret_files(&self) -> Result<String> {
        let mut text = String::new();
        for variable in self.secrets() {
            let (name, file) = (&variable.name, variable.name.to_lowercase());
            writeln!(text, "  {file}:\n    file: ${{{name}_FILE:-/dev/null}}")?;
        }
        Ok(text)
    }

    fn compose_mounts(&self) -> Result<String> {
        let mut text = String::new();
        for volume in &self.volume {
            writeln!(text, "    - {}:{}", volume.name, volume.path)?;
        }
        Ok(text)
    }

    fn compose_volumes(&self) -> Result<String> {
        let mut text = String::new();
        for volume in &self.volume {
            writeln!(text, "  {}:", volume.name)?;
        }
        Ok(text)
    }

    fn devcontainer_mounts(&self) -> Result<String> {
        let line =
            |volume: &Volume| format!("    \"source={},target={},type=volume\"", volume.name, volume.path);
        let lines: Vec<String> = self.volume.iter().map(line).collect();
        Ok(format!("  \"mounts\": [\n{}\n  ],\n", lines.join(",\n")))
    }

    fn devcontainer_environment(&self) -> Result<String> {
        // A variable that is not set on the host arrives empty, which not every program takes for not set.
        let wanted = self.variable.iter().filter(|v| v.kind == Kind::Secret || v.name.starts_with("GIT_"));
        let line = |v: &Variable| format!("    \"{0}\": \"${{localEnv:{0}}}\"", v.name);
        let lines: Vec<String> = wanted.map(line).collect();
        Ok(format!("  \"remoteEnv\": {{\n{}\n  }},\n", lines.join(",\n")))
    }
}

/// The text with the lines between the markers `generated: NAME` and `end: NAME` replaced; `None` if it has no such
/// markers. A marker is a comment of whatever language the file is in.
pub fn splice(text: &str, name: &str, passage: &str) -> Result<Option<String>> {
    let (open, close) = (format!(" generated: {name} "), format!(" end: {name} "));
    // A comment may end at the name, so that each line is looked at with a space after it.
    let at = |marker: &str| -> Vec<usize> {
        let lines = text.lines().enumerate();
        lines.filter(|(_, line)| format!("{line} ").contains(marker)).map(|(index, _)| index).collect()
    };
    match (at(&open).as_slice(), at(&close).as_slice()) {
        ([], []) => Ok(None),
        ([from], [to]) if from < to => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (head, tail) = (lines[..=*from].concat(), lines[*to..].concat());
            Ok(Some(format!("{head}{passage}{tail}")))
        }
        _ => bail!("expected one line with `generated: {name}` and after it one with `end: {name}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(text: &str, name: &str, passage: &str) -> Option<String> {
        splice(text, name, passage).expect("one pair of markers, or none")
    }

    #[test]
    fn a_passage_is_replaced_between_its_markers() {
        let text = "a\n# generated: x\nold\n# end: x\nb\n";
        assert_eq!(spliced(text, "x", "new\n").as_deref(), Some("a\n# generated: x\nnew\n# end: x\nb\n"));
        assert_eq!(spliced(text, "y", "new\n"), None);
        assert!(splice("# generated: x\n", "x", "").is_err(), "no end");
        assert!(splice("# end: x\n# generated: x\n", "x", "").is_err(), "wrong order");
        let markdown = spliced("<!-- generated: x -->\n<!-- end: x -->\n", "x", "n\n");
        assert_eq!(markdown.as_deref(), Some("<!-- generated: x -->\nn\n<!-- end: x -->\n"));
        assert_eq!(spliced("# generated: xy\n# end: xy\n", "x", ""), None, "another name");
        assert!(splice("# generated: x end: x\n", "x", "").is_err(), "both on one line");
    }

    /// The pages of this tree are what the table makes of them, wherever their passages are emptied first.
    #[test]
    fn every_page_is_made_anew_from_the_table() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
        let read =
            |path: &str| std::fs::read_to_string(format!("{root}{path}")).context("a file of the tree");
        let table: Environment = toml::from_str(&read(TABLE).expect("a table")).expect("a table");
        let names: Vec<_> = table.passages().expect("passages").into_iter().map(|(name, _)| name).collect();
        let emptied = |path: &str| {
            let text = read(path)?;
            names.iter().try_fold(text, |text, name| Ok(splice(&text, name, "")?.unwrap_or(text)))
        };
        let pages = pages(|path| if path == TABLE { read(path) } else { emptied(path) }).expect("pages");
        assert_eq!(pages.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), FILES);
        for (path, text) in pages {
            assert!(
                text == read(&path).expect("a page"),
                "{path} is not what its table says: run `cargo xtask docs`"
            );
        }
        let bare = super::pages(|path| if path == TABLE { read(path) } else { Ok(String::new()) });
        assert!(bare.is_err_and(|error| error.to_string().contains("has no line with")));
    }

    #[test]
    fn secrets_have_a_file_form_and_the_agent_socket_stays() {
        let text = "[[variable]]\nname='K'\ngroup='G'\nkind='secret'\nhelp='h'\n[[variable]]\nname='SSH_AUTH_SOCK'\n\
                    group='G'\nkind='path'\nhelp='h'\n[[volume]]\nname='v'\npath='/v'\nholds='x'\n";
        let table: Environment = toml::from_str(text).expect("a table");
        let environment = "    - K\n    - K_FILE=${K_FILE:+/run/secrets/k}\n";
        assert_eq!(table.compose_environment().expect("text"), environment);
        assert_eq!(table.compose_secrets().expect("text"), "    - k\n");
        assert_eq!(table.compose_secret_files().expect("text"), "  k:\n    file: ${K_FILE:-/dev/null}\n");
        assert_eq!(table.env_example().expect("text"), "\n# G\n# h\n#K=\n#K_FILE=\n# h\n#SSH_AUTH_SOCK=\n");
        assert!(table.devcontainer_environment().expect("text").contains("\"K\": \"${localEnv:K}\""));
    }
}
