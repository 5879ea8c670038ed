//! The smoke suite itself: that the pipeline and the script agree on its checks, what each verdict depends on, and what
//! the script reports when docker answers wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use tempfile::TempDir;
use xtask::model::config::Config;
use xtask::model::platform::Platform;
use xtask::model::suite::{Pins, Subject, Suite};
use xtask::model::verdict::{Anatomy, Place, key};

use crate::support::env::tree;

/// Containers start, print what a server prints, and can be removed; nothing works in them.
const DOCKER: &str = r#"#!/bin/sh
case $1 in
  --version) echo Docker version 28.5.2 ;;
  version) echo linux/amd64 ;;
  image) echo '[{"Config": {"Labels": {"opencode-devbox.variant": "VARIANT"}}}]' ;;
  create) echo id ;;
  start) echo listening on 127.0.0.1 ;;
  rm | ps | volume | cp) ;;
  run) [ "$2" = --detach ] ;;
  # The one answer that a check waits for; what it asks next fails.
  exec) [ "$*" = 'exec id devbox health' ] && echo serving ;;
  *) exit 1 ;;
esac
"#;

/// Runs the script with this docker before all others.
fn script(dir: &Path, variant: &str, args: &[&str]) -> Output {
    let docker = dir.join("docker");
    fs::write(&docker, DOCKER.replace("VARIANT", variant)).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(tree().join("scripts/smoke-test.sh"));
    command.args(["--image", "broken"]).args(args).env("PATH", path).output().unwrap()
}

#[test]
fn a_broken_image_fails_check_by_check() {
    let dir = TempDir::new().unwrap();
    let (tap, junit) = (dir.path().join("tap"), dir.path().join("junit"));
    // Most checks wait in vain for a container.
    let reports = ["--jobs", "40", "--tap", tap.to_str().unwrap(), "--junit", junit.to_str().unwrap()];
    let output = script(dir.path(), "base", &[&["--expect", "opencode=1.2.3"], &reports[..]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    // The last line of this check removes the container, which works.
    assert!(text.contains(" - a server with secrets in files is healthy and leaks none # "), "{text}");
    // Only that an image in no registry has no compressed size.
    let passed: Vec<&str> = text.lines().filter(|line| line.starts_with("ok ")).collect();
    assert!(
        passed.iter().all(|line| line.contains("the compressed size is within its budget")),
        "{passed:?}"
    );
    // What was to run inside the container was never answered.
    let planned: usize =
        text.lines().find_map(|line| line.strip_prefix("1..")).and_then(|count| count.parse().ok()).unwrap();
    let failed = text.lines().filter(|line| line.starts_with("not ok ")).count();
    assert!(failed > 40 && failed < planned, "{failed} of {planned}");
    let without = planned - failed - passed.len();
    let summary = format!("{failed} of {planned} failed, {without} gave no result");
    assert!(text.contains(&summary), "{summary}\n{text}");
    assert!(fs::read_to_string(tap).unwrap().contains(&format!("1..{planned}")));
    let junit = fs::read_to_string(junit).unwrap();
    assert_eq!(junit.matches("<testcase ").count(), failed + passed.len(), "{junit}");
    assert_eq!(junit.matches("<failure>").count(), failed);
}

#[test]
fn chosen_checks_run_alone_and_an_unknown_one_is_refused() {
    let dir = TempDir::new().unwrap();
    let chosen = dir.path().join("chosen");
    let run = |names: &str| {
        fs::write(&chosen, names).unwrap();
        script(dir.path(), "base", &["--expect", "opencode=1.2.3", "--checks", chosen.to_str().unwrap()])
    };
    let output = run("exit codes are kept\nthe labels name the pinned versions\n");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains(" - ")).count(), 4, "{text}");
    let output = run("exit codes are kept\nno such thing\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such check"), "{output:?}");
}

fn config() -> Config {
    Config::parse(&fs::read_to_string(tree().join("images/devbox.toml")).unwrap()).unwrap()
}

