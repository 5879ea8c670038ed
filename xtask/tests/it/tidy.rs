//! The borders between modules, held by reading the source.

use std::fs;
use std::path::Path;

/// Every source file below `folder`, without its tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        files.push((path.file_name().unwrap().to_str().unwrap().to_owned(), code));
    }
    assert!(!files.is_empty());
    files
}

#[test]
fn model_is_pure() {
    for (name, code) in sources("model") {
        for effect in [
            "std::fs",
            "std::process",
            "std::net::Tcp",
            "std::net::Udp",
            "std::net::ToSocketAddrs",
            "std::env",
            "ureq",
            "crate::tools",
            "crate::phase",
        ] {
            assert!(!code.contains(effect), "model/{name} uses {effect}");
        }
    }
}

#[test]
fn only_the_runner_spawns_and_only_ctx_reads_the_environment() {
    for folder in ["tools", "phase", "bench", "."] {
        for (name, code) in sources(folder).into_iter().filter(|(name, _)| name.ends_with(".rs")) {
            let spawns = code.contains("Command::new(") && code.contains("std::process");
            assert!(!spawns || name == "runner.rs", "{folder}/{name} spawns");
            assert!(!code.contains("env::var") || name == "ctx.rs", "{folder}/{name} reads the environment");
        }
    }
}

#[test]
fn a_phase_calls_no_other_unless_it_chains() {
    let chains = ["release.rs", "test.rs", "validate.rs", "mod.rs"];
    for (name, code) in sources("phase") {
        assert!(
            chains.contains(&name.as_str()) || !code.contains("crate::phase"),
            "phase/{name} calls a phase"
        );
    }
}

#[test]
fn every_module_says_what_it_is_for_and_those_that_judge_what_they_refuse() {
    for folder in ["model", "tools", "phase", "bench"] {
        for (name, code) in sources(folder) {
            let header: String = code.lines().take_while(|line| line.starts_with("//!")).collect();
            assert!(!header.is_empty(), "{folder}/{name} has no header");
            let judges = ["model", "phase"].contains(&folder);
            assert!(!judges || header.contains("efus"), "{folder}/{name} does not say what it refuses");
        }
    }
}

/// One file per outside system speaks HTTP; everything else asks one of them.
#[test]
fn http_is_spoken_by_these_only() {
    let speakers = ["http.rs", "registry.rs", "hub.rs", "web.rs", "gitea.rs", "source.rs"];
    for folder in [".", "bench", "model", "phase", "tools"] {
        for (name, code) in sources(folder) {
            let speaks = code.contains("ureq") || code.contains("std::net::TcpStream");
            let own = folder == "tools"
                && (speakers.contains(&name.as_str()) || ["local.rs", "meter.rs"].contains(&name.as_str()));
            assert!(!speaks || own, "{folder}/{name} speaks HTTP");
        }
    }
}

/// Debian is pinned in the base's Dockerfile; the variants' repeats it for builds by hand, where nobody passes a digest.
#[test]
fn both_dockerfiles_name_one_debian() {
    let default = |file: &str, name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images").join(file);
        let text = fs::read_to_string(path).unwrap();
        xtask::model::dockerfile::arg_default(&text, name).unwrap().to_owned()
    };
    let suite = default("Dockerfile.base", "DEBIAN_SUITE");
    let image = default("Dockerfile.base", "DEBIAN_IMAGE").replace("${DEBIAN_SUITE}", &suite);
    assert_eq!(default("Dockerfile.variant", "DEBIAN_IMAGE"), image);
}
