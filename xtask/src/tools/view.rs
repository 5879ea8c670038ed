//! Where the output of a running program goes: as it is to standard error, or into a log while a line of the terminal says
//! how far it is.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use camino::{Utf8Path, Utf8PathBuf};

use super::command::Cmd;
use super::logs::Log;
use crate::model::progress::{Form, Reader, Work, clock};
use crate::model::source::without_accounts;
use crate::output::{self, LiveLine};

/// Words of a command line that name a program which has no name of its own.
const WORDS: usize = 3;

pub enum View {
    Printed {
        quiet: bool,
    },
    /// Boxed, since it is much larger.
    Live(Box<Live>),
}

pub struct Live {
    work: Work,
    reader: Reader,
    log: Log,
    lines: BTreeMap<String, LiveLine>,
    begin: Instant,
    /// It was named, so that its end is worth a line.
    is_named: bool,
}

impl View {
    /// Begins with the command line, in the log or on standard error.
    pub fn live(folder: &Utf8Path, number: usize, cmd: &Cmd) -> Result<Self> {
        let mut work = cmd.work.clone();
        let is_named = !work.name.is_empty();
        if !is_named {
            let words = [&cmd.program].into_iter().chain(&cmd.args).take(WORDS);
            work.name = without_accounts(&words.cloned().collect::<Vec<_>>().join(" ")).into_owned();
        }
        let mut log = Log::create(folder, number, &work.name)?;
        log.line(&format!("$ {cmd}"));
        let reader = Reader::new(work.clone());
        let mut live = Live { work, reader, log, lines: BTreeMap::new(), begin: Instant::now(), is_named };
        live.draw();
        Ok(Self::Live(Box::new(live)))
    }

    /// Takes a line, and returns the lines that explain a failure if they are the last ones.
    pub fn line(&mut self, line: &str) -> Vec<String> {
        let line = without_accounts(line);
        match self {
            Self::Printed { quiet } => {
                if !*quiet {
                    output::note(&line);
                }
                vec![line.into_owned()]
            }
            Self::Live(live) => live.line(&line),
        }
    }

    /// Ends with what the program did not print by itself, and the log if there is one.
    pub fn end(self, succeeded: bool) -> (Vec<String>, Option<Utf8PathBuf>) {
        let Self::Live(live) = self else { return (Vec::new(), None) };
        live.end(succeeded)
    }
}

impl Live {
    fn line(&mut self, line: &str) -> Vec<String> {
        // What a log of BuildKit holds may name an account, encoded.
        let lines: Vec<String> =
            self.reader.take(line).iter().map(|line| without_accounts(line).into_owned()).collect();
        lines.iter().for_each(|line| self.log.line(line));
        self.draw();
        lines
    }

    fn draw(&mut self) {
        let now = self.reader.lines();
        self.lines.retain(|name, _| now.iter().any(|line| line.name == *name));
        for line in now {
            let (begin, last) = (self.begin, self.work.last);
            let shown =
                self.lines.entry(line.name).or_insert_with_key(|name| LiveLine::new(name, begin, last));
            shown.show(&line.step);
        }
    }

    fn end(mut self, succeeded: bool) -> (Vec<String>, Option<Utf8PathBuf>) {
        self.lines.clear();
        if self.is_named {
            let (took, how) =
                (clock(self.begin.elapsed().as_secs()), if succeeded { "done" } else { "failed" });
            output::note(format!("  {}: {how} after {took}", self.work.name));
        }
        let failure = if succeeded { Vec::new() } else { self.reader.failure() };
        if matches!(self.work.form, Form::Build { .. }) {
            failure.iter().for_each(|line| self.log.line(line));
        }
        (failure, Some(self.log.path))
    }
}
