//! The phases in and out of order, with a fake outside world.

use std::fs;

use expect_test::expect_file;
use registry_lab::{Fault, Rule};

use crate::support::env::TestEnv;

const SMOKES: [&str; 4] = ["smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"];

/// Everything up to the verdicts.
fn stage(world: &TestEnv) {
    world.ok("build-base");
    world.ok("build");
    SMOKES.iter().for_each(|line| drop(world.ok(line)));
}

fn publish(world: &TestEnv) {
    stage(world);
    world.ok("publish --promote-latest");
    world.ok("promote-base-latest");
}

/// Writes of public tags, a line each, in their order.
fn tag_writes(world: &TestEnv) -> String {
    let is_tag = |line: &&str| line.starts_with("PUT /v2/devbox/manifests/") && !line.contains("sha256");
    world.lab().transcript().lines().filter(is_tag).map(|line| format!("{line}\n")).collect()
}

fn names(world: &TestEnv) -> Vec<String> {
    world.tags().into_iter().map(|(tag, _)| tag).collect()
}

#[test]
fn a_release_runs_these_commands_and_a_second_one_none() {
    let world = TestEnv::new();
    publish(&world);
    expect_file!["golden/release.txt"].assert_eq(&(world.log().join("\n") + "\n" + &tag_writes(&world)));
    expect_file!["golden/bake.json"].assert_eq(&world.bake());
    let all = "base-latest latest latest-omos latest-omos-with-pi latest-with-pi \
               v1.18.18 v1.18.18-omos v1.18.18-omos-with-pi v1.18.18-with-pi";
    assert_eq!(names(&world).join(" "), all);
    let writes = world.writes();
    publish(&world);
    assert_eq!(world.log(), [""; 0], "a finished release runs nothing");
    assert_eq!(world.writes(), writes, "and writes nothing");
}

#[test]
fn a_phase_out_of_order_says_what_comes_first() {
    let world = TestEnv::new();
    assert!(world.fails("build", 3).contains("run `cargo xtask build-base`"));
    assert!(world.fails("promote-base-latest", 3).contains("run `cargo xtask build-base`"));
    world.ok("build-base");
    assert!(world.fails("smoke omos", 3).contains("run `cargo xtask build omos`"));
    world.ok("build base");
    let text = world.fails("publish", 3);
    for part in ["base is untested on linux/amd64", "base is untested on linux/arm64", "omos is not staged"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(names(&world).is_empty());
}

/// Failures 1 and 2: three of four variants published, floating tags that disagree.
#[test]
fn one_bad_variant_keeps_all_back_and_only_it_is_tested_again() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    SMOKES[..3].iter().for_each(|line| drop(world.ok(line)));
    world.fails_with(SMOKES[3], &[("FAKE_BROKEN", "omos-with-pi")], 1);
    let text = world.fails("publish --promote-latest", 3);
    assert!(text.contains("omos-with-pi failed its smoke test on linux/amd64"), "{text}");
    assert!(text.contains("omos-with-pi failed its smoke test on linux/arm64"), "{text}");
    assert!(names(&world).is_empty(), "nothing public has changed");
    world.log();
    publish(&world);
    let log = world.log();
    let smokes: Vec<_> = log.iter().filter(|line| line.starts_with("smoke")).collect();
    assert_eq!(smokes, ["smoke omos-with-pi linux/amd64", "smoke omos-with-pi linux/arm64"]);
    assert_eq!(names(&world).len(), 9);
}

/// Failures 6 to 8: a change of content under an old name.
#[test]
fn changed_contents_get_the_next_letter() {
    let world = TestEnv::new();
    publish(&world);
    let before = world.tags();
    let file = world.root.join("images/fetch-component");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "# changed\n").unwrap();
    let text = world.fails("publish --release-tag v1.18.18", 3);
    assert!(text.contains("is not staged"), "{text}");
    stage(&world);
    let text = world.fails("publish --release-tag v1.18.18", 1);
    assert!(text.contains("version tags never move"), "{text}");
    world.ok("publish --promote-latest");
    let after = world.tags();
    for (tag, digest) in before.iter().filter(|(tag, _)| tag.starts_with('v')) {
        assert!(after.contains(&(tag.clone(), digest.clone())), "{tag} moved");
    }
    assert!(names(&world).contains(&"v1.18.18b-omos".to_owned()));
}

