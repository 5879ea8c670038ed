//! Standard output and standard error: all printing passes here, and no address keeps its account.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one that prints")]

use std::fmt::Display;

use serde_json::Value;

use crate::model::source::without_accounts;
use crate::model::table::{Row, Table};

/// A line of a result, on standard output.
pub fn line(line: impl Display) {
    println!("{}", without_accounts(&line.to_string()));
}

/// Lines of a result that end themselves, such as a difference or a page.
pub fn text(text: impl Display) {
    print!("{}", without_accounts(&text.to_string()));
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
    eprintln!("{}", without_accounts(&line.to_string()));
}
