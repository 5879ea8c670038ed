//! What every phase gets: the tree, the settings, the runner. The only reader of the environment.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

use crate::cli::{Cli, Command};
use crate::crane_archive;
use crate::image::tree::Tree;
use crate::missing;
use crate::model::config::Config;
use crate::model::dockerfile;
use crate::model::platform::Platform;
use crate::model::promotion::Holder;
use crate::model::reference::Repository;
use crate::model::source::{Source, without_accounts};
use crate::model::verdict::Verdict;
use crate::model::version::{ReleaseTag, Version};
use crate::state::{self, Base};
use crate::tools::ci_output::CiOutput;
use crate::tools::docker::Node;
use crate::tools::files::{self, Edit};
use crate::tools::http::{self, Agent};
use crate::tools::hub::Account;
use crate::tools::process;
use crate::tools::registry::Registry;
use crate::tools::runner::{self, Runner};

/// Image that registers emulators, as docker/setup-qemu-action uses it.
const BINFMT_IMAGE: &str = "docker.io/tonistiigi/binfmt:qemu-v10.2.3@sha256:\
                            400a4873b838d1b89194d982c45e5fb3cda4593fbfd7e08a02e76b03b21166f0";

/// The folder that git ignores and that holds the state of local runs.
pub const STATE: &str = ".devbox";

/// Where images go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The registry that this project runs on loopback.
    Local,
    Remote(Repository),
}

pub struct Ctx {
    pub root: Utf8PathBuf,
    pub config: Config,
    pub platforms: Vec<Platform>,
    pub destination: Destination,
    pub release_tag: Option<ReleaseTag>,
    pub json: bool,
    /// The subcommand only looks: nothing is started, bootstrapped or stored on its way.
    pub read_only: bool,
    pub runner: Runner,
    /// The HTTP client of this run: whoever asks a server shares its connections.
    pub agent: Agent,
    pub registry: Registry,
    pub ci: CiOutput,
    pub settings: Settings,
    /// The command line, as it was given.
    pub line: String,
    /// Where variants wait for their verdict, if not in `<repository>-staging`.
    pub staging: Option<Repository>,
    /// This run, as a lease names it.
    pub holder: Holder,
    /// The inputs of the images, read once.
    pub tree: OnceCell<Tree>,
    /// Takes the place of the state folder in a dry run.
    pub scratch: OnceCell<Option<TempDir>>,
    /// The parts of the base that a rehearsal leaves out, with the reason; asked once, and only if it matters.
    pub left_out: OnceCell<BTreeMap<String, String>>,
    /// The base, once it was found in the registry: a content key never changes its meaning.
    pub base: RefCell<Option<Base>>,
    /// Addresses that the tools were asked for, once.
    pub npm_registry: OnceCell<Source>,
    pub pypi_index: OnceCell<Source>,
    /// Emulation was allowed on the command line.
    pub allow_emulation: bool,
    /// The builder of builds, decided once.
    pub builder: OnceCell<Option<String>>,
    /// Which node serves each platform, asked once.
    pub nodes: OnceCell<Vec<Node>>,
    /// The folder that the engine keeps its images in, asked once.
    pub engine_root: OnceCell<String>,
    /// Verdicts that passed, by image and suite.
    pub passed: RefCell<HashMap<(String, String), Verdict>>,
}