/// Only a clear 404 is absent: any other answer stops, and nothing is built over what may be there.
#[test]
fn a_registry_that_cannot_tell_is_not_an_absent_image() {
    let world = TestEnv::new();
    for status in [401, 403, 500] {
        world.lab().arm([Rule::on("* */manifests/*", Fault::Status(status))]);
        let text = world.fails("base-decide", 1);
        assert!(text.contains("cannot tell") || text.contains("does not"), "{text}");
    }
    let reads = |n, status| Rule::on("HEAD */manifests/*", Fault::Status(status)).nth(n);
    world.lab().arm([reads(1, 503), reads(2, 429)]);
    assert!(world.ok("base-decide").contains("has to be built"), "a transient fault is tried again");
    assert_eq!(world.log(), [""; 0]);
}

#[test]
fn base_decide_speaks_to_ci_and_machines() {
    let world = TestEnv::new();
    let file = world.root.join("output");
    let output = world.run_with("base-decide --json", &[("GITHUB_OUTPUT", file.to_str().unwrap())]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["need_build"], true);
    let text = fs::read_to_string(file).unwrap();
    assert!(
        text.contains("need_build=true")
            && text.contains(&format!("base_tag=base-{}", json["key"].as_str().unwrap()))
    );
}

#[test]
fn the_base_key_ignores_what_git_ignores_and_follows_the_rest() {
    let world = TestEnv::new();
    let decide = || world.ok("base-decide --json");
    let before = decide();
    fs::write(world.root.join(".gitignore"), "*.swp\n").unwrap();
    fs::write(world.root.join("rootfs/x.swp"), "").unwrap();
    assert_eq!(decide(), before, "an ignored file");
    fs::write(world.root.join("rootfs/x"), "").unwrap();
    assert_ne!(decide(), before, "a new file");
}

/// The same tree at another path, written by another user's habits, means the same base.
#[test]
fn the_base_key_is_the_same_on_any_checkout() {
    let (here, there) = (TestEnv::new(), TestEnv::new());
    // Owner-only files, as a umask of 077 leaves them.
    let quiet = std::process::Command::new("chmod").args(["-R", "go-rwx"]).arg(&there.root).status().unwrap();
    assert!(quiet.success());
    let key = |world: &TestEnv, env: &[(&str, &str)]| {
        let output = world.run_with("base-decide --json", env);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["key"].as_str().unwrap().to_owned()
    };
    let env =
        [("TZ", "Pacific/Chatham"), ("LC_ALL", "tr_TR.UTF-8"), ("HOME", "/nonexistent"), ("USER", "other")];
    assert_eq!(key(&here, &[]), key(&there, &env));
}

