//! The pages stay true: commands parse, links lead somewhere, quoted errors are those that the code prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser};
use xtask::cli::Cli;

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every Markdown file that git knows or would add.
fn pages() -> Vec<(PathBuf, String)> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"];
    let output = Command::new("git").args(list).current_dir(tree()).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let paths = names.split('\0').filter(|name| !name.is_empty()).map(|name| tree().join(name));
    let pages: Vec<_> =
        paths.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect();
    assert!(pages.len() > 10);
    pages
}

/// The `cargo xtask` commands of a page: in code spans, which may go over lines, and in code blocks.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, block) in text.split("```").enumerate() {
        if index % 2 == 1 {
            let joined = block.replace("\\\n", " ");
            let lines = joined.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask"));
            found.extend(lines.map(|line| line.split(" #").next().unwrap().to_owned()));
        } else {
            let spans = block.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "));
            found.extend(spans.filter_map(|span| span.strip_prefix("cargo xtask").map(str::to_owned)));
        }
    }
    found
}

/// Words that stand for a value, as the pages write them.
fn with_examples(command: &str) -> String {
    let examples = [
        ("<component>", "omos"),
        ("<version>", "2.2.24"),
        ("<release>", "v1.18.18"),
        ("<tag>", "v1.18.18"),
        ("<variant>", "omos"),
    ];
    examples.iter().fold(command.to_owned(), |line, (name, value)| line.replace(name, value))
}

#[test]
fn every_command_in_a_page_parses() {
    let mut count = 0;
    for (path, text) in pages() {
        for command in commands(&text) {
            count += 1;
            // A sentence may name a subcommand alone, or the tool.
            if command.is_empty() || Cli::command().find_subcommand(command.trim()).is_some() {
                continue;
            }
            let line = with_examples(&command);
            let words = line.split(['|', '>']).next().unwrap().split_whitespace();
            let parsed = Cli::try_parse_from(std::iter::once("cargo xtask").chain(words));
            parsed.unwrap_or_else(|error| panic!("{}: cargo xtask{command}: {error}", path.display()));
        }
    }
    assert!(count > 60, "{count}");
}

/// The anchor that forges give a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.trim_matches(['#', ' ']).to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut count = 0;
    for (path, text) in pages() {
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", path.display());
            if !fragment.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let headings = there.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.into_iter().any(|it| it == fragment), "{}: {target}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// All source text, to look up what it prints.
fn source(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.is_dir() {
        true => source(&path),
        false => fs::read_to_string(path).unwrap(),
    };
    entries.map(text).collect()
}

#[test]
fn the_errors_that_the_failure_table_quotes_exist() {
    // A message may go over lines in the source, and has values where the page has none.
    let source = source(&tree().join("xtask/src")).replace("\\\n", "");
    let source = source.split_whitespace().collect::<Vec<_>>().join(" ").replace("{scope}", "pull,push");
    let page = fs::read_to_string(tree().join(".gitea/README.md")).unwrap();
    let table = page.split("| You see |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut count = 0;
    for row in table.lines().skip(2) {
        let seen = row.split('|').nth(1).unwrap();
        for quoted in seen.split('`').skip(1).step_by(2) {
            assert!(source.contains(quoted), "nothing prints {quoted:?}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn generated_pages_are_up_to_date() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["docs", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_checklist_of_a_release_is_the_page() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["release", "--checklist"]).output().unwrap();
    assert_eq!(output.stdout, fs::read(tree().join("docs/release.md")).unwrap());
}
