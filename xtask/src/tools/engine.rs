//! A scratch engine: a second Docker engine on this machine with nothing in it, separate from the user's. It has
//! a containerd, a bridge and folders of its own, ends with the process that started it, and is removed without a
//! trace. It touches neither the images nor the firewall rules of another engine. Needs root.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

use crate::output;
use crate::tools::command::{Cmd, cmd};

use super::local::{Daemon, wait};
use super::runner::Runner;

/// The first two numbers of the scratch engines' networks, each of which is a /24 in this private range (RFC 1918).
const NETWORK: &str = "10.213";

/// The file of an engine's folder that says what else there is of it: the number of its bridge, and its run folder.
const LEFT: &str = "left";

pub struct Scratch<'a> {
    runner: &'a Runner,
    state: Utf8PathBuf,
    name: String,
    /// What the engine keeps: images, build cache, volumes.
    pub root: Utf8PathBuf,
    /// Sockets; a short path, since the kernel allows 108 bytes.
    run: TempDir,
    /// Number of the bridge and of its network.
    bridge: u8,
    /// The engine before its containerd, in the order in which they are stopped.
    daemons: Vec<(String, Daemon)>,
}

impl<'a> Scratch<'a> {
    /// Starts an empty engine. Its folders lie below `state`; `name` distinguishes several engines.
    pub fn start(runner: &'a Runner, state: &Utf8Path, name: &str) -> Result<Self> {
        if !cfg!(target_os = "linux") {
            bail!("a second Docker engine can be started only on Linux: run this command there");
        }
        let label = format!("engine-{name}");
        if Daemon::running(state, &label).is_some() {
            bail!("a scratch engine {name:?} of this tree runs already: wait until its command ends");
        }
        clear(runner, state, name)?;
        let root = state.join(&label);
        let run = tempfile::Builder::new().prefix("devbox-").tempdir().context("cannot make a folder")?;
        fs::create_dir_all(&root).with_context(|| format!("cannot create {root}"))?;
        let bridge = claim_bridge(runner)?;
        let mut engine =
            Self { runner, state: state.to_owned(), name: label, root, run, bridge, daemons: Vec::new() };
        // From here on dropping it removes what there is of it; what a killed process leaves, `clear` finds by this.
        fs::write(engine.root.join(LEFT), format!("{bridge}\n{}", engine.run_dir()))?;
        network(runner, bridge, "-I", "-A")?;
        engine.start_daemons()?;
        Ok(engine)
    }

    /// Its address, as the variable `DOCKER_HOST` takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket("docker"))
    }

    /// Turns a command to this engine, and to its own builder whatever builder the user has chosen.
    pub fn on(&self, cmd: Cmd) -> Cmd {
        cmd.env("DOCKER_HOST", self.host()).env("BUILDX_BUILDER", "default")
    }

    /// The network bridge of its containers.
    pub fn bridge(&self) -> String {
        format!("devbox{}", self.bridge)
    }

    /// The processes that do its work.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons.iter().map(|(_, daemon)| daemon.pid).collect()
    }

    fn socket(&self, name: &str) -> Utf8PathBuf {
        self.run_dir().join(format!("{name}.sock"))
    }

    fn run_dir(&self) -> Utf8PathBuf {
        Utf8PathBuf::from(self.run.path().to_string_lossy().into_owned())
    }

    fn start_daemons(&mut self) -> Result<()> {
        let (root, run) = (self.root.clone(), self.run_dir());
        let containerd = self.socket("containerd");
        let config = root.join("containerd.toml");
        // Never the containerd of the machine: images would mix with those of other engines.
        let text = format!(
            "version = 2\nroot = \"{root}/containerd\"\nstate = \"{run}/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{containerd}\"\n"
        );
        fs::write(&config, text).with_context(|| format!("cannot write {config}"))?;
        self.start_daemon("containerd", &["containerd", "--config", config.as_str()], &containerd)?;
        let settings = root.join("daemon.json");
        fs::write(&settings, r#"{"features": {"containerd-snapshotter": true}}"#)?;
        let options = [
            format!("--config-file={settings}"),
            format!("--containerd={containerd}"),
            format!("--data-root={root}/data"),
            format!("--exec-root={run}/exec"),
            format!("--pidfile={run}/docker.pid"),
            format!("--host=unix://{}", self.socket("docker")),
            format!("--bridge={}", self.bridge()),
            // Rules of this engine would replace those that another one made under the same names.
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
        ];
        let words: Vec<&str> = ["dockerd"].into_iter().chain(options.iter().map(String::as_str)).collect();
        self.start_daemon("dockerd", &words, &self.socket("docker"))
    }

    /// Starts a program that dies with this process, and waits for its socket.
    fn start_daemon(&mut self, kind: &str, words: &[&str], socket: &Utf8Path) -> Result<()> {
        let log = self.root.join(format!("{kind}.log"));
        let cmd = cmd!("setpriv --pdeathsig TERM {words...}");
        let pid = self.runner.start(&cmd, &log)?;
        if self.runner.dry_run {
            return Ok(());
        }
        let label = if kind == "dockerd" { self.name.clone() } else { format!("{}-{kind}", self.name) };
        self.daemons.insert(0, (label.clone(), Daemon::record(&self.state, &label, pid, 0)?));
        if wait(Duration::from_secs(60), || UnixStream::connect(socket).ok()).is_none() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(3).collect();
            bail!(
                "the scratch engine's {kind} does not answer; newest lines of its log:\n{}",
                last.join("\n")
            );
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        for (label, daemon) in self.daemons.drain(..) {
            daemon.stop(self.runner, &self.state, &label)?;
        }
        network(self.runner, self.bridge, "-D", "-D")?;
        let bridge = self.bridge();
        self.runner.run(&cmd!("ip link delete {bridge}"))?;
        remove(self.runner, &self.run_dir())?;
        remove(self.runner, &self.root)
    }
}