fn files() -> BTreeMap<String, String> {
    let listed =
        Command::new("find").args(["scripts/smoke", "-type", "f"]).current_dir(tree()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let paths = listed.lines().chain(["scripts/smoke-test.sh"]);
    paths.map(|path| (path.to_owned(), fs::read_to_string(tree().join(path)).unwrap())).collect()
}

fn of_variants(config: &Config) -> BTreeSet<String> {
    config.variant.iter().flat_map(|it| it.components.iter().cloned()).collect()
}

/// The pipeline computes keys from the files that the script runs: both have to see the same checks.
#[test]
fn the_script_and_the_pipeline_have_the_same_checks() {
    let dir = TempDir::new().unwrap();
    let config = config();
    let suite = Suite::parse(&files(), &config.component, &of_variants(&config)).unwrap();
    let of_base = ["node", "uv", "mempalace"];
    for (variant, names) in
        [("", &[][..]), ("base", &["opencode"]), ("omos-with-pi", &["opencode", "bun", "omos", "pi"])]
    {
        for platform in [Platform::LinuxAmd64, Platform::LinuxArm64] {
            let versions = of_base.iter().chain(names).map(|name| ((*name).to_owned(), "1.2.3".to_owned()));
            let pins = Pins { versions: versions.collect(), max_mb: 1, variant: variant.to_owned() };
            let emulated = platform != Platform::LinuxAmd64;
            let needed = suite
                .of_image(&pins, emulated)
                .filter(|it| it.subject != Subject::Bare || variant.is_empty());
            let expected: BTreeSet<&str> = needed.map(|check| check.name.as_str()).collect();
            let platform = platform.to_string();
            let mut args = vec!["--list", "--platform", &platform];
            let pins: Vec<String> = pins.versions.keys().map(|name| format!("{name}=1.2.3")).collect();
            pins.iter().for_each(|pin| args.extend(["--expect", pin]));
            let output = script(dir.path(), variant, &args);
            let text = String::from_utf8(output.stdout).unwrap();
            let listed: BTreeSet<&str> = text.lines().collect();
            assert_eq!(listed, expected, "{variant} {platform} {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A suite whose dependencies are known: check number n uses the helpers `checks[n]`, helper n those of `helpers[n]`.
#[derive(Clone, Debug)]
struct Made {
    checks: Vec<(usize, Vec<usize>)>,
    helpers: Vec<Vec<usize>>,
}

const SUBJECTS: [&str; 5] = ["base", "opencode", "pi", "opencode+pi", "image"];

impl Made {
    fn files(&self, changed: Option<&Mutation>) -> BTreeMap<String, String> {
        let mut topic = String::new();
        let words = |uses: &[usize]| uses.iter().map(|it| format!(" helper_{it}")).collect::<String>();
        for (at, (subject, uses)) in self.checks.iter().enumerate() {
            let more = if changed == Some(&Mutation::Check(at)) { " changed" } else { "" };
            let expects = match at % 3 {
                0 => " \"$max_mb\"",
                1 => " \"$(pinned pi)\"",
                _ => "",
            };
            topic +=
                &format!("check 'check {at}' {} any run{}{expects}{more}\n", SUBJECTS[*subject], words(uses));
        }
        let mut helpers = String::new();
        for (at, uses) in self.helpers.iter().enumerate() {
            let more = if changed == Some(&Mutation::Helper(at)) { " changed" } else { "" };
            helpers += &format!("helper_{at}() {{\n  run{}{more}\n}}\n", words(uses));
        }
        let runner = if changed == Some(&Mutation::Runner) { "changed" } else { "" };
        BTreeMap::from([
            ("scripts/smoke-test.sh".to_owned(), runner.to_owned()),
            ("scripts/smoke/topics/one.bash".to_owned(), topic),
            ("scripts/smoke/helpers.bash".to_owned(), helpers),
        ])
    }

    /// The helpers that a check reaches.
    fn reached(&self, check: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = self.checks[check].1.clone();
        while let Some(at) = open.pop() {
            if reached.insert(at) {
                open.extend(&self.helpers[at]);
            }
        }
        reached
    }

    /// The table of docs/architecture.md, "Verdicts".
    fn depends(&self, check: usize, on: &Mutation) -> bool {
        let subject = SUBJECTS[self.checks[check].0];
        match on {
            Mutation::Check(at) => *at == check,
            Mutation::Helper(at) => self.reached(check).contains(at),
            Mutation::Budget => check.is_multiple_of(3),
            Mutation::Version => check % 3 == 1,
            Mutation::Layer(name) => subject == "image" || subject.split('+').any(|it| it == *name),
            Mutation::Label => subject == "image",
            Mutation::Runner
            | Mutation::BaseLayer
            | Mutation::Environment
            | Mutation::Platform
            | Mutation::Emulation => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mutation {
    Check(usize),
    Helper(usize),
    Runner,
    Budget,
    Version,
    BaseLayer,
    Layer(&'static str),
    Label,
    Environment,
    Platform,
    Emulation,
}

fn keys(made: &Made, mutation: Option<&Mutation>) -> Vec<String> {
    let suite = Suite::parse(&made.files(mutation), &[], &BTreeSet::new()).unwrap();
    let is = |it: Mutation| mutation == Some(&it);
    let digest =
        |name: &'static str| format!("{name}{}", if is(Mutation::Layer(name)) { " changed" } else { "" });
    let base = vec!["debian".to_owned(), if is(Mutation::BaseLayer) { "changed" } else { "own" }.to_owned()];
    let components: BTreeMap<_, _> =
        ["opencode", "pi"].map(|name| (name.to_owned(), (digest(name), 1))).into_iter().collect();
    let layers = base.iter().cloned().map(|it| (it, 1)).chain(components.values().cloned()).collect();
    let label = if is(Mutation::Label) { "changed" } else { "" };
    let path = if is(Mutation::Environment) { "PATH=/changed" } else { "PATH=/" };
    let anatomy = Anatomy {
        base,
        components,
        layers,
        config: serde_json::json!({ "Env": [path], "Labels": { "revision": label } }),
    };
    let pi = if is(Mutation::Version) { "2" } else { "1" };
    let versions =
        [("opencode", "1"), ("pi", pi)].map(|(name, version)| (name.to_owned(), version.to_owned()));
    let versions = versions.into_iter().collect();
    let max_mb = if is(Mutation::Budget) { 2 } else { 1 };
    let pins = Pins { versions, max_mb, variant: "with-pi".to_owned() };
    let platform = if is(Mutation::Platform) { Platform::LinuxArm64 } else { Platform::LinuxAmd64 };
    let place = Place { platform, emulated: is(Mutation::Emulation) };
    suite.checks.iter().map(|check| key(&suite, check, &pins, &anatomy, place)).collect()
}

fn made() -> impl Strategy<Value = Made> {
    let uses = || proptest::collection::vec(0..6usize, 0..3);
    let checks = proptest::collection::vec((0..SUBJECTS.len(), uses()), 1..12);
    let helpers = proptest::collection::vec(uses(), 6);
    (checks, helpers).prop_map(|(checks, helpers)| Made { checks, helpers })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A change runs exactly those checks again that depend on it.
    #[test]
    fn a_change_runs_again_what_depends_on_it(made in made(), pick in 0..12usize) {
        let mutations = [
            Mutation::Check(pick % made.checks.len()), Mutation::Helper(pick % made.helpers.len()), Mutation::Runner,
            Mutation::Budget, Mutation::Version, Mutation::BaseLayer, Mutation::Layer("opencode"), Mutation::Layer("pi"), Mutation::Label,
            Mutation::Environment, Mutation::Platform, Mutation::Emulation,
        ];
        let before = keys(&made, None);
        prop_assert_eq!(&before, &keys(&made, None));
        for mutation in mutations {
            let after = keys(&made, Some(&mutation));
            for (check, (before, after)) in before.iter().zip(&after).enumerate() {
                prop_assert_eq!(before != after, made.depends(check, &mutation), "check {} and {:?}", check, mutation);
            }
        }
    }
}

/// The same on the suite itself, for examples that a person can judge.
#[test]
fn changes_of_the_suite_run_again_what_depends_on_them() {
    let config = config();
    let changed = |path: &str, from: &str, to: &str| -> BTreeSet<String> {
        let names = ["node", "uv", "mempalace", "opencode", "bun", "omos", "pi"];
        let versions = names.map(|name| (name.to_owned(), "1.2.3".to_owned())).into_iter().collect();
        let pins = Pins { versions, max_mb: 1, variant: "omos-with-pi".to_owned() };
        let keys = |files| {
            let suite = Suite::parse(&files, &config.component, &of_variants(&config)).unwrap();
            let parts = suite.checks.iter().map(|check| (check.name.clone(), suite.parts(check, &pins)));
            parts.collect::<BTreeMap<_, _>>()
        };
        let mut files = files();
        let before = keys(files.clone());
        let text = files.get_mut(path).unwrap();
        assert!(text.contains(from), "{path} {from}");
        *text = text.replacen(from, to, 1);
        let after = keys(files);
        before
            .into_iter()
            .filter(|(name, parts)| after.get(name) != Some(parts))
            .map(|(name, _)| name)
            .collect()
    };
    let only = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        changed("scripts/smoke/programs/aws-sso.py", "ABCD", "ABCE"),
        only(&["aws login shows a code for any browser"])
    );
    assert_eq!(
        changed("scripts/smoke/bad-input.tsv", "DEVBOX_OMOS=maybe", "DEVBOX_OMOS=perhaps"),
        only(&["each wrong input gets one line"])
    );
    assert_eq!(
        changed("scripts/smoke/topics/20-start.bash", "exits 42", "exits 43"),
        only(&["exit codes are kept"])
    );
    assert_eq!(changed("scripts/smoke/inside.tsv", "fzf --version", "fzf --help"), only(&["fzf answers"]));
    assert_eq!(
        changed("scripts/smoke/inside.bash", "stores_pointers() {", "stores_pointers() {\n  true"),
        only(&["git-lfs stores pointers"])
    );
    let works = changed("scripts/smoke/programs/works.sh", "touch", "touch --");
    assert!(works.iter().all(|name| name.starts_with("starts ")) && works.len() == 6, "{works:?}");
    let loads = changed("scripts/smoke/programs/loads.py", "import os", "import os, io");
    assert!(loads.len() == 5 && loads.iter().all(|name| name.starts_with("every ELF file")), "{loads:?}");
    // The runner is part of all, and a comment of a topic of none.
    assert!(changed("scripts/smoke/runner.bash", "judge()", "judge() ").len() > 100);
    assert!(changed("scripts/smoke/topics/20-start.bash", "# Starts:", "# Start:").is_empty());
}
