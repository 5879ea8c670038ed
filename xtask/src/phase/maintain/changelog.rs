//! Checks `CHANGELOG.md`, prints one entry, or gives what is unreleased its release. Refuses a changelog out of order
//! and a tag without its entry.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::context::Context;
use crate::model::changelog::{Changelog, Entry};
use crate::model::version::ReleaseTag;
use crate::output;
use crate::project::gitea;
use crate::promotion::release_tag;
use crate::tools::files::Edit;

const FILE: &str = "CHANGELOG.md";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Report every problem; with --release-tag, also what that release needs
    Check,
    /// Print the entry of a release, for its notes
    Show { tag: ReleaseTag },
    /// Move the unreleased section into the entry of a release
    Promote { tag: ReleaseTag },
    /// Publish the entry of a tag as the notes of its release on the Gitea server, with the report that `cargo xtask report` wrote
    Attach {
        /// [default: the pushed git tag]
        tag: Option<ReleaseTag>,
    },
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let text = ctx.read(FILE)?;
    let log = Changelog::parse(&text);
    match args.action {
        Action::Check => {
            let problems = log.problems(ctx.release_tag);
            if !problems.is_empty() {
                bail!("{FILE}: {}", problems.join("\n  "));
            }
            Ok(())
        }
        Action::Show { tag } => {
            output::line(log.entry(tag).with_context(|| format!("{FILE} has no entry for {tag}"))?);
            Ok(())
        }
        Action::Attach { .. } if gitea::is_foreign(ctx) => Ok(()),
        Action::Attach { tag } => {
            let tag = tag.or(ctx.release_tag);
            let tag = tag.context("no release: say a tag, such as v1.18.18")?;
            gitea::attach_notes(ctx, tag)?;
            gitea::attach_report(ctx, tag)
        }
        Action::Promote { tag } => {
            let date = Timestamp::now().strftime("%F").to_string();
            let newest_is_open = release_tag::newest_is_open(ctx, &log)?;
            let after = log.promote(Entry { tag, date: &date, newest_is_open })?.to_string();
            let edit = Edit { path: FILE.to_owned(), before: text, after };
            output::text(edit.diff());
            ctx.replace(&[edit])
        }
    }
}
