//! The inputs of this tree's images: the files that git tracks, read once. Content keys are computed from the bytes that
//! are kept here, and the same bytes are laid out for the build.
//!
//! A file counts by its path, kind, executable bit and bytes, as git would commit them. Differences between checkouts
//! of one commit does not count: ignore rules, the umask, converted line ends, file times. Refuses a tracked file that is
//! missing or that git is configured not to watch, a submodule, and a path in a merge conflict.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::context::Context;
use crate::model::key::{Entry, Kind, digest};
use crate::model::licence::{FACTS, POLICY};
use crate::tools::git::{self, Commit, Tracked};
use crate::tools::runner::Runner;
use crate::tools::tree as files;

/// The script that decides whether an image is good, and the folder of its parts.
pub const SUITE: &str = "scripts/smoke-test.sh";
pub const SUITE_PARTS: &str = "scripts/smoke";

/// The definition of the family, from which the suite reads version commands and budgets.
pub const DEFINITION: &str = "images/devbox.toml";

/// The inputs of the tree, as they were when they were read.
#[derive(Debug)]
pub struct Tree {
    entries: Vec<Entry>,
    /// The commit; `None` in an unpacked archive, and before the first commit.
    pub commit: Option<Commit>,
    /// What a person should know of how it was read, a line each.
    pub notes: Vec<String>,
}

impl Tree {
    /// Reads the inputs of all images of a tree, of the smoke suite and of the policy of licences. Later changes on disk reach neither a key
    /// nor a build.
    pub fn load(ctx: &Context) -> Result<Self> {
        let (base, variants) = (&ctx.config.base, &ctx.config.variants);
        let mut inputs = [base.inputs.as_slice(), variants.inputs.as_slice()].concat();
        inputs.extend([&base.dockerfile, &variants.dockerfile].map(String::clone));
        inputs.extend([SUITE, SUITE_PARTS, DEFINITION, POLICY, FACTS].map(str::to_owned));
        let tree = Self::read(&ctx.runner, &inputs)?;
        tree.notes.iter().for_each(|note| ctx.say(note));
        Ok(tree)
    }

    /// Reads everything below `inputs`: files and folders, relative to the root of the tree. An input that does not exist
    /// is skipped.
    pub fn read(runner: &Runner, inputs: &[String]) -> Result<Self> {
        if !git::is_checkout(runner) {
            let note = "this tree is not a git checkout: every file below the inputs counts that its .gitignore does \
                        not name, and the images carry no revision";
            let entries = files::snapshot(&runner.root, inputs)?;
            return Ok(Self { entries, commit: None, notes: vec![note.to_owned()] });
        }
        let mut tracked = git::tracked(runner).context("cannot read what git tracks of this checkout")?;
        tracked.retain(|file| is_below(&file.path, inputs));
        let mut notes = untracked(runner, inputs, &tracked)?;
        let (entries, converted) = read(runner, &tracked)?;
        if converted > 0 {
            notes.push(format!(
                "git converted {converted} input files on checkout (core.autocrlf or a filter): their committed bytes are used"
            ));
        }
        Ok(Self { entries, commit: git::commit_of_tree(runner)?, notes })
    }

    /// The entries below some of the inputs, in the order of their paths.
    pub fn entries(&self, inputs: &[String]) -> Vec<Entry> {
        self.entries.iter().filter(|entry| is_below(&entry.path, inputs)).cloned().collect()
    }

    /// Lays out the build context of an image and returns its folder, which is named after what it holds: builds that
    /// run side by side share a folder only if all its bytes are theirs.
    pub fn context(&self, inputs: &[String], contexts: &Utf8Path, name: &str) -> Result<Utf8PathBuf> {
        let entries = self.entries(inputs);
        let folder = contexts.join(context_name(&entries, name));
        if !files::is_laid_out(&entries, &folder) {
            files::lay_out_beside(&entries, &folder)?;
        }
        Ok(folder)
    }

    /// The folder that [`Self::context`] would lay out.
    pub fn planned_context(&self, inputs: &[String], contexts: &Utf8Path, name: &str) -> Utf8PathBuf {
        contexts.join(context_name(&self.entries(inputs), name))
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Result<&str> {
        let entry = self.entries.iter().find(|entry| entry.path == path);
        let Some(Entry { kind: Kind::File { bytes, .. }, .. }) = entry else {
            bail!("{path} is no file of this tree");
        };
        std::str::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))
    }
}

/// A name with the first 12 digits of a hash over everything that entries hold.
fn context_name(entries: &[Entry], name: &str) -> String {
    let mut text = String::new();
    for entry in entries {
        let (kind, bytes) = match &entry.kind {
            Kind::File { executable, bytes } => (if *executable { "x" } else { "-" }, bytes.as_slice()),
            Kind::Symlink { target } => ("l", target.as_bytes()),
        };
        text.push_str(&format!("{} {kind} {} {}\n", entry.path.len(), entry.path, digest(bytes)));
    }
    let digest = digest(text.as_bytes());
    format!("{name}-{}", &digest["sha256:".len()..][..12])
}

