//! Deletes what no release needs any more from both repositories. Lists it first, and deletes only if asked to. Refuses while
//! a release is being promoted or was interrupted, and where the registry does not delete.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::model::retention::Doomed;
use crate::model::table::{self, Kind};
use crate::output;
use crate::promotion::ledger::Ledger;
use crate::promotion::prune::{Limits, Plan};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many of the newest releases keep their staged images
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub keep_releases: usize,
    /// How many days an image stays that no release needs
    #[arg(long, value_name = "D", default_value_t = 30)]
    pub keep_days: u64,
    /// Delete what is listed
    #[arg(long)]
    pub yes: bool,
}

/// Manifests of one kind, by repository.
#[derive(Serialize)]
struct Row {
    repository: String,
    what: String,
    manifests: usize,
    tags: usize,
    bytes: Option<u64>,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let repository = ctx.repository()?;
    let ledger = Ledger::new(ctx, &repository);
    let limits = Limits { releases: args.keep_releases, age: args.keep_days.saturating_mul(86400) };
    let deletes = args.yes && !ctx.runner.dry_run;
    let plan = if deletes { ledger.prune(limits)? } else { ledger.plan_prune(limits)? };
    if ctx.json {
        output::json(&json!({ "deleted": deletes, "deletes": plan.record.deletes, "kept_tags": plan.kept,
            "left_for_the_next_run": plan.later }));
        return Ok(());
    }
    print(ctx, &ledger, &plan, deletes);
    Ok(())
}

fn print(ctx: &Context, ledger: &Ledger<'_>, plan: &Plan, deleted: bool) {
    if plan.record.deletes.is_empty() {
        ctx.say(format!("nothing to delete: {} tags are needed or young", plan.kept));
        return;
    }
    for it in plan.record.deletes.iter().filter(|it| !it.tags.is_empty()) {
        let repository = ledger.of(it.repository);
        let size = it.bytes.map(|bytes| format!(", {} KB", bytes.div_ceil(1000))).unwrap_or_default();
        output::line(format!("{} ({}{size})", repository.tag(&it.tags.join(" ")), it.why));
    }
    output::table(&rows(ledger, &plan.record.deletes));
    let (manifests, bytes) = (plan.record.deletes.len(), bytes_of(&plan.record.deletes));
    let size = bytes.map(|bytes| format!(", at most {:.1} MB", bytes as f64 / 1e6)).unwrap_or_default();
    let (verb, tags) = (if deleted { "deleted" } else { "would delete" }, plan.tags());
    ctx.tell(format!("{verb} {manifests} manifests with {tags} tags{size}; {} tags stay", plan.kept));
    if plan.later > 0 {
        ctx.say(format!("{} more manifests are left for the next run", plan.later));
    }
    if !deleted {
        ctx.say("nothing is deleted without --yes");
    } else if !ledger.public.is_docker_hub() {
        ctx.say("a registry frees the disk when it collects garbage: `cargo xtask local gc` for the one of this machine");
    }
}

fn bytes_of<'a>(deletes: impl IntoIterator<Item = &'a Doomed>) -> Option<u64> {
    deletes.into_iter().map(|it| it.bytes).sum()
}

fn rows(ledger: &Ledger<'_>, deletes: &[Doomed]) -> Vec<Row> {
    let mut groups: BTreeMap<_, Vec<&Doomed>> = BTreeMap::new();
    for it in deletes {
        groups.entry((it.repository, it.why.as_str())).or_default().push(it);
    }
    let row = |((side, why), all): ((_, &str), Vec<&Doomed>)| Row {
        repository: ledger.of(side).to_string(),
        what: why.to_owned(),
        manifests: all.len(),
        tags: all.iter().map(|it| it.tags.len()).sum(),
        bytes: bytes_of(all),
    };
    groups.into_iter().map(row).collect()
}

impl table::Row for Row {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("repository", Kind::Text),
        ("what", Kind::Text),
        ("manifests", Kind::Number),
        ("tags", Kind::Number),
        ("KB", Kind::Number),
    ];

    fn cells(&self) -> Vec<String> {
        let size = self.bytes.map_or("?".to_owned(), |bytes| bytes.div_ceil(1000).to_string());
        vec![
            self.repository.clone(),
            self.what.clone(),
            self.manifests.to_string(),
            self.tags.to_string(),
            size,
        ]
    }
}
