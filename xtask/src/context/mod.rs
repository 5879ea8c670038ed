//! What every phase gets: the tree, the settings, the runner. Package registries of this machine are in [`sources`].

pub mod signing;
pub mod sources;

use std::cell::{OnceCell, RefCell};
use std::fs;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

use crate::error::missing;
use crate::model::config::Config;
use crate::model::dockerfile;
use crate::model::platform::Platform;
use crate::model::progress::{self, Skipped};
use crate::model::promotion::Holder;
use crate::model::reference::Repository;
use crate::model::source::Source;
use crate::model::version::{ReleaseTag, Version};
use crate::output;
use crate::settings::{self, Options, Settings};
use crate::tools::ci_output::CiOutput;
use crate::tools::cosign::SigningKey;
use crate::tools::files::{self, Edit};
use crate::tools::http::{self, Agent};
use crate::tools::hub::Account;
use crate::tools::registry::Registry;
use crate::tools::runner::Runner;
use crate::tools::{docker, local, process};

/// The folder that git ignores and that holds the state of local runs.
pub const STATE: &str = ".devbox";

/// What a command works on where the command line does not say.
#[derive(Clone, Debug)]
pub struct Target {
    pub works: Works,
    /// Platforms, if not all of `images/devbox.toml`.
    pub platforms: Option<Vec<Platform>>,
    /// Changes nothing anywhere.
    pub only_looks: bool,
    /// Repositories that this account may not read count as empty.
    pub lenient: bool,
    /// The command prints a result of its own, and its phases none.
    pub keeps_results: bool,
}

/// Which images a command works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Works {
    /// Those of the registry on this machine.
    Local,
    /// Those that users pull.
    Published,
}

/// Where images go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The registry that this project runs on loopback.
    Local,
    Remote(Repository),
}

pub struct Context {
    pub root: Utf8PathBuf,
    pub config: Config,
    pub platforms: Vec<Platform>,
    pub destination: Destination,
    pub release_tag: Option<ReleaseTag>,
    pub json: bool,
    /// The subcommand only looks: nothing is started, bootstrapped or stored on its way.
    pub read_only: bool,
    pub runner: Runner,
    /// The HTTP client of this run: all requests to a server share its connections.
    pub agent: Agent,
    pub registry: Registry,
    pub ci: CiOutput,
    pub settings: Settings,
    /// Where variants wait for their verdict, if not in `<repository>-staging`.
    pub staging: Option<Repository>,
    /// This run, as a lease names it.
    pub holder: Holder,
    /// The local repository whose registry a dry run would start.
    pub planned: OnceCell<Repository>,
    /// Takes the place of the state folder in a dry run.
    pub scratch: OnceCell<Option<TempDir>>,
    /// Addresses that the tools were asked for, once.
    pub npm_registry: OnceCell<Source>,
    pub pypi_index: OnceCell<Source>,
    /// The builder of builds, decided once.
    pub builder: OnceCell<Option<String>>,
    /// The key that signs, read or made once.
    pub signer: OnceCell<SigningKey>,
    /// What this run did not do.
    pub skipped: RefCell<Vec<Skipped>>,
    /// Emulation was allowed on the command line.
    pub allow_emulation: bool,
}

