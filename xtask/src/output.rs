//! Standard output and standard error: all printing passes here, and no address keeps its account. On a terminal, lines that
//! change stay below everything else that is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one that prints")]

use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::Value;

use crate::model::progress::clock;
use crate::model::source::without_accounts;
use crate::model::table::{Row, Table};

/// How often a line that changes is drawn without news.
const TICK: Duration = Duration::from_millis(200);

/// The lines at the end of the terminal, while there are any.
static LIVE: Mutex<Option<Live>> = Mutex::new(None);

#[derive(Clone)]
struct Live {
    lines: MultiProgress,
    /// What the whole run does.
    head: ProgressBar,
}

/// A line of a result, on standard output.
pub fn line(line: impl Display) {
    above(|| println!("{}", without_accounts(&line.to_string())));
}

/// Lines of a result that end themselves, such as a difference or a page.
pub fn text(text: impl Display) {
    above(|| print!("{}", without_accounts(&text.to_string())));
}

/// The result as one line of JSON.
pub fn json(value: &Value) {
    line(value);
}

/// The result as a table, a line each row.
pub fn table<R: Row>(rows: &[R]) {
    text(Table::of(rows).text());
}

/// A line about the work, on standard error.
pub fn note(line: impl Display) {
    above(|| eprintln!("{}", without_accounts(&line.to_string())));
}

/// Prints above the lines that change.
fn above(print: impl FnOnce()) {
    match live() {
        Some(live) => live.lines.suspend(print),
        None => print(),
    }
}

/// A copy, so that nothing is printed under the lock.
fn live() -> Option<Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// True if standard error is a terminal.
pub fn has_terminal() -> bool {
    stderr().is_terminal()
}

/// From now on running programs are lines that change, below one that says what the whole run does.
pub fn begin_live(what: &str) {
    let lines = MultiProgress::new();
    let head = lines.add(changing("{spinner} {msg}  {took}", None));
    head.set_message(what.to_owned());
    *LIVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Live { lines, head });
}

/// Says what the whole run does now.
pub fn phase(what: impl Display) {
    if let Some(live) = live() {
        live.head.set_message(what.to_string());
    }
}

pub fn is_live() -> bool {
    live().is_some()
}

/// Removes all lines that change. One who prints and is stopped does not keep this from returning.
pub fn end_live() {
    let Some(live) = LIVE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let (sender, done) = channel();
    thread::spawn(move || {
        live.head.finish_and_clear();
        let _ = live.lines.clear();
        let _ = sender.send(());
    });
    let _ = done.recv_timeout(Duration::from_secs(1));
}

/// Does something that may ask at the terminal, without lines that change.
pub fn without_live<T>(work: impl FnOnce() -> T) -> T {
    let Some(live) = live() else { return work() };
    let _ = live.lines.clear();
    live.lines.set_draw_target(ProgressDrawTarget::hidden());
    let done = work();
    live.lines.set_draw_target(ProgressDrawTarget::stderr());
    done
}

/// A line that changes; nothing is shown where there is no terminal.
pub struct LiveLine(ProgressBar);

impl LiveLine {
    /// `last` is how many seconds the same took last time.
    pub fn new(name: &str, begin: Instant, last: Option<u64>) -> Self {
        let Some(live) = live() else { return Self(ProgressBar::hidden()) };
        let bar = changing("  {prefix}  {took}  {wide_msg}", last).with_elapsed(begin.elapsed());
        let bar = live.lines.add(bar);
        bar.set_prefix(name.to_owned());
        Self(bar)
    }

    pub fn show(&self, step: &str) {
        self.0.set_message(without_accounts(step).into_owned());
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A count that goes up to `length`, drawn on a terminal.
pub struct Counter(ProgressBar);

impl Counter {
    pub fn new(length: u64, quiet: bool) -> Self {
        let bar = match live() {
            _ if quiet => ProgressBar::hidden(),
            Some(live) => live.lines.add(ProgressBar::new(length)),
            None => ProgressBar::new(length),
        };
        if let Ok(style) = ProgressStyle::with_template("  {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub fn show(&self, what: String) {
        self.0.set_message(what);
    }

    pub fn add_one(&self) {
        self.0.inc(1);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar that is drawn again by itself, since time passes.
fn changing(template: &str, last: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let took = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let now = clock(state.elapsed().as_secs());
        let _ = match last {
            Some(last) => write!(text, "{now} of about {}", clock(last)),
            None => write!(text, "{now}"),
        };
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.tick_chars("|/-\\ ").with_key("took", took));
    }
    bar.enable_steady_tick(TICK);
    bar
}
