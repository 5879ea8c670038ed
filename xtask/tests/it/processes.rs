//! Programs as this pipeline runs them, with real processes: their streams, their limits, and their end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use xtask::tools::command::Cmd;
use xtask::tools::runner::Runner;

use crate::support::env::TestEnv;

/// Cleans up on SIGTERM, waits for a grandchild that would go on without it, and is silent.
const SILENT: &str = "trap 'echo cleaned > \"$0/cleaned\"; exit 9' TERM
sleep 1000 >/dev/null 2>&1 & echo $! > \"$0/grandchild\"
wait";

struct Case {
    folder: TempDir,
    runner: Runner,
}

impl Case {
    fn new(stall: Duration) -> Self {
        let folder = TempDir::new().unwrap();
        let mut runner = Runner::new(folder.path().to_str().unwrap().into(), stall);
        runner.quiet = true;
        Self { folder, runner }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sh(&self, script: &str) -> Cmd {
        Cmd::new("sh", ["-c", script, self.folder.path().to_str().unwrap()])
    }
}

fn patient() -> Case {
    Case::new(Duration::from_secs(300))
}

/// Waits until a file has content.
#[track_caller]
fn content(path: &Path) -> String {
    for _ in 0..600 {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
    panic!("{} is not written", path.display())
}

/// True if a process runs; one that has ended and was not waited for does not.
fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn message(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

#[test]
fn a_silent_program_cleans_up_and_takes_its_children() {
    let case = Case::new(Duration::from_secs(1));
    let error = message(case.runner.run(&case.sh(SILENT)).unwrap_err());
    assert!(error.ends_with("was ended: it printed nothing for 1 s"), "{error}");
    assert_eq!(content(&case.path("cleaned")), "cleaned");
    assert!(!runs(&content(&case.path("grandchild"))));
}

#[test]
fn a_silent_read_ends_like_a_silent_change() {
    let case = Case::new(Duration::from_secs(1));
    let error = message(case.runner.read(&case.sh(SILENT)).unwrap_err());
    assert!(error.ends_with("was ended: it printed nothing for 1 s"), "{error}");
    assert_eq!(content(&case.path("cleaned")), "cleaned");
    assert!(!runs(&content(&case.path("grandchild"))));
    assert_eq!(case.runner.probe(&case.sh("exec sleep 1000")), None);
    assert!(case.runner.ask(&case.sh("exec sleep 1000")).is_err());
    // It has closed its output, which is not its end.
    assert!(case.runner.read(&case.sh("exec sleep 1000 >/dev/null 2>&1")).is_err());
}

#[test]
fn a_slow_program_that_prints_is_not_silent() {
    let case = Case::new(Duration::from_secs(3));
    let script = "for part in 1 2 3 4; do printf $part >&2; sleep 1; done; echo end";
    thread::scope(|scope| {
        scope.spawn(|| case.runner.run(&case.sh(script)).unwrap());
        assert_eq!(case.runner.read(&case.sh(script)).unwrap(), "end\n");
    });
}

#[test]
fn the_deadline_of_a_phase_ends_reads_and_changes() {
    let case = patient();
    case.runner.begin(Duration::from_secs(1));
    let script = format!("{SILENT} & while :; do echo busy; sleep 0.1; done");
    let error = message(case.runner.run(&case.sh(&script)).unwrap_err());
    assert!(error.ends_with("was ended: the time of this phase is up"), "{error}");
    case.runner.begin(Duration::from_secs(1));
    let error = message(case.runner.read(&case.sh(SILENT)).unwrap_err());
    assert!(error.ends_with("was ended: the time of this phase is up"), "{error}");
    assert_eq!(content(&case.path("cleaned")), "cleaned");
    // What removes the traces of a phase starts after its deadline.
    assert_eq!(case.runner.read(&case.sh("sleep 1; echo removed")).unwrap(), "removed\n");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed() {
    let case = Case::new(Duration::from_secs(1));
    let script =
        "trap '' TERM; sleep 1000 >/dev/null 2>&1 & echo $! > \"$0/grandchild\"; while :; do sleep 1; done";
    assert!(case.runner.run(&case.sh(script)).is_err());
    assert!(!runs(&content(&case.path("grandchild"))));
}

/// The suite removes its containers in a trap.
#[test]
fn a_stalled_suite_runs_its_exit_trap() {
    let case = Case::new(Duration::from_secs(1));
    let script = "trap 'echo \"removing containers\"; sleep 1; echo gone > \"$0/cleaned\"' EXIT
output=$(sleep 1000 2>&1) || true\necho \"$output\"";
    let suite = Cmd::new("bash", ["-c", script, case.folder.path().to_str().unwrap()]);
    assert!(case.runner.run(&suite).is_err());
    assert_eq!(content(&case.path("cleaned")), "gone");
}

#[test]
fn both_streams_may_be_larger_than_their_pipes() {
    let case = patient();
    let script = "yes out | head -c 900000; yes err | head -c 900000 >&2; yes out | head -c 900000";
    let asked = case.runner.ask(&case.sh(script)).unwrap();
    assert_eq!((asked.stdout.len(), asked.stderr.len()), (1_800_000, 900_000));
    case.runner.run(&case.sh(script)).unwrap();
}

#[test]
fn input_is_fed_while_output_is_drained() {
    let case = patient();
    let input = "a line of text that fills the pipe\n".repeat(30_000);
    let answers = case.sh("while IFS= read -r line; do echo \"$line\"; echo \"$line\" >&2; done");
    let asked = case.runner.ask(&answers.stdin(input.clone())).unwrap();
    assert!(asked.stdout == input && asked.stderr == input);
}

#[test]
fn a_program_need_not_read_its_input() {
    let case = patient();
    let input = "x".repeat(1 << 20);
    assert_eq!(case.runner.read(&Cmd::new("true", [""; 0]).stdin(input.clone())).unwrap(), "");
    assert!(case.runner.read(&Cmd::new("false", [""; 0]).stdin(input)).is_err());
}

#[test]
fn the_exit_code_and_the_last_lines_are_reported() {
    let case = patient();
    let error = message(case.runner.run(&case.sh("echo out; echo err >&2; printf end; exit 7")).unwrap_err());
    assert!(error.ends_with("(exit status: 7); its last lines:\nout\nerr\nend"), "{error}");
    let error = message(case.runner.read(&case.sh("echo http://me:canary@host/ >&2; exit 7")).unwrap_err());
    assert!(error.ends_with("failed (exit status: 7): http://host/"), "{error}");
    let error = case.runner.read(&Cmd::new("no-such-program", [""; 0])).unwrap_err();
    let text = "no-such-program is not installed: run `cargo xtask doctor --install`";
    assert_eq!(error.downcast::<xtask::error::Missing>().unwrap().to_string(), text);
}

/// A relative path is found in the tree, whatever folder this process works in.
#[test]
fn a_script_of_the_tree_is_found() {
    let case = patient();
    crate::support::env::script(&case.path("scripts/suite"), "#!/bin/sh\npwd\n");
    let folder = fs::canonicalize(case.folder.path()).unwrap();
    let printed = case.runner.read(&Cmd::new("scripts/suite", [""; 0])).unwrap();
    assert_eq!(Path::new(printed.trim()), folder);
}

/// xtask while `cargo`, which it runs, is this script.
fn started(world: &TestEnv, script: &str) -> Child {
    world.program("cargo", &format!("#!/bin/sh\ncd {}\n{script}", world.root.display()));
    let mut command = world.command("fmt");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success()
    );
}

#[track_caller]
fn ends(child: Child, code: i32) -> String {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{text}");
    text
}

#[test]
fn output_keeps_its_order() {
    let world = TestEnv::new();
    let script = "for line in $(seq 500); do echo out$line; echo err$line >&2; done";
    let text = ends(started(&world, script), 0);
    let expected: Vec<String> = (1..=500).flat_map(|it| [format!("out{it}"), format!("err{it}")]).collect();
    assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), expected);
}

#[test]
fn a_signal_ends_all_that_runs() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let world = TestEnv::new();
        // Its last words name a cause after which a program is run again.
        let script = SILENT.replace("$0", ".").replace("exit 9", "echo 503 Service Unavailable; exit 9");
        let child = started(&world, &script);
        let grandchild = content(&world.root.join("grandchild"));
        signal(&child, name);
        let text = ends(child, code);
        assert!(!text.contains("error"), "{text}");
        assert_eq!(content(&world.root.join("cleaned")), "cleaned");
        assert!(!runs(&grandchild));
    }
}