/// What the environment says, read once.
pub struct Settings {
    /// True in CI: nothing may be asked, live tests may not be skipped.
    pub ci: bool,
    /// True on the runner of a forge, whose machine is thrown away or belongs to jobs.
    pub actions: bool,
    /// True on a machine of the forge itself, which it throws away after the job.
    pub hosted_runner: bool,
    /// What a manual run says of floating tags; nothing where it was not asked.
    pub promote_latest: Option<bool>,
    /// The certificate bundle of this host, where there is one.
    pub ca_bundle: Option<String>,
    pub hub_username: Option<String>,
    pub hub_token: Option<String>,
    /// Base address of Docker Hub's API.
    pub hub_url: String,
    /// Base address of Docker Hub's registry, where it is not the public one.
    pub hub_registry_url: Option<String>,
    /// The npm registry, as npm itself is told of it.
    pub npm_registry: Option<Source>,
    /// The text of the user's `.npmrc`, where it may name the registry.
    pub npmrc: Option<String>,
    /// The Python package index (its "simple" API), as pip itself is told of it.
    pub pypi_index: Option<Source>,
    /// Debian's security archive.
    pub debian_security: Option<Source>,
    /// Debian's keys, if not where Debian installs them.
    pub debian_keyring: Option<String>,
    /// The Gitea server that holds this project, its repository there (`owner/name`), and a token.
    pub gitea_url: Option<String>,
    pub gitea_repository: Option<String>,
    pub gitea_token: Option<String>,
    /// The builder of buildx to use; nothing for the one that the user has chosen.
    pub builder: Option<String>,
    /// Where the release archives of crane are.
    pub crane_url: String,
    /// Image of the BuildKit that a builder in a container runs; nothing for buildx's own choice.
    pub buildkit_image: Option<String>,
    /// Image that registers emulators with the kernel of the engine.
    pub binfmt_image: String,
    /// Image of the local registry, to be used even where the program is installed.
    pub registry_image: Option<String>,
    /// Texts of the settings of pip, the most specific one first.
    pub pip_settings: Vec<String>,
    /// Hosts that are reached without a proxy, separated by commas.
    pub no_proxy: String,
    /// Bounds each HTTP request.
    pub http_timeout: Duration,
    /// A command that is silent for this long is ended.
    pub stall: Duration,
}

impl Ctx {
    pub fn new(cli: &Cli) -> Result<Self> {
        let root = root()?;
        let text = read(&root, "images/devbox.toml")?;
        let config = Config::parse(&text)?;
        let platforms = match &cli.command {
            _ if !cli.platform.is_empty() => cli.platform.clone(),
            Command::Bench(args) if args.quick || args.compression => vec![Platform::host()],
            _ => config.platforms.clone(),
        };
        let destination = match (&cli.repository, &cli.command) {
            (Some(repository), _) => Destination::Remote(repository.clone()),
            (None, Command::Release(args)) if !args.local => Destination::Remote(config.repository()?),
            // Tags of releases are those that users see, not those of a rehearsal here.
            (
                None,
                Command::NextTag
                | Command::Changelog(_)
                | Command::Outdated(_)
                | Command::RefreshBase(_)
                | Command::Bump(_)
                | Command::BumpOpencode(_),
            ) => Destination::Remote(config.repository()?),
            (None, _) => Destination::Local,
        };
        let mut settings = Settings::read()?;
        settings.builder = settings.builder.or_else(|| config.build.builder.clone());
        let agent = http::agent(settings.http_timeout, &settings.no_proxy);
        let mut runner = Runner::new(root.clone(), settings.stall);
        (runner.quiet, runner.verbose) = (cli.quiet, cli.verbose);
        runner.folds = settings.actions;
        runner.search = env::var("PATH").unwrap_or_default();
        runner.git_settings =
            first(&["GIT_CONFIG_COUNT"]).and_then(|text| text.parse().ok()).unwrap_or_default();
        runner.dry_run = cli.dry_run || cli.command.only_looks();
        Ok(Self {
            staging: cli.staging_repository.clone(),
            holder: process::holder(),
            tree: OnceCell::new(),
            scratch: OnceCell::new(),
            left_out: OnceCell::new(),
            base: RefCell::default(),
            npm_registry: OnceCell::new(),
            pypi_index: OnceCell::new(),
            allow_emulation: cli.allow_emulation,
            builder: OnceCell::new(),
            nodes: OnceCell::new(),
            engine_root: OnceCell::new(),
            passed: RefCell::default(),
            release_tag: match cli.release_tag {
                Some(tag) => Some(tag),
                None => asked_tag()?,
            },
            // The phases of a release keep their results to themselves: it prints one of its own.
            json: cli.json && !matches!(cli.command, Command::Release(_)),
            read_only: cli.command.only_looks(),
            runner,
            registry: Registry::new(&agent, Some(root.join(".devbox/manifests")))
                .lenient(matches!(cli.command, Command::Plan))
                .hub_at(settings.hub_registry_url.clone()),
            agent,
            settings,
            ci: CiOutput::new(file("GITHUB_OUTPUT"), file("GITHUB_STEP_SUMMARY")),
            line: env::args().skip(1).collect::<Vec<_>>().join(" "),
            root,
            config,
            platforms,
            destination,
        })
    }