impl Drop for Scratch<'_> {
    /// A failed measurement must leave no engine behind either.
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            output::note(format!("the scratch engine {} is not removed completely: {error:#}", self.name));
        }
    }
}

/// Removes what an engine of that name left whose process was killed. Its daemons ended with it.
pub fn clear(runner: &Runner, state: &Utf8Path, name: &str) -> Result<()> {
    let root = state.join(format!("engine-{name}"));
    let left = fs::read_to_string(root.join(LEFT)).unwrap_or_default();
    if let Some((bridge, run)) = left.split_once('\n') {
        network(runner, bridge.parse()?, "-D", "-D")?;
        runner.run(&cmd!("ip link delete devbox{bridge}"))?;
        remove(runner, Utf8Path::new(run))?;
    }
    remove(runner, &root)
}

/// Rules that let containers out through the machine's own address; `-D` twice takes them back.
fn network(runner: &Runner, number: u8, insert: &str, append: &str) -> Result<()> {
    let (bridge, subnet) = (format!("devbox{number}"), format!("{NETWORK}.{number}.0/24"));
    let rule = |words: &[&str]| runner.run(&cmd!("iptables --wait {words...}"));
    rule(&[insert, "FORWARD", "-i", &bridge, "-j", "ACCEPT"])?;
    rule(&[insert, "FORWARD", "-o", &bridge, "-j", "ACCEPT"])?;
    rule(&["-t", "nat", append, "POSTROUTING", "-s", &subnet, "!", "-o", &bridge, "-j", "MASQUERADE"])
}

/// Makes a bridge under the first number that is free. The kernel lets only one process have each name.
fn claim_bridge(runner: &Runner) -> Result<u8> {
    let make = |number: &u8| {
        let name = format!("devbox{number}");
        runner.probe(&cmd!("ip link add {name} type bridge")).is_some()
    };
    let free = if runner.dry_run { Some(0) } else { (0..=255).find(make) };
    let number = free.context("cannot make a network bridge: run as root, with iproute2 installed")?;
    let name = format!("devbox{number}");
    let address = format!("{NETWORK}.{number}.1/24");
    runner.run(&cmd!("ip address add {address} dev {name}"))?;
    runner.run(&cmd!("ip link set {name} up"))?;
    Ok(number)
}

/// Removes a folder and whatever is mounted below it.
fn remove(runner: &Runner, folder: &Utf8Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the list of mounts")?;
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<&str> = below.filter(|path| Utf8Path::new(path).starts_with(folder)).collect();
    below.reverse();
    for path in below {
        runner.run(&cmd!("umount {path}"))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {folder}"))
        }
        _ => Ok(()),
    }
}
