//! What a person sees while something runs: lines that change on a terminal, plain lines elsewhere, and logs.

use std::fs;

use expect_test::expect_file;
use xtask::model::progress::{Form, Reader, Work};

use crate::recovery::released;
use crate::support::env::{SMOKE_OPTIONS, TestEnv, script};

/// Passes every check but the last, in the words and with the options of the real suite.
const SUITE: &str = r#"
: > "$tap"
say() { echo "$1" >> "$tap"; echo "$what: $1"; }
say 'TAP version 13'
number=0
while IFS= read -r name; do
  number=$((number + 1))
  sleep 0.1
  if [ "$name" = "${FAKE_FAILS:-}" ]; then say "not ok $number - $name # 0.1 s"; say '# it is not there'; failed=yes
  else say "ok $number - $name # 0.1 s"; fi
done
[ -z "${failed:-}" ]
"#;

/// A family whose base is built.
fn based() -> TestEnv {
    let world = TestEnv::new();
    world.ok("build-base");
    world
}

fn logs(world: &TestEnv) -> Vec<String> {
    let folder = world.root.join(".devbox/logs");
    let names = fs::read_dir(folder).into_iter().flatten().map(|it| it.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// What is on a terminal at the end, without empty lines.
fn kept(shown: &str) -> Vec<String> {
    let size = |length| std::num::NonZero::new(length).unwrap();
    let mut terminal = vt100::Parser::new(size(400), size(100), 0);
    terminal.process(shown.as_bytes());
    terminal.screen().rows(0, 100).filter(|line| !line.is_empty()).collect()
}

fn reader() -> Reader {
    let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    let form =
        Form::Build { targets: names(["good", "bad"]), platforms: names(["linux/amd64", "linux/arm64"]) };
    Reader::new(Work { name: "build good, bad".to_owned(), form, last: None })
}

/// The recording is of the real program.
#[test]
fn a_build_is_read_from_what_buildkit_prints() {
    let mut reader = reader();
    let mut text = String::new();
    for line in include_str!("golden/rawjson/failed.jsonl").lines() {
        for line in reader.take(line) {
            text += &format!("{line}\n");
        }
        for line in reader.lines() {
            text += &format!("                                        | {} | {}\n", line.name, line.step);
        }
    }
    text += &reader.failure().iter().map(|line| format!("{line}\n")).collect::<String>();
    expect_file!["golden/rawjson/failed.txt"].assert_eq(&text);
}

#[test]
fn a_terminal_shows_the_steps_of_a_build() {
    let world = based();
    let (code, shown) = world.on_terminal("build", &[]);
    assert_eq!(code, Some(0), "{shown}");
    for part in ["build omos-with-pi", "linux/arm64", "steps", "[good 1/1] COPY"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let kept = kept(&shown).join("\n");
    assert!(kept.contains("next: cargo xtask smoke"), "{kept}");
    assert!(!shown.contains("$ docker") && !shown.contains("vertexes"), "{shown}");
    let [run] = &logs(&world)[..] else { panic!("one run: {:?}", logs(&world)) };
    let log = fs::read_dir(world.root.join(".devbox/logs").join(run)).unwrap().next().unwrap().unwrap();
    let log = fs::read_to_string(log.path()).unwrap();
    assert!(log.contains("docker buildx bake") && log.contains("DONE"), "{log}");
}

#[test]
fn a_failing_build_prints_the_step_and_its_log() {
    let world = based();
    let (code, shown) = world.on_terminal("build base", &[("FAKE_UNBUILDABLE", "base")]);
    assert_eq!(code, Some(1), "{shown}");
    let (_, error) = shown.split_once("error: ").unwrap();
    for part in ["RUN echo before; echo", "before\r\n", "E: Unable to find it", "exit code: 7"] {
        assert!(error.contains(part), "{part}: {shown}");
    }
    let (_, path) = error.split_once("its whole output is in ").unwrap();
    let log = fs::read_to_string(path.lines().next().unwrap().trim()).unwrap();
    assert!(log.contains("E: Unable to find it"), "{log}");
}

#[test]
fn a_terminal_counts_checks_and_hides_the_passing_ones() {
    let world = based();
    world.ok("build");
    script(&world.root.join("scripts/smoke-test.sh"), &format!("{SMOKE_OPTIONS}{SUITE}"));
    let fails = [("FAKE_FAILS", "opencode answers")];
    let (code, shown) = world.on_terminal("smoke base --platform linux/amd64", &fails);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("smoke base linux/amd64") && shown.contains("/2 checks"), "{shown}");
    assert!(!shown.contains("ok 1 - the base starts # "), "{shown}");
    let (_, error) = shown.split_once("error: ").unwrap();
    assert!(error.contains("- opencode answers # 0.1 s\r\n# it is not there"), "{error}");
    assert!(error.contains("its whole output is in "), "{error}");
}

#[test]
fn a_release_on_a_terminal_ends_with_what_it_skipped() {
    let world = released();
    let (code, shown) = world.on_terminal("release", &[]);
    assert_eq!(code, Some(0), "{shown}");
    let lines = kept(&shown);
    let text = lines.concat();
    let skipped =
        "skipped: smoke base, omos, with-pi, omos-with-pi: passed before, the same image and the same suite";
    assert!(text.contains(skipped), "{lines:#?}");
    assert!(text.contains("docker run --rm -it --platform linux/arm64"), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("next: cargo xtask status"), "{lines:#?}");
    // Lines that change are gone.
    assert!(!text.contains("release [8/8]"), "{lines:#?}");
}

/// A CI step, a pipe, `--verbose` and a terminal that cannot change what it shows get lines that stay.
#[test]
fn plain_lines_have_no_escape_sequences() {
    for (line, env) in [
        ("build", [("CI", "true")]),
        ("build", [("TERM", "dumb")]),
        ("build --verbose", [("TERM", "xterm")]),
        ("build --quiet", [("TERM", "xterm")]),
    ] {
        let world = based();
        let (code, shown) = world.on_terminal(line, &env);
        assert_eq!(code, Some(0), "{shown}");
        assert!(!shown.contains('\x1b'), "{line} {env:?}: {shown}");
        let is_quiet = line.contains("quiet");
        assert_eq!(shown.contains("$ SOURCE_DATE_EPOCH="), !is_quiet, "{line} {env:?}: {shown}");
        assert_eq!(logs(&world), [""; 0]);
    }
    let (_, told) = based().both("build");
    assert!(!told.contains('\x1b') && told.contains("--progress=plain"), "{told}");
}

#[test]
fn logs_of_the_newest_runs_are_kept() {
    let world = based();
    let folder = world.root.join(".devbox/logs");
    for day in 1..=20 {
        fs::create_dir_all(folder.join(format!("2020-01-{day:02}T00-00-00Z"))).unwrap();
    }
    world.on_terminal("build base", &[]);
    let names = logs(&world);
    assert_eq!(names.len(), xtask::tools::logs::KEPT);
    assert_eq!(names[0], "2020-01-12T00-00-00Z");
}

/// An account in a line of BuildKit, where it is encoded, is in no log.
#[test]
fn accounts_are_in_no_log() {
    use base64::Engine as _;
    let world = based();
    let line = base64::engine::general_purpose::STANDARD.encode("fetching http://me:canary@host/x\n");
    let vertex = r#"{"vertexes":[{"digest":"sha256:a","name":"[fetch 1/1] RUN curl http://me:canary@host/x","started":"2026-12-01T05:10:18Z"}]}"#;
    let log = format!(r#"{{"logs":[{{"vertex":"sha256:a","stream":1,"data":"{line}"}}]}}"#);
    let (bin, bake) = (world.root.with_file_name("bin"), "case $2 in bake) ");
    fs::rename(bin.join("docker"), bin.join("stand-in")).unwrap();
    let text =
        format!("#!/bin/sh\n{bake} echo '{vertex}'; echo '{log}'; sleep 0.5; exit 1 ;; esac\nexit 1\n");
    world.program("docker", &text);
    let (_, shown) = world.on_terminal("build base", &[]);
    let logs = fs::read_dir(world.root.join(".devbox/logs")).unwrap();
    let files = logs.flat_map(|run| fs::read_dir(run.unwrap().path()).unwrap());
    let text: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(!shown.contains("canary") && !text.contains("canary"), "{shown}\n{text}");
}
