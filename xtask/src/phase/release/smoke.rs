//! Runs the smoke suite on staged images, by digest, and records the verdicts in the registry. A check that passed for the
//! same key is not run again, whichever image it ran on; images run side by side as far as processors and memory allow.
//! Refuses a variant that is not staged; a failed check is recorded and fails the phase.

mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use camino::Utf8PathBuf;

use crate::context::{Context, STATE};
use crate::image::base::{self, BuiltBase, FoundBase};
use crate::image::tree::{SUITE, Tree};
use crate::image::variant::{self, FoundVariant, PlannedVariant, StagedVariant};
use crate::image::verdict::{self, Tester};
use crate::image::{builders, packages};
use crate::model::oci::Manifest;
use crate::model::platform::Platform;
use crate::model::progress::{Form, result_of_line};
use crate::model::verdict::{CheckVerdict, Verdict};
use crate::tools::command::{Cmd, cmd};
use crate::tools::runner::Runner;
use crate::tools::{docker, process};

use plan::{Open, Plan, Run};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant to test
    pub variant: String,
    /// Run every check again, those included that passed before
    #[arg(long)]
    pub force: bool,
}

/// Why an image is not tested again.
pub const PASSED_BEFORE: &str = "passed before, the same image and the same suite";

/// The memory that a check may take while others run, in megabytes: an opencode that serves has 314.
const MB_A_CHECK: u64 = 500;

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    ctx.config.variant(&args.variant)?;
    ctx.start_registry()?;
    let tree = Tree::load(ctx)?;
    let (base, staged) = find(ctx, &tree, &args.variant)?;
    ensure(ctx, &tree, &base, std::slice::from_ref(&staged), &ctx.platforms, args.force)?;
    ctx.close("cargo xtask publish, once all variants are tested");
    Ok(())
}

/// The staged variant on all platforms of the family, so that `--platform` picks from it; else on those of this command.
fn find<'a>(ctx: &'a Context, tree: &Tree, name: &str) -> Result<(BuiltBase, StagedVariant<'a>)> {
    let names = [name.to_owned()];
    for platforms in [&ctx.config.platforms, &ctx.platforms] {
        // Not all platforms of the Debian image may be there; the last look below says what is missing.
        let Ok(FoundBase::Built(base)) = base::find(ctx, tree, platforms) else { continue };
        if let Some(FoundVariant::Staged(staged)) =
            variant::find(ctx, tree, &base, &names)?.into_iter().next()
        {
            return Ok((base, staged));
        }
    }
    let base = base::find_built(ctx, tree)?;
    let staged = variant::find_staged(ctx, tree, &base, &names)?.into_iter().next();
    Ok((base, staged.context("a variant that is not defined")?))
}

