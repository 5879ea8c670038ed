//! Checks this machine for everything that a release needs, and installs what is missing on Debian and Ubuntu. Refuses to
//! install on other systems or without root, and changes nothing unless asked to.

mod setup;

pub use setup::install_cosign;

use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::context::signing::{PUBLIC, PUBLISH_KEY};
use crate::context::sources as registries;
use crate::context::{Context, Destination};
use crate::error::missing;
use crate::image::parts;
use crate::image::{builders, debian, disk};
use crate::model::config::Optional;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::output;
use crate::promotion::permissions;
use crate::tools::command::cmd;
use crate::tools::{crane, docker, source};
use crate::upstream::lock_tools;

/// How long a host is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Install and start what is missing (Debian and Ubuntu, as root or with sudo)
    #[arg(long)]
    pub install: bool,
}

/// One line of the report.
struct Finding {
    what: String,
    /// The command that fixes it; `None` if all is well.
    fix: Option<String>,
    /// A warning does not stop a release.
    fatal: bool,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { what: what.into(), fix: None, fatal: false }
    }

    fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: Some(fix.into()), fatal: true }
    }
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    if args.install {
        setup::install(ctx, &packages(ctx))?;
    }
    let findings = examine(ctx);
    if ctx.json {
        let lines: Vec<_> =
            findings.iter().map(|f| json!({ "what": f.what, "fix": f.fix, "fatal": f.fatal })).collect();
        output::json(&json!(lines));
    }
    let mut broken = 0;
    for finding in &findings {
        match &finding.fix {
            None => ctx.say(format!("ok    {}", finding.what)),
            Some(fix) if finding.fatal => ctx.say(format!("FAIL  {}: {fix}", finding.what)),
            Some(fix) => ctx.say(format!("warn  {}: {fix}", finding.what)),
        }
        broken += usize::from(finding.fatal && finding.fix.is_some());
    }
    // A dry run has installed nothing, so it reports and goes on.
    if broken > 0 && !ctx.runner.dry_run {
        return Err(missing(format!(
            "{broken} things are missing on this machine: run `cargo xtask doctor --install`"
        )));
    }
    Ok(())
}

fn examine(ctx: &Context) -> Vec<Finding> {
    let install = "run `cargo xtask doctor --install`";
    let mut findings = Vec::new();
    findings.extend(engine(ctx, install));
    for (name, found) in tools(ctx) {
        findings.push(match found {
            Found::Fine(version) => Finding::ok([name, version.as_str()].join(" ").trim_end()),
            Found::Old(version, least) => {
                Finding::bad(format!("{name} {version}: {} or newer is needed", dotted(least)), install)
            }
            Found::Missing => Finding::bad(format!("{name} is not installed"), install),
        });
    }
    for platform in ctx.platforms.iter().filter(|platform| **platform != Platform::host()) {
        findings.push(match (builders::may_emulate(ctx), setup::emulated(ctx, *platform)) {
            (false, _) => {
                Finding::ok(format!("{platform} is left to its own machines: emulation is not allowed"))
            }
            (true, true) => Finding::ok(format!("emulation of {platform}, for the base and the smoke test")),
            (true, false) => Finding::bad(format!("{platform} cannot be run here"), install),
        });
    }
    findings.push(signing_key(ctx));
    findings.push(match disk::free_below(&ctx.runner, ctx.root.as_str()) {
        Some(free) if free < disk::COLD_RELEASE => {
            let what = format!("{} GB of disk are free", free / 1_000_000_000);
            Finding {
                what,
                fix: Some("a cold release wants 15 GB: `cargo xtask local down --purge` frees some".into()),
                fatal: false,
            }
        }
        Some(free) => Finding::ok(format!("{} GB of disk are free", free / 1_000_000_000)),
        None => Finding { what: "free disk space".into(), fix: Some("cannot tell".into()), fatal: false },
    });
    findings.extend(sources(ctx));
    match &ctx.destination {
        Destination::Local => findings.push(match ctx.running_registry() {
            Some(host) => Finding::ok(format!("local registry {host}")),
            None => Finding::ok("local registry: started when it is needed"),
        }),
        // Proved here, since a refusal after an hour of building helps nobody.
        Destination::Remote(repository) => {
            let found = permissions::findings(ctx, repository);
            if found.problems.is_empty() {
                findings.push(Finding::ok(format!("the accounts may publish to {repository}")));
            }
            findings.extend(found.problems.into_iter().map(|problem| Finding::bad("publishing", problem)));
            let warning = |text| Finding { what: "publishing".into(), fix: Some(text), fatal: false };
            findings.extend(found.warnings.into_iter().map(warning));
            findings.extend(limit(ctx, repository));
        }
    }
    findings
}

