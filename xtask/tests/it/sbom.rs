//! What an image contains, and which licences may be in it.

use std::fs;

use expect_test::expect;
use serde_json::Value;

use crate::support::env::{TestEnv, without_hashes};

/// Changes a file of the tree.
fn edit(world: &TestEnv, path: &str, from: &str, to: &str) {
    let text = world.read(path);
    assert!(text.contains(from), "{path}: {from}");
    fs::write(world.root.join(path), text.replacen(from, to, 1)).unwrap();
}

const LOCK: &str = "images/locks/omos/package-lock.json";
const PYTHON: &str = "images/licences/mempalace.tsv";

/// What a command says, without what each run says that is no checkout.
fn refused(world: &TestEnv, line: &str, expected: &str) {
    let text = world.fails(line, 1);
    let error =
        text.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(error, expected);
}

/// Gives a package of omos another licence; returns its name and version as errors have them.
fn relicense(world: &TestEnv, licence: &str) -> String {
    let mut lock: Value = serde_json::from_str(&world.read(LOCK)).unwrap();
    let entries = lock["packages"].as_object_mut().unwrap();
    let (path, entry) =
        entries.iter_mut().find(|(_, it)| it["cpu"].is_null() && it["license"].is_string()).unwrap();
    entry["license"] = licence.into();
    let name = path.rsplit_once("node_modules/").unwrap().1;
    let package = format!("npm:{name} {} of omos", entry["version"].as_str().unwrap());
    fs::write(world.root.join(LOCK), lock.to_string()).unwrap();
    package
}

#[test]
fn an_unlisted_licence_is_refused_before_a_build() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.log();
    let package = relicense(&world, "BUSL-1.1");
    let why = "which may not be redistributed: leave it out, or add it to `allowed` in images/licences.toml";
    refused(&world, "build omos", &format!("{package} has the licence BUSL-1.1, {why}"));
    relicense(&world, "Anything goes");
    let why =
        "which is no SPDX expression: decide on it in images/licences.toml, below [words] or in [[package]]";
    refused(&world, "build omos", &format!("{package} names the licence \"Anything goes\", {why}"));
    let lines = world.log().join("\n");
    assert!(!lines.contains("buildx bake"), "{lines}");
    edit(&world, "images/licences.toml", "[words]", "[words]\n\"Anything goes\" = \"0BSD\"");
    world.ok("build omos");
}

#[test]
fn the_base_is_refused_for_unlisted_and_unknown_licences() {
    let world = TestEnv::new();
    let line = world.read(PYTHON).lines().nth(1).unwrap().to_owned();
    let [_, name, version, licence, _, _] = line.split('\t').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    edit(&world, PYTHON, &line, &line.replace(licence, "AGPL-3.0-only"));
    let why = "which may not be redistributed: leave it out, or add it to `allowed` in images/licences.toml";
    refused(
        &world,
        "build-base",
        &format!("pypi:{name} {version} of mempalace has the licence AGPL-3.0-only, {why}"),
    );
    edit(&world, PYTHON, &line.replace(licence, "AGPL-3.0-only"), "");
    refused(
        &world,
        "build-base",
        &format!("images/licences does not have {name} {version}: run `cargo xtask lock`"),
    );
    assert!(!world.log().join("\n").contains("buildx bake"));
}

const PACKAGES: &str = "base-files\\t13.8+deb13u5\\tamd64\\tsha256:\
    0000000000000000000000000000000000000000000000000000000000000000\\trest\\tGPL-2+, Expat\\ngit\\t1:2.47\\tamd64\\n";