    /// The inputs of the images. They are read once: whatever changes on disk later reaches neither a key nor a build.
    pub fn tree(&self) -> Result<&Tree> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let (base, variants) = (&self.config.base, &self.config.variants);
        let mut inputs = [base.inputs.as_slice(), variants.inputs.as_slice()].concat();
        inputs.extend([&base.dockerfile, &variants.dockerfile].map(String::clone));
        inputs.extend([state::SUITE, state::SUITE_PARTS].map(str::to_owned));
        let tree = Tree::load(&self.runner, &inputs)?;
        tree.notes.iter().for_each(|note| self.say(note));
        Ok(self.tree.get_or_init(|| tree))
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
        let line = without_accounts(&line);
        println!("{line}");
        self.ci.tell(&line);
    }

    /// A line of progress on standard error, and in the summary of a CI step.
    pub fn say(&self, line: impl std::fmt::Display) {
        let line = line.to_string();
        let line = without_accounts(&line);
        self.ci.tell(&line);
        if !self.runner.quiet {
            eprintln!("{line}");
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

impl Settings {
    fn read() -> Result<Self> {
        refuse_expressions()?;
        let bundles =
            ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        let ca_bundle = env::var("SSL_CERT_FILE").ok().into_iter().chain(bundles.map(String::from));
        Ok(Self {
            ci: env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false")),
            actions: env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true"),
            hosted_runner: env::var("RUNNER_ENVIRONMENT").is_ok_and(|value| value == "github-hosted"),
            promote_latest: switch("INPUT_PROMOTE_LATEST")?,
            ca_bundle: ca_bundle.into_iter().find(|path| Utf8Path::new(path).is_file()),
            hub_username: secret("DOCKERHUB_USERNAME")?,
            hub_token: secret("DOCKERHUB_TOKEN")?,
            npmrc: npmrc(),
            npm_registry: address(&["npm_config_registry", "NPM_CONFIG_REGISTRY"]),
            pypi_index: address(&["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]),
            hub_url: server(&["DOCKERHUB_URL"]).unwrap_or_else(|| "https://hub.docker.com".to_owned()),
            hub_registry_url: server(&["DOCKERHUB_REGISTRY_URL"]),
            debian_security: address(&["DEBIAN_SECURITY_URL"]),
            debian_keyring: first(&["DEBIAN_KEYRING"]),
            // A runner of Gitea names its server and repository as GitHub's does.
            gitea_url: server(&["GITEA_URL", "GITHUB_SERVER_URL"]),
            gitea_repository: first(&["GITEA_REPOSITORY", "GITHUB_REPOSITORY"]),
            gitea_token: secret("GITEA_TOKEN")?,
            crane_url: server(&["DEVBOX_CRANE_URL"]).unwrap_or_else(|| crane_archive::ADDRESS.to_owned()),
            buildkit_image: first(&["DEVBOX_BUILDKIT_IMAGE"]),
            binfmt_image: first(&["DEVBOX_BINFMT_IMAGE"]).unwrap_or_else(|| BINFMT_IMAGE.to_owned()),
            registry_image: first(&["DEVBOX_REGISTRY_IMAGE"]),
            pip_settings: pip_settings(),
            // buildx's own variable.
            builder: first(&["BUILDX_BUILDER"]),
            no_proxy: first(&["NO_PROXY", "no_proxy"]).unwrap_or_default(),
            http_timeout: seconds("DEVBOX_HTTP_TIMEOUT", http::TIMEOUT_SECONDS)?,
            stall: seconds("DEVBOX_STALL_SECONDS", runner::STALL_SECONDS)?,
        })
    }
}

/// Variables that a workflow sets for the phases.
const OF_WORKFLOWS: [&str; 4] = ["INPUT_", "DEVBOX_", "DOCKERHUB_", "GITEA_"];

/// Refuses a variable that holds an expression of a workflow: an engine passes on as text what it cannot evaluate, such
/// as an input of another event.
fn refuse_expressions() -> Result<()> {
    for (name, value) in env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if OF_WORKFLOWS.iter().any(|prefix| name.starts_with(prefix)) && value.contains("${{") {
            anyhow::bail!(
                "{name} holds the expression of a workflow as text, which this CI engine did not evaluate; read the \
                 input as github.event.inputs.NAME (`cargo xtask workflows` writes the workflows so)"
            );
        }
    }
    Ok(())
}

/// A checkbox of a manual run; nothing where the run has none.
fn switch(name: &str) -> Result<Option<bool>> {
    first(&[name]).map_or(Ok(None), |text| match text.as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => anyhow::bail!("{name}={text}: expected true or false"),
    })
}

/// The file that a variable names.
fn file(name: &str) -> Option<Utf8PathBuf> {
    first(&[name]).map(Into::into)
}

/// The value of the first of these variables that is set to something.
fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The address that the first of these variables holds.
fn address(names: &[&str]) -> Option<Source> {
    first(names).map(|address| Source::from(address.as_str()))
}

/// The same for a server whose account comes by other variables: one in the address is ignored.
fn server(names: &[&str]) -> Option<String> {
    address(names).map(|source| source.url)
}

/// The text of npm's settings: the user's, then the machine's (npm, "npmrc").
fn npmrc() -> Option<String> {
    let user = first(&["NPM_CONFIG_USERCONFIG", "npm_config_userconfig"]);
    let user = user.or_else(|| Some(format!("{}/.npmrc", first(&["HOME"])?)));
    let global = first(&["NPM_CONFIG_GLOBALCONFIG", "npm_config_globalconfig"]);
    let global =
        global.into_iter().chain(["/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"].map(str::to_owned));
    let texts: Vec<String> =
        user.into_iter().chain(global).filter_map(|path| fs::read_to_string(path).ok()).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// The texts of pip's configuration files, in the order in which one goes before the next (pip, "Configuration").
fn pip_settings() -> Vec<String> {
    let below = |variable: &str, path: &str| first(&[variable]).map(|folder| format!("{folder}/{path}"));
    let paths = [
        first(&["PIP_CONFIG_FILE"]),
        below("VIRTUAL_ENV", "pip.conf"),
        below("XDG_CONFIG_HOME", "pip/pip.conf"),
        below("HOME", ".config/pip/pip.conf"),
        below("HOME", "Library/Application Support/pip/pip.conf"),
        below("HOME", ".pip/pip.conf"),
        Some("/etc/xdg/pip/pip.conf".to_owned()),
        Some("/Library/Application Support/pip/pip.conf".to_owned()),
        Some("/etc/pip.conf".to_owned()),
    ];
    paths.into_iter().flatten().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// A whole number of seconds from the environment.
fn seconds(name: &str, default: u64) -> Result<Duration> {
    let Ok(text) = env::var(name) else { return Ok(Duration::from_secs(default)) };
    match text.parse() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => anyhow::bail!("{name}={text}: expected a whole number of seconds above 0"),
    }
}

/// `NAME`, or the content of the file that `NAME_FILE` names.
fn secret(name: &str) -> Result<Option<String>> {
    if let Ok(value) = env::var(name) {
        return Ok((!value.is_empty()).then_some(value));
    }
    let Ok(path) = env::var(format!("{name}_FILE")) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path).with_context(|| format!("{name}_FILE: cannot read {path}"))?;
    Ok(Some(text.trim().to_owned()))
}

/// The release that started this CI run: the input of a manual run, else the pushed git tag. Decided here and not in
/// a workflow, where `env` in `if:` is empty on Gitea.
fn asked_tag() -> Result<Option<ReleaseTag>> {
    let input = env::var("INPUT_RELEASE_TAG").unwrap_or_default();
    let is_tag = env::var("GITHUB_REF_TYPE").is_ok_and(|kind| kind == "tag");
    let name = match input.is_empty() {
        false => input,
        true if is_tag => env::var("GITHUB_REF_NAME").unwrap_or_default(),
        true => return Ok(None),
    };
    let tag = name.parse().map_err(|why| anyhow::anyhow!("release tag {name:?}: {why}"))?;
    Ok(Some(tag))
}

/// The repository that holds the running xtask; a test may name another tree.
fn root() -> Result<Utf8PathBuf> {
    if let Ok(root) = env::var("DEVBOX_ROOT") {
        return Ok(root.into());
    }
    // What cargo says now comes before what it said when it built: checkouts may share a target folder.
    let crate_dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Ok(Utf8Path::new(&crate_dir).parent().context("xtask lies in no workspace")?.to_owned())
}

fn read(root: &Utf8Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}
