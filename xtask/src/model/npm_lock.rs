//! npm's lock files (package-lock.json, lockfileVersion 3), as npm writes them with `omit-lockfile-registry-resolved`.
//!
//! Refuses locks that name a registry, or have no checksum or no optional package of one platform: npm drops what it
//! cannot find among optional dependencies without a word.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::component::{Component, Source};
use super::platform::Platform;

/// One file that a lock names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Subresource Integrity of the tarball, such as `sha512-…`.
    pub integrity: String,
    /// What its package.json says.
    pub licence: Option<String>,
}

/// An entry of `packages`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    name: Option<String>,
    version: String,
    integrity: Option<String>,
    resolved: Option<String>,
    license: Option<String>,
    os: Vec<String>,
    cpu: Vec<String>,
    libc: Vec<String>,
    dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
}

/// A parsed lock file.
#[derive(Debug)]
pub struct Lock {
    /// By path below the project, such as `node_modules/a/node_modules/b`; the root is empty.
    entries: BTreeMap<String, Entry>,
}

impl Lock {
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct File {
            lockfile_version: u32,
            packages: BTreeMap<String, Entry>,
        }
        let file: File = serde_json::from_str(text)?;
        if file.lockfile_version != 3 {
            bail!("lockfileVersion is {}, expected 3", file.lockfile_version);
        }
        Ok(Self { entries: file.packages })
    }

    /// What `npm ci` takes for a platform with glibc.
    pub fn packages(&self, platform: Platform) -> BTreeSet<Package> {
        let wanted = |(path, entry): (&String, &Entry)| {
            (!path.is_empty() && entry.fits(platform)).then(|| Package {
                name: entry.name.clone().unwrap_or_else(|| name(path).to_owned()),
                version: entry.version.clone(),
                integrity: entry.integrity.clone().unwrap_or_default(),
                licence: entry.license.clone(),
            })
        };
        self.entries.iter().filter_map(wanted).collect()
    }

    /// Everything wrong with the lock, one line each.
    pub fn problems(&self, component: &Component, version: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let pinned = pins(component, version);
        let root = self.entries.get("");
        let has = root.map(|root| {
            root.dependencies.iter().chain(&root.optional_dependencies).collect::<BTreeMap<_, _>>()
        });
        if has != Some(pinned.iter().collect()) {
            problems.push(format!("is not the lock of version {version}"));
        }
        for (path, entry) in self.entries.iter().filter(|(path, _)| !path.is_empty()) {
            if entry.integrity.is_none() {
                problems.push(format!("{path} has no checksum"));
            }
            if entry.resolved.is_some() {
                problems.push(format!("{path} names a registry"));
            }
        }
        for (path, entry) in &self.entries {
            for (optional, version) in &entry.optional_dependencies {
                if !self.holds(path, optional) && !elsewhere(optional) {
                    let of = if path.is_empty() { &component.name } else { name(path) };
                    problems.push(format!(
                        "has no {optional}@{version}, an optional part of {of}: its platforms are not equal; leave \
                         the part out by `leave_out` in images/devbox.toml, or take a version that is complete"
                    ));
                }
            }
        }
        problems
    }

    /// True if Node's look-up from `path` finds a package of that name: in its own folder or in one above it.
    fn holds(&self, path: &str, name: &str) -> bool {
        let mut folder = Some(path);
        while let Some(at) = folder {
            let joint = if at.is_empty() { "" } else { "/" };
            if self.entries.contains_key(&format!("{at}{joint}node_modules/{name}")) {
                return true;
            }
            folder = match at.rfind("/node_modules/") {
                Some(end) => Some(&at[..end]),
                None if at.is_empty() => None,
                None => Some(""),
            };
        }
        false
    }
}

impl Entry {
    /// npm's rule for `os`, `cpu` and `libc`: nothing means all, `!x` excludes x.
    fn fits(&self, platform: Platform) -> bool {
        let allows = |list: &[String], value: &str| {
            let excluded = list.iter().any(|word| word.strip_prefix('!') == Some(value));
            let positive = list.iter().any(|word| !word.starts_with('!'));
            !excluded && (!positive || list.iter().any(|word| word == value || word == "any"))
        };
        allows(&self.os, "linux") && allows(&self.cpu, cpu(platform)) && allows(&self.libc, "glibc")
    }
}