/// The engine, and who builds where it cannot hold images of several platforms.
fn engine(ctx: &Context, install: &str) -> Vec<Finding> {
    let Some(engine) = docker::engine(&ctx.runner) else {
        return vec![Finding::bad("no Docker engine answers", install)];
    };
    let (is_podman, found) = (engine.name == docker::PODMAN, format!("{} {}", engine.name, engine.version));
    let least = if is_podman { PODMAN } else { ENGINE };
    if is_older(&engine.version, least) {
        let upgrade = match is_podman {
            true => "upgrade Podman",
            false => "upgrade the Docker engine (its package is docker.io or docker-ce)",
        };
        return vec![Finding::bad(format!("{found}: {} or newer is needed", dotted(least)), upgrade)];
    }
    if engine.containerd_store {
        return vec![Finding::ok(found)];
    }
    let store = if is_podman { "" } else { " with the classic image store" };
    let builder = match &ctx.settings.builder {
        Some(name) => format!("the builder {name}"),
        None => format!("a container, the builder {}", docker::OWN_BUILDER),
    };
    let mut findings = vec![Finding::ok(format!("{found}{store}: images are built by {builder}"))];
    if is_podman && ctx.is_rehearsal() {
        let what = "Podman and a registry on this machine".to_owned();
        let fix =
            "it is reached without TLS only if registries.conf has `insecure = true` for its host and port";
        findings.push(Finding { what, fix: Some(fix.to_owned()), fatal: false });
    }
    findings
}

/// Manifests that a bump of one component reads, docker's own pulls not counted (docs/architecture.md).
const READS: u64 = 60;

/// Tags that are asked for the limit: one of them may have lost its image.
const PROBES: usize = 3;

/// What Docker Hub has for a look at its limit ("Usage and limits", "View pull rate and limit").
const HUB_PROBE: &str = "docker.io/ratelimitpreview/test";

/// Whose signatures count, by the key's fingerprint.
fn signing_key(ctx: &Context) -> Finding {
    let finding = |what: String, fix: String| Finding { what, fix: Some(fix), fatal: false };
    match ctx.trusted() {
        Ok(Some(key)) => Finding::ok(format!("signatures by the key {} count", key.fingerprint())),
        Ok(None) if ctx.is_rehearsal() => {
            Finding::ok("a rehearsal on this machine makes a key of its own to sign with")
        }
        Ok(None) => {
            finding(format!("{PUBLIC} is missing, and nothing is released unsigned"), PUBLISH_KEY.to_owned())
        }
        Err(error) => finding("the signing key cannot be read".to_owned(), format!("{error:#}")),
    }
}

/// How much of its limit the registry still allows, where it has one.
fn limit(ctx: &Context, repository: &Repository) -> Option<Finding> {
    // A registry names its limit with a manifest that is there: before the first release, none of these repositories has one.
    let (registry, runner) = (&ctx.registry, &ctx.runner);
    let tags = registry.tags(runner, repository).unwrap_or_default().into_iter();
    let mut known = tags.take(PROBES).map(|tag| (repository.clone(), tag)).collect::<Vec<_>>();
    if repository.is_docker_hub() {
        known.push((HUB_PROBE.parse().ok()?, "latest".to_owned()));
    }
    let budget = known.into_iter().find_map(|(repository, tag)| {
        registry.digest(runner, &repository, &tag).ok()?;
        registry.budget(&repository)
    })?;
    let what =
        format!("{} of {} manifest reads are left at {}", budget.remaining, budget.limit, repository.host());
    Some(match budget.remaining < READS {
        true => Finding {
            what,
            fix: Some(format!("a release needs about {READS}: wait, or log in with another account")),
            fatal: false,
        },
        false => Finding::ok(what),
    })
}

/// Whether each place that a build takes something from answers; a source with a substitute is only reported.
fn sources(ctx: &Context) -> Vec<Finding> {
    let answers = |url: &str| source::answers(&ctx.agent, url, PATIENCE);
    let responds = |url: &str| source::responds(&ctx.agent, url, PATIENCE);
    let mut findings = Vec::new();
    let debian = debian::pinned(ctx);
    if let Ok(debian::Pin { official, .. }) = &debian {
        findings.push(match responds(&format!("{}/v2/", official.api())) {
            true => Finding::ok(format!("{} answers", official.host())),
            false => {
                Finding::ok(format!("{} does not answer: Debian's archive is used instead", official.host()))
            }
        });
    }
    findings.extend(base_parts(ctx));
    let archive = registries::debian_archive(ctx, "Debian");
    let archive =
        archive.zip(debian.ok()).map(|(uri, pin)| format!("{}/dists/{}/InRelease", uri.url, pin.suite));
    findings.push(match archive {
        Some(url) if answers(&url) => Finding::ok("Debian's archive answers"),
        Some(url) => Finding::bad(
            format!("Debian's archive does not answer at {url}"),
            "check the network and apt's sources",
        ),
        // Not a Debian host: the build containers have sources of their own.
        None => Finding::ok("Debian's archive: not asked, since this is no Debian host"),
    });
    for (name, address) in
        [("npm registry", lock_tools::npm_registry(ctx)), ("Python index", registries::pypi_index(ctx))]
    {
        findings.push(match address {
            Ok(url) if responds(&url.url) => Finding::ok(format!("the {name} answers")),
            Ok(url) => Finding::bad(
                format!("the {name} does not answer at {url}"),
                "check the network and its proxy",
            ),
            Err(error) => Finding::bad(format!("the {name}"), format!("{error:#}")),
        });
    }
    findings
}

