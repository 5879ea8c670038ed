//! The engine and the registry that this project starts on this machine. State lies in the ignored `.devbox` folder.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::error::missing;
use crate::model::reference::Repository;
use crate::tools::command::cmd;

use super::docker;
use super::process::start_time;
use super::root::as_root;
use super::runner::Runner;

/// The first port that is tried.
const PORT: u16 = 5000;

/// The image of the local registry where the program is not installed, unless `DEVBOX_REGISTRY_IMAGE` names another one.
const REGISTRY_IMAGE: &str = "docker.io/library/registry:3";

/// A process or a container that was started here. The start time distinguishes a process from a later one with the same id.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    /// Zero for a container.
    pub pid: u32,
    started: String,
    /// Zero for the engine.
    pub port: u16,
    /// The name of the container, and of the volume that keeps its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl Daemon {
    fn file(state: &Utf8Path, name: &str) -> Utf8PathBuf {
        state.join(format!("{name}.json"))
    }

    /// The daemon of that name, if it still runs.
    pub fn running(state: &Utf8Path, name: &str) -> Option<Self> {
        let daemon: Self = serde_json::from_str(&fs::read_to_string(Self::file(state, name)).ok()?).ok()?;
        let runs = match daemon.container {
            Some(_) => answers(daemon.port),
            None => start_time(daemon.pid)? == daemon.started,
        };
        runs.then_some(daemon)
    }

    pub(super) fn record(state: &Utf8Path, name: &str, pid: u32, port: u16) -> Result<Self> {
        let started =
            start_time(pid).with_context(|| format!("{name} ended at once; see {state}/{name}.log"))?;
        let daemon = Self { pid, started, port, container: None };
        daemon.write(state, name)?;
        Ok(daemon)
    }

    fn write(&self, state: &Utf8Path, name: &str) -> Result<()> {
        let file = Self::file(state, name);
        fs::write(&file, serde_json::to_string(self)?).with_context(|| format!("cannot write {file}"))
    }

    /// Ends it and waits until it is gone.
    pub fn stop(self, runner: &Runner, state: &Utf8Path, name: &str) -> Result<()> {
        if let Some(container) = &self.container {
            runner.run(&cmd!("docker rm --force {container}"))?;
            if !runner.dry_run {
                fs::remove_file(Self::file(state, name))
                    .context("cannot remove the record of a container")?;
            }
            return Ok(());
        }
        let pid = self.pid.to_string();
        runner.run(&cmd!("kill -TERM {pid}"))?;
        if runner.dry_run {
            return Ok(());
        }
        wait(Duration::from_secs(30), || {
            (start_time(self.pid).as_ref() != Some(&self.started)).then_some(())
        })
        .with_context(|| format!("{name} (process {}) does not end", self.pid))?;
        fs::remove_file(Self::file(state, name)).context("cannot remove the record of a stopped process")
    }
}

pub(super) fn wait<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The local repository, its registry started where it does not run: the program of this machine, else a container of
/// the image.
pub fn repository(runner: &Runner, state: &Utf8Path, image: Option<&str>) -> Result<Repository> {
    let port = match (Daemon::running(state, "registry"), image) {
        (Some(daemon), _) => daemon.port,
        (None, None) if is_installed(runner) => start_registry(runner, state, false)?,
        (None, image) => start_container(runner, state, image.unwrap_or(REGISTRY_IMAGE))?,
    };
    format!("localhost:{port}/opencode-devbox").parse().map_err(|why| anyhow::anyhow!("{why}"))
}

/// The local repository, if its registry runs.
pub fn running_repository(state: &Utf8Path) -> Result<Repository> {
    let Some(daemon) = Daemon::running(state, "registry") else {
        return Err(missing(
            "no registry of this project runs on this machine: run `cargo xtask local up`, or `cargo xtask release --local` to fill it",
        ));
    };
    format!("localhost:{}/opencode-devbox", daemon.port).parse().map_err(|why| anyhow::anyhow!("{why}"))
}

/// True if the registry's program is installed. A process that was started can be found again only on Linux.
pub fn is_installed(runner: &Runner) -> bool {
    cfg!(target_os = "linux") && runner.probe(&cmd!("docker-registry --version")).is_some()
}

