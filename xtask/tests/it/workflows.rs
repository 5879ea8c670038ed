//! Workflows only chain `cargo xtask` lines that the real parser takes.

use std::fs;
use std::path::Path;

use clap::Parser;
use xtask::cli::Cli;
use xtask::model::config::Config;

#[test]
fn every_xtask_line_parses_and_the_repository_is_the_defined_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let config = Config::parse(&fs::read_to_string(root.join("images/devbox.toml")).unwrap()).unwrap();
    let mut lines = 0;
    let publish = fs::read_to_string(root.join(".gitea/workflows/publish.yml")).unwrap();
    let files = fs::read_dir(root.join(".gitea/workflows")).unwrap();
    let all: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for line in all.lines() {
        let Some(command) = line.trim().strip_prefix("- run: ") else {
            continue;
        };
        let words =
            command.strip_prefix("cargo ").unwrap_or_else(|| panic!("logic in a workflow: {command}"));
        Cli::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{command}: {error}"));
        lines += 1;
    }
    assert!(lines > 10);
    assert!(publish.contains(&format!("DEVBOX_REPOSITORY: {}\n", config.repository().unwrap())));
    for variant in &config.variant {
        assert!(
            publish.contains(&format!("- run: cargo xtask smoke {}\n", variant.name)),
            "{}",
            variant.name
        );
    }
}
