//! Outputs of a CI step, in the file format that GitHub Actions and Gitea share.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;

pub struct CiOutput {
    file: Option<Utf8PathBuf>,
}

impl CiOutput {
    pub fn new(file: Option<Utf8PathBuf>) -> Self {
        Self { file }
    }

    /// Appends `name=value` to `$GITHUB_OUTPUT`, where there is one.
    pub fn set(&self, name: &str, value: impl std::fmt::Display) -> Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let file = OpenOptions::new().append(true).create(true).open(path);
        writeln!(file.with_context(|| format!("cannot write {path}"))?, "{name}={value}")?;
        Ok(())
    }
}
