//! Replaces several files of the tree together: an interruption at any moment leaves the files as they were, or makes the
//! next run finish the replacement.

use crate::output;

use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use similar::TextDiff;

/// The list of edits that are being made. It exists from the moment at which all of them are on disk until all are done.
const JOURNAL: &str = "interrupted.json";

/// A file with its text before and after. An empty text before means that the file is new.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

    /// The text that the file has now.
    fn now(&self, root: &Utf8Path) -> String {
        fs::read_to_string(root.join(&self.path)).unwrap_or_default()
    }
}

/// Makes every edit. `state` is the folder for the journal, from which [`finish_interrupted`] makes what is left.
pub fn replace(root: &Utf8Path, state: &Utf8Path, edits: &[Edit]) -> Result<()> {
    let edits: Vec<&Edit> = edits.iter().filter(|edit| edit.changes()).collect();
    fs::create_dir_all(state).with_context(|| format!("cannot create {state}"))?;
    let journal = state.join(JOURNAL);
    write(&journal, &serde_json::to_string(&edits)?)?;
    let mut done: Vec<&Edit> = Vec::new();
    for edit in edits {
        if let Err(error) = write(&root.join(&edit.path), &edit.after) {
            for edit in done {
                write(&root.join(&edit.path), &edit.before)
                    .with_context(|| format!("cannot restore {}: run `git checkout {0}`", edit.path))?;
            }
            remove(&journal)?;
            return Err(error).with_context(|| format!("cannot replace {}; nothing was changed", edit.path));
        }
        done.push(edit);
    }
    remove(&journal)
}

/// Finishes a replacement that was interrupted, unless its files were restored. One whose files were changed meanwhile is
/// refused, and so is a dry run.
pub fn finish_interrupted(root: &Utf8Path, state: &Utf8Path, dry_run: bool) -> Result<()> {
    let journal = state.join(JOURNAL);
    let Ok(text) = fs::read_to_string(&journal) else { return Ok(()) };
    let edits: Vec<Edit> = serde_json::from_str(&text).with_context(|| journal.to_string())?;
    let names = edits.iter().map(|edit| edit.path.as_str()).collect::<Vec<_>>().join(", ");
    if dry_run {
        bail!("a change of {names} was interrupted: run any command that is no dry run, which finishes it");
    }
    if edits.iter().all(|edit| edit.now(root) == edit.before) {
        return remove(&journal);
    }
    if let Some(edit) = edits.iter().find(|edit| ![&edit.before, &edit.after].contains(&&edit.now(root))) {
        bail!(
            "a change of {names} was interrupted, and {} was edited since: restore the files with `git checkout` and \
             remove {journal}",
            edit.path
        );
    }
    for edit in &edits {
        write(&root.join(&edit.path), &edit.after)?;
    }
    output::note(format!("finished the interrupted change of {names}"));
    remove(&journal)
}

/// Writes a file so that it has either its old text or the new one, on disk as well.
fn write(path: &Utf8PathBuf, text: &str) -> Result<()> {
    let folder = path.parent().context("a path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    // In the file's folder, under a name that git ignores.
    let file = tempfile::Builder::new().prefix("._").tempfile_in(folder);
    let file = file.with_context(|| format!("cannot write into {folder}"))?;
    fs::write(file.path(), text).with_context(|| format!("cannot write {path}"))?;
    let permissions = match fs::metadata(path) {
        Ok(there) => there.permissions(),
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
    };
    fs::set_permissions(file.path(), permissions)?;
    file.as_file().sync_all().with_context(|| format!("cannot write {path}"))?;
    file.persist(path).with_context(|| format!("cannot replace {path}"))?;
    Ok(())
}

fn remove(journal: &Utf8Path) -> Result<()> {
    fs::remove_file(journal).with_context(|| format!("cannot remove {journal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(path: &str, before: &str, after: &str) -> Edit {
        Edit { path: path.to_owned(), before: before.to_owned(), after: after.to_owned() }
    }

    /// Files `a` and `c`, and an edit of both and of a new file.
    fn tree() -> (tempfile::TempDir, Utf8PathBuf, [Edit; 3]) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::try_from(folder.path().to_owned()).expect("a path");
        fs::write(root.join("a"), "1").expect("a file");
        fs::write(root.join("c"), "1").expect("a file");
        (folder, root, [edit("a", "1", "2"), edit("b/new", "", "2"), edit("c", "1", "2")])
    }

    fn texts(root: &Utf8Path) -> [String; 3] {
        ["a", "b/new", "c"].map(|path| fs::read_to_string(root.join(path)).unwrap_or_default())
    }

    #[test]
    fn an_interruption_at_any_edit_is_finished_by_the_next_run() {
        for done in 0..3 {
            let (_folder, root, edits) = tree();
            let state = root.join("state");
            fs::create_dir(&state).expect("a folder");
            write(&state.join(JOURNAL), &serde_json::to_string(&edits).expect("JSON")).expect("a journal");
            for edit in &edits[..done] {
                write(&root.join(&edit.path), &edit.after).expect("an edit");
            }
            let before = texts(&root);
            assert!(finish_interrupted(&root, &state, true).is_err(), "a dry run writes nothing");
            assert_eq!(texts(&root), before);
            finish_interrupted(&root, &state, false).expect("the rest");
            let expected = if done == 0 { ["1", "", "1"] } else { ["2"; 3] };
            assert_eq!(texts(&root), expected, "after {done} edits");
            assert!(!state.join(JOURNAL).exists());
        }
    }

    #[test]
    fn a_file_that_was_edited_since_is_not_overwritten() {
        let (_folder, root, edits) = tree();
        let state = root.join("state");
        write(&state.join(JOURNAL), &serde_json::to_string(&edits).expect("JSON")).expect("a journal");
        write(&root.join("a"), "2").expect("an edit");
        write(&root.join("c"), "by hand").expect("an edit");
        let error = finish_interrupted(&root, &state, false).expect_err("a conflict").to_string();
        assert!(error.contains("c was edited since: restore the files with `git checkout`"), "{error}");
        assert_eq!(texts(&root), ["2", "", "by hand"]);
    }

    #[test]
    fn all_edits_are_made_or_none() {
        let (_folder, root, edits) = tree();
        replace(&root, &root.join("state"), &edits).expect("edits");
        assert_eq!(texts(&root), ["2"; 3]);
        let more = [edit("a", "2", "3"), edit("a/below/a/file", "", "3")];
        assert!(replace(&root, &root.join("state"), &more).is_err());
        assert_eq!(texts(&root), ["2"; 3]);
        finish_interrupted(&root, &root.join("state"), false).expect("nothing to finish");
        assert_eq!(fs::read_dir(&root).expect("a folder").count(), 4, "no scratch file is left");
    }
}
