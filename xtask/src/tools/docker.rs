//! Command lines of docker and what the engine tells about itself.

use anyhow::Result;
use serde_json::Value;

use crate::missing;
use crate::model::command::Cmd;

use super::runner::Runner;

/// Builds and pushes everything in a bake definition.
pub fn bake(definition: &Value, source_date_epoch: Option<&str>) -> Cmd {
    let text = serde_json::to_string_pretty(definition).unwrap_or_default();
    let cmd = Cmd::new("docker", ["buildx", "bake", "--progress=plain", "--allow=fs.read=/", "--file=-"])
        .stdin(text);
    match source_date_epoch {
        Some(seconds) => cmd.env("SOURCE_DATE_EPOCH", seconds),
        None => cmd,
    }
}

/// The engine's description of itself.
pub struct Engine {
    pub version: String,
    /// True if images live in containerd's store, which holds images of several platforms.
    pub containerd_store: bool,
    pub root: String,
}

/// Asks the engine; `None` if none answers.
pub fn engine(runner: &Runner) -> Option<Engine> {
    let text = runner.probe(&Cmd::new("docker", ["info", "--format", "{{json .}}"]))?;
    let info: Value = serde_json::from_str(&text).ok()?;
    let version = info["ServerVersion"].as_str().filter(|version| !version.is_empty())?;
    Some(Engine {
        version: version.to_owned(),
        containerd_store: info["DriverStatus"].to_string().contains("io.containerd.snapshotter"),
        root: info["DockerRootDir"].as_str().unwrap_or("/").to_owned(),
    })
}

/// Fails with the mend unless an engine answers that can hold images of several platforms.
pub fn require_engine(runner: &Runner) -> Result<Engine> {
    let engine = engine(runner)
        .ok_or_else(|| missing("no Docker engine answers: run `cargo xtask doctor --install`"))?;
    if !engine.containerd_store {
        return Err(missing(
            "the Docker engine does not keep images in containerd's store, which multi-platform builds need: set \
             {\"features\":{\"containerd-snapshotter\":true}} in /etc/docker/daemon.json and restart the engine",
        ));
    }
    Ok(engine)
}
