//! What git knows about the tree. Labels come from here and the proof that a public release is what was tagged; none
//! of it is in a key.

use anyhow::Result;

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

/// True if the repository has that tag.
pub fn has_tag(runner: &Runner, tag: &str) -> Result<bool> {
    Ok(!runner.read(&Cmd::new("git", ["tag", "--list", tag]))?.trim().is_empty())
}

/// What differs from the last commit, untracked files included; empty for a clean tree.
pub fn changes(runner: &Runner) -> Result<String> {
    runner.read(&Cmd::new("git", ["status", "--porcelain"]))
}

/// The name of the branch; empty on a detached head.
pub fn branch(runner: &Runner) -> Result<String> {
    Ok(runner.read(&Cmd::new("git", ["branch", "--show-current"]))?.trim().to_owned())
}

/// Commits these files and no other.
pub fn commit(runner: &Runner, paths: &[&str], message: &str) -> Result<()> {
    runner.run(&Cmd::new("git", ["add", "--"]).args(paths.iter().copied()))?;
    let cmd = Cmd::new("git", ["commit", "--quiet", "--message", message, "--only", "--"]);
    runner.run(&cmd.args(paths.iter().copied()))
}

/// An annotated tag on the last commit.
pub fn tag(runner: &Runner, tag: &str, message: &str) -> Result<()> {
    runner.run(&Cmd::new("git", ["tag", "--annotate", tag, "--message", message]))
}

/// The text of a file as a commit has it; `None` where this clone cannot tell.
pub fn file_at(runner: &Runner, revision: &str, path: &str) -> Option<String> {
    runner.probe(&Cmd::new("git", ["cat-file", "blob", &format!("{revision}:{path}")]))
}

/// True if nothing differs from the commit, files that git does not know included.
pub fn is_clean(runner: &Runner) -> Result<bool> {
    Ok(changes(runner)?.is_empty())
}

/// The tags of the checked-out commit.
pub fn tags(runner: &Runner) -> Result<Vec<String>> {
    let text = runner.read(&Cmd::new("git", ["tag", "--points-at", "HEAD"]))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Checks out a branch that starts here, whether or not one of that name was there.
pub fn switch_to_new(runner: &Runner, branch: &str) -> Result<()> {
    runner.run(&Cmd::new("git", ["switch", "--quiet", "--force-create", branch]))
}

pub fn switch(runner: &Runner, branch: &str) -> Result<()> {
    runner.run(&Cmd::new("git", ["switch", "--quiet", branch]))
}

/// Pushes a branch of this program's own, in place of what an earlier run may have left.
pub fn push(runner: &Runner, branch: &str) -> Result<()> {
    runner.run(&Cmd::new("git", ["push", "--quiet", "--force", "origin", branch]))
}
