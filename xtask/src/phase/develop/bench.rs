//! Builds the family in three ways on engines that have nothing, and writes what each took into `docs/benchmarks.md`;
//! `--compression` compares compressions of one image instead, `--refresh` counts what an update downloads. Touches neither the user's engine nor images nor tree,
//! but for that page. Figures that were not measured are marked. Refuses to start without the disk that it takes.

use anyhow::{Context as _, Result, bail};

use crate::bench::lab::Lab;
use crate::bench::ways::Round;
use crate::bench::{compression, floor, machine, refresh};
use crate::context::Context;
use crate::model::bench::{self, Cost, Report, Step, Way};
use crate::model::config::Variant;
use crate::model::environment::splice;
use crate::model::table::Table;
use crate::output;
use crate::tools::crane;
use crate::tools::files::Edit;

const PAGE: &str = "docs/benchmarks.md";

/// What takes longer is not measured again.
const LONG: f64 = 300.0;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first variant on this machine's platform only
    #[arg(long)]
    pub quick: bool,
    /// Measure only this way of building; repeat for several [default: all]
    #[arg(long, value_name = "WAY", value_enum)]
    pub shape: Vec<Way>,
    /// How often what takes under five minutes is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub runs: usize,
    /// Version of opencode that the bump starts from
    #[arg(long, value_name = "VERSION", default_value = "1.18.15")]
    pub from: String,
    /// Compare layer compressions of one image instead
    #[arg(long, conflicts_with_all = ["shape", "from"])]
    pub compression: bool,
    /// Count what a user downloads after an update of five small packages instead
    #[arg(long, conflicts_with_all = ["shape", "compression", "quick"])]
    pub refresh: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    if args.runs == 0 {
        bail!("--runs 0 measures nothing: give 1 or more");
    }
    let lab = Lab::open(ctx, &args.from)?;
    let facts = machine::facts(&ctx.runner)?;
    if args.compression {
        if ctx.runner.dry_run {
            bail!("comparing compressions has no dry run: it changes nothing but {PAGE}");
        }
        let rows = compression::measure(&lab, args.runs)?;
        return settle(ctx, "compression", &format!("{facts}\n{}", Table::of(&rows).markdown()));
    }
    if args.refresh {
        if ctx.runner.dry_run {
            bail!("counting a refresh has no dry run: it changes nothing but {PAGE}");
        }
        let rows = refresh::measure(&lab)?;
        let passage = format!("{facts}\n{}\n{}", Table::of(&rows).markdown(), bench::all_layers(&rows));
        return settle(ctx, "refresh", &passage);
    }
    let variants: Vec<&Variant> =
        ctx.config.variant.iter().take(if args.quick { 1 } else { usize::MAX }).collect();
    let (lab, variants) = (&lab, variants.as_slice());
    let mut bench = Bench { report: Report::default(), slow_base: None, variants, lab, args };
    let all = [Way::Original, Way::Plain, Way::Ours];
    let ways = all.into_iter().filter(|way| args.shape.is_empty() || args.shape.contains(way));
    if ctx.runner.dry_run {
        return ways.into_iter().try_for_each(|way| bench.show(way));
    }
    let mut failures = Vec::new();
    for way in ways {
        if let Err(error) = bench.way(way) {
            // The other ways are worth knowing all the same.
            failures.push((way, format!("{error:#}")));
        }
    }
    if bench.report.median(Way::Ours, Step::Bump).is_some() {
        bench.floor()?;
    }
    let mut passage = format!("{facts}\n{}", bench.passage()?);
    for (way, why) in &failures {
        passage += &format!("\nThe way {way} was not finished: {}\n", why.lines().last().unwrap_or_default());
    }
    settle(ctx, if args.quick { "quick" } else { "full" }, &passage)?;
    ctx.close("git diff docs/benchmarks.md");
    let failures: Vec<String> = failures.iter().map(|(way, why)| format!("{way}: {why}")).collect();
    if failures.is_empty() { Ok(()) } else { bail!("not all was measured\n{}", failures.join("\n")) }
}

/// Prints a passage and puts it into the page.
fn settle(ctx: &Context, name: &str, passage: &str) -> Result<()> {
    output::line(passage);
    let before = ctx.read(PAGE)?;
    let after = splice(&before, name, &format!("\n{passage}\n"))?;
    let after = after.with_context(|| format!("{PAGE} has no place for {name}"))?;
    ctx.replace(&[Edit { path: PAGE.to_owned(), before, after }])
}

struct Bench<'a> {
    lab: &'a Lab<'a>,
    args: &'a Args,
    variants: &'a [&'a Variant],
    report: Report,
    /// What a plain base took that was too slow to be built twice, and where it is.
    slow_base: Option<(Cost, String)>,
}

