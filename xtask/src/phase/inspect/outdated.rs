//! Says what is behind: pinned versions against what is published and complete, and the published base against Debian's
//! security archive. Changes nothing. Refuses, with `--exit-code`, a tree that is behind; an unknown answer is never
//! called current.

use std::time::Duration;

use anyhow::{Result, bail};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::image::debian;
use crate::model::component::Component;
use crate::model::table::{self, Kind};
use crate::model::version::Version;
use crate::output;
use crate::upstream::availability::{Depth, Supply};
use crate::upstream::locks;
use crate::upstream::security_updates::{self, Update};
use crate::upstream::versions::{self, Upstream};

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Exit with 1 when something is behind
    #[arg(long)]
    pub exit_code: bool,
}

/// One component.
#[derive(Debug, Serialize)]
struct Row {
    component: String,
    pinned: String,
    /// The newest version whose files are there for every platform.
    newest_complete: Option<String>,
    newest_published: Option<String>,
    /// The newest version of a later major, which is taken only by name.
    new_major: Option<String>,
    /// Why upstream says not to use the pinned version.
    deprecated: Option<String>,
    /// Days since the pinned version was published.
    age_days: Option<i64>,
    /// Release notes of the newest complete version.
    notes: String,
    behind: bool,
    /// Why nothing is known.
    cannot_tell: Option<String>,
}

/// The published base.
#[derive(Debug, Serialize)]
struct Base {
    /// The day of its Debian packages in this tree.
    date: String,
    age_days: i64,
    /// Security updates that are missing in the published base.
    security_updates: Option<Vec<Update>>,
    cannot_tell: Option<String>,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let supply = Supply::new(ctx)?;
    let versions = locks::pinned(ctx)?;
    let rows: Vec<Row> = ctx
        .config
        .component
        .iter()
        .map(|component| row(ctx, &supply, component, &versions[&component.name]))
        .collect();
    let base = base(ctx)?;
    if ctx.json {
        output::json(&json!({ "components": rows, "base": base }));
    } else {
        print(&rows, &base);
    }
    let mut behind: Vec<&str> =
        rows.iter().filter(|row| row.behind).map(|row| row.component.as_str()).collect();
    if base.security_updates.as_ref().is_some_and(|updates| !updates.is_empty()) {
        behind.push("the base");
    }
    if args.exit_code && !behind.is_empty() {
        bail!(
            "behind: {}: run `cargo xtask bump <component> latest` or `cargo xtask refresh-base`",
            behind.join(", ")
        );
    }
    Ok(())
}

fn row(ctx: &Context, supply: &Supply, component: &Component, pinned: &str) -> Row {
    let mut row = Row {
        component: component.name.clone(),
        pinned: pinned.to_owned(),
        newest_complete: None,
        newest_published: None,
        new_major: None,
        deprecated: None,
        age_days: None,
        notes: component.notes(pinned),
        behind: false,
        cannot_tell: None,
    };
    match supply.upstream(ctx, component) {
        Err(error) => row.cannot_tell = Some(format!("{error:#}")),
        Ok(upstream) => {
            let version = pinned.parse::<Version>().ok();
            let complete = newest(ctx, supply, component, &upstream, version);
            row.age_days = version.and_then(|version| upstream.times.get(&version)).map(|time| days(*time));
            row.new_major = version.and_then(|it| upstream.new_major(it)).map(|it| it.to_string());
            row.deprecated = version.and_then(|it| upstream.deprecated.get(&it)).cloned();
            row.behind = complete.is_some_and(|complete| version.is_none_or(|version| version < complete));
            row.newest_complete = complete.map(|version| version.to_string());
            row.newest_published = upstream.published.first().map(ToString::to_string);
            row.notes = component.notes(row.newest_complete.as_deref().unwrap_or(pinned));
        }
    }
    row
}

/// The newest version that is complete with its dependencies. Those are resolved only where it would be newer than what
/// is pinned.
fn newest(
    ctx: &Context,
    supply: &Supply,
    component: &Component,
    upstream: &Upstream,
    pinned: Option<Version>,
) -> Option<Version> {
    let pinned = pinned?;
    let newest = supply.newest_complete(ctx, component, upstream, pinned)?;
    if newest <= pinned {
        return Some(newest);
    }
    let complete = |to: &Version| {
        let locked = versions::locked(ctx, supply, component, *to, Depth::Presence, Duration::ZERO);
        locked
            .inspect_err(|error| ctx.say(format!("passing over {} {to}: {error:#}", component.name)))
            .is_ok()
    };
    upstream.candidates(pinned, newest).into_iter().find(complete).or(Some(pinned))
}

fn base(ctx: &Context) -> Result<Base> {
    let date = debian::pinned(ctx)?.date;
    let day = Date::strptime("%Y%m%d", &date)?.to_zoned_datetime(TimeZone::UTC)?;
    let mut base = Base { date, age_days: days(day.timestamp()), security_updates: None, cannot_tell: None };
    match security_updates::find(ctx) {
        Ok(updates) => base.security_updates = Some(updates),
        Err(error) => base.cannot_tell = Some(format!("{error:#}")),
    }
    Ok(base)
}

fn days(since: Timestamp) -> i64 {
    Timestamp::now().duration_since(since).as_secs() / SignedDuration::from_hours(24).as_secs()
}

impl table::Row for Row {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("component", Kind::Text),
        ("pinned", Kind::Text),
        ("complete", Kind::Text),
        ("published", Kind::Text),
        ("age days", Kind::Number),
        ("notes", Kind::Text),
    ];

    fn cells(&self) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        let notes =
            self.cannot_tell.as_ref().map_or_else(|| self.notes.clone(), |why| format!("cannot tell: {why}"));
        vec![
            self.component.clone(),
            self.pinned.clone(),
            text(&self.newest_complete),
            text(&self.newest_published),
            self.age_days.map_or_else(|| "?".to_owned(), |days| days.to_string()),
            if self.behind { format!("{notes} <- behind") } else { notes },
        ]
    }
}

fn print(rows: &[Row], base: &Base) {
    output::table(rows);
    for row in rows {
        if let Some(why) = &row.deprecated {
            output::line(format!("{}: upstream says not to use {}: {why}", row.component, row.pinned));
        }
        if let Some(major) = &row.new_major {
            output::line(format!(
                "{0}: {major} is a new major version: `cargo xtask bump {0} {major}` takes it",
                row.component
            ));
        }
    }
    output::line(format!("base: Debian packages of {}, {} days old", base.date, base.age_days));
    match (&base.security_updates, &base.cannot_tell) {
        (Some(updates), _) if updates.is_empty() => output::line("base: has all security updates"),
        (Some(updates), _) => {
            for update in updates {
                output::line(format!("base: security update {update}"));
            }
        }
        (None, why) => output::line(format!(
            "base: cannot tell its security updates: {}",
            why.as_deref().unwrap_or_default()
        )),
    }
}