/// A company's mirrors reach the builds, and mean no other image.
#[test]
fn builds_use_the_registries_of_the_environment() {
    let world = TestEnv::new();
    let mirrors = [("npm_config_registry", "http://mirror/npm/"), ("PIP_INDEX_URL", "http://mirror/simple")];
    let run = |line: &str| {
        let output = world.run_with(line, &mirrors);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let key = world.ok("base-decide --json");
    assert_eq!(run("base-decide --json"), key);
    let text = run("build-base --dry-run");
    for arg in
        ["\"PIP_INDEX_URL\": \"http://mirror/simple\"", "\"UV_DEFAULT_INDEX\": \"http://mirror/simple\""]
    {
        assert!(text.contains(arg), "{text}");
    }
    run("build-base");
    let plain = world.ok("build --print");
    let mirrored = run("build --print");
    assert!(mirrored.contains("\"npm_config_registry\": \"http://mirror/npm\""), "{mirrored}");
    let tags = |text: &str| {
        text.lines().filter(|line| line.contains("-staging:")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(tags(&mirrored), tags(&plain));
    assert_eq!(tags(&plain).len(), 4);
}

/// One machine per platform may test the same images.
#[test]
fn smoke_can_test_one_platform_of_an_image_of_all() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    world.log();
    world.ok("smoke omos --platform linux/arm64");
    assert_eq!(world.log(), ["smoke base image linux/arm64", "smoke omos linux/arm64"]);
    world.ok("smoke omos");
    assert_eq!(world.log(), ["smoke base image linux/amd64", "smoke omos linux/amd64"]);
}

/// A finished release asks the registry, and nothing and nobody else: no engine, no tool, no source.
#[test]
fn a_finished_release_needs_a_few_requests_and_no_program() {
    let world = TestEnv::new();
    publish(&world);
    world.lab().arm([]);
    let mut command = world.command("release --json");
    let output = command.env("PATH", world.root.join("nothing")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("nothing to publish"), "{text}");
    let counts = world.lab().counts();
    assert_eq!(counts.writes, 0, "a finished release writes nothing");
    let asked = counts.requests;
    println!("a finished release in one process: {asked} requests");
    assert!(asked <= 55, "{asked} requests");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["images"].as_array().unwrap().len(), 8);
    assert!(
        result["phases"]["doctor"].is_number() && result["phases"]["description"].is_number(),
        "{result}"
    );
    assert_eq!(result["requests"][&world.host], serde_json::json!({ "requests": asked, "writes": 0 }));
}

/// What is half there is not mistaken for a finished release: the machine is looked at first.
#[test]
fn a_release_that_lacks_a_verdict_begins_with_the_machine() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    SMOKES[..3].iter().for_each(|line| drop(world.ok(line)));
    let mut command = world.command("release");
    let output = command.env("PATH", world.root.join("nothing")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("no Docker engine answers"), "{text}");
}