/// The verdicts of staged variants, in their order, each platform of `platforms` tested where a check has not passed;
/// `force` runs every check. A dry run has no verdict of what it would test.
pub fn ensure(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    staged: &[StagedVariant<'_>],
    platforms: &[Platform],
    force: bool,
) -> Result<Vec<BTreeMap<Platform, Verdict>>> {
    let tester = Tester::new(ctx, tree, base)?;
    let mut verdicts: Vec<BTreeMap<Platform, Verdict>> = Vec::new();
    let mut open = Vec::new();
    for (at, it) in staged.iter().enumerate() {
        let mut counting = BTreeMap::new();
        for (platform, image) in it.index.images() {
            let found = verdict::all(ctx, &it.staging, image)?;
            let base = tester.base(base, platform)?;
            let verdict = tester.counting(&found, &tester.variant(it, &base)?, &base);
            let has_passed = verdict.as_ref().is_some_and(Verdict::passed);
            counting.extend(verdict.map(|verdict| (platform, verdict)));
            if !platforms.contains(&platform) {
                continue;
            }
            if force || !has_passed {
                open.push(Open { at, platform, found });
            } else {
                let name = &it.variant.name;
                ctx.skip("smoke", format!("{name} {platform}"), PASSED_BEFORE);
            }
        }
        verdicts.push(counting);
    }
    if open.is_empty() {
        return Ok(verdicts);
    }
    if !ctx.runner.dry_run {
        // A verdict that cannot be signed counts nowhere.
        ctx.signer()?;
    }
    let native = docker::require_engine(&ctx.runner)?.platform.unwrap_or_else(Platform::host);
    let mut plan = Plan::new(ctx, &tester, base, staged, open, native)?;
    if !force {
        plan.take_known(ctx)?;
    }
    plan.prove_layers(ctx)?;
    plan.report(ctx);
    let results = run_all(ctx, tree, &plan, &last_seconds(ctx, base, &plan))?;
    if ctx.runner.dry_run {
        return Ok(verdicts);
    }
    let done = record(ctx, base, staged, &plan, results);
    let (recorded, failures) = done?;
    for (at, platform, verdict) in recorded {
        verdicts[at].insert(platform, verdict);
    }
    match failures.is_empty() {
        true => Ok(verdicts),
        false => bail!("{}", failures.join("\n")),
    }
}

/// Prints the tests of an image that a dry run would build.
pub fn would_test(ctx: &Context, plan: &PlannedVariant<'_>) -> Result<()> {
    for platform in &ctx.platforms {
        let (image, platform) = (plan.reference(), platform.to_string());
        ctx.runner.run(&cmd!("{SUITE} --image {image} --platform {platform}"))?;
    }
    Ok(())
}

/// What one run found out: the verdict on each of its checks, and how long it took.
struct Ran {
    checks: HashMap<String, bool>,
    seconds: u64,
    failure: Option<String>,
}

/// Seconds of smoke tests, by variant and platform.
type Last = HashMap<(String, Platform), u64>;

/// What the last test of each image took, going by what is published. Only a terminal shows it, so only there it is asked for.
fn last_seconds(ctx: &Context, base: &BuiltBase, plan: &Plan<'_>) -> Last {
    let mut last = Last::new();
    for run in plan.runs.iter().filter(|_| ctx.runner.logs.is_some()) {
        let Ok(variant) = ctx.config.variant(&run.variant) else { continue };
        let index = ctx.registry.image(&ctx.runner, &base.repository, &variant.latest_tag());
        let Ok(Some(index)) = index else { continue };
        let Some(image) = index.platform(run.place.platform) else { continue };
        let verdicts = verdict::all(ctx, &ctx.staging(&base.repository), image).unwrap_or_default();
        let newest = verdicts.into_iter().max_by_key(|verdict| verdict.at).map(|verdict| verdict.seconds);
        last.extend(newest.map(|seconds| ((run.variant.clone(), run.place.platform), seconds)));
    }
    last
}

/// Runs what the plan wants, as many images side by side as processors and memory allow, the emulated ones first, since
/// they take longest.
fn run_all(ctx: &Context, tree: &Tree, plan: &Plan<'_>, last: &Last) -> Result<Vec<Ran>> {
    let runs: Vec<&Run> = plan.runs.iter().collect();
    for run in &runs {
        if run.place.emulated && run.starts {
            builders::allow_emulation(ctx, run.place.platform, "smoke test")?;
        }
    }
    let folder = suite_folder(ctx, tree)?;
    let (at_once, jobs) = share(runs.len(), runs.iter().any(|run| run.place.emulated));
    // What a dry run prints has an order.
    let at_once = if ctx.runner.dry_run { 1 } else { at_once };
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|at| !runs[*at].place.emulated);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let runner = &ctx.runner;
    let work = || -> Result<Vec<(usize, Ran)>> {
        let mut done = Vec::new();
        while let Some(at) = order.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
            let run = runs[*at];
            let seconds = last.get(&(run.variant.clone(), run.place.platform)).copied();
            done.push((*at, run_one(runner, &folder, run, jobs, seconds)?));
        }
        Ok(done)
    };
    let mut ran = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a thread of the smoke test ended"))??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    ran.sort_by_key(|(at, _)| *at);
    Ok(ran.into_iter().map(|(_, ran)| ran).collect())
}

/// How many images run side by side, and how many checks of each. Checks wait as well, so there are more than processors.
fn share(runs: usize, emulated: bool) -> (usize, usize) {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let memory = process::available_megabytes().map_or(usize::MAX, |mb| (mb / MB_A_CHECK) as usize);
    let checks = (processors + 1 + usize::from(emulated)).min(memory).max(1);
    let at_once = runs.min(processors).min(checks).max(1);
    (at_once, checks.div_ceil(at_once))
}

/// The suite as its keys saw it: what changes on disk from now on does not run.
fn suite_folder(ctx: &Context, tree: &Tree) -> Result<Utf8PathBuf> {
    let contexts = ctx.root.join(STATE).join("context");
    match ctx.runner.dry_run {
        true => Ok(tree.planned_context(&verdict::inputs(), &contexts, "smoke")),
        false => tree.context(&verdict::inputs(), &contexts, "smoke"),
    }
}

