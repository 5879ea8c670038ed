//! The commands that the pages of this tree name.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::env::tree;

/// Every Markdown file that git knows or would add.
pub fn pages() -> Vec<(PathBuf, String)> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"];
    let output = Command::new("git").args(list).current_dir(tree()).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let paths = names.split('\0').filter(|name| !name.is_empty()).map(|name| tree().join(name));
    let pages: Vec<_> =
        paths.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect();
    assert!(pages.len() > 10);
    pages
}

/// Commands of a page that begin with these words: lines of its shell blocks and code spans, which may go over lines.
pub fn commands(text: &str, program: &str) -> Vec<String> {
    let spans = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let spans = spans.map(|span| span.replace('\n', " "));
    shell_lines(text).into_iter().chain(spans).filter(|command| command.starts_with(program)).collect()
}

/// The lines of a page's shell blocks, continued ones joined, without their comments.
pub fn shell_lines(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(|block| {
        let joined = block.replace("\\\n", " ");
        joined.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// Commands of all pages, with the page that has them.
pub fn all_commands(program: &str) -> Vec<(String, String)> {
    let of_page = |(path, text): (PathBuf, String)| {
        let page = path.display().to_string();
        commands(&text, program).into_iter().map(move |command| (page.clone(), command)).collect::<Vec<_>>()
    };
    pages().into_iter().flat_map(of_page).collect()
}