impl Context {
    pub fn new(options: &Options, target: Target) -> Result<Self> {
        let root = settings::root()?;
        let config = Config::parse(&read(&root, "images/devbox.toml")?)?;
        let platforms = match (&options.platform, target.platforms) {
            (asked, _) if !asked.is_empty() => asked.clone(),
            (_, Some(own)) => own,
            _ => config.platforms.clone(),
        };
        let destination = match (&options.repository, target.works) {
            (Some(repository), _) => Destination::Remote(repository.clone()),
            (None, Works::Published) => Destination::Remote(config.repository()?),
            (None, Works::Local) => Destination::Local,
        };
        let mut settings = Settings::read()?;
        settings.builder = settings.builder.or_else(|| config.build.builder.clone());
        let agent = http::agent(settings.http_timeout, &settings.no_proxy);
        let mut runner = Runner::new(root.clone(), settings.stall);
        (runner.quiet, runner.verbose) = (options.quiet, options.verbose);
        runner.folds = settings.actions;
        runner.git_settings = settings.git_settings;
        runner.search = settings.search.clone();
        runner.dry_run = options.dry_run || target.only_looks;
        Ok(Self {
            staging: options.staging_repository.clone(),
            holder: process::holder(),
            planned: OnceCell::new(),
            scratch: OnceCell::new(),
            npm_registry: OnceCell::new(),
            pypi_index: OnceCell::new(),
            builder: OnceCell::new(),
            signer: OnceCell::new(),
            skipped: RefCell::default(),
            allow_emulation: options.allow_emulation,
            release_tag: options.release_tag.or(settings.release_tag),
            json: options.json && !target.keeps_results,
            read_only: target.only_looks,
            runner,
            registry: Registry::new(&agent, Some(root.join(".devbox/manifests")))
                .lenient(target.lenient)
                .with_lag(settings.lag)
                .hub_at(settings.hub_registry_url.clone())
                .with_variable(settings.docker_auth_config.clone()),
            agent,
            ci: CiOutput::new(settings.ci_outputs.clone(), settings.ci_summary.clone()),
            settings,
            root,
            config,
            platforms,
            destination,
        })
    }

    /// The repository to work on. A local one has to run: [`Self::start_registry`] starts it.
    pub fn repository(&self) -> Result<Repository> {
        match &self.destination {
            Destination::Remote(repository) => Ok(repository.clone()),
            Destination::Local => match self.planned.get() {
                Some(planned) => Ok(planned.clone()),
                None => local::running_repository(&self.state_dir()),
            },
        }
    }

    /// Starts the registry of this machine if it is the one to work on and does not run.
    pub fn start_registry(&self) -> Result<()> {
        if self.destination != Destination::Local || self.read_only || self.planned.get().is_some() {
            return Ok(());
        }
        let runs = self.running_registry().is_some();
        let image = self.settings.registry_image.as_deref();
        let repository = local::repository(&self.runner, &self.state_dir(), image)?;
        if self.runner.dry_run && !runs {
            self.registry.plan(repository.host());
            let _ = self.planned.set(repository);
        }
        Ok(())
    }

    /// True if there is a registry to ask: a local one runs, or can be started.
    pub fn has_registry(&self) -> bool {
        let startable = || {
            !self.read_only && (local::is_installed(&self.runner) || docker::engine(&self.runner).is_some())
        };
        self.destination != Destination::Local || self.running_registry().is_some() || startable()
    }

    /// The host of the local registry, if it runs.
    pub fn running_registry(&self) -> Option<String> {
        Some(local::running_repository(&self.state_dir()).ok()?.host().to_owned())
    }

    /// Where variants wait for their verdict: `<repository>-staging`, unless another is asked for.
    pub fn staging(&self, repository: &Repository) -> Repository {
        self.staging.clone().unwrap_or_else(|| repository.staging())
    }

    /// The folder that git ignores and that holds the state of local runs.
    ///
    /// A dry run on a machine without one gets an empty folder that is gone afterwards.
    pub fn state_dir(&self) -> Utf8PathBuf {
        let state = self.root.join(STATE);
        if !self.runner.dry_run || state.exists() {
            return state;
        }
        let scratch = self.scratch.get_or_init(|| tempfile::tempdir().ok());
        let path = scratch.as_ref().and_then(|folder| Utf8Path::from_path(folder.path()));
        path.map_or(state, Utf8Path::to_owned)
    }

    /// Replaces files of the tree, all or none; a dry run changes nothing.
    pub fn replace(&self, edits: &[Edit]) -> Result<()> {
        if self.runner.dry_run { Ok(()) } else { files::replace(&self.root, &self.root.join(STATE), edits) }
    }

