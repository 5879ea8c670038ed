//! Builds the family in three ways on engines that have nothing, and writes what each took into `docs/benchmarks.md`;
//! `--compression` compares compressions of one image instead. Touches neither the user's engine nor images nor tree,
//! but for that page. What was not measured is called so.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use serde_json::json;

use crate::ctx::Ctx;
use crate::lab::Lab;
use crate::model::bench::{self, Compressed, Cost, Report, Step, Way};
use crate::model::command::Cmd;
use crate::model::config::Variant;
use crate::model::dockerfile;
use crate::model::environment::splice;
use crate::model::reference::Repository;
use crate::tools::crane;
use crate::tools::engine::Scratch;
use crate::tools::files::{self, Edit};
use crate::{floor, machine};

/// The plain ways.
const RECIPE: &str = "bench/Dockerfile";

const PAGE: &str = "docs/benchmarks.md";

/// What takes longer is not measured again.
const LONG: f64 = 300.0;

/// What is compared: BuildKit's default for gzip and a quicker one, then one level for each of the four encoders that
/// its zstd has (0 to 2, 3 to 6, 7 and 8, 9 and more). Level 3 is its default.
const COMPRESSIONS: [(&str, Option<u8>); 6] = [
    ("gzip", None),
    ("gzip", Some(1)),
    ("zstd", Some(1)),
    ("zstd", Some(3)),
    ("zstd", Some(7)),
    ("zstd", Some(9)),
];

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
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    if args.runs == 0 {
        bail!("--runs 0 measures nothing: give 1 or more");
    }
    let lab = Lab::open(ctx, &args.from)?;
    let facts = machine::facts(&ctx.runner)?;
    if args.compression {
        if ctx.runner.dry_run {
            bail!("comparing compressions has no dry run: it changes nothing but {PAGE}");
        }
        let rows = compressions(&lab, args.runs)?;
        return settle(ctx, "compression", &format!("{facts}\n{}", bench::compression_table(&rows)));
    }
    let mut bench =
        Bench { report: Report::default(), slow_base: None, variants: variants(ctx, args), lab, args };
    let all = [Way::Original, Way::Plain, Way::Ours];
    let ways = all.into_iter().filter(|way| args.shape.is_empty() || args.shape.contains(way));
    if ctx.runner.dry_run {
        return ways.into_iter().try_for_each(|way| bench.show(way));
    }
    let mut failures = Vec::new();
    for way in ways {
        if let Err(error) = bench.way(way) {
            // The other ways are worth knowing all the same.
            failures.push(format!("{way}: {error:#}"));
        }
    }
    if bench.report.median(Way::Ours, Step::Bump).is_some() {
        bench.floor()?;
    }
    let passage = format!("{facts}\n{}", bench.passage()?);
    settle(ctx, if args.quick { "quick" } else { "full" }, &passage)?;
    if failures.is_empty() { Ok(()) } else { bail!("not all was measured\n{}", failures.join("\n")) }
}

fn variants<'a>(ctx: &'a Ctx, args: &Args) -> Vec<&'a Variant> {
    ctx.config.variant.iter().take(if args.quick { 1 } else { usize::MAX }).collect()
}

/// Prints a passage and puts it into the page.
fn settle(ctx: &Ctx, name: &str, passage: &str) -> Result<()> {
    println!("{passage}");
    let before = ctx.read(PAGE)?;
    let after = splice(&before, name, &format!("\n{passage}\n"))?;
    let after = after.with_context(|| format!("{PAGE} has no place for {name}"))?;
    files::replace(&ctx.root, &[Edit { path: PAGE.to_owned(), before, after }])
}

struct Bench<'a> {
    lab: Lab<'a>,
    args: &'a Args,
    variants: Vec<&'a Variant>,
    report: Report,
    /// What a plain base took that was too slow to be built twice, and where it is.
    slow_base: Option<(Cost, String)>,
}

/// One engine and one repository, in which a family is built from nothing.
struct Round<'a> {
    way: Way,
    engine: Scratch<'a>,
    repository: Repository,
    /// What was occupied before the engine was started.
    empty: u64,
}

