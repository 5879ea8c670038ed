//! The Gitea server that holds this project, where the environment names one: notes of releases, and pull requests.

use anyhow::{Context, Result, bail};

use crate::ctx::Ctx;
use crate::missing;
use crate::model::changelog::Changelog;
use crate::model::version::ReleaseTag;
use crate::tools::files::{self, Edit};
use crate::tools::git;
use crate::tools::gitea::Gitea;

/// The server, the repository on it and a token, or what is not set.
pub fn server(ctx: &Ctx) -> Result<Gitea> {
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
pub fn is_set(ctx: &Ctx) -> bool {
    let settings = &ctx.settings;
    settings.gitea_url.is_some() && settings.gitea_repository.is_some() && settings.gitea_token.is_some()
}

/// True, and said, where a workflow runs for a forge whose token is not Gitea's: what only Gitea does is left out.
pub fn is_foreign(ctx: &Ctx) -> bool {
    let foreign = ctx.settings.actions && ctx.settings.gitea_token.is_none();
    if foreign {
        ctx.say("no GITEA_TOKEN: release notes and pull requests are left out");
    }
    foreign
}

/// Gives the release of a tag its changelog entry as notes. A rerun changes nothing.
pub fn attach_notes(ctx: &Ctx, tag: ReleaseTag) -> Result<()> {
    let log = Changelog::parse(&ctx.read("CHANGELOG.md")?);
    let notes = log.entry(tag);
    let notes =
        notes.with_context(|| format!("no entry for {tag}: run `cargo xtask changelog promote {tag}`"))?;
    let server = server(ctx)?;
    if ctx.runner.dry_run {
        println!("# give the release of {tag} its {} bytes of notes", notes.len());
        return Ok(());
    }
    let (address, changed) = server.put_release(&tag.to_string(), notes)?;
    ctx.say(if changed {
        format!("the notes of {tag} are at {address}")
    } else {
        format!("the notes of {tag} stand already")
    });
    Ok(())
}

/// Opens a pull request with edits, from a branch of that name; one that is open already is left alone. The branch that
/// was checked out is so again afterwards.
pub fn propose(ctx: &Ctx, head: &str, subject: &str, body: &str, edits: &[Edit]) -> Result<()> {
    let server = server(ctx)?;
    let base = git::branch(&ctx.runner)?;
    if base.is_empty() {
        bail!("no branch is checked out that a pull request could be for: run `git switch main`");
    }
    if let Some(open) = server.open_pull_request(&base, head)? {
        ctx.say(format!("{subject} is proposed already: {}", open.html_url));
        return Ok(());
    }
    let paths: Vec<&str> = edits.iter().map(|edit| edit.path.as_str()).collect();
    let write = || if ctx.runner.dry_run { Ok(()) } else { files::replace(&ctx.root, edits) };
    git::switch_to_new(&ctx.runner, head)?;
    let pushed = write()
        .and_then(|()| git::commit(&ctx.runner, &paths, &format!("{subject}\n\n{body}")))
        .and_then(|()| git::push(&ctx.runner, head));
    git::switch(&ctx.runner, &base)?;
    pushed?;
    if ctx.runner.dry_run {
        println!("# open a pull request of {head} for {base}: {subject}");
        return Ok(());
    }
    let pull = server.create_pull_request(&base, head, subject, body)?;
    ctx.say(format!("{subject}: {}", pull.html_url));
    Ok(())
}
