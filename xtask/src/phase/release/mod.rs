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
use crate::image::base::{self, Base, BuiltBase, FoundBase};
use crate::image::tree::Tree;
use crate::image::variant::{self, FoundVariant, StagedVariant};
use crate::image::verdict::{self, TestedVariant};
use crate::image::{debian, summary};
use crate::model::version::ReleaseTag;
use crate::output;
use crate::phase::inspect::report;
use crate::phase::maintain::changelog;
use crate::phase::minutes;
use crate::project::gitea;
use crate::promotion::record;
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
        output::text(ctx.read(CHECKLIST)?);
        return Ok(());
    }
    let clock = Clock::default();
    variant::chosen(ctx, &args.only)?;
    publish::refuse_part(ctx, &args.only)?;
    let tree = Tree::load(ctx)?;

    clock.begin(ctx, 1, "doctor", "", minutes::SET_UP);
    let found = look(ctx, &tree, &args.only)?;
    if matches!(found, Found::Tested(..)) {
        ctx.say("everything is built and tested: no engine and no source is needed");
    } else {
        let install = args.local || ctx.destination == Destination::Local;
        doctor::run(ctx, &doctor::Args { install })?;
    }

    clock.begin(ctx, 2, "preflight", ": every file that has to be fetched", minutes::PREFLIGHT);
    if matches!(found, Found::Less) {
        preflight::run(ctx, &preflight::Args::default())?;
    } else {
        ctx.say("everything is built: nothing has to be fetched");
    }
    if !args.local && ctx.release_tag.is_some() {
        changelog::run(ctx, &changelog::Args { action: changelog::Action::Check })?;
    }

    let (base, found, tested) = build_and_test(ctx, &tree, &args.only, found, &clock)?;
    // Only a dry run has images that it would build or test.
    let FoundBase::Built(base) = &base else { return would_publish(ctx, &base, &found, &clock) };
    if tested.len() < found.len() {
        return would_publish(ctx, base, &found, &clock);
    }

    clock.begin(ctx, 6, "publish", "", minutes::PROMOTE);
    let (only, allow_downgrade) = (args.only.clone(), args.allow_downgrade);
    let publish = publish::Args { promote_latest: true, allow_downgrade, only };
    let release = publish::publish(ctx, &tree, base, &tested, &publish)?;

    clock.begin(ctx, 7, "base-latest", "", minutes::PROMOTE);
    promote_base_latest::promote(ctx, base, &|| variant::find(ctx, &tree, base, &args.only))?;

    clock.begin(ctx, 8, "description", "", minutes::DESCRIBE);
    update_description::run(ctx)?;
    settle(ctx, &tested, release, &clock);
    if let Some(tag) = ctx.release_tag.filter(|_| gitea::is_set(ctx)) {
        gitea::attach_notes(ctx, tag)?;
        gitea::attach_report(ctx, tag)?;
    }
    table(ctx, base, &tested, &clock, json)
}

