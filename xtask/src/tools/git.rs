//! What git knows about the tree: which files are inputs, the commit for labels, and the proof that a public release is
//! what was tagged.

use std::fs;

use anyhow::{Context as _, Result};

use crate::tools::command::{Cmd, cmd};

use super::runner::Runner;

/// A file that git tracks: a line of its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub path: String,
    /// `100644`, `100755`, `120000` for a symbolic link, `160000` for a submodule.
    pub mode: String,
    /// The object that the index holds for it.
    pub object: String,
    /// The path is in a merge conflict.
    pub unmerged: bool,
    /// Git is configured not to look for changes of it (`assume-unchanged`, `skip-worktree`).
    pub unwatched: bool,
}

/// The commit and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// With `-dirty` at its end where a tracked file differs from it.
    pub revision: String,
    /// Seconds since 1970.
    pub time: String,
}

/// True if the tree is a checkout, and not an unpacked archive.
pub fn is_checkout(runner: &Runner) -> bool {
    fs::symlink_metadata(runner.root.join(".git")).is_ok()
}

/// The checked-out commit; `None` where nothing was committed yet. A repository that cannot be read is an error.
pub fn commit_of_tree(runner: &Runner) -> Result<Option<Commit>> {
    let head = cmd!("git cat-file --batch-check=%(objectname)").stdin("HEAD\n");
    let head = runner.read(&head)?;
    let head = head.trim();
    if head.ends_with(" missing") {
        return Ok(None);
    }
    // In a checkout of another owner the index cannot be written, and need not be.
    let status = cmd!("git --no-optional-locks status --porcelain --untracked-files=no");
    let dirty = !runner.read(&status)?.is_empty();
    let time = runner.read(&cmd!("git log --no-show-signature -1 --format=%ct"))?;
    let revision = if dirty { format!("{head}-dirty") } else { head.to_owned() };
    Ok(Some(Commit { revision, time: time.trim().to_owned() }))
}

/// Everything that git tracks. Neither ignore rules nor the user's settings have a part in it.
pub fn tracked(runner: &Runner) -> Result<Vec<Tracked>> {
    let bytes = runner.read_bytes(&cmd!("git ls-files -z --cached --stage -v"))?;
    let text = String::from_utf8(bytes).context("git tracks a file whose name is not UTF-8")?;
    text.split_terminator('\0').map(tracked_line).collect()
}

/// `<tag> <mode> <object> <stage>\t<path>` (git-ls-files, "OUTPUT"). The tag is in lower case for `assume-unchanged`.
fn tracked_line(line: &str) -> Result<Tracked> {
    let parsed = line.split_once('\t').and_then(|(head, path)| {
        let mut words = head.split(' ');
        let (tag, mode, object, stage) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(Tracked {
            path: path.to_owned(),
            mode: mode.to_owned(),
            object: object.to_owned(),
            unmerged: stage != "0",
            unwatched: tag == "S" || tag.chars().all(|letter| letter.is_ascii_lowercase()),
        })
    });
    parsed.with_context(|| format!("unexpected output of git ls-files: {line}"))
}

