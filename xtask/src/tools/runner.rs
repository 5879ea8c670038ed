//! Runs programs. Three verbs: `probe` asks and tolerates failure, `read` asks, `run` changes something.
//! Only `run` obeys a dry run; no other module spawns.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;

use crate::missing;
use crate::model::command::Cmd;

/// How many of the last lines an error repeats.
const TAIL: usize = 15;

pub struct Runner {
    /// Working directory of everything that runs.
    pub root: Utf8PathBuf,
    pub dry_run: bool,
    pub quiet: bool,
    pub verbose: bool,
}

impl Runner {
    /// Standard output if the program is there and succeeds.
    pub fn probe(&self, cmd: &Cmd) -> Option<String> {
        let output = self.output(cmd).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Standard output of a program that changes nothing.
    pub fn read(&self, cmd: &Cmd) -> Result<String> {
        let output = self.output(cmd)?;
        if !output.status.success() {
            bail!("`{cmd}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a program that changes something, its output passed on to standard error as it comes.
    pub fn run(&self, cmd: &Cmd) -> Result<()> {
        if self.dry_run {
            println!("{cmd}");
            return Ok(());
        }
        if !self.quiet {
            eprintln!("$ {cmd}");
        }
        let mut child = self.spawn(cmd, Stdio::piped())?;
        // Both streams are drained at once, so that neither can fill its pipe and stall the program.
        let stderr = child.stderr.take().context("no standard error")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let quiet = self.quiet;
        let errors = thread::spawn(move || pass_on(stderr, quiet));
        let mut tail = pass_on(stdout, quiet);
        tail.extend(errors.join().unwrap_or_default());
        let status = child.wait()?;
        if !status.success() {
            let first = tail.len().saturating_sub(TAIL);
            let lines: Vec<String> = tail.into_iter().skip(first).collect();
            bail!("`{}` failed ({status}); its last lines:\n{}", short(cmd), lines.join("\n"));
        }
        Ok(())
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
        let child = Command::new("setsid")
            .arg(&cmd.program)
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
        Ok(self.spawn(cmd, Stdio::piped())?.wait_with_output()?)
    }

    fn spawn(&self, cmd: &Cmd, out: Stdio) -> Result<Child> {
        let mut command = Command::new(&cmd.program);
        command.args(&cmd.args).envs(cmd.env.iter().cloned()).current_dir(&self.root);
        command.stdin(if cmd.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(out).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                missing(format!("{} is not installed: run `cargo xtask doctor --install`", cmd.program))
            }
            _ => anyhow::Error::new(error).context(format!("cannot start {}", cmd.program)),
        })?;
        if let (Some(text), Some(mut stdin)) = (&cmd.stdin, child.stdin.take()) {
            stdin.write_all(text.as_bytes())?;
        }
        Ok(child)
    }
}

/// A command line without its here-document, for an error message.
fn short(cmd: &Cmd) -> String {
    Cmd { stdin: None, ..cmd.clone() }.to_string()
}

/// Copies lines to standard error and returns the last of them.
fn pass_on(stream: impl Read, quiet: bool) -> VecDeque<String> {
    let mut tail = VecDeque::with_capacity(TAIL);
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if !quiet {
            eprintln!("{line}");
        }
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    tail
}