/// Stores what this run took, if it changed anything, and writes the report. The release is done: what fails here is told.
fn settle(ctx: &Context, tested: &[TestedVariant<'_>], release: ReleaseTag, clock: &Clock) {
    if ctx.runner.dry_run || http::sent().values().all(|sent| sent.writes == 0) {
        return;
    }
    let phases = clock.phases().into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect();
    let run = record::Run { release, phases, requests: http::sent() };
    let written =
        record::write_run(ctx, tested, &run).and_then(|()| report::write(ctx, Some(release), false));
    match written {
        Ok(path) => ctx.say(format!("the report of {release} is {path}")),
        Err(error) => ctx.say(format!("warning: there is no report of {release}: {error:#}")),
    }
}

/// The rest of a dry run whose images are not all tested.
fn would_publish(ctx: &Context, base: &Base, found: &[FoundVariant<'_>], clock: &Clock) -> Result<()> {
    clock.begin(ctx, 6, "publish", "", minutes::PROMOTE);
    publish::would_publish(ctx, &base.repository, found)?;
    clock.begin(ctx, 7, "base-latest", "", minutes::PROMOTE);
    promote_base_latest::would_promote(ctx, base)?;
    clock.begin(ctx, 8, "description", "", minutes::DESCRIBE);
    update_description::run(ctx)
}

/// Builds and tests the images that `found` is without. In a dry run, some of them may be untested or not exist.
fn build_and_test<'a>(
    ctx: &'a Context,
    tree: &Tree,
    only: &[String],
    found: Found<'a>,
    clock: &Clock,
) -> Result<(FoundBase, Vec<FoundVariant<'a>>, Vec<TestedVariant<'a>>)> {
    clock.begin(ctx, 3, "base", "", minutes::BASE);
    ctx.start_registry()?;
    let base = match &found {
        Found::Tested(base, _) | Found::Built(base, _) => {
            ctx.skip("build", base.reference(), "built before from the same inputs");
            FoundBase::Built(base.clone())
        }
        Found::Less => build_base::ensure(ctx, tree)?,
    };

    clock.begin(ctx, 4, "variants", "", minutes::VARIANTS);
    let (mut tested, variants) = match found {
        Found::Tested(_, tested) => (tested, Vec::new()),
        Found::Built(_, staged) => (Vec::new(), staged.into_iter().map(FoundVariant::Staged).collect()),
        Found::Less => (Vec::new(), build::ensure(ctx, tree, &base, only)?),
    };

    clock.begin(ctx, 5, "smoke", "", minutes::SMOKE);
    for it in &tested {
        ctx.skip("smoke", &it.variant.name, smoke::PASSED_BEFORE);
    }
    let mut staged = Vec::new();
    for found in &variants {
        match found {
            FoundVariant::Staged(it) => staged.push(it.clone()),
            FoundVariant::Absent(plan) => smoke::would_test(ctx, plan)?,
        }
    }
    if let Some(built) = base.as_built().filter(|_| !staged.is_empty()) {
        let verdicts = smoke::ensure(ctx, tree, built, &staged, &ctx.platforms, false)?;
        for (staged, verdicts) in staged.into_iter().zip(verdicts) {
            // A suite that fails is an error above: only a dry run has no verdict.
            tested.extend(TestedVariant::new(staged, verdicts));
        }
    }
    Ok((base, variants, tested))
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
    /// Begins a phase: says so, and starts its deadline.
    fn begin(&self, ctx: &Context, number: u32, name: &'static str, about: &str, minutes: u64) {
        ctx.runner.begin(Duration::from_secs(60 * minutes));
        let phase = format!("[{number}/8] {name}{about}");
        output::phase(format!("release {phase}"));
        ctx.say(format!("==> {phase} ({:.0} s)", self.start.elapsed().as_secs_f32()));
        self.steps.borrow_mut().push((name, Instant::now()));
    }

    /// Seconds of each phase up to now, to a tenth.
    fn phases(&self) -> Vec<(&'static str, f64)> {
        let steps = self.steps.borrow();
        let ends = steps.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        let seconds = |took: Duration| (took.as_secs_f64() * 10.0).round() / 10.0;
        steps.iter().zip(ends).map(|((name, at), end)| (*name, seconds(end - *at))).collect()
    }
}

/// What the registry has of these variants: all of it tested, all of it built, or less.
enum Found<'a> {
    Tested(BuiltBase, Vec<TestedVariant<'a>>),
    Built(BuiltBase, Vec<StagedVariant<'a>>),
    Less,
}

/// Looks, and makes nothing on its way, so that a machine that was never set up can look as well.
fn look<'a>(ctx: &'a Context, tree: &Tree, only: &[String]) -> Result<Found<'a>> {
    if !ctx.has_registry() {
        return Ok(Found::Less);
    }
    ctx.start_registry()?;
    if !debian::is_made(ctx, &ctx.repository()?)? {
        return Ok(Found::Less);
    }
    let FoundBase::Built(base) = base::find(ctx, tree, &ctx.platforms)? else { return Ok(Found::Less) };
    let found = variant::find(ctx, tree, &base, only)?;
    if found.iter().any(|it| it.as_staged().is_none()) {
        return Ok(Found::Less);
    }
    let staged = found.into_iter().map(FoundVariant::staged).collect::<Result<Vec<_>>>()?;
    let mut tested = Vec::new();
    for it in &staged {
        tested.extend(TestedVariant::new(it.clone(), verdict::find(ctx, tree, &base, it)?));
    }
    Ok(if tested.len() == staged.len() { Found::Tested(base, tested) } else { Found::Built(base, staged) })
}

/// The images of the release, and how to run them.
fn table(
    ctx: &Context,
    base: &BuiltBase,
    tested: &[TestedVariant<'_>],
    clock: &Clock,
    json: bool,
) -> Result<()> {
    let (mut rows, phases) = (Vec::new(), clock.phases());
    for it in tested {
        rows.extend(summary::rows_of(ctx, base, it, &it.verdicts)?);
    }
    let seconds = clock.start.elapsed().as_secs();
    if json {
        let phases: BTreeMap<_, _> = phases.into_iter().collect();
        let requests = http::sent();
        output::json(&json!({ "images": rows, "seconds": seconds, "phases": phases, "requests": requests }));
        return Ok(());
    }
    output::table(&rows);
    let phases: Vec<String> = phases.iter().map(|(name, seconds)| format!("{name} {seconds:.1}")).collect();
    ctx.tell(format!("done in {seconds} s: {}", phases.join(", ")));
    ctx.close("cargo xtask status");
    Ok(())
}
