//! Reads files of a tree without git, and lays out build contexts, with git's modes and times of their own.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use ignore::{Walk, WalkBuilder};
use sha2::{Digest, Sha256};

use crate::model::key::{Entry, Kind};

/// 1980-01-01T00:00:00Z, before which zip knows no time, and the seconds from there to 2020: times of files in a context.
const FIRST: u64 = 315_532_800;
const SPAN: u64 = 1_262_304_000;

/// All files below `inputs` of a tree that git does not manage, less those that the tree's own `.gitignore` files name and
/// those of clones within it. Inputs that do not exist are skipped. Ignore files above the root do not count.
pub fn snapshot(root: &Utf8Path, inputs: &[String]) -> Result<Vec<Entry>> {
    let (top, wanted) = (root.to_owned(), inputs.to_vec());
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .git_ignore(true)
        .require_git(false)
        .filter_entry(move |found| {
            let path = found.path();
            let Ok(below) = path.strip_prefix(&top) else { return false };
            let on_the_way = |input: &String| below.starts_with(input) || Path::new(input).starts_with(below);
            let is_clone = below.file_name().is_some() && path.join(".git").exists();
            below.file_name() != Some(OsStr::new(".git")) && !is_clone && wanted.iter().any(on_the_way)
        })
        .build();
    entries(root, walk)
}

/// What a walk finds, by path.
fn entries(root: &Utf8Path, walk: Walk) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in walk {
        let found = found.with_context(|| format!("cannot read {root}"))?;
        let path = Utf8Path::from_path(found.path()).context("a file name is not UTF-8")?;
        if let Some(kind) = kind(path)? {
            entries.push(Entry { path: path.strip_prefix(root)?.to_string(), kind });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// True if a folder holds exactly these entries, which are in the order of their paths.
pub fn is_laid_out(wanted: &[Entry], folder: &Utf8Path) -> bool {
    folder.is_dir()
        && entries(folder, WalkBuilder::new(folder).standard_filters(false).build())
            .is_ok_and(|there| there == wanted)
}

/// Writes the entries into a folder that appears when it is complete, in place of one that holds something else.
/// Another run may do the same at the same time.
pub fn lay_out_beside(entries: &[Entry], folder: &Utf8Path) -> Result<()> {
    let parent = folder.parent().with_context(|| format!("{folder} has no parent"))?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {parent}"))?;
    let scratch = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
    let scratch = scratch.with_context(|| format!("cannot write into {parent}"))?;
    let (new, old) = (scratch.path().join("new"), scratch.path().join("old"));
    lay_out(entries, Utf8Path::from_path(&new).context("a path that is not UTF-8")?)?;
    if folder.exists() {
        // It may have vanished meanwhile, which is as good.
        let _ = fs::rename(folder, old);
    }
    match fs::rename(&new, folder) {
        Err(_) if is_laid_out(entries, folder) => Ok(()),
        result => result.with_context(|| format!("cannot create {folder}")),
    }
}

fn kind(path: &Utf8Path) -> Result<Option<Kind>> {
    let meta = fs::symlink_metadata(path).with_context(|| format!("cannot read {path}"))?;
    if meta.is_symlink() {
        return Ok(Some(Kind::Symlink { target: path.read_link_utf8()?.into_string() }));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    Ok(Some(Kind::File { executable: meta.permissions().mode() & 0o100 != 0, bytes }))
}

/// Writes the entries into a folder, in place of what it holds.
pub fn lay_out(entries: &[Entry], folder: &Utf8Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {folder}"))?;
    }
    make_dir(folder)?;
    for entry in entries {
        let path = folder.join(&entry.path);
        for parent in
            path.ancestors().skip(1).take_while(|p| *p != folder).collect::<Vec<_>>().into_iter().rev()
        {
            make_dir(parent)?;
        }
        match &entry.kind {
            Kind::Symlink { target } => symlink(target, &path)?,
            Kind::File { executable, bytes } => {
                fs::write(&path, bytes).with_context(|| format!("cannot write {path}"))?;
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                File::open(&path)?.set_times(FileTimes::new().set_modified(time(bytes)))?;
            }
        }
    }
    Ok(())
}

/// A time that follows from the contents. BuildKit sends a file of a context only if its size or time differ from those
/// that it has under that name, so with one time for all it would build with old bytes (moby/buildkit#2592).
fn time(bytes: &[u8]) -> SystemTime {
    let digest = Sha256::digest(bytes);
    let number = digest.iter().take(7).fold(0, |number, byte| number << 8 | u64::from(*byte));
    SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST + number % SPAN)
}

fn make_dir(path: &Utf8Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_file_follows_its_contents() {
        assert_eq!(time(b"1.18.15"), time(b"1.18.15"));
        assert_ne!(time(b"1.18.15"), time(b"1.18.18"));
        let year =
            |bytes| time(bytes).duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs() / 31_556_952;
        assert!((10..50).contains(&year(b"")) && (10..50).contains(&year(b"x")));
    }
}
