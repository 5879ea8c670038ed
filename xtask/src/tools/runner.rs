//! Runs programs. Four verbs: `probe` asks and tolerates failure, `read` asks, `run` changes something, `run_again`
//! does so and tries again after causes that pass by themselves. Only the last two obey a dry run; no other module
//! spawns.
#![allow(clippy::disallowed_methods, reason = "the one that spawns")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use camino::Utf8PathBuf;

use crate::error::missing;
use crate::model::command::Cmd;
use crate::model::retry::{Cause, Tries, last_words};
use crate::model::source::without_accounts;

/// How many of the last lines are kept to look for what went wrong: BuildKit repeats a recipe of any length after it.
const TAIL: usize = 200;

/// How long a command may be silent, in seconds, unless `DEVBOX_STALL_SECONDS` says otherwise. The longest silence of
/// a healthy build is the emulated set-up of a Debian package, which stays under a minute.
pub const STALL_SECONDS: u64 = 600;

/// What `cargo run` tells a program of its package. A cargo below would take it for a change and recompile each crate
/// whose build script looks at it, and so would the next cargo without it: fifteen seconds each time, on two cores.
const OF_THIS_PACKAGE: [&str; 8] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// Variables by which git tells a hook which repository it runs for. Git is asked about this tree, whatever started this
/// program.
const OF_A_GIT_HOOK: [&str; 10] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

pub struct Runner {
    /// Working directory of everything that runs.
    pub root: Utf8PathBuf,
    /// Programs that this tree brought along; found before those of the machine.
    pub programs: Utf8PathBuf,
    /// Where the machine's programs are found.
    pub search: String,
    pub dry_run: bool,
    pub quiet: bool,
    pub verbose: bool,
    /// The output of each command is a group that a forge's log shows folded.
    pub folds: bool,
    /// A command that is silent for this long is ended.
    pub stall: Duration,
    /// How many settings of git the environment holds (`GIT_CONFIG_COUNT`).
    pub git_settings: u32,
    /// When the running phase gives up trying again.
    deadline: Mutex<Option<Instant>>,
}

/// How a command ended.
enum End {
    Done,
    Failed {
        status: String,
        tail: Vec<String>,
    },
    /// Ended here, after it had printed nothing for as long as it may be silent.
    Stalled,
    /// Ended here, since the phase's deadline passed.
    Late,
}

/// What a program printed, and how it ended.
pub struct Asked {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Runner {
    pub fn new(root: Utf8PathBuf, stall: Duration) -> Self {
        Self {
            programs: root.join(".devbox/tools/bin"),
            search: String::new(),
            root,
            dry_run: false,
            quiet: false,
            verbose: false,
            folds: false,
            stall,
            git_settings: 0,
            deadline: Mutex::new(None),
        }
    }

    /// Starts the clock of a phase: after `limit` nothing is tried again, and a silent program is ended.
    pub fn begin(&self, limit: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
    }

