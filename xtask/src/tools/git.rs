//! What git knows about the tree. All of it only labels images; none of it is in a key.

use crate::model::command::Cmd;

use super::runner::Runner;

/// The commit, with `-dirty` where the tree differs from it; `None` outside a repository.
pub fn revision(runner: &Runner) -> Option<String> {
    let text =
        runner.probe(&Cmd::new("git", ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]))?;
    Some(text.trim().to_owned())
}

/// Seconds since 1970 of the commit.
pub fn commit_time(runner: &Runner) -> Option<String> {
    let text = runner.probe(&Cmd::new("git", ["log", "-1", "--format=%ct"]))?;
    Some(text.trim().to_owned())
}
