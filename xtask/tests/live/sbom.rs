//! What this pipeline says that an image contains, compared with what syft finds in it and with what the image itself lists.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use xtask::model::platform::Platform;

use crate::container::Stage;

fn json(mut command: Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The list of this machine's platform.
fn bill(variant: &str, format: &str) -> Value {
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["sbom", variant, "--format", format, "--repository", &repository, "--platform"]);
    command.arg(Platform::host().to_string());
    json(command)
}

fn plain(purl: &Value) -> String {
    purl.as_str().unwrap().split('?').next().unwrap().to_owned()
}

/// What syft finds and the list does not have: docs/sbom.md has the reasons.
fn may_be_missing(kind: &str, path: &str) -> bool {
    let is_nested = |path: &str| {
        let Some((_, package)) = path.rsplit_once("/node_modules/") else { return false };
        package.trim_end_matches("/package.json").split('/').count()
            > 1 + usize::from(package.starts_with('@'))
    };
    match kind {
        "go-module" | "rust-crate" => true,
        "python" => path.starts_with("/usr/lib/python3/dist-packages/"),
        "npm" => is_nested(path),
        _ => false,
    }
}

/// Single programs in which syft sees no package, the model, and this project's own files.
const NOT_FOUND: [&str; 6] = [
    "pkg:generic/embedding-model@",
    "pkg:generic/gitea-mcp@",
    "pkg:generic/opencode-devbox@",
    "pkg:npm/%40oven/bun-linux-",
    "pkg:npm/opencode-linux-",
    "pkg:pypi/uv@",
];

#[test]
fn the_list_of_contents_is_what_syft_and_the_image_itself_find() {
    let stage = Stage::with_all("sbom");
    let bill = bill("omos-with-pi", "cyclonedx");
    let components = bill["components"].as_array().unwrap();
    let listed: BTreeSet<String> = components.iter().map(|it| plain(&it["purl"])).collect();
    let syft = std::env::var("DEVBOX_LIVE_SYFT").expect("run through `cargo xtask test`");
    let mut scan = Command::new(syft);
    let (platform, image) = (Platform::host().to_string(), format!("registry:{}", stage.image));
    scan.args(["scan", "--quiet", "--platform", &platform, "--output", "syft-json", &image]);
    scan.env("SYFT_CHECK_FOR_APP_UPDATE", "false");
    let found = json(scan);
    let mut by_purl: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for artifact in found["artifacts"].as_array().unwrap() {
        let (kind, path) =
            (artifact["type"].as_str().unwrap(), artifact["locations"][0]["path"].as_str().unwrap());
        by_purl.entry(plain(&artifact["purl"])).or_default().push((kind.to_owned(), path.to_owned()));
    }
    let is_excused =
        |places: &[(String, String)]| places.iter().all(|(kind, path)| may_be_missing(kind, path));
    let missing: Vec<_> =
        by_purl.iter().filter(|(purl, places)| !listed.contains(*purl) && !is_excused(places)).collect();
    assert!(missing.is_empty(), "syft finds, and the list does not have: {missing:#?}");
    let may_hide = |purl: &str| NOT_FOUND.iter().any(|known| purl.starts_with(known));
    let extra: Vec<_> = listed.iter().filter(|it| !by_purl.contains_key(*it) && !may_hide(it)).collect();
    assert!(extra.is_empty(), "the list has, and syft does not find: {extra:#?}");
    // Not a comparison of two empty lists.
    assert!(listed.len() > 500 && by_purl.len() > 500, "{} {}", listed.len(), by_purl.len());

    let mut versions = Command::new("docker");
    versions.args(["run", "--rm", "--network", "none", &stage.image, "devbox", "versions", "--json"]);
    let pairs = |all: &[Value]| -> BTreeSet<(String, String)> {
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        all.iter().map(|it| (text(&it["name"]), text(&it["version"]))).collect()
    };
    let (inside, outside) = (pairs(json(versions).as_array().unwrap()), pairs(components));
    let differences: Vec<_> = inside.symmetric_difference(&outside).collect();
    assert!(differences.is_empty(), "in the image or in the list, and not in both: {differences:#?}");
}

/// Of each image, in each format, each part has its layer, and an identifier of its own.
#[test]
fn every_list_is_whole() {
    for stage in [Stage::new("lists"), Stage::with_all("lists")] {
        let variant = if stage.image.contains("omos-with-pi") { "omos-with-pi" } else { "base" };
        let (cyclonedx, spdx) = (bill(variant, "cyclonedx"), bill(variant, "spdx"));
        let (components, packages) =
            (cyclonedx["components"].as_array().unwrap(), spdx["packages"].as_array().unwrap());
        assert_eq!(
            components.len() + 1,
            packages.len(),
            "{variant}: the image itself is among SPDX's packages"
        );
        for component in components {
            let layer = &component["properties"][0]["value"];
            assert!(layer.as_str().is_some_and(|it| it.starts_with("sha256:")), "{variant}: {component}");
        }
        for package in packages.iter().filter(|it| it["primaryPackagePurpose"] != "CONTAINER") {
            let comment = package["comment"].as_str();
            assert!(comment.is_some_and(|it| it.starts_with("layer sha256:")), "{variant}: {package}");
        }
        let ids = |all: &[Value], id: &str| -> BTreeSet<String> {
            all.iter().map(|it| it[id].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids(packages, "SPDXID").len(), packages.len(), "{variant}");
        assert_eq!(ids(components, "bom-ref").len(), components.len(), "{variant}");
    }
}
