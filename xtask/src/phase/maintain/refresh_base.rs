//! Takes today's Debian packages into the base: one line of its Dockerfile, from which a new base key follows. Refuses
//! a tree with changes that are not committed, unless an option allows it.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::context::Context;
use crate::image::debian;
use crate::model::changelog::Changelog;
use crate::model::dockerfile;
use crate::output;
use crate::project::gitea::{self, Proposal};
use crate::tools::files::Edit;
use crate::tools::git;
use crate::upstream::security_updates;

const CHANGELOG: &str = "CHANGELOG.md";
/// How the line in the changelog begins; a later refresh takes the place of an earlier one.
const LINE: &str = "- Debian packages of ";

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Commit the change
    #[arg(long)]
    pub commit: bool,
    /// Allow changes in the tree that are not committed
    #[arg(long, conflicts_with = "commit")]
    pub allow_dirty: bool,
    /// Only if security updates of the published base are available
    #[arg(long)]
    pub if_behind: bool,
    /// Commit the change on a branch of its own, push that and open a pull request on the Gitea server
    #[arg(long, conflicts_with_all = ["commit", "allow_dirty"])]
    pub pull_request: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    if args.pull_request && gitea::is_foreign(ctx) {
        return Ok(());
    }
    if !args.allow_dirty && !git::is_clean(&ctx.runner)? {
        bail!("the tree has changes that are not committed: commit or stash them, or say --allow-dirty");
    }
    let now = Timestamp::now();
    let (stamp, day) = (now.strftime("%Y%m%d").to_string(), now.strftime("%F").to_string());
    if debian::pinned(ctx)?.date == stamp {
        ctx.say(format!("the base has the Debian packages of {day} already"));
        return Ok(());
    }
    let mut reason = String::new();
    if args.if_behind {
        let updates = security_updates::find(ctx)?;
        if updates.is_empty() {
            ctx.say("the published base has all security updates");
            return Ok(());
        }
        let lines: Vec<String> = updates.iter().map(|update| format!("- {update}")).collect();
        reason = format!("Security updates:\n{}", lines.join("\n"));
    }
    let file = &ctx.config.base.dockerfile;
    let before = ctx.read(file)?;
    let after = dockerfile::with_arg_default(&before, "DEBIAN_DATE", &stamp).with_context(|| file.clone())?;
    // The image below moves with its packages, where its host answers.
    let mut edits = vec![Edit { path: file.clone(), before, after }, debian::lock(ctx, true)?];
    let before = ctx.read(CHANGELOG)?;
    let after = Changelog::parse(&before).note(LINE, &format!("{LINE}{day}."))?.to_string();
    edits.push(Edit { path: CHANGELOG.to_owned(), before, after });
    edits.retain(Edit::changes);
    edits.iter().for_each(|edit| output::text(edit.diff()));
    let subject = format!("Take the Debian packages of {day}");
    if args.pull_request {
        let proposal =
            Proposal { head: "refresh-base", title: &subject, ending: &day, body: &reason, edits: &edits };
        return gitea::propose(ctx, &proposal);
    }
    ctx.replace(&edits)?;
    if args.commit {
        let paths: Vec<&str> = edits.iter().map(|edit| edit.path.as_str()).collect();
        git::commit(&ctx.runner, &paths, format!("{subject}\n\n{reason}").trim_end())?;
    }
    Ok(())
}