impl<'a> Bench<'a> {
    fn ctx(&self) -> &'a Ctx {
        self.lab.ctx
    }

    fn round(&self, way: Way, number: usize) -> Result<Round<'a>> {
        let empty = self.lab.occupied();
        let repository = self.lab.repository(&format!("{way}-{number}/opencode-devbox"))?;
        Ok(Round { way, engine: self.lab.engine(&way.to_string())?, repository, empty })
    }

    /// Prints what one round runs.
    fn show(&self, way: Way) -> Result<()> {
        let round = self.round(way, 1)?;
        self.build_base(&round)?;
        self.build_variants(&round, true)?;
        self.build_variants(&round, false)
    }

    /// Rounds from nothing as often as asked for, or once where that takes long; then bumps upon a base that is there.
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
                    self.build_base(&round)?;
                    self.build_variants(&round, false)
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
            self.build_variants(&round, true)?;
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
        self.measure(round, || self.build_variants(round, old))
    }

    /// The measured bump, and what it means for users.
    fn bump(&mut self, round: &Round<'_>) -> Result<Cost> {
        let old = self.tags(round, &[])?;
        let cost = self.measured_variants(round, false)?;
        self.report.add(round.way, Step::Bump, cost);
        let new = self.tags(round, &old)?;
        let repository =
            if round.way == Way::Ours { round.repository.staging() } else { round.repository.clone() };
        let (old, new) = (self.lab.images(&repository, &old)?, self.lab.images(&repository, &new)?);
        let update = bench::update(&old, &new).context("a bump made no image")?;
        self.report.updates.insert(round.way, update);
        Ok(cost)
    }

    /// The variants' tags in a round's repository, without those that are known.
    fn tags(&self, round: &Round<'_>, known: &[(String, String)]) -> Result<Vec<(String, String)>> {
        let repository =
            if round.way == Way::Ours { round.repository.staging() } else { round.repository.clone() };
        let listed = self.ctx().runner.read(&Cmd::new("crane", ["ls", &repository.to_string()]))?;
        let pair = |tag: &str| {
            let (variant, _) = tag.rsplit_once('-')?;
            let ours = self.variants.iter().any(|it| it.name == variant);
            ours.then(|| (variant.to_owned(), tag.to_owned()))
        };
        Ok(listed.lines().filter_map(pair).filter(|pair| !known.contains(pair)).collect())
    }

    /// The cost of the base; one that takes long under emulation is built once, and counted for both plain ways.
    fn base(&mut self, round: &Round<'_>) -> Result<Cost> {
        if let (Way::Plain, Some((cost, reference))) = (round.way, &self.slow_base) {
            self.ctx().runner.run(&crane::copy(reference, &round.repository.tag("base")))?;
            return Ok(*cost);
        }
        self.measure(round, || self.build_base(round))
    }

    /// Pushes the slow base of the original way for the plain way, and adds what that takes.
    fn keep_base(&mut self, round: &Round<'_>, base: Cost) -> Result<()> {
        if round.way == Way::Original && base.seconds > LONG {
            let reference = self.lab.repository("kept/opencode-devbox")?.tag("base");
            let cmd = self.plain_build(round, "shared", &self.lab.new_tree(), None)?;
            let cmd = cmd.arg(format!("--output=type=image,name={reference},push=true,store=false"));
            let push = self.measure(round, || self.ctx().runner.run(&cmd))?;
            self.slow_base = Some((base.then(push), reference));
        }
        Ok(())
    }

    fn copy_base(&self, way: Way, round: &Round<'_>) -> Result<()> {
        let first = self.lab.repository(&format!("{way}-1/opencode-devbox"))?;
        let listed = self.ctx().runner.read(&Cmd::new("crane", ["ls", &first.to_string()]))?;
        let tag = listed.lines().find(|tag| *tag == "base" || tag.starts_with("base-")).context("no base")?;
        self.ctx().runner.run(&crane::copy(&first.tag(tag), &round.repository.tag(tag)))
    }

    fn build_base(&self, round: &Round<'_>) -> Result<()> {
        let tree = self.lab.new_tree();
        let cmd = match round.way {
            Way::Original => self.plain_build(round, "base", &tree, None)?.arg("--output=type=cacheonly"),
            Way::Plain => {
                let output = format!(
                    "--output=type=image,name={},push=true,store=false",
                    round.repository.tag("base")
                );
                self.plain_build(round, "shared", &tree, None)?.arg(output)
            }
            Way::Ours => self.ours(round, &tree, &["build-base"])?,
        };
        self.ctx().runner.run(&cmd)
    }

    fn build_variants(&self, round: &Round<'_>, old: bool) -> Result<()> {
        let tree = if old { self.lab.old_tree() } else { self.lab.new_tree() };
        let runner = &self.ctx().runner;
        match round.way {
            Way::Original => self.variants.iter().try_for_each(|variant| {
                let reference = self.plain_reference(round, &tree, variant)?;
                let output = format!("--output=type=image,name={reference},push=true,store=false");
                runner.run(&self.plain_build(round, "original", &tree, Some(variant))?.arg(output))
            }),
            Way::Plain => runner.run(&self.plain_bake(round, &tree)?),
            Way::Ours => {
                let names = self.variants.iter().map(|variant| variant.name.clone());
                runner.run(&self.ours(round, &tree, &["build"])?.args(names))
            }
        }
    }

    fn ours(&self, round: &Round<'_>, tree: &Utf8Path, words: &[&str]) -> Result<Cmd> {
        let cmd = self.lab.xtask(tree, words).args(["--repository".to_owned(), round.repository.to_string()]);
        let platforms = self.ctx().platforms.iter().map(|platform| format!("--platform={platform}"));
        Ok(round.engine.on(cmd.args(platforms)))
    }

    fn plain_reference(&self, round: &Round<'_>, tree: &Utf8Path, variant: &Variant) -> Result<String> {
        let dockerfile = &self.ctx().config.variants.dockerfile;
        let version = self.lab.pinned(tree, dockerfile, "OPENCODE_VERSION")?;
        Ok(round.repository.tag(&format!("{}-{version}", variant.name)))
    }

    fn plain_args(&self, tree: &Utf8Path, variant: Option<&Variant>) -> Result<BTreeMap<String, String>> {
        let config = &self.ctx().config;
        let base = self.ctx().read(&config.base.dockerfile)?;
        let packages = bench::packages(&base).context("the base's Dockerfile has no list of packages")?;
        let mut args = BTreeMap::from([
            ("DEBIAN_IMAGE".to_owned(), self.lab.debian.clone()),
            ("PACKAGES".to_owned(), packages),
        ]);
        for (name, version) in self.ctx().versions()? {
            args.insert(config.component(&name)?.arg(), version);
        }
        let version = self.lab.pinned(tree, &config.variants.dockerfile, "OPENCODE_VERSION")?;
        args.insert("OPENCODE_VERSION".to_owned(), version);
        for (component, switch) in dockerfile::switches(&self.ctx().read(RECIPE)?) {
            args.insert(switch, variant.is_some_and(|variant| variant.has(&component)).to_string());
        }
        args.extend(self.ctx().settings.package_sources());
        Ok(args)
    }

    fn plain_build(
        &self,
        round: &Round<'_>,
        target: &str,
        tree: &Utf8Path,
        variant: Option<&Variant>,
    ) -> Result<Cmd> {
        let mut cmd = Cmd::new("docker", ["buildx", "build", "--progress=plain"]);
        cmd = cmd.args([format!("--file={tree}/{RECIPE}"), format!("--target={target}")]);
        cmd = cmd.arg(format!("--platform={}", platforms(self.ctx()).join(",")));
        for (name, value) in self.plain_args(tree, variant)? {
            cmd = cmd.arg(format!("--build-arg={name}={value}"));
        }
        if let Some(ca) = &self.ctx().settings.ca_bundle {
            cmd = cmd.arg(format!("--secret=id=ca,src={ca}"));
        }
        Ok(round.engine.on(cmd.arg(tree.as_str())))
    }

    fn plain_bake(&self, round: &Round<'_>, tree: &Utf8Path) -> Result<Cmd> {
        let mut targets = serde_json::Map::new();
        for variant in &self.variants {
            let mut args = self.plain_args(tree, Some(variant))?;
            args.insert("UPON".to_owned(), round.repository.tag("base"));
            let tag = self.plain_reference(round, tree, variant)?;
            let ca = self.ctx().settings.ca_bundle.as_deref();
            let mut target = bench::plain_target(tree.as_str(), &args, &tag, ca);
            target["platforms"] = json!(platforms(self.ctx()));
            targets.insert(variant.name.clone(), target);
        }
        let names: Vec<&String> = targets.keys().collect();
        let definition = json!({ "group": { "default": { "targets": names } }, "target": targets });
        Ok(round.engine.on(crate::tools::docker::bake(&definition, None)))
    }

    fn floor(&mut self) -> Result<()> {
        for number in 1..=self.args.runs {
            let folder = self.lab.scratch(&format!("floor-{number}"))?;
            let repository = self.lab.repository(&format!("floor-{number}/layers"))?;
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
            platforms(self.ctx()).join(" and "),
            self.args.from
        );
        if let Some((cost, _)) = &self.slow_base {
            text += &format!(
                "The plain base was built once, in {:.0} s, and counts in both plain ways.\n\n",
                cost.seconds
            );
        }
        Ok(format!("{text}{}\n{}\n{}", self.report.table(), self.report.updates(), self.report.floor()))
    }
}