/// Whether the parts of the base with hosts of their own are locked and available. A rehearsal may leave them out.
fn base_parts(ctx: &Context) -> Vec<Finding> {
    let finding = |part: &Optional| match (parts::left_out(ctx).get(&part.name), ctx.is_rehearsal()) {
        (None, _) => Finding::ok(format!("{} is locked and its host answers", part.name)),
        (Some(why), true) => {
            Finding::ok(format!("a new base on this machine leaves out {}: {why}", part.name))
        }
        (Some(why), false) => Finding::bad(format!("{} is not available", part.name), why.clone()),
    };
    parts::included(ctx).map(finding).collect()
}

/// The first engine that can keep its images in containerd's store, which holds several platforms of one image.
const ENGINE: Number = (24, 0);
/// The oldest Podman that was tried.
const PODMAN: Number = (5, 0);
/// The first buildx whose `bake` takes `--allow=fs.read=`; 0.13, which Debian 13 has, ends with exit code 125.
const BUILDX: Number = (0, 19);
/// The oldest crane that releases were made with.
const CRANE: Number = (0, 20);

/// Major and minor number of a program.
type Number = (u64, u64);

fn dotted((major, minor): Number) -> String {
    format!("{major}.{minor}")
}

/// The first word of a program's output that is a version, such as `28.5.2+dfsg1` or `v0.20.7`.
fn version_in(text: &str) -> Option<(&str, Number)> {
    text.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches('v').trim_end_matches(',');
        let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        let number = (numbers.next()?, numbers.next()?);
        word.starts_with(|c: char| c.is_ascii_digit()).then_some((word, number))
    })
}

/// False for a version that is not known: a build by a distribution may not print one.
fn is_older(version: &str, least: Number) -> bool {
    version_in(version).is_some_and(|(_, number)| number < least)
}

/// A program on this machine.
enum Found {
    Missing,
    /// Its version, and the one that is needed.
    Old(String, Number),
    /// Its version, where it matters and the program prints it.
    Fine(String),
}

impl Found {
    fn of(output: Option<String>, least: Option<Number>) -> Self {
        let (Some(output), Some(least)) = (&output, least) else {
            return output.map_or(Self::Missing, |_| Self::Fine(String::new()));
        };
        match version_in(output) {
            Some((version, number)) if number < least => Self::Old(version.to_owned(), least),
            found => Self::Fine(found.map_or("", |(version, _)| version).to_owned()),
        }
    }
}

/// The programs that are needed, by their Debian packages. All are asked at once, since some take a while to print their
/// version.
fn tools(ctx: &Context) -> Vec<(&'static str, Found)> {
    let python = || ("python3", cmd!("python3 --version"), None);
    let mut tools = vec![
        ("buildx", cmd!("docker buildx version"), Some(BUILDX)),
        ("crane", crane::version(), Some(CRANE)),
    ];
    // Asked for the index where nothing else names it.
    if registries::configured_pypi(ctx).is_none() {
        tools.push(("python3-pip", cmd!("python3 -m pip --version"), None));
    }
    if ctx.destination == Destination::Local {
        // Tests and rehearsals, which a job of a release does without.
        tools.push(("shellcheck", cmd!("shellcheck --version"), None));
        tools.push(python());
        // Where no package has the program, a container serves the local registry.
        let has_apt = || ctx.runner.probe(&cmd!("apt-get --version")).is_some();
        if ctx.settings.registry_image.is_none() && has_apt() {
            tools.push(("docker-registry", cmd!("docker-registry --version"), None));
        }
        tools.push(("mmdebstrap", cmd!("mmdebstrap --version"), None));
    } else if registries::configured_npm(ctx).is_none() {
        // Unpacks the npm that is asked for its registry.
        tools.push(python());
    }
    let runner = &ctx.runner;
    thread::scope(|scope| {
        let ask = |(name, cmd, least)| (name, scope.spawn(move || Found::of(runner.probe(&cmd), least)));
        let asked: Vec<_> = tools.into_iter().map(ask).collect();
        asked.into_iter().map(|(name, found)| (name, found.join().unwrap_or(Found::Missing))).collect()
    })
}

/// The packages whose programs are missing or too old.
fn packages(ctx: &Context) -> Vec<&'static str> {
    let tools = tools(ctx).into_iter().filter(|(_, found)| !matches!(found, Found::Fine(_)));
    tools.map(|(name, _)| if name == "buildx" { "docker-buildx" } else { name }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        for (text, number) in [
            ("github.com/docker/buildx 0.29.1+ds1 0.29.1+ds1-4", (0, 29)),
            ("github.com/docker/buildx v0.13.1 788433953af10f2a698f5c07611dddce2e08c7a0", (0, 13)),
            ("28.5.2+dfsg1", (28, 5)),
            ("v0.20.7", (0, 20)),
        ] {
            assert_eq!(version_in(text).map(|(_, number)| number), Some(number), "{text}");
        }
        assert_eq!(version_in("could not determine build information"), None);
        assert!(is_older("20.10.24", ENGINE) && !is_older("24.0.9", ENGINE) && !is_older("unknown", ENGINE));
    }
}
