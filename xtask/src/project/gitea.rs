//! The Gitea server that holds this project, where the environment names one: notes of releases, and pull requests.

use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::Utf8PathBuf;

use crate::context::{Context, STATE};
use crate::error::missing;
use crate::model::changelog::Changelog;
use crate::model::version::ReleaseTag;
use crate::output;
use crate::tools::files::Edit;
use crate::tools::git;
use crate::tools::gitea::{Gitea, PullRequest};

/// The server, the repository on it and a token, or what is not set.
pub fn server(ctx: &Context) -> Result<Gitea> {
    let settings = &ctx.settings;
    let set = |value: &Option<String>, name: &str| {
        value.clone().ok_or_else(|| {
            missing(format!("{name} is not set: a Gitea server, a repository and a token are needed"))
        })
    };
    let url = set(&settings.gitea_url, "GITEA_URL (or GITHUB_SERVER_URL)")?;
    let repository = set(&settings.gitea_repository, "GITEA_REPOSITORY (or GITHUB_REPOSITORY)")?;
    let token = set(&settings.gitea_token, "GITEA_TOKEN (or GITEA_TOKEN_FILE)")?;
    Ok(Gitea::new(&url, &repository, Some(&token), &ctx.agent))
}

/// True if the environment names a server and gives a token for it.
pub fn is_set(ctx: &Context) -> bool {
    let settings = &ctx.settings;
    settings.gitea_url.is_some() && settings.gitea_repository.is_some() && settings.gitea_token.is_some()
}

/// True, and said, where a workflow runs for a forge whose token is not Gitea's: what only Gitea does is left out.
pub fn is_foreign(ctx: &Context) -> bool {
    let foreign = ctx.settings.actions && ctx.settings.gitea_token.is_none();
    if foreign {
        ctx.say("no GITEA_TOKEN: release notes and pull requests are left out");
    }
    foreign
}

/// Gives the release of a tag its changelog entry as notes. A rerun changes nothing.
pub fn attach_notes(ctx: &Context, tag: ReleaseTag) -> Result<()> {
    let log = Changelog::parse(&ctx.read("CHANGELOG.md")?);
    let notes = log.entry(tag);
    let notes =
        notes.with_context(|| format!("no entry for {tag}: run `cargo xtask changelog promote {tag}`"))?;
    let server = server(ctx)?;
    if ctx.runner.dry_run {
        output::line(format!("# give the release of {tag} its {} bytes of notes", notes.len()));
        return Ok(());
    }
    let (address, changed) = server.put_release(&tag.to_string(), notes)?;
    ctx.say(if changed {
        format!("the notes of {tag} are at {address}")
    } else {
        format!("the notes of {tag} are up to date")
    });
    Ok(())
}

/// Where the report of a release is written.
pub fn report_file(ctx: &Context, release: ReleaseTag) -> Utf8PathBuf {
    ctx.root.join(STATE).join("reports").join(format!("{release}.html"))
}

/// Gives the release of a tag its report as a file, if it was written here. A rerun changes nothing.
pub fn attach_report(ctx: &Context, tag: ReleaseTag) -> Result<()> {
    let path = report_file(ctx, tag);
    if !path.exists() {
        ctx.say(format!("no report of {tag} is attached: `cargo xtask report {tag}` writes it"));
        return Ok(());
    }
    let server = server(ctx)?;
    if ctx.runner.dry_run {
        output::line(format!("# give the release of {tag} its report"));
        return Ok(());
    }
    let html = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let changed = server.put_file(&tag.to_string(), &format!("report-{tag}.html"), &html)?;
    ctx.say(match changed {
        true => format!("the report of {tag} is attached to its release"),
        false => format!("the report of {tag} is attached already"),
    });
    Ok(())
}

/// A change that is proposed as a pull request.
pub struct Proposal<'a> {
    /// The branch, one for each component or other thing that is updated.
    pub head: &'a str,
    pub title: &'a str,
    /// What the title of each proposal of the same version ends with, such as `→ 1.18.18`.
    pub ending: &'a str,
    pub body: &'a str,
    pub edits: &'a [Edit],
}

impl Proposal<'_> {
    /// True if a pull request is about the same component. Earlier versions of this program had a branch for each version.
    fn is_of(&self, pull: &PullRequest) -> bool {
        let rest = pull.branch().and_then(|branch| branch.strip_prefix(self.head));
        let is_version =
            |rest: &str| rest.starts_with('-') && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        rest.is_some_and(|rest| rest.is_empty() || is_version(rest))
    }
}

/// Proposes a change, on a branch that starts here. There is one open pull request for each head, which is updated. A version
/// whose pull request was closed without a merge is not proposed again. The branch that was checked out is so again
/// afterwards.
pub fn propose(ctx: &Context, proposal: &Proposal<'_>) -> Result<()> {
    let Proposal { head, title, body, .. } = *proposal;
    let server = server(ctx)?;
    let base = git::branch(&ctx.runner)?;
    if base.is_empty() {
        bail!("no branch is checked out that a pull request could be for: run `git switch main`");
    }
    let mut pulls = server.pull_requests(&base)?;
    pulls.retain(|pull| proposal.is_of(pull));
    let refused =
        |pull: &&PullRequest| pull.state != "open" && !pull.merged && pull.title.ends_with(proposal.ending);
    if let Some(closed) = pulls.iter().find(refused) {
        ctx.say(format!("{title} was proposed and closed, so it is left out: {}", closed.html_url));
        return Ok(());
    }
    let open = pulls.iter().find(|pull| pull.state == "open");
    if let Some(open) = open.filter(|open| open.title == title && open.mergeable) {
        ctx.say(format!("{title} is proposed already: {}", open.html_url));
        return Ok(());
    }
    let branch = open.and_then(PullRequest::branch).unwrap_or(head);
    push(ctx, branch, &base, proposal)?;
    if ctx.runner.dry_run {
        output::line(format!("# open or update the pull request of {branch} for {base}: {title}"));
        return Ok(());
    }
    let pull = match open {
        Some(open) => server.edit_pull_request(open.number, title, body)?,
        None => server.create_pull_request(&base, branch, title, body)?,
    };
    ctx.say(format!("{title}: {}", pull.html_url));
    Ok(())
}

/// Commits a proposal on a branch and pushes that.
fn push(ctx: &Context, branch: &str, base: &str, proposal: &Proposal<'_>) -> Result<()> {
    let Proposal { title, body, edits, .. } = *proposal;
    let paths: Vec<&str> = edits.iter().map(|edit| edit.path.as_str()).collect();
    let settings = &ctx.settings;
    let server = settings.gitea_url.as_deref().unwrap_or_default();
    let token = settings.gitea_token.as_deref().unwrap_or_default();
    git::switch_to_new(&ctx.runner, branch)?;
    let pushed = ctx
        .replace(edits)
        .and_then(|()| git::commit(&ctx.runner, &paths, format!("{title}\n\n{body}").trim_end()))
        .and_then(|()| git::push(&ctx.runner, branch, server, token));
    git::switch(&ctx.runner, base)?;
    pushed
}