/// Two runs print the same bytes.
#[test]
fn contents_have_licences_checksums_and_layers() {
    let mut world = TestEnv::new();
    world.set("FAKE_PACKAGES", PACKAGES);
    world.configure("holds = [\"packages\"]", "holds = [\"packages\", \"debian:rest\", \"mempalace\"]");
    world.ok("build-base");
    world.ok("build");
    let text = world.ok("sbom omos");
    assert_eq!(text, world.ok("sbom omos --format cyclonedx"));
    let bill: Value = serde_json::from_str(&text).unwrap();
    let layers: Vec<String> = layers(&world, "omos");
    let component = |purl: &str| {
        let mut found = bill["components"].as_array().unwrap().iter();
        found.find(|it| it["purl"].as_str().unwrap().starts_with(purl)).unwrap_or_else(|| panic!("no {purl}"))
    };
    let facts = |purl: &str| {
        let it = component(purl);
        let layer =
            it["properties"][0]["value"].as_str().and_then(|it| layers.iter().position(|layer| layer == it));
        format!("{} {} {:?} {}", it["name"], it["licenses"], layer, it["hashes"][0]["alg"])
    };
    let purls = [
        "pkg:deb/debian/base-files@",
        "pkg:deb/debian/git@",
        "pkg:npm/%40oven/bun-linux-",
        "pkg:npm/oh-my-opencode-slim@",
        "pkg:pypi/mempalace@",
        "pkg:generic/node@",
        "pkg:npm/npm@",
        "pkg:generic/opencode-devbox@",
    ];
    let found: Vec<String> = purls.iter().map(|purl| facts(purl)).collect();
    expect![[r#"
        "base-files" [{"license":{"name":"GPL-2+"}},{"license":{"name":"Expat"}}] Some(0) "SHA-256"
        "git" null None null
        "bun" [{"expression":"MIT"}] Some(2) "SHA-512"
        "omos" [{"expression":"MIT"}] Some(3) "SHA-512"
        "mempalace" [{"expression":"MIT"}] Some(0) "SHA-256"
        "node" [{"expression":"MIT"}] None "SHA-256"
        "npm" [{"expression":"Artistic-2.0"}] None null
        "opencode-devbox" [{"expression":"MIT"}] None null"#]]
    .assert_eq(&without_hashes(&found.join("\n")));
    assert!(!text.contains("pkg:pypi/kubernetes@"), "it is locked, and not installed");
    let spdx: Value = serde_json::from_str(&world.ok("sbom omos --format spdx")).unwrap();
    let packages = spdx["packages"].as_array().unwrap().len();
    assert_eq!(packages, bill["components"].as_array().unwrap().len() + 1, "with the image itself");
    let arm = world.ok("sbom omos --platform linux/arm64");
    assert!(
        arm.contains("pkg:npm/opencode-linux-arm64@") && !arm.contains("pkg:npm/opencode-linux-x64@"),
        "{arm}"
    );
    let base = world.ok("sbom base");
    assert!(base.contains("pkg:npm/opencode-linux-") && !base.contains("pkg:npm/oh-my-opencode-slim@"));
}

/// The digests of the layers of a staged image of this machine's platform.
fn layers(world: &TestEnv, variant: &str) -> Vec<String> {
    let blob =
        |digest: &str| -> Value { serde_json::from_slice(&world.registry().blob(digest).unwrap()).unwrap() };
    let index = blob(&world.staged(variant));
    let arch = xtask::model::platform::Platform::host().arch();
    let images = index["manifests"].as_array().unwrap();
    let image = images.iter().find(|it| it["platform"]["architecture"] == arch).unwrap();
    let image = blob(image["digest"].as_str().unwrap());
    image["layers"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn only_images_of_this_tree_are_listed_and_the_base_is_one() {
    let world = TestEnv::new();
    expect![[r#"
        this tree is not a git checkout: every file below the inputs counts that its .gitignore does not name, and the images carry no revision
        error: REGISTRY/devbox:base-HASH is not built: run `cargo xtask build-base`
    "#]].assert_eq(&world.without_chance(&world.fails("sbom omos", 3)));
    world.ok("build-base");
    let tags = world.registry().tags("devbox").into_keys();
    let tag = tags.into_iter().find(|tag| tag.starts_with("base-")).unwrap();
    let base: Value = serde_json::from_str(&world.ok(&format!("sbom {tag}"))).unwrap();
    assert_eq!(base["metadata"]["component"]["name"], "opencode-devbox base image");
    expect![[r#"
        this tree is not a git checkout: every file below the inputs counts that its .gitignore does not name, and the images carry no revision
        error: REGISTRY/devbox:latest-omos does not exist: name a variant, or a tag that `cargo xtask status` lists
    "#]].assert_eq(&world.without_chance(&world.fails("sbom latest-omos", 3)));
    edit(&world, "images/Dockerfile.base", "20260101", "20260102");
    world.ok("build-base");
    expect![[r#"
        this tree is not a git checkout: every file below the inputs counts that its .gitignore does not name, and the images carry no revision
        error: REGISTRY/devbox:base-HASH is not what this tree makes, so its locks do not list what is in it: check out the commit that made it
    "#]].assert_eq(&world.without_chance(&world.fails(&format!("sbom {tag}"), 1)));
}
