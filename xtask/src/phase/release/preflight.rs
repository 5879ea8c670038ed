//! Checks before the first build that every file that the locks name is available for every platform with the right
//! bytes, that both platforms get the same packages, that the Debian image below them is locked, and that the release can be
//! signed. Reports all problems at once, each with its cause, and refuses the release for any one of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::SignedDuration;
use serde_json::json;

use crate::context::Context;
use crate::image::debian;
use crate::image::parts;
use crate::model::availability::Need;
use crate::model::component::Source;
use crate::model::npm_lock::Lock;
use crate::output;
use crate::upstream::availability::{self, Depth, Supply};
use crate::upstream::locks;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only these components [default: all]
    pub components: Vec<String>,
    /// How long to wait for files that are propagating or rate limited, such as 10m
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    pub wait: SignedDuration,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let start = Instant::now();
    let versions = locks::pinned(ctx)?;
    let components = match args.components.is_empty() {
        true => ctx.config.component.iter().collect(),
        false => args.components.iter().map(|name| ctx.config.component(name)).collect::<Result<Vec<_>>>()?,
    };
    // A lock that is unequal or of another version is wrong even if all its files are there.
    let mut wrong: Vec<String> = debian::problem(ctx)?.into_iter().chain(ctx.signing_problem()).collect();
    for component in components.iter().filter(|component| matches!(component.source, Source::Npm(_))) {
        let path = format!("{}/package-lock.json", component.npm_folder());
        let lock = Lock::parse(&ctx.read(&path)?).with_context(|| path.clone())?;
        wrong.extend(
            lock.problems(component, &versions[&component.name])
                .into_iter()
                .map(|why| format!("{path} {why}")),
        );
    }
    let mut needs = availability::closure(ctx, &components, &ctx.platforms, &|path| ctx.read(path))?;
    if args.components.is_empty() {
        wrong.extend(parts::problems(ctx));
        needs.extend(parts::files(ctx, &ctx.platforms));
    }
    leave_out(ctx, &mut needs);
    let wait = Duration::try_from(args.wait).context("--wait")?;
    let report = Supply::new(ctx)?.check(&needs, Depth::Bytes, wait);
    let seconds = start.elapsed().as_secs_f32();
    if ctx.json {
        output::json(
            &json!({ "items": report.items, "read": report.read, "seconds": seconds, "locks": wrong, "problems": report.problems }),
        );
    }
    wrong.extend(report.problems.iter().map(ToString::to_string));
    if !wrong.is_empty() {
        bail!("preflight failed, nothing was built: {} problems\n  {}", wrong.len(), wrong.join("\n  "));
    }
    ctx.say(format!(
        "preflight: all {} packages are there on every platform and match their locks ({} files read, {seconds:.1} s)",
        report.items, report.read
    ));
    Ok(())
}

/// Parts of the base that a rehearsal does without need no check; a part that the tree does not include, neither.
fn leave_out(ctx: &Context, needs: &mut Vec<Need>) {
    for part in &ctx.config.base_optional {
        let concerned = needs.iter().any(|need| need.component == part.name);
        if !part.include {
            needs.retain(|need| need.component != part.name);
        } else if let (true, true, Some(why)) =
            (concerned, ctx.is_rehearsal(), parts::left_out(ctx).get(&part.name))
        {
            ctx.say(format!("{} is not checked and a base on this machine leaves it out: {why}", part.name));
            needs.retain(|need| need.component != part.name);
        }
    }
}
