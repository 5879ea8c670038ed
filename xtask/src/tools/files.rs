//! Replaces several files of the tree together.

use std::fs;

use anyhow::{Context, Result};
use camino::Utf8Path;
use similar::TextDiff;

/// A file with its text before and after. An empty text before means that the file is new.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Below the repository's root.
    pub path: String,
    pub before: String,
    pub after: String,
}

impl Edit {
    pub fn changes(&self) -> bool {
        self.before != self.after
    }

    /// A unified diff.
    pub fn diff(&self) -> String {
        let diff = TextDiff::from_lines(&self.before, &self.after);
        diff.unified_diff().header(&format!("a/{0}", self.path), &format!("b/{0}", self.path)).to_string()
    }
}

/// Writes every edit beside its file, then renames all into place. If a rename fails, the files that were replaced
/// before it get their old text back.
pub fn replace(root: &Utf8Path, edits: &[Edit]) -> Result<()> {
    let mut ready = Vec::new();
    for edit in edits.iter().filter(|edit| edit.changes()) {
        let path = root.join(&edit.path);
        let folder = path.parent().context("a path without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
        let file =
            tempfile::NamedTempFile::new_in(folder).with_context(|| format!("cannot write into {folder}"))?;
        fs::write(file.path(), &edit.after).with_context(|| format!("cannot write {}", edit.path))?;
        let permissions = match fs::metadata(&path) {
            Ok(there) => there.permissions(),
            Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
        };
        fs::set_permissions(file.path(), permissions)?;
        ready.push((edit, path, file));
    }
    let mut done: Vec<&Edit> = Vec::new();
    for (edit, path, file) in ready {
        if let Err(error) = file.persist(&path) {
            for edit in done {
                fs::write(root.join(&edit.path), &edit.before)
                    .with_context(|| format!("cannot restore {}: run `git checkout {0}`", edit.path))?;
            }
            return Err(error).with_context(|| format!("cannot replace {}; nothing was changed", edit.path));
        }
        done.push(edit);
    }
    Ok(())
}
