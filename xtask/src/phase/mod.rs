//! The commands: one file each, in the folder of what a person wants to do. Each command is declared here, with what it
//! works on and how long it may take. Only [`release`] chains phases.

pub mod develop;
pub mod inspect;
pub mod maintain;
pub mod recover;
pub mod release;

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;

use crate::context::{Context, Target, Works};
use crate::model::platform::Platform;
use crate::settings::Options;

/// How long each phase of a release may go on trying, in minutes: what it takes on two cores, emulation included, and
/// room.
pub mod minutes {
    pub const SET_UP: u64 = 60;
    pub const PREFLIGHT: u64 = 30;
    pub const BASE: u64 = 120;
    pub const VARIANTS: u64 = 60;
    pub const SMOKE: u64 = 60;
    pub const PROMOTE: u64 = 10;
    pub const DESCRIBE: u64 = 10;
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check this machine for everything that a release needs; --install fixes what it can
    #[command(after_help = "Example:\n  cargo xtask doctor --install")]
    Doctor(release::doctor::Args),
    /// Compute the base key and report whether that base has to be built
    #[command(after_help = "Example:\n  cargo xtask base-decide --json")]
    BaseDecide,
    /// Build and push the base image, if its key is not in the registry
    #[command(after_help = "Example:\n  cargo xtask build-base --platform linux/amd64")]
    BuildBase,
    /// Build the variants that are not staged yet and push them under their content keys
    #[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build omos with-pi --print")]
    Build(release::build::Args),
    /// Test the staged image of a variant on every platform and record the verdict
    #[command(after_help = "Example:\n  cargo xtask smoke omos --platform linux/arm64")]
    Smoke(release::smoke::Args),
    /// Point version tags at the tested images of all variants
    #[command(after_help = "Example:\n  cargo xtask publish --promote-latest")]
    Publish(release::publish::Args),
    /// Complete or undo an interrupted promotion
    #[command(after_help = "Examples:\n  cargo xtask repair\n  cargo xtask repair --undo")]
    Repair(recover::repair::Args),
    /// Point the floating tags of all variants back at an older release
    #[command(after_help = "Example:\n  cargo xtask rollback v1.18.18")]
    Rollback(recover::rollback::Args),
    /// Show what a release would build, test and tag, and why; change nothing
    #[command(after_help = "Example:\n  cargo xtask plan --json")]
    Plan,
    /// Show which inputs, packages and layers differ between two images, or between an image and this tree
    #[command(
        after_help = "Examples:\n  cargo xtask explain latest\n  cargo xtask explain v1.18.15 v1.18.18"
    )]
    Explain(inspect::explain::Args),
    /// Show how far a release has come, from the registry alone
    #[command(after_help = "Example:\n  cargo xtask status --release-tag v1.18.18")]
    Status,
    /// Write a report of a release as one page of HTML: time, sizes, changes, checks, requests, provenance
    #[command(after_help = "Examples:\n  cargo xtask report\n  cargo xtask report v1.18.18 --files --open")]
    Report(inspect::report::Args),
    /// List what no release needs any more in the registry, and delete it with --yes
    #[command(
        after_help = "Examples:\n  cargo xtask prune\n  cargo xtask prune --keep-releases 5 --keep-days 14 --yes"
    )]
    Prune(maintain::prune::Args),
    /// Point base-latest at the base of the published variants
    #[command(after_help = "Example:\n  cargo xtask promote-base-latest")]
    PromoteBaseLatest,
    /// Send DOCKER_HUB.md to Docker Hub as the description
    #[command(
        after_help = "Example:\n  DOCKERHUB_USERNAME=you DOCKERHUB_TOKEN_FILE=/run/secrets/hub cargo xtask update-description --repository docker.io/you/opencode-devbox"
    )]
    UpdateDescription,
    /// Write the generated documentation
    #[command(after_help = "Example:\n  cargo xtask docs --check")]
    Docs(maintain::docs::Args),
    /// Pin another version of a component: Dockerfile, locks, changelog and generated page together
    #[command(
        after_help = "Examples:\n  cargo xtask bump omos 2.2.24\n  cargo xtask bump mempalace latest --commit"
    )]
    Bump(maintain::bump::Args),
    /// Pin another version of opencode; the same as `bump opencode`
    #[command(
        after_help = "Examples:\n  cargo xtask bump-opencode 1.14.44\n  cargo xtask bump-opencode latest --commit --tag"
    )]
    BumpOpencode(maintain::bump::OpencodeArgs),
    /// Show which pinned versions and which Debian packages are outdated
    #[command(after_help = "Examples:\n  cargo xtask outdated\n  cargo xtask outdated --json --exit-code")]
    Outdated(inspect::outdated::Args),
    /// Update the base to today's Debian packages
    #[command(after_help = "Example:\n  cargo xtask refresh-base --commit")]
    RefreshBase(maintain::refresh_base::Args),
    /// Print the release tag that comes next, by git and the registry
    #[command(after_help = "Example:\n  cargo xtask next-tag")]
    NextTag,
    /// Check CHANGELOG.md, print one entry, or move the unreleased section into a release
    #[command(
        after_help = "Examples:\n  cargo xtask changelog check --release-tag v1.18.18\n  cargo xtask changelog show v1.18.18"
    )]
    Changelog(maintain::changelog::Args),
    /// Resolve the pinned versions into lock files
    #[command(after_help = "Examples:\n  cargo xtask lock\n  cargo xtask lock --check")]
    Lock(maintain::lock::Args),
    /// Prove that every file that a build needs is available for every platform, before anything is built
    #[command(after_help = "Examples:\n  cargo xtask preflight\n  cargo xtask preflight opencode --wait 10m")]
    Preflight(release::preflight::Args),
    /// Check signatures, record, verdicts and base of what is published under a tag
    #[command(
        after_help = "Examples:\n  cargo xtask verify v1.18.18-omos\n  cargo xtask verify latest --json --repository docker.io/joakimp/opencode-devbox"
    )]
    Verify(inspect::verify::Args),
    /// Print what an image of this tree contains, with versions, licences, checksums and layers
    #[command(
        after_help = "Examples:\n  cargo xtask sbom omos\n  cargo xtask sbom latest --platform linux/arm64 --format spdx"
    )]
    Sbom(inspect::sbom::Args),
    /// Build base and variants again on an empty engine, and compare them with those in the registry
    #[command(
        after_help = "Examples:\n  cargo xtask verify-reproducible --platform linux/amd64\n  cargo xtask verify-reproducible omos --no-base"
    )]
    VerifyReproducible(inspect::verify_reproducible::Args),
    /// Check the tree without building: configuration, generated files, scripts, Dockerfiles
    #[command(after_help = "Example:\n  cargo xtask validate")]
    Validate,
    /// Run the whole release: set up, build, smoke, publish, promote, describe
    #[command(
        after_help = "Examples:\n  cargo xtask release --local\n  cargo xtask release --release-tag v1.18.18"
    )]
    Release(release::Args),
    /// Start, show or stop the registry (and engine) of this project on this machine
    #[command(
        after_help = "Examples:\n  cargo xtask local up\n  cargo xtask local status\n  cargo xtask local gc\n  cargo xtask local down --purge"
    )]
    Local(develop::local::Args),
    /// Run all tests: format, lints, scripts, Dockerfiles, unit, black-box and live
    #[command(after_help = "Example:\n  cargo xtask test --fast")]
    Test(develop::test::Args),
    /// Measure this pipeline against simpler ways to build the same images, and write docs/benchmarks.md
    #[command(
        after_help = "Examples:\n  cargo xtask bench --quick\n  cargo xtask bench --compression --platform linux/amd64"
    )]
    Bench(develop::bench::Args),
    /// Format the code of the pipeline
    #[command(after_help = "Example:\n  cargo xtask fmt")]
    Fmt,
    /// Write the CI workflows
    #[command(after_help = "Example:\n  cargo xtask workflows --check")]
    Workflows(maintain::workflows::Args),
    /// Free the disk of a CI runner; refuses to run elsewhere
    #[command(after_help = "Example:\n  GITHUB_ACTIONS=true cargo xtask reclaim --dry-run")]
    Reclaim,
    /// Print a completion script for your shell
    #[command(
        after_help = "Example:\n  cargo xtask completions bash > ~/.local/share/bash-completion/completions/cargo-xtask"
    )]
    Completions(develop::completions::Args),
}

