//! Runs programs. Four verbs: `probe` asks and tolerates failure, `read` asks, `run` changes something, `run_again`
//! does so and tries again after causes that pass by themselves. Only the last two obey a dry run. The limits of silence
//! and of the phase hold for all four. No other module spawns.
#![allow(clippy::disallowed_methods, reason = "the one that spawns")]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal, PipeReader, Read};
use std::mem::take;
use std::os::unix::process::CommandExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use duct::Expression;

use super::children::{Child, GRACE};
use super::command::Cmd;
use super::view::View;
use crate::error::missing;
use crate::model::retry::{Cause, Tries, last_words};
use crate::model::source::without_accounts;
use crate::output;

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
    /// The folder of logs, if the terminal shows lines that change in place of output.
    pub logs: Option<Utf8PathBuf>,
    /// The output of each command is a group that a forge's log shows folded.
    pub folds: bool,
    /// A command that is silent for this long is ended.
    pub stall: Duration,
    /// How many settings of git the environment holds (`GIT_CONFIG_COUNT`).
    pub git_settings: u32,
    /// When the running phase gives up trying again.
    deadline: Mutex<Option<Instant>>,
    /// Programs that have a log.
    logged: AtomicUsize,
}

/// How a command ended.
enum End {
    Done(ExitStatus),
    /// Ended here, after it had printed nothing for as long as it may be silent.
    Stalled,
    /// Ended here, since the phase's deadline passed.
    Late,
}

