//! What the command line and the environment say. The only reader of the environment.
#![allow(clippy::disallowed_methods, reason = "the one reader of the environment")]

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::source::Source;
use crate::model::version::ReleaseTag;
use crate::tools::{http, registry, runner};

/// Where crane's project publishes its releases, unless `DEVBOX_CRANE_URL` names a mirror.
const CRANE: &str = "https://github.com/google/go-containerregistry/releases/download";

/// Image that registers emulators, as docker/setup-qemu-action uses it.
const BINFMT_IMAGE: &str = "docker.io/tonistiigi/binfmt:qemu-v10.2.3@sha256:\
                            400a4873b838d1b89194d982c45e5fb3cda4593fbfd7e08a02e76b03b21166f0";

/// The options that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
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
    /// True on a terminal that cannot change what it shows.
    pub dumb_terminal: bool,
    /// The certificate bundle of this host, where there is one.
    pub ca_bundle: Option<String>,
    pub hub_username: Option<String>,
    pub hub_token: Option<String>,
    /// Docker's configuration with its accounts, where a variable holds it.
    pub docker_auth_config: Option<String>,
    /// Base address of Docker Hub's API.
    pub hub_url: String,
    /// Base address of Docker Hub's registry, where it is not the public one.
    pub hub_registry_url: Option<String>,
    /// The npm registry, by npm's own settings.
    pub npm_registry: Option<Source>,
    /// The text of the user's `.npmrc`, where it may name the registry.
    pub npmrc: Option<String>,
    /// The Python package index (its "simple" API), by pip's own settings.
    pub pypi_index: Option<Source>,
    /// Debian's security archive.
    pub debian_security: Option<Source>,
    /// Debian's keys, if not where Debian installs them.
    pub debian_keyring: Option<String>,
    /// The Gitea server that holds this project, its repository there (`owner/name`), and a token.
    pub gitea_url: Option<String>,
    pub gitea_repository: Option<String>,
    pub gitea_token: Option<String>,
    /// The key that signs, its PEM text or the path of its file, and its password.
    pub cosign_key: Option<String>,
    pub cosign_password: Option<String>,
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
    /// Where programs are found (`PATH`).
    pub search: String,
    /// Hosts that are reached without a proxy, separated by commas.
    pub no_proxy: String,
    /// Bounds each HTTP request.
    pub http_timeout: Duration,
    /// A command that is silent for this long is ended.
    pub stall: Duration,
    /// Reads of a registry may lag behind a write for this long.
    pub lag: Duration,
    /// The release that started this CI run.
    pub release_tag: Option<ReleaseTag>,
    /// How many settings of git the environment holds.
    pub git_settings: u32,
    /// The files to which a CI step writes its outputs and its summary.
    pub ci_outputs: Option<Utf8PathBuf>,
    pub ci_summary: Option<Utf8PathBuf>,
    /// The command line, as it was given.
    pub line: String,
}

impl Settings {
    pub fn read() -> Result<Self> {
        refuse_expressions()?;
        let bundles =
            ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        let ca_bundle = env::var("SSL_CERT_FILE").ok().into_iter().chain(bundles.map(String::from));
        Ok(Self {
            ci: env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false")),
            actions: env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true"),
            hosted_runner: env::var("RUNNER_ENVIRONMENT").is_ok_and(|value| value == "github-hosted"),
            dumb_terminal: first(&["TERM"]).is_none_or(|term| term == "dumb"),
            promote_latest: switch("INPUT_PROMOTE_LATEST")?,
            ca_bundle: ca_bundle.into_iter().find(|path| Utf8Path::new(path).is_file()),
            hub_username: secret("DOCKERHUB_USERNAME")?,
            hub_token: secret("DOCKERHUB_TOKEN")?,
            npmrc: npmrc(),
            npm_registry: address(&["npm_config_registry", "NPM_CONFIG_REGISTRY"]),
            pypi_index: address(&["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]),
            docker_auth_config: first(&["DOCKER_AUTH_CONFIG"]),
            hub_url: server(&["DOCKERHUB_URL"]).unwrap_or_else(|| "https://hub.docker.com".to_owned()),
            hub_registry_url: server(&["DOCKERHUB_REGISTRY_URL"]),
            debian_security: address(&["DEBIAN_SECURITY_URL"]),
            debian_keyring: first(&["DEBIAN_KEYRING"]),
            // A runner of Gitea names its server and repository as GitHub's does.
            gitea_url: server(&["GITEA_URL", "GITHUB_SERVER_URL"]),
            gitea_repository: first(&["GITEA_REPOSITORY", "GITHUB_REPOSITORY"]),
            gitea_token: secret("GITEA_TOKEN")?,
            cosign_key: secret("COSIGN_KEY")?,
            cosign_password: secret("COSIGN_PASSWORD")?,
            crane_url: server(&["DEVBOX_CRANE_URL"]).unwrap_or_else(|| CRANE.to_owned()),
            buildkit_image: first(&["DEVBOX_BUILDKIT_IMAGE"]),
            binfmt_image: first(&["DEVBOX_BINFMT_IMAGE"]).unwrap_or_else(|| BINFMT_IMAGE.to_owned()),
            registry_image: first(&["DEVBOX_REGISTRY_IMAGE"]),
            pip_settings: pip_settings(),
            search: first(&["PATH"]).unwrap_or_default(),
            // buildx's own variable.
            builder: first(&["BUILDX_BUILDER"]),
            no_proxy: first(&["NO_PROXY", "no_proxy"]).unwrap_or_default(),
            http_timeout: seconds("DEVBOX_HTTP_TIMEOUT", http::TIMEOUT_SECONDS)?,
            lag: seconds("DEVBOX_LAG_SECONDS", registry::LAG_SECONDS)?,
            stall: seconds("DEVBOX_STALL_SECONDS", runner::STALL_SECONDS)?,
            release_tag: asked_tag()?,
            git_settings: first(&["GIT_CONFIG_COUNT"]).and_then(|text| text.parse().ok()).unwrap_or_default(),
            ci_outputs: file("GITHUB_OUTPUT"),
            ci_summary: file("GITHUB_STEP_SUMMARY"),
            line: env::args().skip(1).collect::<Vec<_>>().join(" "),
        })
    }
}

/// Variables that a workflow sets for the phases.
const OF_WORKFLOWS: [&str; 5] = ["INPUT_", "DEVBOX_", "DOCKERHUB_", "GITEA_", "COSIGN_"];

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
pub fn root() -> Result<Utf8PathBuf> {
    env::current_dir().context("the current directory is gone: run this in another one")?;
    if let Ok(root) = env::var("DEVBOX_ROOT") {
        return Ok(root.into());
    }
    // What cargo says now comes before what it said when it built: checkouts may share a target folder.
    let crate_dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Ok(Utf8Path::new(&crate_dir).parent().context("xtask lies in no workspace")?.to_owned())
}
