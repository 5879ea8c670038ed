//! Command lines of docker, and the engine's description of itself.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::error::missing;
use crate::model::platform::Platform;
use crate::tools::command::{Cmd, cmd};

use super::runner::Runner;

/// Says which platform the builder takes for its own. BuildKit puts the name of the node's platform in; nothing is run.
const PROBE: &str = "FROM scratch\nARG BUILDPLATFORM\nCOPY <<EOF /native\n${BUILDPLATFORM}\nEOF\n";

/// The node of a builder that serves a platform.
#[derive(Clone, Debug)]
pub struct Node {
    pub platform: Platform,
    pub builder: String,
    pub node: String,
    pub driver: String,
    /// The node's own platform.
    pub native: Platform,
}

/// Turns a buildx command to a builder; without one, buildx takes the one that the user has chosen.
pub fn with_builder(cmd: Cmd, builder: Option<&str>) -> Cmd {
    match builder {
        Some(name) => cmd.env("BUILDX_BUILDER", name),
        None => cmd,
    }
}

/// Asks which node serves each platform, by a build of nothing: buildx alone knows how it shares work out, and a node of
/// a platform that it does not really have is found out.
pub fn nodes(runner: &Runner, builder: Option<&str>, platforms: &[Platform]) -> Result<Vec<Node>> {
    let ask = |platform: &Platform| -> Result<(Value, String)> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (on, metadata, out) = (platform.to_string(), path("metadata"), path("out"));
        let cmd = cmd!(
            "docker buildx build --quiet --platform {on} --metadata-file {metadata} --output type=local,dest={out} -"
        )
        .stdin(PROBE);
        runner.read(&with_builder(cmd, builder)).with_context(|| format!("no builder serves {platform}"))?;
        let metadata = fs::read_to_string(metadata).context("buildx leaves no word of where it built")?;
        let metadata: Value = serde_json::from_str(&metadata).context("buildx's metadata")?;
        let native = fs::read_to_string(path("out/native")).context("the builder does not say what it is")?;
        Ok((metadata, native))
    };
    // All at once: a start of buildx takes longer than what it does here.
    thread::scope(|scope| {
        let asked: Vec<_> = platforms.iter().map(|platform| scope.spawn(|| ask(platform))).collect();
        let listed = runner.read(&cmd!("docker buildx ls --format json"))?;
        let mut nodes = Vec::new();
        for (platform, asked) in platforms.iter().zip(asked) {
            let (metadata, native) = asked.join().map_err(|_| anyhow!("a thread ended"))??;
            nodes.push(node(*platform, &metadata, native.trim(), &listed)?);
        }
        Ok(nodes)
    })
}

/// Puts together what the probe and `buildx ls` said.
fn node(platform: Platform, metadata: &Value, native: &str, listed: &str) -> Result<Node> {
    let reference = metadata["buildx.build.ref"].as_str().context("buildx does not say where it built")?;
    let mut parts = reference.split('/');
    let (builder, node) = parts.next().zip(parts.next()).context("buildx names no node")?;
    let of_builder = |line: &str| {
        let it: Value = serde_json::from_str(line).ok()?;
        (it["Name"] == builder).then(|| it["Driver"].as_str().map(str::to_owned))?
    };
    // `linux/arm64/v8` is what others call `linux/arm64`.
    let native = native.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
    Ok(Node {
        platform,
        builder: builder.to_owned(),
        node: node.to_owned(),
        driver: listed.lines().find_map(of_builder).unwrap_or_else(|| "unknown driver".to_owned()),
        native: native.parse().map_err(|why| anyhow::anyhow!("node {node} is of {native}: {why}"))?,
    })
}

/// Builds and pushes everything in a bake definition; `progress` is BuildKit's option ([`Runner::build_progress`]).
pub fn bake(definition: &Value, source_date_epoch: Option<&str>, progress: &str) -> Cmd {
    let text = serde_json::to_string_pretty(definition).unwrap_or_default();
    let cmd = cmd!("docker buildx bake {progress} --allow=fs.read=/ --file=-").stdin(text);
    match source_date_epoch {
        Some(seconds) => cmd.env("SOURCE_DATE_EPOCH", seconds),
        None => cmd,
    }
}

/// The engine's description of itself.
pub struct Engine {
    /// `engine`, or `Podman` where that answers at Docker's socket. The two count their versions apart.
    pub name: &'static str,
    pub version: String,
    /// True if images live in containerd's store, which holds images of several platforms.
    pub containerd_store: bool,
    pub root: String,
    /// The platform of the machine that it runs on, if it is one of ours.
    pub platform: Option<Platform>,
}

pub const PODMAN: &str = "Podman";

/// True if Podman answers in place of Docker. Its versions are lower than those of any Docker engine in use.
fn is_podman(runner: &Runner, version: &str) -> bool {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let components = cmd!("docker version --format '{{range .Server.Components}}{{.Name}},{{end}}'");
    major.is_some_and(|major| major < 17)
        && runner.probe(&components).is_some_and(|text| text.contains("Podman"))
}

/// Asks the engine; `None` if none answers.
pub fn engine(runner: &Runner) -> Option<Engine> {
    let text = runner.probe(&cmd!("docker info --format '{{json .}}'"))?;
    let info: Value = serde_json::from_str(&text).ok()?;
    let version = info["ServerVersion"].as_str().filter(|version| !version.is_empty())?;
    Some(Engine {
        name: if is_podman(runner, version) { PODMAN } else { "engine" },
        version: version.to_owned(),
        containerd_store: info["DriverStatus"].to_string().contains("io.containerd.snapshotter"),
        platform: match info["Architecture"].as_str() {
            Some("x86_64") => Some(Platform::LinuxAmd64),
            Some("aarch64") => Some(Platform::LinuxArm64),
            _ => None,
        },
        root: info["DockerRootDir"].as_str().unwrap_or("/").to_owned(),
    })
}

/// The engine, or the command that installs one.
pub fn require_engine(runner: &Runner) -> Result<Engine> {
    engine(runner).ok_or_else(|| missing("no Docker engine answers: run `cargo xtask doctor --install`"))
}

/// The builder that this project makes where the engine's own cannot hold images of several platforms.
pub const OWN_BUILDER: &str = "opencode-devbox";

/// Creates the builder in a container, with the network of the machine, so that it reaches a registry on loopback.
pub fn ensure_own_builder(runner: &Runner, image: Option<&str>) -> Result<()> {
    if runner.probe(&cmd!("docker buildx inspect {OWN_BUILDER}")).is_some() {
        return Ok(());
    }
    let image = image.map(|image| format!("--driver-opt=image={image}"));
    let create = cmd!(
        "docker buildx create --name {OWN_BUILDER} --driver=docker-container --driver-opt=network=host {image...}"
    );
    runner.run(&create).context(
        "the engine keeps its images in the classic store, and no builder in a container can be created: set \
         {\"features\":{\"containerd-snapshotter\":true}} in /etc/docker/daemon.json and restart the engine, or name a \
         BuildKit image in DEVBOX_BUILDKIT_IMAGE",
    )
}

/// The platforms whose programs the engine runs, itself or by emulation; `None` where it cannot be asked.
pub fn emulated_platforms(runner: &Runner) -> Option<Vec<Platform>> {
    // The builder of the engine itself: one in a container brings emulators that no other container has.
    let text = runner.probe(&cmd!("docker buildx inspect default"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Platforms:"))?;
    Some(line.split(',').filter_map(|word| word.trim().trim_end_matches('*').parse().ok()).collect())
}
