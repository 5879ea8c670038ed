//! Python's lock files: requirements with hashes, as `uv pip compile --universal --generate-hashes` writes them.
//! Refuses a requirement without one exact version or without a checksum.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl};

use super::platform::Platform;

/// The Python of the Debian release that the images are built on.
pub const PYTHON: &str = "3.13";
/// Minor version of [`PYTHON`].
const MINOR: u32 = 13;
/// The newest manylinux policy that is asked for, as its glibc's minor version (PEP 600).
const MANYLINUX: u32 = 28;

/// One pinned project.
#[derive(Clone, Debug)]
pub struct Pin {
    pub name: String,
    pub version: String,
    /// SHA-256 of every file of that version, in hexadecimal.
    pub hashes: BTreeSet<String>,
    requirement: Requirement<VerbatimUrl>,
}

impl Pin {
    /// True if the environment marker lets the project in on that platform.
    pub fn applies(&self, platform: Platform) -> Result<bool> {
        Ok(self.requirement.evaluate_markers(&environment(platform)?, &[]))
    }
}

/// Parses a lock. Anything but exact versions with hashes is refused.
pub fn parse(text: &str) -> Result<Vec<Pin>> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(pin).collect()
}

fn pin(line: &str) -> Result<Pin> {
    let (head, hashes) = line.split_once(" --hash=").with_context(|| format!("{line:?} has no hash"))?;
    let requirement: Requirement<VerbatimUrl> =
        head.trim().parse().map_err(|why| anyhow::anyhow!("{:?}: {why}", head.trim()))?;
    let exact = head.split([';', ' ']).next().unwrap_or_default().split_once("==");
    let Some((_, version)) = exact else { bail!("{head:?} is not pinned to one version") };
    let hashes = hashes.split(" --hash=").map(str::trim);
    let digests = hashes.map(|hash| hash.strip_prefix("sha256:").map(str::to_owned));
    Ok(Pin {
        name: requirement.name.to_string(),
        version: version.to_owned(),
        hashes: digests
            .collect::<Option<_>>()
            .with_context(|| format!("{head:?} has a hash that is not SHA-256"))?,
        requirement,
    })
}

/// The marker environment of an image (PEP 508, "Environment Markers").
fn environment(platform: Platform) -> Result<MarkerEnvironment> {
    let full = format!("{PYTHON}.0");
    let builder = MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: machine(platform),
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: PYTHON,
        sys_platform: "linux",
    };
    MarkerEnvironment::try_from(builder).map_err(|why| anyhow::anyhow!("marker environment: {why}"))
}

/// The kernel's name of an architecture.
fn machine(platform: Platform) -> &'static str {
    match platform {
        Platform::LinuxAmd64 => "x86_64",
        Platform::LinuxArm64 => "aarch64",
    }
}

/// True if an installer may take this file for a platform: a wheel whose tags fit (PEP 425, 427 and 600).
pub fn wheel_fits(file: &str, platform: Platform) -> bool {
    let Some(stem) = file.strip_suffix(".whl") else { return false };
    let [platforms, abis, pythons] = stem.rsplit('-').take(3).collect::<Vec<_>>()[..] else { return false };
    let any = |tags: &str, fits: &dyn Fn(&str) -> bool| tags.split('.').any(fits);
    let abi3 = any(abis, &|abi| abi == "abi3");
    any(pythons, &|tag| python_fits(tag, abi3))
        && any(abis, &|abi| matches!(abi, "none" | "abi3") || abi == format!("cp3{MINOR}"))
        && any(platforms, &|tag| tag == "any" || glibc(tag, platform).is_some_and(|minor| minor <= MANYLINUX))
}

/// How well a file fits a platform: of several that do, an installer takes the greatest (PEP 425, "tags in order of priority").
pub fn wheel_rank(file: &str, platform: Platform) -> Option<(u32, u32)> {
    if !wheel_fits(file, platform) {
        return None;
    }
    let [platforms, abis, pythons] = file.strip_suffix(".whl")?.rsplit('-').take(3).collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let cpython = pythons.split('.').filter_map(|tag| tag.strip_prefix("cp3")?.parse::<u32>().ok()).max();
    // The image's own interface, then the stable one of ever older versions, then none.
    let interface = match (abis == format!("cp3{MINOR}"), cpython) {
        (true, _) => 1000,
        (false, minor) => minor.unwrap_or_default(),
    };
    Some((
        interface,
        platforms
            .split('.')
            .filter_map(|tag| glibc(tag, platform))
            .filter(|it| *it <= MANYLINUX)
            .max()
            .unwrap_or_default(),
    ))
}