/// True if a path is one of the inputs or lies below one.
fn is_below(path: &str, inputs: &[String]) -> bool {
    inputs.iter().any(|input| {
        let input = input.trim_end_matches('/');
        path.strip_prefix(input).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Files that would be inputs if git tracked them, named in a note. An input of which git tracks nothing is an error.
fn untracked(runner: &Runner, inputs: &[String], tracked: &[Tracked]) -> Result<Vec<String>> {
    for input in inputs {
        let known = tracked.iter().any(|file| is_below(&file.path, std::slice::from_ref(input)));
        if !known && fs::symlink_metadata(runner.root.join(input)).is_ok() {
            bail!("{input} is an input, and git tracks nothing of it: run `git add {input}`");
        }
    }
    let found = git::untracked(runner, inputs)?;
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
    Ok(vec![format!("{first}{more}: not tracked by git, so no input: run `git add {first}` to include it")])
}

/// What the checkout holds of the tracked files, and how many of them git converted.
fn read(runner: &Runner, tracked: &[Tracked]) -> Result<(Vec<Entry>, usize)> {
    let disk = Disk::new(runner);
    let mut folders = BTreeSet::new();
    let mut entries = Vec::new();
    for file in tracked {
        check(runner, file, &mut folders)?;
        entries.push(Entry { path: file.path.clone(), kind: disk.kind(file)? });
    }
    let converted = unconvert(runner, tracked, &mut entries)?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((entries, converted))
}

/// Refuses what has no certain content.
fn check(runner: &Runner, file: &Tracked, folders: &mut BTreeSet<Utf8PathBuf>) -> Result<()> {
    let path = &file.path;
    if file.unmerged {
        bail!("{path} is in a merge conflict: resolve it and run `git add {path}`");
    }
    if file.mode == "160000" {
        bail!("{path} is a submodule, whose files this repository does not track: copy them into {path}");
    }
    if path.contains('\n') {
        bail!("{path:?} has a line break in its name: run `git mv`");
    }
    // Git takes a file behind a symbolic link for deleted.
    for folder in Utf8Path::new(path).ancestors().skip(1).filter(|folder| !folder.as_str().is_empty()) {
        if folders.contains(folder) {
            break;
        }
        if fs::symlink_metadata(runner.root.join(folder)).is_ok_and(|meta| meta.is_symlink()) {
            bail!("{folder} is a symbolic link, and git tracks a folder: run `git restore {folder}`");
        }
        folders.insert(folder.to_owned());
    }
    Ok(())
}

/// How the checkout writes what git tracks.
struct Disk<'a> {
    root: &'a Utf8Path,
    /// Files have their executable bit (`core.fileMode`).
    modes: bool,
    /// Symbolic links are links (`core.symlinks`), not files that hold the target.
    links: bool,
}

impl<'a> Disk<'a> {
    fn new(runner: &'a Runner) -> Self {
        Self {
            root: &runner.root,
            modes: git::is_on(runner, "core.fileMode"),
            links: git::is_on(runner, "core.symlinks"),
        }
    }

    fn kind(&self, file: &Tracked) -> Result<Kind> {
        let path = self.root.join(&file.path);
        let missing = || match file.unwatched {
            true => format!(
                "git tracks {}, and this sparse checkout leaves it out: run `git sparse-checkout disable`",
                file.path
            ),
            false => {
                format!("git tracks {0}, and it is missing: run `git restore {0}` or `git rm {0}`", file.path)
            }
        };
        let meta = fs::symlink_metadata(&path).with_context(missing)?;
        if meta.is_symlink() {
            return Ok(Kind::Symlink { target: path.read_link_utf8()?.into_string() });
        }
        if !meta.is_file() {
            bail!("{0} is no file, and git tracks a file: run `git restore {0}`", file.path);
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        if file.mode == "120000" && !self.links {
            let target = String::from_utf8(bytes).with_context(|| format!("target of {}", file.path))?;
            return Ok(Kind::Symlink { target });
        }
        let executable =
            if self.modes { meta.permissions().mode() & 0o100 != 0 } else { file.mode == "100755" };
        Ok(Kind::File { executable, bytes })
    }
}

/// Gives files the bytes that git would commit, which a conversion on checkout (line ends, a filter) may have changed.
/// Returns how many were.
fn unconvert(runner: &Runner, tracked: &[Tracked], entries: &mut [Entry]) -> Result<usize> {
    let names = |files: &[usize]| files.iter().map(|at| tracked[*at].path.as_str()).collect::<Vec<_>>();
    let is_file = |at: &usize| matches!(entries[*at].kind, Kind::File { .. });
    let files: Vec<usize> = (0..tracked.len()).filter(is_file).collect();
    if files.is_empty() {
        return Ok(0);
    }
    let differs = |at: &usize, object: &String| tracked[*at].object != *object;
    let raw: HashMap<usize, String> =
        files.iter().copied().zip(git::objects(runner, &names(&files), false)?).collect();
    let changed: Vec<usize> = files.into_iter().filter(|at| differs(at, &raw[at])).collect();
    if changed.is_empty() {
        return Ok(0);
    }
    let committed = git::objects(runner, &names(&changed), true)?;
    let (mut converted, mut edited) = (0, Vec::new());
    for (at, object) in changed.into_iter().zip(committed) {
        let file = &tracked[at];
        if differs(&at, &object) {
            if file.unwatched {
                bail!(
                    "{0} is changed, and git was told not to watch it: run `git update-index --no-assume-unchanged --no-skip-worktree {0}`",
                    file.path
                );
            }
            if raw[&at] != object {
                edited.push(at);
            }
        } else if let Kind::File { bytes, .. } = &mut entries[at].kind {
            *bytes = git::blob(runner, &file.object)?;
            converted += 1;
        }
    }
    converted += edited.len();
    if !edited.is_empty() {
        for (at, clean) in edited.iter().zip(git::clean_bytes(runner, &names(&edited))?) {
            if let Kind::File { bytes, .. } = &mut entries[*at].kind {
                *bytes = clean;
            }
        }
    }
    Ok(converted)
}
