//! The command line. Only the shape of the words lives here; meaning is in [`crate::phase`].

use clap::{Parser, Subcommand};

use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::version::ReleaseTag;
use crate::phase;

/// Builds, tests and publishes the opencode-devbox images.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a prerequisite is missing (the message says how to get it).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 110)]
pub struct Cli {
    /// Print the command lines that would change something, and change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Image repository to work on, such as docker.io/you/opencode-devbox [default: the registry on this machine]
    #[arg(long, global = true, env = "DEVBOX_REPOSITORY", value_name = "REPOSITORY")]
    pub repository: Option<Repository>,
    /// Repository in which variants wait for their verdict [default: the image repository's name with -staging]
    #[arg(long, global = true, env = "DEVBOX_STAGING_REPOSITORY", value_name = "REPOSITORY")]
    pub staging_repository: Option<Repository>,
    /// Platform to work on; repeat for several [default: all of images/devbox.toml]
    #[arg(long, global = true, value_name = "OS/ARCH")]
    pub platform: Vec<Platform>,
    /// Release tag, such as v1.18.18 or v1.18.18b [default: the pushed git tag, else the next free one]
    #[arg(long, global = true, env = "DEVBOX_RELEASE_TAG", value_name = "TAG")]
    pub release_tag: Option<ReleaseTag>,
    /// Build and test under emulation what no machine at hand runs natively [default: emulation in images/devbox.toml]
    #[arg(long, global = true)]
    pub allow_emulation: bool,
    /// Less output: results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More output: also the commands that only read
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report what this machine lacks for a release, and mend it with --install
    #[command(after_help = "Example:\n  cargo xtask doctor --install")]
    Doctor(phase::doctor::Args),
    /// Compute the base key and say whether that base has to be built
    #[command(after_help = "Example:\n  cargo xtask base-decide --json")]
    BaseDecide,
    /// Build and push the base image, if its key is not in the registry
    #[command(after_help = "Example:\n  cargo xtask build-base --platform linux/amd64")]
    BuildBase,
    /// Build the variants that are not staged yet and push them under their content keys
    #[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build omos with-pi --print")]
    Build(phase::build::Args),
    /// Test the staged image of a variant on every platform and record the verdict
    #[command(after_help = "Example:\n  cargo xtask smoke omos --platform linux/arm64")]
    Smoke(phase::smoke::Args),
    /// Give the tested images of all variants their version tags
    #[command(after_help = "Example:\n  cargo xtask publish --promote-latest")]
    Publish(phase::publish::Args),
    /// Complete or undo a promotion that was cut off
    #[command(after_help = "Examples:\n  cargo xtask repair\n  cargo xtask repair --undo")]
    Repair(phase::repair::Args),
    /// Point the floating tags of all variants back at an older release
    #[command(after_help = "Example:\n  cargo xtask rollback v1.18.18")]
    Rollback(phase::rollback::Args),
    /// Say what a release would build, test and tag, and why; change nothing
    #[command(after_help = "Example:\n  cargo xtask plan --json")]
    Plan,
    /// Say which inputs, packages and layers differ between two images, or between an image and this tree
    #[command(
        after_help = "Examples:\n  cargo xtask explain latest\n  cargo xtask explain v1.18.15 v1.18.18"
    )]
    Explain(phase::explain::Args),
    /// Show how far a release has come, from the registry alone
    #[command(after_help = "Example:\n  cargo xtask status --release-tag v1.18.18")]
    Status,
    /// Point base-latest at the base that the published variants are built upon
    #[command(after_help = "Example:\n  cargo xtask promote-base-latest")]
    PromoteBaseLatest,
    /// Send DOCKER_HUB.md to Docker Hub as the description
    #[command(
        after_help = "Example:\n  DOCKERHUB_USERNAME=you DOCKERHUB_TOKEN_FILE=/run/secrets/hub cargo xtask update-description --repository docker.io/you/opencode-devbox"
    )]
    UpdateDescription,
    /// Write the generated documentation
    #[command(after_help = "Example:\n  cargo xtask docs --check")]
    Docs(phase::docs::Args),
    /// Pin another version of a component: Dockerfile, locks, changelog and generated page together
    #[command(
        after_help = "Examples:\n  cargo xtask bump omos 2.2.24\n  cargo xtask bump mempalace latest --commit"
    )]
    Bump(phase::bump::Args),
    /// Pin another version of opencode; the same as `bump opencode`
    #[command(
        after_help = "Examples:\n  cargo xtask bump-opencode 1.14.44\n  cargo xtask bump-opencode latest --commit --tag"
    )]
    BumpOpencode(phase::bump::OpencodeArgs),
    /// Say which pinned versions and which Debian packages are behind
    #[command(after_help = "Examples:\n  cargo xtask outdated\n  cargo xtask outdated --json --exit-code")]
    Outdated(phase::outdated::Args),
    /// Take today's Debian packages into the base
    #[command(after_help = "Example:\n  cargo xtask refresh-base --commit")]
    RefreshBase(phase::refresh_base::Args),
    /// Print the release tag that comes next, by git and the registry
    #[command(after_help = "Example:\n  cargo xtask next-tag")]
    NextTag,
    /// Check CHANGELOG.md, print one entry, or give what is unreleased its release
    #[command(
        after_help = "Examples:\n  cargo xtask changelog check --release-tag v1.18.18\n  cargo xtask changelog show v1.18.18"
    )]
    Changelog(phase::changelog::Args),
    /// Resolve the pinned versions into lock files
    #[command(after_help = "Examples:\n  cargo xtask lock\n  cargo xtask lock --check")]
    Lock(phase::lock::Args),
    /// Prove that every file that a build needs is there for every platform, before anything is built
    #[command(after_help = "Examples:\n  cargo xtask preflight\n  cargo xtask preflight opencode --wait 10m")]
    Preflight(phase::preflight::Args),
    /// Build base and variants again on an empty engine, and compare them with those in the registry
    #[command(
        after_help = "Examples:\n  cargo xtask verify-reproducible --platform linux/amd64\n  cargo xtask verify-reproducible omos --no-base"
    )]
    VerifyReproducible(phase::verify_reproducible::Args),
    /// Check the tree without building: configuration, generated files, scripts, Dockerfiles
    #[command(after_help = "Example:\n  cargo xtask validate")]
    Validate,
    /// Do everything: set up, build, smoke, publish, promote, describe
    #[command(
        after_help = "Examples:\n  cargo xtask release --local\n  cargo xtask release --release-tag v1.18.18"
    )]
    Release(phase::release::Args),
    /// Show or stop the registry (and engine) that this project started on this machine
    #[command(after_help = "Examples:\n  cargo xtask local status\n  cargo xtask local down --purge")]
    Local(phase::local::Args),
    /// Run all tests: format, lints, scripts, Dockerfiles, unit, black-box and live
    #[command(after_help = "Example:\n  cargo xtask test --fast")]
    Test(phase::test::Args),
    /// Measure this pipeline against plainer ways to build the same images, and write docs/benchmarks.md
    #[command(
        after_help = "Examples:\n  cargo xtask bench --quick\n  cargo xtask bench --compression --platform linux/amd64"
    )]
    Bench(phase::bench::Args),
    /// Format the code of the pipeline
    #[command(after_help = "Example:\n  cargo xtask fmt")]
    Fmt,
    /// Write the CI workflows
    #[command(after_help = "Example:\n  cargo xtask workflows --check")]
    Workflows(phase::workflows::Args),
    /// Free the disk of a CI runner; refuses to run elsewhere
    #[command(after_help = "Example:\n  GITHUB_ACTIONS=true cargo xtask reclaim --dry-run")]
    Reclaim,
    /// Print a completion script for your shell
    #[command(
        after_help = "Example:\n  cargo xtask completions bash > ~/.local/share/bash-completion/completions/cargo-xtask"
    )]
    Completions(phase::completions::Args),
}

impl Command {
    /// True for subcommands that change nothing anywhere.
    pub fn only_looks(&self) -> bool {
        matches!(self, Self::Plan | Self::Explain(_) | Self::Status)
    }

    /// How long the phase may go on trying, in minutes: what it takes on two cores, emulation included, and room.
    pub fn limit_minutes(&self) -> u64 {
        match self {
            Self::Bench(_) => 240,
            Self::BuildBase | Self::Release(_) | Self::Test(_) | Self::VerifyReproducible(_) => 120,
            Self::Build(_) | Self::Smoke(_) | Self::Doctor(_) => 60,
            _ => 10,
        }
    }
}
