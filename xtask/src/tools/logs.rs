//! Logs of what ran: a folder for each run below `.devbox/logs`, of which the newest are kept.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

/// Runs whose logs are kept.
pub const KEPT: usize = 10;

/// Makes the folder of a run, named after the time, and removes those of old runs.
pub fn begin(logs: &Utf8Path) -> Result<Utf8PathBuf> {
    fs::create_dir_all(logs).with_context(|| format!("cannot create {logs}"))?;
    let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    let names = [time.clone()].into_iter().chain((2..100).map(|number| format!("{time}-{number}")));
    for name in names {
        let folder = logs.join(name);
        match fs::create_dir(&folder) {
            Ok(()) => return prune(logs).map(|()| folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot create {folder}")),
        }
    }
    anyhow::bail!("{logs} has a hundred runs of this second")
}

fn prune(logs: &Utf8Path) -> Result<()> {
    let entries = logs.read_dir_utf8().with_context(|| format!("cannot read {logs}"))?;
    let mut folders: Vec<Utf8PathBuf> =
        entries.flatten().map(|it| it.path().to_owned()).filter(|path| path.is_dir()).collect();
    folders.sort();
    let old = folders.len().saturating_sub(KEPT);
    for folder in &folders[..old] {
        // Another run may remove the same folder.
        let _ = fs::remove_dir_all(folder);
    }
    Ok(())
}

/// The log of one program.
pub struct Log {
    pub path: Utf8PathBuf,
    file: File,
}

impl Log {
    /// A file of the run's folder, named after its place in the order of the run and what runs.
    pub fn create(folder: &Utf8Path, number: usize, name: &str) -> Result<Self> {
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = name.chars().take(60).map(word).collect();
        let path = folder.join(format!("{number:02}-{name}.log"));
        let file = File::create(&path).with_context(|| format!("cannot write {path}"))?;
        Ok(Self { path, file })
    }

    /// A full disk must not end what runs.
    pub fn line(&mut self, line: &str) {
        let _ = writeln!(self.file, "{line}");
    }
}