/// `py3`, `py3N`, `cp3N`: the image's version, or an older one where the file promises that it does.
fn python_fits(tag: &str, abi3: bool) -> bool {
    match (tag.strip_prefix("py3"), tag.strip_prefix("cp3")) {
        (Some(""), _) => true,
        (Some(minor), _) => minor.parse().is_ok_and(|minor: u32| minor <= MINOR),
        (_, Some(minor)) => minor.parse().is_ok_and(|minor: u32| minor == MINOR || abi3 && minor <= MINOR),
        _ => false,
    }
}

/// The minor version of glibc that a platform tag asks for; `None` for another platform.
fn glibc(tag: &str, platform: Platform) -> Option<u32> {
    let policy = tag.strip_suffix(machine(platform))?.strip_suffix('_')?;
    match policy {
        "linux" | "manylinux1" => Some(5),
        "manylinux2010" => Some(12),
        "manylinux2014" => Some(17),
        policy => policy.strip_prefix("manylinux_2_")?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fits(file: &str, amd64: bool, arm64: bool) {
        let both = [Platform::LinuxAmd64, Platform::LinuxArm64].map(|platform| wheel_fits(file, platform));
        assert_eq!(both, [amd64, arm64], "{file}");
    }

    #[test]
    fn wheels_fit_by_their_tags() {
        fits("b-1-py313-none-any.whl", true, true);
        fits("b-1-py314-none-any.whl", false, false);
        fits("six-1.17.0-py2.py3-none-any.whl", true, true);
        fits("a-1-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", true, false);
        fits("a-1-cp313-cp313-manylinux_2_28_aarch64.whl", false, true);
        fits("a-1-cp313-cp313-manylinux_2_31_aarch64.whl", false, false);
        fits("a-1-cp39-abi3-manylinux2014_aarch64.whl", false, true);
        fits("a-1-cp314-abi3-manylinux2014_aarch64.whl", false, false);
        fits("a-1-cp312-cp312-manylinux2014_x86_64.whl", false, false);
        fits("a-1-cp313-cp313t-manylinux2014_x86_64.whl", false, false);
        fits("a-1-cp313-cp313-musllinux_1_2_x86_64.whl", false, false);
        fits("uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl", false, true);
        fits("a-1-7-py3-none-macosx_11_0_arm64.whl", false, false);
        fits("a-1.tar.gz", false, false);
    }

    #[test]
    fn of_several_wheels_the_closest_is_taken() {
        let order = [
            "py3-none-any",
            "py3-none-manylinux_2_28_x86_64",
            "cp39-abi3-manylinux2014_x86_64",
            "cp39-abi3-manylinux_2_28_x86_64",
            "cp311-abi3-manylinux2014_x86_64",
            "cp313-cp313-manylinux2014_x86_64",
        ];
        let ranks = order.map(|tags| wheel_rank(&format!("a-1-{tags}.whl"), Platform::LinuxAmd64));
        assert!(ranks.iter().all(Option::is_some) && ranks.is_sorted(), "{ranks:?}");
        assert_eq!(wheel_rank("a-1-cp313-cp313-manylinux_2_31_x86_64.whl", Platform::LinuxAmd64), None);
    }

    #[test]
    fn pins_have_hashes_and_markers() {
        let text = "a==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:aa\nb==2.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n";
        let pins = parse(&format!("# made by uv\n\n{text}")).expect("a lock");
        assert_eq!(pins.len(), 2);
        assert!(!pins[0].applies(Platform::LinuxAmd64).expect("a marker"));
        assert!(pins[1].applies(Platform::LinuxArm64).expect("a marker"));
        assert_eq!((pins[1].version.as_str(), pins[1].hashes.len()), ("2.0", 2));
        for text in ["a==1.0\n", "a>=1.0 --hash=sha256:aa\n", "a==1.0 --hash=md5:aa\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