/// What programs of a foreign platform cost is a decision, not an accident.
#[test]
fn emulation_is_said_and_refused_where_it_is_not_allowed() {
    let world = TestEnv::new();
    let output = world.run_with("build-base", &[("FAKE_ARM_NODE", "arm0"), ("BUILDX_BUILDER", "farm")]);
    let text = String::from_utf8(output.stderr).unwrap();
    for line in [
        "linux/amd64 is built natively: node fake0 of builder farm (docker)",
        "linux/arm64 is built natively: node arm0 of builder farm (docker)",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let world = TestEnv::new();
    world.configure("emulation = \"always\"", "emulation = \"never\"");
    let text = world.fails("build-base", 3);
    assert!(text.contains("linux/arm64 would be emulated here"), "{text}");
    assert!(!world.log().iter().any(|line| line.contains("bake")), "refused before anything is built");
    let text = String::from_utf8(world.run("build-base --allow-emulation").stderr).unwrap();
    assert!(
        text.contains("linux/arm64 is built on linux/amd64, emulated where programs of it run"),
        "{text}"
    );
    let text = String::from_utf8(world.run("build").stderr).unwrap();
    assert!(text.contains("linux/arm64 is built on linux/amd64, without running programs of it"), "{text}");
    let text = world.fails("smoke omos", 3);
    assert!(text.contains("the smoke test for linux/arm64 would be emulated here"), "{text}");
    world.ok("smoke omos --platform linux/amd64");
}

#[test]
fn the_release_record_says_where_each_image_was_built() {
    let world = TestEnv::new();
    publish(&world);
    let record = world.document("release-v1.18.18");
    let platforms = &record["variants"][0]["platforms"];
    let built = |how| {
        serde_json::json!({ "platform": "linux/amd64", "builder": "default", "node": "fake0",
        "driver": "docker", "how": how })
    };
    assert_eq!(platforms[0]["built"], built("native"));
    assert_eq!(platforms[1]["built"]["how"], "cross");
    assert_eq!(
        (&platforms[0]["smoke_emulated"], &platforms[1]["smoke_emulated"]),
        (&false.into(), &true.into())
    );
}

#[test]
fn the_environments_builder_goes_before_the_definitions() {
    let world = TestEnv::new();
    world.configure("[build]\n", "[build]\nbuilder = \"farm\"\n");
    let line = |env: &[(&str, &str)]| {
        let output = world.run_with("build-base --dry-run", env);
        String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
    };
    let bake = "docker buildx bake --progress=plain --allow=fs.read=/ --file=- <<'EOF'";
    assert_eq!(line(&[]), format!("SOURCE_DATE_EPOCH=1577836800 BUILDX_BUILDER=farm {bake}"));
    assert_eq!(
        line(&[("BUILDX_BUILDER", "other")]),
        format!("SOURCE_DATE_EPOCH=1577836800 BUILDX_BUILDER=other {bake}")
    );
}

/// Failure 26: a cache that a registry refused failed the release, whose images it had taken.
#[test]
fn the_build_cache_is_sent_after_the_images_and_may_fail() {
    let world = TestEnv::new();
    world.configure("cache = \"never\"", "cache = \"always\"");
    let output = world.run_with("build-base", &[("FAKE_NO_CACHE", "1")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("the build cache is not kept") && text.contains("400 Bad Request"), "{text}");
    let bake = "docker buildx bake --progress=plain --allow=fs.read=/ --file=-";
    let run = "docker run";
    let log = world.log();
    let bakes: Vec<_> = log.iter().filter(|line| !line.starts_with(run)).collect();
    assert_eq!(bakes, [bake, bake]);
    world.ok("build");
    let (images, cache) = (world.bake(), world.cache());
    let from = "type=registry,ref=REGISTRY/devbox-staging:cache-omos\"";
    let to =
        "type=registry,ref=REGISTRY/devbox-staging:cache-omos,mode=max,compression=zstd,oci-mediatypes=true";
    assert!(images.contains(from) && !images.contains("mode=max"), "{images}");
    assert!(
        cache.contains(to) && cache.contains("type=cacheonly") && !cache.contains("push=true"),
        "{cache}"
    );
}

#[test]
fn another_compression_is_asked_for_and_makes_new_keys() {
    let world = TestEnv::new();
    let key = || world.ok("base-decide --json");
    let before = key();
    let file = world.root.join("images/devbox.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n[layers]\ncompression = \"zstd\"\n")).unwrap();
    assert_eq!(key(), before, "what is meant anyway");
    fs::write(&file, format!("{text}\n[layers]\ncompression = \"gzip\"\nlevel = 6\n")).unwrap();
    assert_ne!(key(), before);
    world.ok("build-base");
    world.ok("build base");
    let bake = world.bake();
    let exporter =
        "type=image,push=true,store=false,compression=gzip,compression-level=6,oci-mediatypes=true";
    assert!(bake.contains(exporter) && !bake.contains("\"layers\":"), "{bake}");
}

#[test]
fn a_benchmark_shows_what_it_would_run() {
    let world = TestEnv::new();
    world.disk("100");
    let base = world.root.join("images/Dockerfile.base");
    let list = "\napt install -y --no-install-recommends \\\n  jq tini\n";
    fs::write(&base, fs::read_to_string(&base).unwrap() + list).unwrap();
    fs::create_dir(world.root.join("bench")).unwrap();
    fs::write(world.root.join("bench/Dockerfile"), "ARG INSTALL_OPENCODE=true\n").unwrap();
    let text = world.ok("bench --quick --dry-run --from 1.18.15");
    for part in [
        "--target=original",
        "--target=shared",
        "'--build-arg=PACKAGES=jq tini'",
        "OPENCODE_VERSION=1.18.15",
        "OPENCODE_VERSION=1.18.18",
        "xtask build-base",
        "dockerd",
        "--iptables=false",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(world.log(), [""; 0]);
    assert!(world.fails("bench --runs 0", 1).contains("give 1 or more"));
    assert!(world.fails("bench --compression --quick --shape ours", 2).contains("cannot be used with"));
}