    /// A line of the result on standard output, and in the summary of a CI step.
    pub fn tell(&self, line: impl std::fmt::Display) {
        let line = line.to_string();
        output::line(&line);
        self.ci.tell(&line);
    }

    /// A line of progress on standard error, and in the summary of a CI step.
    pub fn say(&self, line: impl std::fmt::Display) {
        let line = line.to_string();
        self.ci.tell(&line);
        if !self.runner.quiet {
            output::note(&line);
        }
    }

    /// True, and said, if this run was asked to leave all floating names where they are.
    pub fn holds_latest_back(&self) -> bool {
        let back = self.settings.promote_latest == Some(false);
        if back {
            self.say("promote_latest is false: latest*, base-latest and the description stay as they are");
        }
        back
    }

    /// True if the images stay on this machine, so that nothing needs to be public knowledge.
    pub fn is_rehearsal(&self) -> bool {
        match &self.destination {
            Destination::Local => true,
            Destination::Remote(repository) => repository.is_loopback(),
        }
    }

    /// True if a terminal is there whose lines may change: nobody asked for more or less output, or for none of the work.
    pub fn may_show_live(&self, options: &Options) -> bool {
        let (settings, plain) = (&self.settings, options.quiet || options.verbose);
        let plain = plain || self.runner.dry_run || settings.ci || settings.actions || settings.dumb_terminal;
        !plain && output::has_terminal()
    }

    /// Reports that something is not done, and why; where lines change, at the end of the run.
    pub fn skip(&self, action: &'static str, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        let line = format!("{what}: {why}");
        match output::is_live() {
            true => self.ci.tell(&line),
            false => self.say(line),
        }
        self.skipped.borrow_mut().push(Skipped { action, what, why });
    }

    /// The end of a run on a terminal: what it did not do and why, and the command that comes next.
    pub fn close(&self, next: &str) {
        if !output::is_live() {
            return;
        }
        progress::skipped(&self.skipped.borrow()).iter().for_each(output::note);
        output::note(format!("next: {next}"));
    }

    /// The account that edits descriptions on Docker Hub.
    pub fn hub_account(&self) -> Result<Account> {
        let settings = &self.settings;
        let (Some(username), Some(secret)) = (&settings.hub_username, &settings.hub_token) else {
            return Err(missing(
                "set DOCKERHUB_USERNAME and DOCKERHUB_TOKEN (or DOCKERHUB_TOKEN_FILE) to edit the description",
            ));
        };
        Ok(Account {
            url: settings.hub_url.clone(),
            username: username.clone(),
            secret: secret.clone(),
            agent: self.agent.clone(),
        })
    }

    /// The text of a file of the tree.
    pub fn read(&self, path: &str) -> Result<String> {
        read(&self.root, path)
    }

    /// The text of a file of the tree; empty where there is none yet.
    pub fn read_if_there(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// Versions pinned in both Dockerfiles.
    pub fn versions(&self) -> Result<Vec<(String, String)>> {
        let mut versions = self.versions_in(&self.config.base.dockerfile)?;
        versions.extend(self.versions_in(&self.config.variants.dockerfile)?);
        Ok(versions)
    }

    /// Versions pinned in one Dockerfile.
    pub fn versions_in(&self, file: &str) -> Result<Vec<(String, String)>> {
        Ok(dockerfile::versions(&self.read(file)?))
    }

    /// The pinned version of opencode, after which releases are named.
    pub fn opencode_version(&self) -> Result<Version> {
        let file = &self.config.variants.dockerfile;
        let text = self.read(file)?;
        let version = dockerfile::arg_default(&text, "OPENCODE_VERSION")
            .with_context(|| format!("{file} has no `ARG OPENCODE_VERSION=…`"))?;
        version.parse().map_err(|why| anyhow::anyhow!("{file}: OPENCODE_VERSION={version}: {why}"))
    }
}

fn read(root: &Utf8Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}