fn platforms(ctx: &Ctx) -> Vec<String> {
    ctx.platforms.iter().map(ToString::to_string).collect()
}

/// Compresses, pushes, pulls and starts the same image in each way.
fn compressions(lab: &Lab<'_>, runs: usize) -> Result<Vec<Compressed>> {
    let [platform] = lab.ctx.platforms.as_slice() else {
        bail!("compressions are compared on one platform: run again with `--platform linux/amd64`");
    };
    let variant = lab.ctx.config.variant.first().context("no variant")?;
    let maker = lab.engine("push")?;
    let repository = lab.repository("compression/opencode-devbox")?;
    for words in [vec!["build-base"], vec!["build", &variant.name]] {
        let cmd = lab.xtask(&lab.new_tree(), &words);
        let to = ["--repository".to_owned(), repository.to_string(), format!("--platform={platform}")];
        lab.ctx.runner.run(&maker.on(cmd.args(to)))?;
    }
    let staging = repository.staging();
    let listed = lab.ctx.runner.read(&Cmd::new("crane", ["ls", &staging.to_string()]))?;
    let tag = listed.lines().find(|tag| tag.starts_with(&variant.name)).context("nothing is staged")?;
    let mut rows = Vec::new();
    for (kind, level) in COMPRESSIONS {
        let mut all = Vec::new();
        for run in 0..runs {
            all.push(compressed(lab, &maker, &staging.tag(tag), kind, level, run)?);
        }
        let middle = |figure: fn(&Compressed) -> f64| bench::median(all.iter().map(figure).collect());
        rows.push(Compressed {
            push: middle(|it| it.push),
            pull: middle(|it| it.pull),
            start: middle(|it| it.start),
            ..all[0].clone()
        });
    }
    Ok(rows)
}

