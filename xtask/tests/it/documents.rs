//! The pages stay true: commands parse, links lead somewhere, quoted errors are those that the code prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser};
use xtask::cli::Cli;

use crate::support::env::tree;
use crate::support::pages::{all_commands, pages, shell_lines};

/// A program that no test below knows would be a command that no test looks at.
#[test]
fn shell_blocks_hold_commands_that_a_test_knows() {
    for (path, text) in pages() {
        for line in shell_lines(&text) {
            let known =
                ["cargo xtask ", "docker run ", "opencode-devbox", "mkdir -p ~/.local/bin && docker run "]
                    .iter()
                    .any(|program| line.starts_with(program));
            assert!(known, "{}: {line}", path.display());
        }
    }
}

/// The image's own program says what it understands; `container.rs` runs the commands of docker.
#[test]
fn every_devbox_command_in_a_page_is_one() {
    let program = fs::read_to_string(tree().join("rootfs/usr/local/lib/devbox/devbox/cli.py")).unwrap();
    let usage = program.split("\"\"\"").find(|text| text.starts_with("usage: devbox")).unwrap();
    let usage = usage.replace(['[', ']'], "");
    let found = all_commands("devbox ");
    for (page, command) in &found {
        let word = command.strip_prefix("devbox ").unwrap();
        assert!(usage.contains(&format!("\n  {word}")), "{page}: {command} is not in: {usage}");
    }
    assert!(found.len() > 5, "{found:?}");
}

#[test]
fn the_pre_commit_hook_is_where_the_page_links_to_it() {
    let [(_, command)] = &all_commands("ln ")[..] else { panic!("one link") };
    let place = tempfile::TempDir::new().unwrap();
    let script =
        format!("git init --quiet . && cp -r \"$1/scripts\" . && {command} && test -x .git/hooks/pre-commit");
    let mut shell = Command::new("bash");
    shell.args(["-ec", &script, "bash"]).arg(tree()).current_dir(place.path()).env_remove("GIT_DIR");
    assert!(shell.status().unwrap().success(), "{command}");
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
    let found = all_commands("cargo xtask");
    for (page, command) in &found {
        let command = command.strip_prefix("cargo xtask").unwrap();
        // A sentence may name a subcommand alone, or the tool.
        if command.is_empty() || Cli::command().find_subcommand(command.trim()).is_some() {
            continue;
        }
        let line = with_examples(command);
        let words = line.split(['|', '>']).next().unwrap().split_whitespace();
        let parsed = Cli::try_parse_from(std::iter::once("cargo xtask").chain(words));
        parsed.unwrap_or_else(|error| panic!("{page}: cargo xtask{command}: {error}"));
    }
    assert!(found.len() > 60, "{}", found.len());
}

/// The anchor that forges give a heading, before they number those that repeat.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// The anchors of a page's headings, and where its links and images lead. Code has neither.
fn anchors_and_targets(text: &str) -> (Vec<String>, Vec<String>) {
    use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

    let (mut anchors, mut targets, mut heading) = (Vec::<String>::new(), Vec::new(), None::<String>);
    let mut seen = std::collections::HashMap::<String, usize>::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                targets.push(dest_url.to_string())
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap());
                let count = seen.entry(name.clone()).or_default();
                anchors.push(if *count == 0 { name } else { format!("{name}-{count}") });
                *count += 1;
            }
            _ => {}
        }
    }
    (anchors, targets)
}

#[test]
fn repeated_headings_are_numbered_and_code_has_no_links() {
    let (anchors, targets) = anchors_and_targets(
        "# A `b`: c_d!\n\n## X\n\n```sh\n# no\n```\n\n## X\n\n`[a](b)` [c](d#e) ![f](g.svg)\n",
    );
    assert_eq!(anchors, ["a-b-c_d", "x", "x-1"]);
    assert_eq!(targets, ["d#e", "g.svg"]);
}

/// Reports what is wrong with a link of a page.
fn broken(page: &Path, target: &str) -> Option<String> {
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    if !file.exists() {
        return Some(format!("{}: {target}: no such file", page.display()));
    }
    if fragment.is_empty() {
        return None;
    }
    let (anchors, _) = anchors_and_targets(&fs::read_to_string(&file).unwrap());
    let missing = !anchors.iter().any(|name| name == fragment);
    missing.then(|| format!("{}: {target}: no such heading", page.display()))
}