/// Node's name of an architecture (`process.arch`).
fn cpu(platform: Platform) -> &'static str {
    match platform {
        Platform::LinuxAmd64 => "x64",
        Platform::LinuxArm64 => "arm64",
    }
}

/// The package name at the end of a path.
fn name(path: &str) -> &str {
    path.rsplit_once("node_modules/").map_or(path, |(_, name)| name)
}

/// True if a package's name says that it is for a platform that no image has.
fn elsewhere(name: &str) -> bool {
    let words = ["darwin", "win32", "windows", "musl", "android", "freebsd", "wasm32", "fsevents"];
    let processors = ["-arm-", "riscv64", "s390x", "ppc64", "ia32", "loong64", "mips64el"];
    words.iter().chain(&processors).any(|word| name.contains(word)) || name.ends_with("-arm")
}

/// What the manifest asks for: exactly the pinned version.
fn pins(component: &Component, version: &str) -> BTreeMap<String, String> {
    let names: Vec<&String> = match &component.source {
        Source::Npm(package) if component.binaries.is_empty() => vec![package],
        _ => component.binaries.values().collect(),
    };
    names.into_iter().map(|name| (name.clone(), version.to_owned())).collect()
}

/// The `package.json` that is resolved into the lock. Binaries are optional, since each fits one platform only.
pub fn manifest(component: &Component, version: &str) -> Result<String> {
    let kind = if component.binaries.is_empty() { "dependencies" } else { "optionalDependencies" };
    let pins = serde_json::to_value(pins(component, version))?;
    // Written as npm would write it: the flag first.
    let body = serde_json::to_string_pretty(&json!({ kind: pins }))?;
    Ok(body.replacen('{', "{\n  \"private\": true,", 1) + "\n")
}

/// The lock without these optional dependencies. Packages that only they needed stay: npm prunes it when it next
/// reads the lock.
pub fn without_optional(text: &str, names: &[String]) -> Result<String> {
    let mut lock: Map<String, Value> = serde_json::from_str(text)?;
    let packages =
        lock.get_mut("packages").and_then(Value::as_object_mut).context("no packages in the lock")?;
    for entry in packages.values_mut().filter_map(Value::as_object_mut) {
        if let Some(optional) = entry.get_mut("optionalDependencies").and_then(Value::as_object_mut) {
            optional.retain(|name, _| !names.contains(name));
            if optional.is_empty() {
                entry.remove("optionalDependencies");
            }
        }
    }
    Ok(serde_json::to_string_pretty(&lock)? + "\n")
}