fn compressed(
    lab: &Lab<'_>,
    maker: &Scratch<'_>,
    image: &str,
    kind: &str,
    level: Option<u8>,
    run: usize,
) -> Result<Compressed> {
    let name = level.map_or_else(|| format!("{kind}, default"), |level| format!("{kind}, level {level}"));
    let tag = level.map_or_else(|| format!("{kind}-{run}"), |level| format!("{kind}{level}-{run}"));
    let repository = lab.repository("compressed/opencode-devbox")?;
    let reference = repository.tag(&tag);
    // A mark of its own makes the layer new to the engine, which keeps what it has compressed.
    let build =
        Cmd::new("docker", ["buildx", "build", "--progress=plain", "--target=flat", "--provenance=false"])
            .arg(format!("--file={}/{RECIPE}", lab.new_tree()))
            .args([format!("--build-arg=UPON={image}"), format!("--build-arg=MARK={tag}")]);
    let build = maker.on(build.arg(lab.new_tree().as_str()));
    let runner = &lab.ctx.runner;
    runner.run(&build.clone().arg("--output=type=cacheonly"))?;
    let level = level.map_or_else(String::new, |level| format!(",compression-level={level}"));
    let output = format!("--output=type=image,name={reference},push=true,store=false,oci-mediatypes=true");
    let push = build.arg(format!("{output},compression={kind}{level}"));
    let push = lab.measure(maker, 0, || runner.run(&push))?.seconds;
    let user = lab.engine("pull")?;
    let on = |words: &[&str]| user.on(Cmd::new("docker", words.iter().copied()));
    let pull = lab.measure(&user, 0, || runner.run(&on(&["pull", "--quiet", &reference])))?.seconds;
    let start = ["run", "--rm", "--entrypoint=/opt/opencode/bin/opencode", &reference, "--version"];
    let start = lab.measure(&user, 0, || runner.run(&on(&start)))?.seconds;
    let images = lab.images(&repository, &[(name.clone(), tag)])?;
    let bytes = images.values().flatten().map(|(_, size)| size).sum();
    Ok(Compressed { name, bytes, push, pull, start })
}