/// Runs some checks on one image.
fn run_one(runner: &Runner, folder: &Utf8PathBuf, run: &Run, jobs: usize, last: Option<u64>) -> Result<Ran> {
    let scratch = match runner.dry_run {
        true => None,
        false => Some(tempfile::tempdir().context("cannot make a folder")?),
    };
    let tap = scratch.as_ref().map_or("tap".into(), |folder| folder.path().join("tap"));
    let tap = tap.to_string_lossy();
    let platform = run.place.platform.to_string();
    let script = folder.join(SUITE);
    // A dry run prints what can be pasted in any checkout.
    let script = match runner.dry_run {
        true => script.strip_prefix(&runner.root).unwrap_or(&script),
        false => &script,
    };
    let mut command = Cmd::new(script.as_str(), ["--image", &run.reference, "--platform", &platform]);
    for (name, version) in &run.pins.versions {
        command = command.args(["--expect".to_owned(), format!("{name}={version}")]);
    }
    if run.pins.max_mb > 0 {
        command = command.args(["--max-size-mb".to_owned(), run.pins.max_mb.to_string()]);
    }
    let prefix = format!("{} {platform}: ", run.variant);
    let form = Form::Tap { prefix: prefix.clone(), checks: run.checks.len() };
    let command = command
        .shown(format!("smoke {} {platform}", run.variant), form, last)
        .args(["--jobs", &jobs.to_string(), "--prefix", &prefix, "--tap", &tap, "--checks", "-"])
        .stdin(run.checks.iter().map(|check| format!("{check}\n")).collect::<String>());
    let start = Instant::now();
    let result = runner.run(&command);
    if runner.dry_run {
        return result.map(|()| Ran { checks: HashMap::new(), seconds: 0, failure: None });
    }
    let text = std::fs::read_to_string(&*tap).unwrap_or_default();
    let mut checks: HashMap<String, bool> = text.lines().filter_map(result_of_line).collect();
    // A check without a result is one whose container went away.
    for name in &run.checks {
        checks.entry(name.clone()).or_insert(false);
    }
    let failure = result
        .err()
        .map(|error| format!("{:#}", error.context(format!("smoke test of {} on {platform}", run.variant))));
    if let (Some(failure), true) = (&failure, checks.values().all(|passed| *passed)) {
        bail!("{failure}");
    }
    Ok(Ran { checks, seconds: start.elapsed().as_secs(), failure })
}

type Recorded = (usize, Platform, Verdict);

/// Stores what the runs found out beside each image that was open, the base first. A failure is recorded too, so that
/// another machine knows of it. Returns the verdicts of the variants, and what failed.
fn record(
    ctx: &Context,
    base: &BuiltBase,
    staged: &[StagedVariant<'_>],
    plan: &Plan<'_>,
    ran: Vec<Ran>,
) -> Result<(Vec<Recorded>, Vec<String>)> {
    let mut failures: Vec<String> = ran.iter().filter_map(|ran| ran.failure.clone()).collect();
    failures.extend(plan.layer_problems.iter().cloned());
    let (mut results, mut packages) = (plan.known.clone(), plan.packages.clone());
    let now = process::now();
    let (mut recorded, mut seconds) = (Vec::new(), HashMap::new());
    for (run, ran) in plan.runs.iter().zip(ran) {
        for (name, key) in &run.keys {
            let passed = ran.checks.get(name).copied().unwrap_or(false);
            let from = Some(crate::model::verdict::Origin {
                image: run.image.clone(),
                variant: run.variant.clone(),
                at: now,
            });
            results.insert(key.clone(), CheckVerdict { name: name.clone(), key: key.clone(), passed, from });
        }
        seconds.insert((run.image.clone(), run.place.platform), ran.seconds);
    }
    for target in plan.targets() {
        let checks: Vec<CheckVerdict> = target
            .needed
            .iter()
            .filter_map(|it| {
                let mut check = results.get(&it.key)?.clone();
                check.from = check.from.filter(|from| from.image != target.image || from.at != now);
                Some(CheckVerdict { name: it.name.clone(), ..check })
            })
            .collect();
        let place = target.place;
        let list = match packages.get(&place.platform) {
            Some(list) => list.clone(),
            None if checks.iter().all(|check| check.passed) => {
                ctx.runner.read(&list_packages(&target.reference, place.platform))?
            }
            None => String::new(),
        };
        if !list.is_empty() {
            packages.insert(place.platform, list.clone());
        }
        let verdict = Verdict {
            image: target.image.clone(),
            platform: place.platform,
            variant: target.variant.clone(),
            emulated: place.emulated,
            seconds: seconds.get(&(target.image.clone(), place.platform)).copied().unwrap_or(0),
            at: now,
            sequence: target.sequence,
            packages: list,
            checks,
        };
        let index: &Manifest = match target.staged {
            Some(at) => &staged[at].index,
            None => &base.index,
        };
        let verdict = verdict::record(ctx, &ctx.staging(&base.repository), index, verdict, &target.groups)?;
        if !verdict.passed() && !plan.runs.iter().any(|run| run.image == verdict.image) {
            failures
                .push(format!("{} on {}: a check failed on another image", verdict.variant, place.platform));
        }
        if let Some(at) = target.staged {
            recorded.push((at, place.platform, verdict));
        }
    }
    let mut seen = BTreeSet::new();
    failures.retain(|failure| seen.insert(failure.clone()));
    Ok((recorded, failures))
}

fn list_packages(reference: &str, platform: Platform) -> Cmd {
    let platform = platform.to_string();
    cmd!("docker run --rm --network=none --platform {platform} --entrypoint=cat {reference}")
        .arg(packages::LIST)
}