#[test]
fn a_signal_ends_a_program_that_is_read() {
    let world = TestEnv::new();
    let script = SILENT.replace("$0", world.root.to_str().unwrap());
    world.program("docker", &format!("#!/bin/sh\n{script}"));
    let child = world.command("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let grandchild = content(&world.root.join("grandchild"));
    signal(&child, "TERM");
    ends(child, 143);
    assert_eq!(content(&world.root.join("cleaned")), "cleaned");
    assert!(!runs(&grandchild));
}

#[test]
fn a_second_signal_skips_the_grace_period() {
    let world = TestEnv::new();
    let child =
        started(&world, "trap 'echo asked > asked' INT TERM\necho $$ > leader\nwhile :; do sleep 0.1; done");
    let leader = content(&world.root.join("leader"));
    signal(&child, "INT");
    assert_eq!(content(&world.root.join("asked")), "asked");
    assert!(runs(&leader));
    signal(&child, "INT");
    ends(child, 130);
    assert!(!runs(&leader));
}

#[test]
fn a_hangup_that_nohup_ignores_ends_nothing() {
    let world = TestEnv::new();
    world.program(
        "cargo",
        &format!("#!/bin/sh\ncd {}\necho > begun\nuntil [ -e go ]; do sleep 0.1; done", world.root.display()),
    );
    let xtask = world.command("fmt");
    let mut command = Command::new("nohup");
    command.arg(xtask.get_program()).args(xtask.get_args()).current_dir(&world.root);
    command.envs(xtask.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    content(&world.root.join("begun"));
    signal(&child, "HUP");
    fs::write(world.root.join("go"), "").unwrap();
    ends(child, 0);
}

/// The reader of the output goes away, as `head` does: what runs ends, too.
#[test]
fn a_broken_pipe_ends_what_runs() {
    let world = TestEnv::new();
    let script = format!(
        "{}\n",
        SILENT.replace("$0", ".").replace("\nwait", "\nwhile :; do echo busy; sleep 0.1; done")
    );
    let mut child = started(&world, &script);
    let grandchild = content(&world.root.join("grandchild"));
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert!(!runs(&grandchild));
}