#[test]
fn every_link_into_this_repository_leads_somewhere() {
    let web = "https://gitea.jordbo.se/joakimp/opencode-devbox/src/branch/main/";
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in pages() {
        let (_, targets) = anchors_and_targets(&text);
        let relative = targets.iter().filter(|it| !it.contains("://") && !it.starts_with("mailto:"));
        let relative: Vec<_> = relative.collect();
        count += relative.len();
        wrong.extend(relative.into_iter().filter_map(|target| broken(&path, target)));
        // Docker Hub's page has whole addresses, which are plain text to a parser.
        let ends = |c: char| c.is_whitespace() || ");,`".contains(c);
        for target in text.split(web).skip(1).filter_map(|rest| rest.split(ends).next()) {
            count += 1;
            wrong.extend(broken(&tree().join("README.md"), target.trim_end_matches('.')));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 80, "{count}");
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
    let source = source.split_whitespace().collect::<Vec<_>>().join(" ").replace("{action}", "pull,push");
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
fn the_messages_that_troubleshooting_quotes_exist() {
    let programs = ["rootfs/usr/local/lib/devbox/devbox", "rootfs/usr/share/devbox"];
    let source: String = programs.iter().map(|folder| source(&tree().join(folder))).collect();
    let page = fs::read_to_string(tree().join("docs/troubleshooting.md")).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for table in page.split("| You see |").skip(1) {
        for row in table.split("\n\n").next().unwrap().lines().skip(2) {
            // A single word is a name and no message.
            let seen = row.split('|').nth(1).unwrap();
            for quoted in seen.split('`').skip(1).step_by(2).filter(|it| it.contains(' ')) {
                count += 1;
                // `…` stands for a value.
                let missing = quoted.split('…').map(str::trim).find(|part| !source.contains(part));
                wrong.extend(missing.map(str::to_owned));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count >= 40, "{count}");
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

#[test]
fn pictures_show_what_a_command_prints_and_no_local_path() {
    let draw = |file: &Path, script: &str| {
        let mut command = Command::new(tree().join("scripts/terminal-picture"));
        command.arg(file).args(["bash", "-c", script]).output().unwrap()
    };
    let place = tempfile::TempDir::new().unwrap();
    let file = place.path().join("x.svg");
    assert!(draw(&file, "echo 'a  <b>'; echo 'and & more' >&2").status.success());
    let svg = fs::read_to_string(&file).unwrap();
    assert!(svg.contains(">a  &lt;b&gt;</text>") && svg.contains(">and &amp; more</text>"), "{svg}");
    for refused in ["exit 1", "true", "pwd"] {
        assert!(!draw(&place.path().join("none.svg"), refused).status.success(), "{refused}");
    }
    assert!(!place.path().join("none.svg").exists());
    for name in ["plan", "status", "release"] {
        let svg = fs::read_to_string(tree().join(format!("docs/pictures/{name}.svg"))).unwrap();
        assert!(svg.contains(&format!(">$ cargo xtask {name}</text>")) && svg.len() < 40_000, "{name}");
        let folder = ["/home/", "/root/", "/work/", "/tmp/"].iter().find(|folder| svg.contains(**folder));
        assert_eq!(folder, None, "{name}");
    }
}

/// Docker Hub shows the page alone: a relative link leads nowhere there, and a row outside of a table is plain text.
#[test]
fn the_page_for_docker_hub_renders_by_itself() {
    use pulldown_cmark::{Event, Options, Parser, Tag};

    let text = fs::read_to_string(tree().join("DOCKER_HUB.md")).unwrap();
    let (mut links, mut tables, mut headings, mut in_code) = (Vec::new(), 0, 0, false);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => links.push(dest_url.to_string()),
            Event::Start(Tag::Table(_)) => tables += 1,
            Event::Start(Tag::Heading { .. }) => headings += 1,
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(pulldown_cmark::TagEnd::CodeBlock) => in_code = false,
            Event::Text(text) if !in_code => {
                assert!(!text.starts_with('|') && !text.contains("]("), "{text}")
            }
            Event::Html(html) | Event::InlineHtml(html) => panic!("Docker Hub shows no HTML: {html}"),
            _ => {}
        }
    }
    assert!(links.len() > 2 && links.iter().all(|link| link.starts_with("https://")), "{links:?}");
    // Tags, variants to choose from, settings, volumes.
    assert!(tables == 4 && headings > 8, "{tables} tables, {headings} headings");
}