/// What npm could not find, from its error output: a version that nothing has, or a package that is not there.
pub fn unresolved(output: &str) -> Option<&str> {
    output.lines().find_map(|line| {
        match line.strip_prefix("npm error notarget No matching version found for ") {
            Some(wanted) => Some(wanted.trim_end_matches('.')),
            // The words around the name differ between npm's versions.
            None => line.strip_prefix("npm error 404 ")?.split('\'').nth(1),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(toml: &str) -> Component {
        toml::from_str(&format!("name = \"x\"\nnotes = \"\"\n{toml}")).expect("a component")
    }

    fn lock(packages: &Value) -> Lock {
        Lock::parse(&json!({ "lockfileVersion": 3, "packages": packages }).to_string()).expect("a lock")
    }

    #[track_caller]
    fn problem(packages: &Value, expected: &[&str]) {
        let problems = lock(packages).problems(&component("source.npm = \"a\""), "1.0.0");
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem}");
        }
    }

    /// The optional part of one platform that npm dropped because the registry does not have it.
    #[test]
    fn locks_that_would_build_unequal_platforms_are_refused() {
        let root = json!({ "dependencies": { "a": "1.0.0" } });
        let a = |optional: Value| json!({ "version": "1.0.0", "integrity": "sha512-x", "optionalDependencies": optional });
        problem(&json!({ "": root, "node_modules/a": a(json!({})) }), &[]);
        problem(
            &json!({ "": root, "node_modules/a": a(json!({ "a-linux-arm64": "1.0.0" })) }),
            &["has no a-linux-arm64"],
        );
        problem(
            &json!({ "": root, "node_modules/a": a(json!({ "a-darwin-arm64": "1", "a-linux-x64-musl": "1" })) }),
            &[],
        );
        problem(
            &json!({ "": root, "node_modules/a": { "version": "1.0.0", "resolved": "http://x" } }),
            &["no checksum", "names a registry"],
        );
        problem(&json!({ "": { "dependencies": { "a": "1.1.0" } } }), &["not the lock of version 1.0.0"]);
    }

    #[test]
    fn a_package_is_looked_up_as_node_does() {
        let entry = json!({ "version": "1", "integrity": "sha512-x" });
        let lock = lock(&json!({ "": {}, "node_modules/a": entry, "node_modules/@s/b": entry,
            "node_modules/a/node_modules/c": entry }));
        assert!(lock.holds("node_modules/a", "c") && lock.holds("node_modules/a/node_modules/c", "@s/b"));
        assert!(!lock.holds("", "c") && !lock.holds("node_modules/@s/b", "c"));
    }

    #[test]
    fn a_platform_gets_what_npm_would_give_it() {
        let entry = |os: &str, cpu: &str, libc: &str| {
            json!({ "version": "1", "integrity": "i",
            "os": [os], "cpu": [cpu], "libc": [libc] })
        };
        let lock = lock(&json!({ "": {}, "node_modules/all": { "version": "1", "integrity": "i" },
            "node_modules/arm": entry("linux", "arm64", "glibc"), "node_modules/musl": entry("linux", "arm64", "musl"),
            "node_modules/not": entry("!win32", "!x64", "glibc"), "node_modules/mac": entry("darwin", "arm64", "glibc") }));
        let names = |platform| lock.packages(platform).into_iter().map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(names(Platform::LinuxArm64), ["all", "arm", "not"]);
        assert_eq!(names(Platform::LinuxAmd64), ["all"]);
    }

    #[test]
    fn what_npm_lacks_is_found_in_its_output() {
        let text = "npm error code ETARGET\nnpm error notarget No matching version found for @s/a@1.5.2.\nnpm error x";
        assert_eq!(unresolved(text), Some("@s/a@1.5.2"));
        let text = "npm error 404 Not Found - GET http://x/b\nnpm error 404  The requested resource 'b@1.0.0' could not be found";
        assert_eq!(unresolved(text), Some("b@1.0.0"));
        let text = "npm error code E404\nnpm error 404  'b@1.0.0' is not in this registry.\n";
        assert_eq!((unresolved(text), unresolved("npm error EAI_AGAIN")), (Some("b@1.0.0"), None));
    }

    #[test]
    fn manifests_pin_one_version_and_locks_drop_left_out_parts() {
        let binaries = component(
            "source.npm = \"x\"\nbinaries = { \"linux/amd64\" = \"x-a\", \"linux/arm64\" = \"x-b\" }",
        );
        let text = manifest(&binaries, "1.2.3").expect("text");
        assert_eq!(
            text,
            "{\n  \"private\": true,\n  \"optionalDependencies\": {\n    \"x-a\": \"1.2.3\",\n    \"x-b\": \"1.2.3\"\n  }\n}\n"
        );
        let lock =
            json!({ "packages": { "node_modules/x": { "optionalDependencies": { "p": "1", "q": "1" } } } });
        let text = without_optional(&lock.to_string(), &["p".to_owned()]).expect("text");
        assert!(text.contains("\"q\"") && !text.contains("\"p\""), "{text}");
        assert!(
            !without_optional(&lock.to_string(), &["p".to_owned(), "q".to_owned()])
                .expect("text")
                .contains("optional")
        );
    }
}
