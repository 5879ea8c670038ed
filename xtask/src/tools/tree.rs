//! Reads the inputs of an image and lays out its build context.
//!
//! The context holds exactly what the key covers, with git's modes and times of its own, so that neither a stray file
//! nor a umask can reach an image unnoticed.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use camino::Utf8Path;
use ignore::WalkBuilder;
use sha2::{Digest, Sha256};

use crate::model::key::{Entry, Kind};

/// 1980-01-01T00:00:00Z, before which zip knows no time, and the seconds from there to 2020: times of files in a context.
const FIRST: u64 = 315_532_800;
const SPAN: u64 = 1_262_304_000;

/// All files below `inputs` that git does not ignore. Inputs that do not exist are passed over.
pub fn snapshot(root: &Utf8Path, inputs: &[String]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for input in inputs {
        let start = root.join(input);
        if fs::symlink_metadata(&start).is_err() {
            continue;
        }
        // Hidden files count; ignore files of other tools and of the user's home do not.
        let walk = WalkBuilder::new(&start)
            .standard_filters(false)
            .git_ignore(true)
            .parents(true)
            .require_git(false)
            .build();
        for found in walk {
            let found = found.with_context(|| format!("cannot walk {input}"))?;
            let path = Utf8Path::from_path(found.path()).context("a file name is not UTF-8")?;
            if let Some(kind) = kind(path)? {
                entries.push(Entry { path: path.strip_prefix(root)?.to_string(), kind });
            }
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    Ok(entries)
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

/// Writes the entries below a new folder.
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