/// What becomes of the two streams of a program.
#[derive(Clone, Copy)]
enum Streams {
    /// One stream, in the order in which the program wrote.
    InOrder,
    Apart,
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
            logs: None,
            folds: false,
            stall,
            git_settings: 0,
            deadline: Mutex::new(None),
            logged: AtomicUsize::new(0),
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
        let (status, stdout, stderr) = self.output(cmd)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Asked { success: status.success(), stdout: text(&stdout), stderr: text(&stderr) })
    }

    /// Standard output if the program is there and succeeds.
    pub fn probe(&self, cmd: &Cmd) -> Option<String> {
        self.ask(cmd).ok().filter(|asked| asked.success).map(|asked| asked.stdout)
    }

    /// Standard output of a program that changes nothing.
    pub fn read(&self, cmd: &Cmd) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read_bytes(cmd)?).into_owned())
    }

    /// Standard output, byte for byte, of a program that changes nothing.
    pub fn read_bytes(&self, cmd: &Cmd) -> Result<Vec<u8>> {
        let (status, stdout, stderr) = self.output(cmd)?;
        if !status.success() {
            let error = String::from_utf8_lossy(&stderr);
            bail!("`{cmd}` failed ({status}): {}", without_accounts(error.trim()));
        }
        Ok(stdout)
    }

    /// Runs a program that changes something, its output passed on to standard error as it comes.
    pub fn run(&self, cmd: &Cmd) -> Result<()> {
        self.change(cmd, None)
    }

    /// Like [`Self::run`] for a program that may be run twice, and tried again where its last lines name a cause that
    /// passes by itself.
    pub fn run_again(&self, cmd: &Cmd) -> Result<()> {
        self.change(cmd, Some(Tries::default()))
    }

    fn change(&self, cmd: &Cmd, mut tries: Option<Tries>) -> Result<()> {
        if self.dry_run {
            output::line(cmd);
            return Ok(());
        }
        loop {
            let (end, tail, log) = match may_ask(cmd) {
                true => output::without_live(|| self.echo_and_watch(cmd))?,
                false => self.echo_and_watch(cmd)?,
            };
            let cause = match &end {
                End::Done(status) if status.success() => return Ok(()),
                End::Done(_) => Cause::of_output(&last_words(&tail).join("\n")),
                End::Stalled => Some(Cause::Stalled),
                End::Late => None,
            };
            let again = cause.zip(tries.as_mut());
            let wait = again.and_then(|(cause, tries)| Some((cause, tries.next(cause, self.left())?)));
            let Some((cause, wait)) = wait else {
                return Err(self.failure(cmd, &end, &tail, log.as_deref()));
            };
            output::note(format!("{}: {cause}; trying again in {:.1} s", cmd.program, wait.as_secs_f64()));
            thread::sleep(wait);
        }
    }

    fn failure(&self, cmd: &Cmd, end: &End, tail: &[String], log: Option<&Utf8Path>) -> anyhow::Error {
        // The here-document of a command would bury its error.
        let short = Cmd { stdin: None, ..cmd.clone() };
        let log = log.map_or(String::new(), |log| format!("\nits whole output is in {log}"));
        match end {
            End::Done(status) => {
                anyhow!("`{short}` failed ({status}); its last lines:\n{}{log}", last_words(tail).join("\n"))
            }
            End::Late => anyhow!("`{short}` was ended: the time of this phase is up{log}"),
            End::Stalled => {
                anyhow!("`{short}` was ended: it printed nothing for {} s{log}", self.stall.as_secs())
            }
        }
    }

    /// Shows the command and its output, and returns how it ended, the last lines of the output, and its log.
    fn echo_and_watch(&self, cmd: &Cmd) -> Result<(End, Vec<String>, Option<Utf8PathBuf>)> {
        let mut view = self.view(cmd)?;
        let mut tail = VecDeque::with_capacity(TAIL);
        let mut keep = |line: String| {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        };
        let mut rest = Vec::new();
        let mut show =
            |line: &[u8]| view.line(&String::from_utf8_lossy(line)).into_iter().for_each(&mut keep);
        let end = self.watch(cmd, Streams::InOrder, |_, bytes| {
            rest.extend_from_slice(bytes);
            if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                let lines: Vec<u8> = rest.drain(..=end).collect();
                lines[..end].split(|byte| *byte == b'\n').for_each(&mut show);
            }
        });
        if !rest.is_empty() {
            show(&rest);
        }
        let (failure, log) = view.end(matches!(&end, Ok(End::Done(status)) if status.success()));
        failure.into_iter().for_each(keep);
        if self.folds {
            output::note("::endgroup::");
        }
        Ok((end?, tail.into(), log))
    }

    /// Where the output of a command goes, after the command itself.
    fn view(&self, cmd: &Cmd) -> Result<View> {
        if let Some(folder) = self.logs.as_deref().filter(|_| !may_ask(cmd)) {
            return View::live(folder, self.logged.fetch_add(1, Ordering::Relaxed) + 1, cmd);
        }
        let line = cmd.to_string();
        if self.folds {
            output::note(format!("::group::{}", line.lines().next().unwrap_or_default()));
        }
        if !self.quiet {
            output::note(format!("$ {line}"));
        }
        Ok(View::Printed { quiet: self.quiet })
    }

    /// How BuildKit is to report: as it is read here, or as a person reads it.
    pub fn build_progress(&self) -> &'static str {
        if self.logs.is_some() { "--progress=rawjson" } else { "--progress=plain" }
    }

    /// The exit status and both streams of a program.
    fn output(&self, cmd: &Cmd) -> Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        if self.verbose {
            output::note(format!("$ {cmd}"));
        }
        let mut read = [Vec::new(), Vec::new()];
        match self.watch(cmd, Streams::Apart, |stream, bytes| read[stream].extend_from_slice(bytes))? {
            End::Done(status) => Ok((status, take(&mut read[0]), take(&mut read[1]))),
            end => Err(self.failure(cmd, &end, &[], None)),
        }
    }

    /// Passes output on until the program ends, or ends it where it is silent for too long or the phase's time is up.
    fn watch(&self, cmd: &Cmd, streams: Streams, mut pass: impl FnMut(usize, &[u8])) -> Result<End> {
        let (child, pipes) = self.spawn(cmd, streams)?;
        let (sender, chunks) = channel();
        // All streams are drained at once, so that none can fill its pipe and stall the program.
        for (stream, mut pipe) in pipes.into_iter().enumerate() {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    if sender.send((stream, buffer[..length].to_vec())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // A program that starts after the deadline cleans up, which takes a little time.
        let more = if self.left().is_zero() { GRACE } else { Duration::ZERO };
        let begin = Instant::now();
        let left = || self.left().max(more.saturating_sub(begin.elapsed()));
        loop {
            match chunks.recv_timeout(self.stall.min(left())) {
                Ok((stream, bytes)) => pass(stream, &bytes),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    // It may have closed its output and go on.
                    match child.wait(self.stall.min(left()))? {
                        Some(status) => return Ok(End::Done(status)),
                        None => break,
                    }
                }
            }
        }
        let end = if left().is_zero() { End::Late } else { End::Stalled };
        child.end();
        chunks.try_iter().for_each(|(stream, bytes)| pass(stream, &bytes));
        Ok(end)
    }

    fn spawn(&self, cmd: &Cmd, streams: Streams) -> Result<(Child, Vec<PipeReader>)> {
        let (stdout, to_stdout) = io::pipe()?;
        let mut pipes = vec![stdout];
        let to_stderr = match streams {
            Streams::InOrder => to_stdout.try_clone()?,
            Streams::Apart => {
                let (stderr, to_stderr) = io::pipe()?;
                pipes.push(stderr);
                to_stderr
            }
        };
        let expression = self.expression(cmd, &cmd.program, cmd.args.clone());
        let expression = match &cmd.stdin {
            Some(text) => expression.stdin_bytes(text.as_bytes()),
            None => expression.stdin_null(),
        };
        let child = Child::start(&expression.stdout_file(to_stdout).stderr_file(to_stderr), !may_ask(cmd));
        Ok((child.map_err(|error| cannot_start(cmd, error))?, pipes))
    }

    /// Starts a program that outlives this one, in a session of its own, its output in a log.
    pub fn start(&self, cmd: &Cmd, log: &Utf8PathBuf) -> Result<u32> {
        if self.dry_run {
            output::line(format!("setsid {cmd} >{log} 2>&1 &"));
            return Ok(0);
        }
        if !self.quiet {
            output::note(format!("$ {cmd} &"));
        }
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {log}"))?;
        // setsid(1) is Linux's; a process group of its own keeps the keyboard's signals away elsewhere.
        let expression = match cfg!(target_os = "linux") {
            true => self.expression(cmd, "setsid", [&cmd.program].into_iter().chain(&cmd.args).cloned()),
            false => self.expression(cmd, &cmd.program, cmd.args.clone()).before_spawn(|command| {
                command.process_group(0);
                Ok(())
            }),
        };
        let handle = expression.stdin_null().stderr_to_stdout().stdout_file(file).start();
        let handle = handle.map_err(|error| cannot_start(cmd, error))?;
        handle.pids().first().copied().context("the program has no process id")
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

    /// The program where this runner works, in the environment that it gets.
    fn expression(&self, cmd: &Cmd, program: &str, args: impl IntoIterator<Item = String>) -> Expression {
        // duct looks for a relative path in the folder of this process.
        let program =
            if program.contains('/') { self.root.join(program).into_string() } else { program.to_owned() };
        let mut expression = duct::cmd(program, args).dir(&self.root);
        for name in OF_THIS_PACKAGE.iter().chain(&OF_A_GIT_HOOK) {
            expression = expression.env_remove(name);
        }
        if self.programs.is_dir() && !self.search.is_empty() {
            expression = expression.env("PATH", format!("{}:{}", self.programs, self.search));
        }
        let own = if cmd.program == "git" { self.only_this_root().to_vec() } else { Vec::new() };
        let given = cmd.env.iter().chain(&cmd.secrets.0);
        own.iter().chain(given).fold(expression, |expression, (name, value)| expression.env(name, value))
    }
}

/// True if a program may ask at the terminal: git for the passphrase of a signature or a remote, and sudo, which also stops
/// with the group of the terminal.
fn may_ask(cmd: &Cmd) -> bool {
    ["git", "sudo"].contains(&cmd.program.as_str()) && io::stdin().is_terminal()
}

fn cannot_start(cmd: &Cmd, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => {
            missing(format!("{} is not installed: run `cargo xtask doctor --install`", cmd.program))
        }
        _ => anyhow::Error::new(error).context(format!("cannot start {}", cmd.program)),
    }
}
