//! The machine and the versions that a measurement was made with, as a sentence of `docs/benchmarks.md`.

use std::fs;

use anyhow::Result;
use jiff::Timestamp;

use crate::tools::command::{Cmd, cmd};
use crate::tools::runner::Runner;

/// One line of Markdown. The load of the last minutes says whether other work was going on.
pub fn facts(runner: &Runner) -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let version = |cmd: Cmd| runner.probe(&cmd).map_or("unknown".to_owned(), |text| text.trim().to_owned());
    let (dockerd, buildx) = (version(cmd!("dockerd --version")), version(cmd!("docker buildx version")));
    let registry = version(cmd!("docker-registry --version"));
    Ok(format!(
        "{}: {cores} cores ({}), {} GB of memory, Linux {}; {dockerd}; {buildx}; {registry}. \
         Load before the start, over 1, 5 and 15 minutes: {}.\n",
        Timestamp::now().strftime("%F"),
        model.map_or("model unknown", |(_, name)| name),
        memory / 1_000_000,
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(", "),
    ))
}