/// Files below these paths that git neither tracks nor ignores.
pub fn untracked(runner: &Runner, paths: &[String]) -> Result<Vec<String>> {
    let listing = cmd!("git --literal-pathspecs ls-files -z --others --exclude-standard -- {paths...}");
    let text = runner.read(&listing)?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// The object names that files of the tree would have, as their bytes are or as git would commit them.
pub fn objects(runner: &Runner, paths: &[&str], converted: bool) -> Result<Vec<String>> {
    let filters = if converted { &[][..] } else { &["--no-filters"][..] };
    let cmd = cmd!("git hash-object --stdin-paths {filters...}");
    let text = runner.read(&cmd.stdin(paths.join("\n") + "\n"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The bytes of an object.
pub fn blob(runner: &Runner, object: &str) -> Result<Vec<u8>> {
    runner.read_bytes(&cmd!("git cat-file blob {object}"))
}

/// The bytes that git would commit of files as they are, in the order of the paths. The repository is not written to: it may
/// belong to another user.
pub fn clean_bytes(runner: &Runner, paths: &[&str]) -> Result<Vec<Vec<u8>>> {
    let known = runner.read(&cmd!("git rev-parse --git-path objects"))?;
    let (known, scratch) = (runner.root.join(known.trim_end_matches('\n')), tempfile::tempdir()?);
    let scratch = scratch.path().to_str().context("a temporary folder whose name is not UTF-8")?;
    let with_store = |cmd: Cmd| {
        cmd.env("GIT_OBJECT_DIRECTORY", scratch).env("GIT_ALTERNATE_OBJECT_DIRECTORIES", known.as_str())
    };
    let store = cmd!("git hash-object -w --stdin-paths").stdin(paths.join("\n") + "\n");
    let objects = runner.read(&with_store(store))?;
    let read = |object| runner.read_bytes(&with_store(cmd!("git cat-file blob {object}")));
    objects.lines().map(read).collect()
}

/// A setting of the repository or the user that is on unless it is set to false.
pub fn is_on(runner: &Runner, name: &str) -> bool {
    let value = runner.probe(&cmd!("git config --type=bool --get {name}"));
    value.is_none_or(|value| value.trim() != "false")
}

/// True if the repository has that tag.
pub fn has_tag(runner: &Runner, tag: &str) -> Result<bool> {
    Ok(!runner.read(&cmd!("git tag --list {tag}"))?.trim().is_empty())
}

/// True if the clone has only the newest commits, as CI makes it.
pub fn is_shallow(runner: &Runner) -> Result<bool> {
    Ok(runner.read(&cmd!("git rev-parse --is-shallow-repository"))?.trim() == "true")
}

/// What differs from the last commit, untracked files included; empty for a clean tree.
pub fn changes(runner: &Runner) -> Result<String> {
    runner.read(&cmd!("git status --porcelain --untracked-files=normal"))
}

/// The name of the branch; empty on a detached head.
pub fn branch(runner: &Runner) -> Result<String> {
    Ok(runner.read(&cmd!("git branch --show-current"))?.trim().to_owned())
}

/// Commits these files and no other.
pub fn commit(runner: &Runner, paths: &[&str], message: &str) -> Result<()> {
    runner.run(&cmd!("git add -- {paths...}"))?;
    runner.run(&cmd!("git commit --quiet --message {message} --only -- {paths...}"))
}

/// An annotated tag on the last commit.
pub fn tag(runner: &Runner, tag: &str, message: &str) -> Result<()> {
    runner.run(&cmd!("git tag --annotate {tag} --message {message}"))
}

/// The text of a file as a commit has it; `None` where this clone does not have the commit.
pub fn file_at(runner: &Runner, revision: &str, path: &str) -> Option<String> {
    runner.probe(&cmd!("git cat-file blob {revision}:{path}"))
}

/// True if nothing differs from the commit, files that git does not know included.
pub fn is_clean(runner: &Runner) -> Result<bool> {
    Ok(changes(runner)?.is_empty())
}

/// The tags of the checked-out commit.
pub fn tags(runner: &Runner) -> Result<Vec<String>> {
    let text = runner.read(&cmd!("git tag --points-at HEAD"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Checks out a branch that starts here, whether or not one of that name was there.
pub fn switch_to_new(runner: &Runner, branch: &str) -> Result<()> {
    runner.run(&cmd!("git switch --quiet --force-create {branch}"))
}

pub fn switch(runner: &Runner, branch: &str) -> Result<()> {
    runner.run(&cmd!("git switch --quiet {branch}"))
}

/// Answers git with the token that is in the environment alone, where nothing else that git asks knows an account.
const HELPER: &str = "!f() { echo username=x-access-token; echo \"password=$DEVBOX_GIT_TOKEN\"; }; f";

/// Pushes a branch of this program's own, in place of what an earlier run may have left. The token is for `server` only:
/// a checkout in a workflow keeps none.
pub fn push(runner: &Runner, branch: &str, server: &str, token: &str) -> Result<()> {
    let helper = format!("credential.{server}.helper={HELPER}");
    let push = cmd!("git -c {helper} push --quiet --force origin {branch}");
    // Without an answer git would ask on the terminal.
    runner.run(&push.env("GIT_TERMINAL_PROMPT", "0").secret("DEVBOX_GIT_TOKEN", token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_index_is_read_with_its_flags() {
        let line = |tag: &str, stage: &str| {
            tracked_line(&format!("{tag} 100755 abc {stage}\ta\tb")).expect("a line")
        };
        let plain = line("H", "0");
        assert_eq!(
            (plain.path.as_str(), plain.mode.as_str(), plain.object.as_str()),
            ("a\tb", "100755", "abc")
        );
        assert!(!plain.unmerged && !plain.unwatched);
        assert!(line("M", "2").unmerged && line("h", "0").unwatched && line("S", "0").unwatched);
        assert!(tracked_line("H 100644").is_err());
    }
}