impl<'a> Bench<'a> {
    fn ctx(&self) -> &'a Context {
        self.lab.ctx
    }

    fn round(&self, way: Way, number: usize) -> Result<Round<'a>> {
        Round::begin(self.lab, way, self.variants, number)
    }

    /// Prints what one round runs.
    fn show(&self, way: Way) -> Result<()> {
        let round = self.round(way, 1)?;
        round.base()?;
        round.variants(true)?;
        round.variants(false)
    }

    /// Rounds from nothing as often as asked for, or once where that takes long; then bumps on a base that exists.
    fn way(&mut self, way: Way) -> Result<()> {
        let mut slowest = 0.0;
        for number in 1..=self.args.runs {
            let round = self.round(way, number)?;
            let base = self.base(&round)?;
            let old = self.measured_variants(&round, true)?;
            self.report.add(way, Step::Cold, base.then(old));
            let bump = self.bump(&round)?;
            for _ in 0..self.args.runs {
                let again = self.measure(&round, || {
                    // A base that was only copied is not in this engine, which would build it now.
                    if way != Way::Plain || self.slow_base.is_none() {
                        round.base()?;
                    }
                    round.variants(false)
                })?;
                self.report.add(way, Step::Again, again);
            }
            slowest = base.then(old).seconds;
            if slowest > LONG {
                self.keep_base(&round, base)?;
                if old.seconds + bump.seconds > LONG {
                    return Ok(());
                }
                break;
            }
        }
        while way != Way::Original && slowest > LONG && self.report.runs(way, Step::Bump) < self.args.runs {
            let number = self.report.runs(way, Step::Bump) + 1;
            let round = self.round(way, number)?;
            self.copy_base(way, &round)?;
            round.variants(true)?;
            self.bump(&round)?;
        }
        Ok(())
    }

    fn measure(&self, round: &Round<'_>, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let cost = self.lab.measure(&round.engine, round.empty, work)?;
        self.ctx().say(format!("{}: {:.1} s", round.way, cost.seconds));
        Ok(cost)
    }

    fn measured_variants(&self, round: &Round<'_>, old: bool) -> Result<Cost> {
        self.measure(round, || round.variants(old))
    }

    /// The measured bump, and what it means for users.
    fn bump(&mut self, round: &Round<'_>) -> Result<Cost> {
        let old = round.tags(&[])?;
        let cost = self.measured_variants(round, false)?;
        self.report.add(round.way, Step::Bump, cost);
        let new = round.tags(&old)?;
        let repository = round.images();
        let (old, new) = (self.lab.images(&repository, &old)?, self.lab.images(&repository, &new)?);
        let update = bench::update(&old, &new).context("a bump made no image")?;
        self.report.updates.insert(round.way, update);
        Ok(cost)
    }

    /// The cost of the base; one that takes long under emulation is built once, and counted for both plain ways.
    fn base(&mut self, round: &Round<'_>) -> Result<Cost> {
        if let (Way::Plain, Some((cost, reference))) = (round.way, &self.slow_base) {
            self.ctx().runner.run(&crane::copy(reference, &round.repository.tag("base")))?;
            return Ok(*cost);
        }
        self.measure(round, || round.base())
    }

    /// Pushes the slow base of the original way for the plain way, and adds what that takes.
    fn keep_base(&mut self, round: &Round<'_>, base: Cost) -> Result<()> {
        if round.way == Way::Original && base.seconds > LONG {
            let reference = self.lab.repository("kept/opencode-devbox")?.tag("base");
            let cmd = round.plain_build("shared", &self.lab.new_tree(), None)?;
            let cmd = cmd.arg(format!("--output=type=image,name={reference},push=true,store=false"));
            let push = self.measure(round, || self.ctx().runner.run(&cmd))?;
            self.slow_base = Some((base.then(push), reference));
        }
        Ok(())
    }

    fn copy_base(&self, way: Way, round: &Round<'_>) -> Result<()> {
        let first = self.lab.repository(&format!("{way}-1/opencode-devbox"))?;
        let listed = self.ctx().runner.read(&crane::tags(&first.to_string()))?;
        let tag = listed.lines().find(|tag| *tag == "base" || tag.starts_with("base-")).context("no base")?;
        self.ctx().runner.run(&crane::copy(&first.tag(tag), &round.repository.tag(tag)))
    }

    fn floor(&mut self) -> Result<()> {
        for number in 1..=self.args.runs {
            let folder = self.lab.scratch(&format!("floor-{number}"))?;
            let repository = self.lab.repository(&format!("floor-{number}/layers"))?;
            self.lab.flush()?;
            match floor::seconds(self.ctx(), &folder, &repository) {
                Ok(seconds) => self.report.floor.push(seconds),
                Err(error) => {
                    self.ctx().say(format!("the floor is not measured: {error:#}"));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn passage(&self) -> Result<String> {
        let names: Vec<&str> = self.variants.iter().map(|variant| variant.name.as_str()).collect();
        let new = self.ctx().opencode_version()?;
        let mut text = format!(
            "Built: {} for {}; the bump is opencode {} to {new}.\n\n",
            names.join(", "),
            self.lab.platforms().join(" and "),
            self.args.from
        );
        if let Some((cost, _)) = &self.slow_base {
            text += &format!(
                "The plain base was built once, in {:.0} s, and counts in both plain ways.\n\n",
                cost.seconds
            );
        }
        for (way, times) in self.lab.repeats.borrow().iter() {
            text += &format!(
                "Builds of the way {way} that failed and were started again: {times}; the failed ones count.\n\n"
            );
        }
        Ok(format!("{text}{}\n{}\n{}", self.report.table(), self.report.updates(), self.report.floor()))
    }
}
