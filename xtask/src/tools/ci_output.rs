//! What a CI step hands to its forge, in the file formats that GitHub Actions, Gitea and Forgejo share: outputs, and a
//! summary in Markdown. Outside CI nothing is written.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::model::source::without_accounts;

#[derive(Clone, Default)]
pub struct CiOutput {
    /// `$GITHUB_OUTPUT`
    output: Option<Utf8PathBuf>,
    /// `$GITHUB_STEP_SUMMARY`
    summary: Option<Utf8PathBuf>,
    /// Lines that the phase has told, for the summary.
    told: Rc<RefCell<Vec<String>>>,
}

impl CiOutput {
    pub fn new(output: Option<Utf8PathBuf>, summary: Option<Utf8PathBuf>) -> Self {
        Self { output, summary, told: Rc::default() }
    }

    /// Appends `name=value` to the outputs.
    pub fn set(&self, name: &str, value: impl std::fmt::Display) -> Result<()> {
        self.output.as_deref().map_or(Ok(()), |path| append(path, &format!("{name}={value}\n")))
    }

    pub fn has_summary(&self) -> bool {
        self.summary.is_some()
    }

    /// Keeps a line for the summary.
    pub fn tell(&self, line: &str) {
        if self.has_summary() {
            self.told.borrow_mut().push(line.to_owned());
        }
    }

    pub fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
    }

    /// Appends Markdown to the summary.
    pub fn summarize(&self, text: &str) -> Result<()> {
        self.summary.as_deref().map_or(Ok(()), |path| append(path, text))
    }
}

fn append(path: &Utf8Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(without_accounts(text).as_bytes()));
    written.with_context(|| format!("cannot write {path}"))
}