/// Starts a registry whose data lie below `state`. With `access_log` each request is a line of `registry.log` there.
pub fn start_registry(runner: &Runner, state: &Utf8Path, access_log: bool) -> Result<u16> {
    let data = state.join("registry");
    let port = free_port(state)?;
    let config = state.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: {}}}}}\n\
         storage: {{filesystem: {{rootdirectory: {data:?}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\"}}\n",
        !access_log
    );
    let serve = cmd!("docker-registry serve {config}");
    if runner.dry_run {
        runner.start(&serve, &state.join("registry.log"))?;
        return Ok(port);
    }
    fs::create_dir_all(&data).with_context(|| format!("cannot create {data}"))?;
    fs::write(&config, text)?;
    let pid = runner.start(&serve, &state.join("registry.log"))?;
    // One that ended will not answer any more.
    let settled =
        wait(Duration::from_secs(10), || (answers(port) || start_time(pid).is_none()).then(|| answers(port)));
    if settled != Some(true) {
        bail!("the local registry does not answer on port {port}; see {state}/registry.log");
    }
    fs::write(state.join("registry.port"), port.to_string())?;
    Daemon::record(state, "registry", pid, port)?;
    Ok(port)
}

/// Frees the disk of what no manifest of the local registry names any more. It stops meanwhile, since an upload would lose its
/// layers. Manifests without tags stay: images of an index have none.
pub fn collect_garbage(runner: &Runner, state: &Utf8Path) -> Result<()> {
    let Some(daemon) = Daemon::running(state, "registry") else { return Ok(()) };
    if let Some(container) = &daemon.container {
        let config = "/etc/distribution/config.yml";
        return runner.run(&cmd!("docker exec {container} registry garbage-collect {config}"));
    }
    let config = state.join("registry.yml");
    daemon.stop(runner, state, "registry")?;
    let collected = runner.run(&cmd!("docker-registry garbage-collect {config}"));
    start_registry(runner, state, false)?;
    collected
}

/// Starts the registry as a container. It keeps its data in a volume, since the engine may not see this machine's folders.
fn start_container(runner: &Runner, state: &Utf8Path, image: &str) -> Result<u16> {
    if !runner.dry_run {
        docker::require_engine(runner)?;
    }
    let port = free_port(state)?;
    let name = format!("opencode-devbox-registry-{port}");
    let place = [format!("--publish=127.0.0.1:{port}:5000"), format!("--volume={name}:/var/lib/registry")];
    let settings = ["--env=REGISTRY_STORAGE_DELETE_ENABLED=true", "--env=OTEL_TRACES_EXPORTER=none"];
    let run = cmd!("docker run --detach --name {name} --restart=no {place...} {settings...} {image}");
    if !runner.dry_run {
        fs::create_dir_all(state).with_context(|| format!("cannot create {state}"))?;
        // One that has stopped keeps its name; its data are in the volume.
        runner.probe(&cmd!("docker rm --force {name}"));
    }
    runner.run_again(&run).context(
        "the local registry cannot be started: install docker-registry, or name an image of a registry in \
         DEVBOX_REGISTRY_IMAGE",
    )?;
    if runner.dry_run {
        return Ok(port);
    }
    if wait(Duration::from_secs(30), || answers_http(port).then_some(())).is_none() {
        let log = runner.ask(&cmd!("docker logs --tail=3 {name}"))?;
        let lines = format!("{}{}", log.stdout, log.stderr);
        bail!(
            "the local registry does not answer on port {port}, from {image}; newest lines of `docker logs {name}`:\n{}",
            lines.trim_end()
        );
    }
    fs::write(state.join("registry.port"), port.to_string())?;
    Daemon { pid: 0, started: String::new(), port, container: Some(name) }.write(state, "registry")?;
    Ok(port)
}

/// The port of last time first, so that references from earlier runs stay valid.
fn free_port(state: &Utf8Path) -> Result<u16> {
    let last = fs::read_to_string(state.join("registry.port")).ok().and_then(|text| text.trim().parse().ok());
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    last.into_iter().chain(PORT..PORT + 50).find(free).context("no free port for the local registry")
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The engine's proxy of a published port takes connections before the program in the container does.
fn answers_http(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut start = [0; 4];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP")
    };
    ask().unwrap_or(false)
}

/// Starts a Docker engine: by systemd where it runs, else directly.
pub fn start_engine(runner: &Runner, state: &Utf8Path) -> Result<()> {
    if !runner.dry_run {
        fs::create_dir_all(state).with_context(|| format!("cannot create {state}"))?;
    }
    if Utf8Path::new("/run/systemd/system").exists() {
        runner.run(&as_root(runner, cmd!("systemctl enable --now docker"))?)?;
    } else {
        let pid = runner.start(&cmd!("dockerd"), &state.join("engine.log"))?;
        if !runner.dry_run {
            Daemon::record(state, "engine", pid, 0)?;
        }
    }
    if !runner.dry_run && wait(Duration::from_secs(60), || docker::engine(runner)).is_none() {
        bail!("the Docker engine does not answer after a minute; see {state}/engine.log");
    }
    Ok(())
}
