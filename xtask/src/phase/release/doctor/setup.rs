//! Sets a machine up for a release: packages, crane, emulation, the engine. Each step runs only where it is needed, and a
//! machine without apt gets what this project can install without it. Refuses to install packages without root.

use std::fs;

use anyhow::{Context as _, Result};
use camino::Utf8Path;

use crate::context::{Context, sources};
use crate::error::missing;
use crate::image::builders;
use crate::model::platform::Platform;
use crate::tools::command::cmd;
use crate::tools::{docker, local, root};
use crate::upstream::crane_archive;

/// Packages that Debian's stable release has too old, or not at all: taken from the named suite and only these.
const NEWER_SUITE: &str = "forky";
/// Where every Debian system keeps the archive's keys (package debian-archive-keyring).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const NEWER: [&str; 6] = ["docker.io", "docker-cli", "docker-buildx", "containerd", "crane", COSIGN];

/// The program that a test verifies signatures with; no release needs it.
const COSIGN: &str = "cosign";

/// Where the kernel shows its emulators.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// The system, as far as it matters for packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Debian,
    Ubuntu,
    Other,
}

impl System {
    fn of(os_release: &str) -> Self {
        let is = |id: &str| os_release.lines().any(|line| line == id);
        match (is("ID=debian"), is("ID=ubuntu")) {
            (true, _) => Self::Debian,
            (_, true) => Self::Ubuntu,
            _ => Self::Other,
        }
    }

    /// A package by the name that this system has for it; `None` where another one contains it.
    fn package(self, name: &str) -> Option<String> {
        match (self, name) {
            (Self::Ubuntu, "docker-cli") => None,
            (Self::Debian, _) if NEWER.contains(&name) => Some(format!("{name}/{NEWER_SUITE}")),
            _ => Some(name.to_owned()),
        }
    }
}

fn system(ctx: &Context) -> System {
    System::of(&ctx.runner.probe(&cmd!("cat /etc/os-release")).unwrap_or_default())
}

/// Installs the cosign of the tests where the system has a package of it.
pub fn install_cosign(ctx: &Context) -> Result<()> {
    let system = system(ctx);
    if system != System::Debian || ctx.runner.probe(&cmd!("{COSIGN} version")).is_some() {
        return Ok(());
    }
    require_apt(ctx, system, &[COSIGN])?;
    apt(ctx, &[COSIGN], system)
}

/// Installs the packages of missing programs, turns on emulation and starts the engine.
pub fn install(ctx: &Context, programs: &[&str]) -> Result<()> {
    let system = system(ctx);
    let engine_runs = docker::engine(&ctx.runner).is_some();
    let lacks_emulation = lacks_emulation(ctx);
    // An engine in a virtual machine, or outside of this container, is reached by a container and by nothing else.
    let by_container = lacks_emulation && engine_runs && !may_register();
    let mut packages = Vec::new();
    // An engine of other packages is used as it is; only without any is the system's installed.
    if !engine_runs && ctx.runner.probe(&cmd!("dockerd --version")).is_none() {
        packages.extend(["docker.io", "docker-cli", "containerd"]);
    }
    packages.extend(programs);
    if lacks_emulation && !by_container {
        packages.extend(["binfmt-support", "qemu-user-static"]);
    }
    if packages.contains(&"mmdebstrap") {
        packages.push("arch-test");
    }
    let packages = without_crane(ctx, system, packages)?;
    if !packages.is_empty() || !engine_runs || (lacks_emulation && !by_container) {
        require_apt(ctx, system, &packages)?;
    }
    if !packages.is_empty() {
        apt(ctx, &packages, system)?;
    }
    match lacks_emulation {
        true if by_container => emulate_by_container(ctx)?,
        true => emulate(ctx)?,
        false => {}
    }
    if !engine_runs {
        containerd_store(ctx)?;
        local::start_engine(&ctx.runner, &ctx.state_dir())?;
    }
    Ok(())
}

/// The packages without crane, which comes from its project's archive where the system has no package of it.
fn without_crane<'a>(ctx: &Context, system: System, packages: Vec<&'a str>) -> Result<Vec<&'a str>> {
    let (crane, others): (Vec<_>, Vec<_>) = packages.iter().partition(|name| **name == crane_archive::NAME);
    if crane.is_empty() || has_package(ctx, system) {
        return Ok(packages);
    }
    crane_archive::install(ctx)?;
    Ok(others)
}

/// True if apt can install crane. A future Ubuntu may have it too.
fn has_package(ctx: &Context, system: System) -> bool {
    let policy = cmd!("apt-cache policy").arg(crane_archive::NAME);
    match system {
        System::Debian => true,
        System::Ubuntu => ctx.runner.probe(&policy).is_some_and(|text| is_candidate(&text)),
        System::Other => false,
    }
}

fn is_candidate(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    candidate.is_some_and(|version| version != "(none)")
}

fn require_apt(ctx: &Context, system: System, packages: &[&str]) -> Result<()> {
    if system == System::Other {
        let mut needed = packages.to_vec();
        if needed.is_empty() {
            needed.push("a running Docker engine");
        }
        return Err(missing(format!(
            "only Debian and Ubuntu can be set up: install or start {} by hand",
            needed.join(", ")
        )));
    }
    if !root::is_available(&ctx.runner)? {
        return Err(missing(
            "setting this machine up needs root: run the same command as root, or allow sudo without a password",
        ));
    }
    Ok(())
}

