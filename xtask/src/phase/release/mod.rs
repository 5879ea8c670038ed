//! The whole release, phase by phase. A rerun does only what is missing. Refuses what any of its phases refuses, before
//! the first public tag.

pub mod base_decide;
pub mod build;
pub mod build_base;
pub mod doctor;
pub mod preflight;
pub mod promote_base_latest;
pub mod publish;
pub mod smoke;
pub mod update_description;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::context::{Context, Destination};
use crate::image::{debian, state, summary};
use crate::phase::maintain::changelog;
use crate::phase::minutes;
use crate::project::gitea;
use crate::tools::http;

/// What a person does before and after.
const CHECKLIST: &str = "docs/release.md";

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Release into a registry on this machine, setting up engine and registry where they are missing
    #[arg(long)]
    pub local: bool,
    /// Let latest go back to an older release
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Print the checklist of a release and do nothing
    #[arg(long)]
    pub checklist: bool,
    /// Only these variants; a local rehearsal may release part of the family
    #[arg(long, value_name = "VARIANT")]
    pub only: Vec<String>,
}

pub fn run(ctx: &Context, args: &Args, json: bool) -> Result<()> {
    if args.checklist {
        print!("{}", ctx.read(CHECKLIST)?);
        return Ok(());
    }
    let clock = Clock::default();
    let step = |number: u32, name: &'static str, about: &str, minutes: u64| {
        ctx.runner.begin(Duration::from_secs(60 * minutes));
        ctx.say(format!("==> [{number}/8] {name}{about} ({:.0} s)", clock.start.elapsed().as_secs_f32()));
        clock.steps.borrow_mut().push((name, Instant::now()));
    };
    let variants = state::chosen(ctx, &args.only)?;

    step(1, "doctor", ": what this machine lacks", minutes::SET_UP);
    let have = have(ctx, &args.only)?;
    if have == Have::Tested {
        ctx.say("everything is built and tested: no engine and no source is needed");
    } else {
        let install = args.local || ctx.destination == Destination::Local;
        doctor::run(ctx, &doctor::Args { install })?;
    }

    step(2, "preflight", ": every file that has to be fetched", minutes::PREFLIGHT);
    if have != Have::Less {
        ctx.say("everything is built: nothing has to be fetched");
    } else {
        preflight::run(ctx, &preflight::Args::default())?;
    }
    if !args.local && ctx.release_tag.is_some() {
        changelog::run(ctx, &changelog::Args { action: changelog::Action::Check })?;
    }

    step(3, "base", "", minutes::BASE);
    if ctx.runner.dry_run && !state::has_registry(ctx) {
        ctx.say("the rest depends on what the registry holds, and it does not run yet: a dry run ends here");
        return Ok(());
    }
    if have == Have::Less {
        build_base::run(ctx)?;
    } else {
        ctx.say("the base exists: nothing to build");
    }
    if ctx.runner.dry_run && state::base(ctx)?.present.is_none() {
        ctx.say("the rest depends on the base's digest: a dry run ends here");
        return Ok(());
    }

    step(4, "variants", "", minutes::VARIANTS);
    build::run(ctx, &build::Args { variants: args.only.clone(), print: false })?;
    if ctx.runner.dry_run && have == Have::Less {
        ctx.say("the rest depends on the variants' digests: a dry run ends here");
        return Ok(());
    }

    step(5, "smoke", "", minutes::SMOKE);
    for variant in &variants {
        smoke::run(ctx, &smoke::Args { variant: variant.name.clone(), force: false }, &ctx.platforms)?;
    }

    if ctx.runner.dry_run && !is_tested(ctx, &args.only)? {
        ctx.say("the rest depends on the verdicts: a dry run ends here");
        return Ok(());
    }

    step(6, "publish", "", minutes::PROMOTE);
    let (only, allow_downgrade) = (args.only.clone(), args.allow_downgrade);
    publish::run(ctx, &publish::Args { promote_latest: true, allow_downgrade, only })?;

    if let Some(tag) = ctx.release_tag.filter(|_| gitea::is_set(ctx)) {
        gitea::attach_notes(ctx, tag)?;
    }

    step(7, "base-latest", "", minutes::PROMOTE);
    promote_base_latest::run(ctx)?;

    step(8, "description", "", minutes::DESCRIBE);
    update_description::run(ctx)?;
    table(ctx, &args.only, &clock, json)
}

/// When the release and each of its phases began.
struct Clock {
    start: Instant,
    steps: RefCell<Vec<(&'static str, Instant)>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), steps: RefCell::default() }
    }
}

impl Clock {
    /// Seconds of each phase up to now, to a tenth.
    fn phases(&self) -> Vec<(&'static str, f64)> {
        let steps = self.steps.borrow();
        let ends = steps.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        let seconds = |took: Duration| (took.as_secs_f64() * 10.0).round() / 10.0;
        steps.iter().zip(ends).map(|((name, at), end)| (*name, seconds(end - *at))).collect()
    }
}

/// What the registry has of these variants: all of it tested, all of it built, or less.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Have {
    Tested,
    Built,
    Less,
}

/// Looks, and makes nothing on its way, so that a machine that was never set up can look as well.
fn have(ctx: &Context, only: &[String]) -> Result<Have> {
    if !state::has_registry(ctx) || !debian::is_made(ctx, &state::repository(ctx)?)? {
        return Ok(Have::Less);
    }
    let base = state::base(ctx)?;
    let Some(index) = &base.present else { return Ok(Have::Less) };
    if state::stages(ctx, only, &base, index)?.iter().any(|stage| stage.present.is_none()) {
        return Ok(Have::Less);
    }
    Ok(if is_tested(ctx, only)? { Have::Tested } else { Have::Built })
}

/// True if these variants have passed on every platform.
fn is_tested(ctx: &Context, only: &[String]) -> Result<bool> {
    let (base, index) = state::existing_base(ctx)?;
    for stage in state::stages(ctx, only, &base, &index)? {
        for platform in &ctx.platforms {
            if !state::verdict(ctx, &stage, *platform)?.is_some_and(|verdict| verdict.passed) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What now stands where, and how to run it.
fn table(ctx: &Context, only: &[String], clock: &Clock, json: bool) -> Result<()> {
    let (rows, phases) = (summary::images(ctx, only)?, clock.phases());
    let seconds = clock.start.elapsed().as_secs();
    if json {
        let phases: BTreeMap<_, _> = phases.into_iter().collect();
        let requests = http::sent();
        println!("{}", json!({ "images": rows, "seconds": seconds, "phases": phases, "requests": requests }));
        return Ok(());
    }
    println!("{:<13} {:<12} {:<20} {:>8} {:>8}  run", "variant", "platform", "digest", "MB", "smoke s");
    for row in rows {
        let mb = row.bytes as f64 / 1e6;
        let short = &row.digest[..row.digest.len().min(19)];
        let platform = row.platform.to_string();
        let (variant, smoke, run) = (row.variant, row.smoke_seconds.unwrap_or_default(), row.run);
        println!("{variant:<13} {platform:<12} {short:<20} {mb:>8.1} {smoke:>8}  {run}");
    }
    let phases: Vec<String> = phases.iter().map(|(name, seconds)| format!("{name} {seconds:.1}")).collect();
    ctx.tell(format!("done in {seconds} s: {}", phases.join(", ")));
    Ok(())
}
