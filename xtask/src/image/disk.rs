//! Disk space: what is free where the engine or a folder is, and what the last build took.

use anyhow::Result;

use crate::error::missing;
use crate::image::build_record::BuildRecord;
use crate::tools::command::cmd;
use crate::tools::docker;
use crate::tools::runner::Runner;

/// Free space under which a cold release is likely to fail, in bytes: two bases, four variants, their push copies.
pub const COLD_RELEASE: u64 = 15_000_000_000;

/// The disk that the engine keeps its images on. The engine is asked where that is once.
pub struct EngineDisk<'a> {
    runner: &'a Runner,
    /// `None` where no engine answers.
    root: Option<String>,
}

impl<'a> EngineDisk<'a> {
    pub fn find(runner: &'a Runner) -> Self {
        Self { runner, root: docker::engine(runner).map(|engine| engine.root) }
    }

    /// Free bytes; `None` if unknown.
    pub fn free(&self) -> Option<u64> {
        free_below(self.runner, self.root.as_deref()?)
    }

    /// How much less is free than there was.
    pub fn used(&self, before: Option<u64>) -> u64 {
        before.zip(self.free()).map_or(0, |(before, now)| before.saturating_sub(now))
    }

    /// Fails if less is free than the last build took. A build without a record asks for nothing.
    pub fn require(&self, last: Option<&BuildRecord>, what: &str) -> Result<()> {
        let (Some(record), Some(free)) = (last, self.free()) else { return Ok(()) };
        if free < record.disk_bytes {
            return Err(missing(format!(
                "{} MB of disk are free and the last build of {what} took {} MB: free some, for instance with \
                 `docker builder prune`",
                free / 1_000_000,
                record.disk_bytes / 1_000_000
            )));
        }
        Ok(())
    }
}

/// Free bytes of a folder's file system; `None` if unknown.
pub fn free_below(runner: &Runner, folder: &str) -> Option<u64> {
    df(runner, 3, folder)
}

/// Bytes that are occupied there, by any owner.
pub fn occupied_below(runner: &Runner, folder: &str) -> Option<u64> {
    df(runner, 2, folder)
}

/// A column of df's portable output, which counts in units of 1024 bytes (POSIX, "df").
fn df(runner: &Runner, column: usize, folder: &str) -> Option<u64> {
    let text = runner.probe(&cmd!("df -Pk {folder}"))?;
    // The name of a file system may have spaces: the columns are counted from the end, which is the mount point.
    let line = text.lines().nth(1)?;
    let percent = line.split_whitespace().position(|word| word.ends_with('%'))?;
    let kilobytes: u64 = line.split_whitespace().nth(percent + column - 4)?.parse().ok()?;
    Some(kilobytes * 1024)
}