fn apt(ctx: &Context, packages: &[&str], system: System) -> Result<()> {
    ctx.say(format!("installing packages: {}", packages.join(" ")));
    let apt = |args: &[&str]| {
        let cmd = cmd!("apt-get -qq -o Dpkg::Use-Pty=0 {args...}");
        ctx.runner.run(&root::as_root(&ctx.runner, cmd.env("DEBIAN_FRONTEND", "noninteractive"))?)
    };
    if system == System::Debian && packages.iter().any(|name| NEWER.contains(name)) {
        newer_suite(ctx)?;
    }
    apt(&["update"])?;
    let names: Vec<String> = packages.iter().filter_map(|name| system.package(name)).collect();
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(names.iter().map(String::as_str));
    apt(&args)
}

/// Adds the newer suite at a priority at which nothing is ever taken from it unasked.
fn newer_suite(ctx: &Context) -> Result<()> {
    let uri = sources::debian_archive(ctx, "Debian")
        .context("apt knows no Debian archive: run `apt-get update`")?;
    write(
        ctx,
        "/etc/apt/sources.list.d/opencode-devbox.sources",
        &format!("Types: deb\nURIs: {uri}\nSuites: {NEWER_SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"),
    )?;
    write(
        ctx,
        "/etc/apt/preferences.d/opencode-devbox",
        &format!("Package: *\nPin: release n={NEWER_SUITE}\nPin-Priority: 50\n"),
    )
}

/// True if a platform is to be emulated here and cannot be yet.
fn lacks_emulation(ctx: &Context) -> bool {
    let foreign = ctx.platforms.iter().any(|p| *p != Platform::host() && !emulated(ctx, *p));
    foreign && builders::may_emulate(ctx)
}

/// True if the engine runs programs of a platform. The engine is asked, since its kernel may be another one than that of
/// this process shows; where none answers, this machine's kernel counts.
pub fn emulated(ctx: &Context, platform: Platform) -> bool {
    if let Some(platforms) = docker::emulated_platforms(&ctx.runner) {
        return platforms.contains(&platform);
    }
    let name = if platform == Platform::LinuxArm64 { "qemu-aarch64" } else { "qemu-x86_64" };
    let entry = fs::read_to_string(format!("{BINFMT}/{name}"));
    entry.is_ok_and(|text| text.starts_with("enabled"))
}

/// True if this process, or sudo, may register emulators with the kernel that the engine runs on.
fn may_register() -> bool {
    // CAP_SYS_ADMIN, bit 21 of the bounding set: a container without it cannot mount binfmt_misc, even as root.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bits = bounding.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    cfg!(target_os = "linux") && bits.is_some_and(|bits| bits & (1 << 21) != 0)
}

fn emulate(ctx: &Context) -> Result<()> {
    let run = |cmd| ctx.runner.run(&root::as_root(&ctx.runner, cmd)?);
    if !Utf8Path::new(BINFMT).join("register").exists() {
        run(cmd!("mount -t binfmt_misc binfmt_misc {BINFMT}"))?;
    }
    let name = if Platform::host() == Platform::LinuxAmd64 { "qemu-aarch64" } else { "qemu-x86_64" };
    run(cmd!("update-binfmts --enable {name}"))
}

/// Registers emulators from a container, as docker/setup-qemu-action does.
fn emulate_by_container(ctx: &Context) -> Result<()> {
    let image = &ctx.settings.binfmt_image;
    let foreign: Vec<&str> =
        ctx.platforms.iter().filter(|p| **p != Platform::host()).map(|p| p.arch()).collect();
    let foreign = foreign.join(",");
    let done = ctx.runner.run_again(&cmd!("docker run --rm --privileged {image} --install {foreign}"));
    done.context(
        "emulation cannot be set up from a container: register QEMU on the machine of the engine, or name another image \
         in DEVBOX_BINFMT_IMAGE",
    )
}

/// A new engine keeps its images in containerd's store; a configuration that is there stays as it is.
fn containerd_store(ctx: &Context) -> Result<()> {
    let path = "/etc/docker/daemon.json";
    if Utf8Path::new(path).exists() {
        return Ok(());
    }
    write(ctx, path, "{\"features\":{\"containerd-snapshotter\":true}}\n")
}

fn write(ctx: &Context, path: &str, text: &str) -> Result<()> {
    let install = cmd!("install -D --mode=644 /dev/stdin {path}").stdin(text);
    ctx.runner.run(&root::as_root(&ctx.runner, install)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_names_of_the_system() {
        let (debian, ubuntu) = (System::of("ID=debian\n"), System::of("NAME=x\nID=ubuntu\nID_LIKE=debian\n"));
        assert_eq!(
            (debian, ubuntu, System::of("ID=fedora\n")),
            (System::Debian, System::Ubuntu, System::Other)
        );
        assert_eq!(debian.package("crane").as_deref(), Some("crane/forky"));
        assert_eq!(debian.package("shellcheck").as_deref(), Some("shellcheck"));
        assert_eq!(ubuntu.package("docker.io").as_deref(), Some("docker.io"));
        assert_eq!(ubuntu.package("docker-cli"), None);
    }

    #[test]
    fn a_package_without_a_candidate_is_not_available() {
        assert!(is_candidate("crane:\n  Installed: (none)\n  Candidate: 0.20.7+ds1-1\n"));
        assert!(!is_candidate("crane:\n  Installed: (none)\n  Candidate: (none)\n") && !is_candidate(""));
    }
}
