//! The engine and the registry that this project starts on this machine. State lies in the ignored `.devbox` folder.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::error::missing;
use crate::model::command::Cmd;
use crate::model::reference::Repository;

use super::docker;
use super::process::start_time;
use super::root::as_root;
use super::runner::Runner;

/// The first port that is tried.
const PORT: u16 = 5000;

/// A process that was started here. The start time tells it from a later process with the same id.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    pub pid: u32,
    started: String,
    /// Zero for the engine.
    pub port: u16,
}

impl Daemon {
    fn file(state: &Utf8Path, name: &str) -> Utf8PathBuf {
        state.join(format!("{name}.json"))
    }

    /// The daemon of that name, if it still runs.
    pub fn running(state: &Utf8Path, name: &str) -> Option<Self> {
        let daemon: Self = serde_json::from_str(&fs::read_to_string(Self::file(state, name)).ok()?).ok()?;
        (start_time(daemon.pid)? == daemon.started).then_some(daemon)
    }

    pub(super) fn record(state: &Utf8Path, name: &str, pid: u32, port: u16) -> Result<Self> {
        let started =
            start_time(pid).with_context(|| format!("{name} ended at once; see {state}/{name}.log"))?;
        let daemon = Self { pid, started, port };
        fs::write(Self::file(state, name), serde_json::to_string(&daemon)?)?;
        Ok(daemon)
    }

    /// Ends it and waits until it is gone.
    pub fn stop(self, runner: &Runner, state: &Utf8Path, name: &str) -> Result<()> {
        runner.run(&Cmd::new("kill", ["-TERM", &self.pid.to_string()]))?;
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

/// The local repository, its registry started where it does not run.
pub fn repository(runner: &Runner, state: &Utf8Path) -> Result<Repository> {
    let port = match Daemon::running(state, "registry") {
        Some(daemon) => daemon.port,
        None => start_registry(runner, state, false)?,
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

/// True if a registry could be started.
pub fn is_installed(runner: &Runner) -> bool {
    runner.probe(&Cmd::new("docker-registry", ["--version"])).is_some()
}

/// Starts a registry whose data lie below `state`. With `access_log` each request is a line of `registry.log` there.
pub fn start_registry(runner: &Runner, state: &Utf8Path, access_log: bool) -> Result<u16> {
    let data = state.join("registry");
    // The port of last time first, so that references from earlier runs stay valid.
    let last = fs::read_to_string(state.join("registry.port")).ok().and_then(|text| text.trim().parse().ok());
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port =
        last.into_iter().chain(PORT..PORT + 50).find(free).context("no free port for the local registry")?;
    let config = state.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: {}}}}}\n\
         storage: {{filesystem: {{rootdirectory: {data:?}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\"}}\n",
        !access_log
    );
    let serve = Cmd::new("docker-registry", ["serve", config.as_str()]);
    if runner.dry_run {
        runner.start(&serve, &state.join("registry.log"))?;
        return Ok(port);
    }
    fs::create_dir_all(&data).with_context(|| format!("cannot create {data}"))?;
    fs::write(&config, text)?;
    let pid = runner.start(&serve, &state.join("registry.log"))?;
    let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    // One that ended will not answer any more.
    let settled = wait(Duration::from_secs(10), || (answers() || start_time(pid).is_none()).then(answers));
    if settled != Some(true) {
        bail!("the local registry does not answer on port {port}; see {state}/registry.log");
    }
    fs::write(state.join("registry.port"), port.to_string())?;
    Daemon::record(state, "registry", pid, port)?;
    Ok(port)
}

/// Starts a Docker engine: by systemd where it runs, else directly.
pub fn start_engine(runner: &Runner, state: &Utf8Path) -> Result<()> {
    if !runner.dry_run {
        fs::create_dir_all(state).with_context(|| format!("cannot create {state}"))?;
    }
    if Utf8Path::new("/run/systemd/system").exists() {
        runner.run(&as_root(runner, Cmd::new("systemctl", ["enable", "--now", "docker"]))?)?;
    } else {
        let pid = runner.start(&Cmd::new("dockerd", [] as [&str; 0]), &state.join("engine.log"))?;
        if !runner.dry_run {
            Daemon::record(state, "engine", pid, 0)?;
        }
    }
    if !runner.dry_run && wait(Duration::from_secs(60), || docker::engine(runner)).is_none() {
        bail!("the Docker engine does not answer after a minute; see {state}/engine.log");
    }
    Ok(())
}