impl Command {
    /// What the command works on where the command line does not say.
    pub fn target(&self) -> Target {
        let works = match self {
            Self::Release(args) if !args.local => Works::Published,
            // Tags of releases are those that users see, not those of a rehearsal here.
            Self::NextTag
            | Self::Changelog(_)
            | Self::Outdated(_)
            | Self::RefreshBase(_)
            | Self::Bump(_)
            | Self::BumpOpencode(_) => Works::Published,
            _ => Works::Local,
        };
        let is_quick = matches!(self, Self::Bench(args) if args.quick || args.compression);
        Target {
            works,
            platforms: is_quick.then(|| vec![Platform::host()]),
            only_looks: matches!(
                self,
                Self::Plan | Self::Explain(_) | Self::Status | Self::Verify(_) | Self::Sbom(_)
            ),
            lenient: matches!(self, Self::Plan),
            // The phases of a release keep their results to themselves: it prints one of its own.
            keeps_results: matches!(self, Self::Release(_)),
        }
    }

    /// The name of a command whose running programs are lines that change on a terminal.
    pub fn shown_live(&self) -> Option<&'static str> {
        Some(match self {
            Self::Release(_) => "release",
            Self::BuildBase => "build-base",
            Self::Build(_) => "build",
            Self::Smoke(_) => "smoke",
            Self::Bench(_) => "bench",
            _ => return None,
        })
    }

    /// How long the command may go on trying.
    pub fn deadline(&self) -> Duration {
        let minutes = match self {
            Self::Bench(_) => 240,
            Self::Release(_) | Self::Test(_) | Self::VerifyReproducible(_) => 120,
            Self::BuildBase => minutes::BASE,
            Self::Build(_) => minutes::VARIANTS,
            Self::Smoke(_) => minutes::SMOKE,
            Self::Doctor(_) => minutes::SET_UP,
            Self::Preflight(_) => minutes::PREFLIGHT,
            Self::Prune(_) | Self::Report(_) => 60,
            _ => minutes::PROMOTE,
        };
        Duration::from_secs(60 * minutes)
    }

    /// The variants whose images the summary of a CI step lists, all if none is named; `None` if it lists no images.
    pub fn listed_variants(&self) -> Option<Vec<String>> {
        match self {
            Self::Build(args) => Some(args.variants.clone()),
            Self::Smoke(args) => Some(vec![args.variant.clone()]),
            Self::Publish(args) => Some(args.only.clone()),
            Self::Release(args) => Some(args.only.clone()),
            _ => None,
        }
    }

    /// Runs the command. `definition` is the command line's, for completions and the page of commands.
    pub fn run(&self, ctx: &Context, options: &Options, definition: &clap::Command) -> Result<()> {
        match self {
            Self::Doctor(args) => release::doctor::run(ctx, args),
            Self::BaseDecide => release::base_decide::run(ctx).map(drop),
            Self::BuildBase => release::build_base::run(ctx),
            Self::Build(args) => release::build::run(ctx, args),
            Self::Smoke(args) => release::smoke::run(ctx, args),
            Self::Publish(args) => release::publish::run(ctx, args),
            Self::PromoteBaseLatest => release::promote_base_latest::run(ctx),
            Self::UpdateDescription => release::update_description::run(ctx),
            Self::Preflight(args) => release::preflight::run(ctx, args),
            Self::Release(args) => release::run(ctx, args, options.json),
            Self::Repair(args) => recover::repair::run(ctx, args),
            Self::Rollback(args) => recover::rollback::run(ctx, args),
            Self::Plan => inspect::plan::run(ctx),
            Self::Explain(args) => inspect::explain::run(ctx, args),
            Self::Status => inspect::status::run(ctx),
            Self::Report(args) => inspect::report::run(ctx, args),
            Self::Outdated(args) => inspect::outdated::run(ctx, args),
            Self::NextTag => inspect::next_tag::run(ctx),
            Self::Verify(args) => inspect::verify::run(ctx, args),
            Self::Sbom(args) => inspect::sbom::run(ctx, args),
            Self::VerifyReproducible(args) => inspect::verify_reproducible::run(ctx, args),
            Self::Docs(args) => maintain::docs::run(ctx, args, definition),
            Self::Bump(args) => maintain::bump::run(ctx, args),
            Self::BumpOpencode(args) => maintain::bump::opencode(ctx, args),
            Self::RefreshBase(args) => maintain::refresh_base::run(ctx, args),
            Self::Changelog(args) => maintain::changelog::run(ctx, args),
            Self::Lock(args) => maintain::lock::run(ctx, args),
            Self::Prune(args) => maintain::prune::run(ctx, args),
            Self::Workflows(args) => maintain::workflows::run(ctx, args),
            Self::Validate => develop::validate::run(ctx, definition),
            Self::Local(args) => develop::local::run(ctx, args),
            Self::Test(args) => develop::test::run(ctx, args, definition),
            Self::Bench(args) => develop::bench::run(ctx, args),
            Self::Fmt => develop::fmt::run(ctx),
            Self::Reclaim => develop::reclaim::run(ctx),
            Self::Completions(args) => develop::completions::run(args, definition),
        }
    }
}