    /// The time until the phase's deadline.
    pub fn left(&self) -> Duration {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()))
    }

    /// Both streams of a program that changes nothing, whether it succeeds or not.
    pub fn ask(&self, cmd: &Cmd) -> Result<Asked> {
        let output = self.output(cmd)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Asked {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// Standard output if the program is there and succeeds.
    pub fn probe(&self, cmd: &Cmd) -> Option<String> {
        let output = self.output(cmd).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Standard output of a program that changes nothing.
    pub fn read(&self, cmd: &Cmd) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read_bytes(cmd)?).into_owned())
    }

    /// Standard output, byte for byte, of a program that changes nothing.
    pub fn read_bytes(&self, cmd: &Cmd) -> Result<Vec<u8>> {
        let output = self.output(cmd)?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("`{cmd}` failed ({}): {}", output.status, without_accounts(error.trim()));
        }
        Ok(output.stdout)
    }

    /// Runs a program that changes something, its output passed on to standard error as it comes.
    pub fn run(&self, cmd: &Cmd) -> Result<()> {
        match self.echo_and_watch(cmd)? {
            End::Done => Ok(()),
            end => Err(self.failure(cmd, &end)),
        }
    }

    /// Like [`Self::run`] for a program that may be run twice, and tried again where its last lines name a cause that
    /// passes by itself.
    pub fn run_again(&self, cmd: &Cmd) -> Result<()> {
        let mut tries = Tries::default();
        loop {
            let end = self.echo_and_watch(cmd)?;
            let cause = match &end {
                End::Done => return Ok(()),
                End::Late => None,
                End::Stalled => Some(Cause::Stalled),
                End::Failed { tail, .. } => Cause::of_output(&last_words(tail).join("\n")),
            };
            let wait = cause.and_then(|cause| tries.next(cause, self.left()));
            let (Some(cause), Some(wait)) = (cause, wait) else { return Err(self.failure(cmd, &end)) };
            eprintln!("{}: {cause}; trying again in {:.1} s", cmd.program, wait.as_secs_f64());
            thread::sleep(wait);
        }
    }

    fn failure(&self, cmd: &Cmd, end: &End) -> anyhow::Error {
        // The here-document of a command would bury its error.
        let short = Cmd { stdin: None, ..cmd.clone() };
        match end {
            End::Failed { status, tail } => {
                anyhow!("`{short}` failed ({status}); its last lines:\n{}", last_words(tail).join("\n"))
            }
            End::Late => anyhow!("`{short}` was ended: the time of this phase is up"),
            _ => anyhow!("`{short}` was ended: it printed nothing for {} s", self.stall.as_secs()),
        }
    }

    fn echo_and_watch(&self, cmd: &Cmd) -> Result<End> {
        if self.dry_run {
            println!("{cmd}");
            return Ok(End::Done);
        }
        if self.folds {
            let line = cmd.to_string();
            eprintln!("::group::{}", line.lines().next().unwrap_or_default());
        }
        if !self.quiet {
            eprintln!("$ {cmd}");
        }
        let end = self.spawn(cmd).and_then(|child| self.watch(child));
        if self.folds {
            eprintln!("::endgroup::");
        }
        end
    }

    /// Passes output on until the program ends, or ends it where it is silent for too long or the phase's time is up.
    fn watch(&self, mut child: Child) -> Result<End> {
        let (sender, lines) = channel();
        // Both streams are drained at once, so that neither can fill its pipe and stall the program.
        let stderr = child.stderr.take().context("no standard error")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let errors = sender.clone();
        thread::spawn(move || forward(stderr, &errors));
        thread::spawn(move || forward(stdout, &sender));
        let mut tail = VecDeque::with_capacity(TAIL);
        loop {
            match lines.recv_timeout(self.stall.min(self.left())) {
                Ok(line) => {
                    let line = without_accounts(&line).into_owned();
                    if !self.quiet {
                        eprintln!("{line}");
                    }
                    if tail.len() == TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().context("cannot end a silent program")?;
                    child.wait()?;
                    return Ok(if self.left().is_zero() { End::Late } else { End::Stalled });
                }
            }
        }
        let status = child.wait()?;
        Ok(if status.success() {
            End::Done
        } else {
            End::Failed { status: status.to_string(), tail: tail.into() }
        })
    }

    /// Starts a program that outlives this one, in a session of its own, its output in a log.
    pub fn start(&self, cmd: &Cmd, log: &Utf8PathBuf) -> Result<u32> {
        if self.dry_run {
            println!("setsid {cmd} >{log} 2>&1 &");
            return Ok(0);
        }
        if !self.quiet {
            eprintln!("$ {cmd} &");
        }
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {log}"))?;
        // setsid(1) is Linux's; a process group of its own keeps the keyboard's signals away elsewhere.
        let mut command = match cfg!(target_os = "linux") {
            true => Command::new("setsid"),
            false => Command::new(&cmd.program),
        };
        if cfg!(target_os = "linux") {
            command.arg(&cmd.program);
        } else {
            command.process_group(0);
        }
        let child = command
            .args(&cmd.args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", cmd.program))?;
        Ok(child.id())
    }

    fn output(&self, cmd: &Cmd) -> Result<Output> {
        if self.verbose {
            eprintln!("$ {cmd}");
        }
        Ok(self.spawn(cmd)?.wait_with_output()?)
    }

    /// Variables, beside those of the environment, with which git works in a root of another owner, as a CI job in a
    /// container finds it, and takes no repository above the root for that of the root.
    fn only_this_root(&self) -> [(String, String); 4] {
        let count = self.git_settings;
        let root = self.root.canonicalize_utf8().unwrap_or_else(|_| self.root.clone());
        [
            ("GIT_CONFIG_COUNT".to_owned(), (count + 1).to_string()),
            (format!("GIT_CONFIG_KEY_{count}"), "safe.directory".to_owned()),
            (format!("GIT_CONFIG_VALUE_{count}"), root.to_string()),
            ("GIT_CEILING_DIRECTORIES".to_owned(), root.parent().unwrap_or(&root).to_string()),
        ]
    }

    fn spawn(&self, cmd: &Cmd) -> Result<Child> {
        let mut command = Command::new(&cmd.program);
        for name in OF_THIS_PACKAGE.iter().chain(&OF_A_GIT_HOOK) {
            command.env_remove(name);
        }
        if self.programs.is_dir() && !self.search.is_empty() {
            command.env("PATH", format!("{}:{}", self.programs, self.search));
        }
        if cmd.program == "git" {
            command.envs(self.only_this_root());
        }
        command.args(&cmd.args).envs(cmd.env.iter().chain(&cmd.secrets.0).cloned()).current_dir(&self.root);
        command.stdin(if cmd.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                missing(format!("{} is not installed: run `cargo xtask doctor --install`", cmd.program))
            }
            _ => anyhow::Error::new(error).context(format!("cannot start {}", cmd.program)),
        })?;
        if let (Some(text), Some(mut stdin)) = (cmd.stdin.clone(), child.stdin.take()) {
            // Fed while its output is read: a program that answers line by line would wait for its reader. One that ends
            // without having read its input says by its exit code whether that was right.
            thread::spawn(move || stdin.write_all(text.as_bytes()));
        }
        Ok(child)
    }
}

/// Sends the lines of a stream to the watcher until the stream ends.
fn forward(stream: impl Read, lines: &Sender<String>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_need_not_read_its_input() {
        let runner = Runner::new("/".into(), Duration::from_secs(60));
        let input = "x".repeat(1 << 20);
        assert_eq!(runner.read(&Cmd::new("true", [""; 0]).stdin(input.clone())).expect("an exit of 0"), "");
        assert!(runner.read(&Cmd::new("false", [""; 0]).stdin(input)).is_err());
    }
}
