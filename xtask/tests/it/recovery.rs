//! Leases, undo, repair, rollback, and the phases that only look, with a fake outside world.

use std::fs;
use std::sync::OnceLock;

use crate::fakes::{Store, World};

/// A world in which v1.18.18 is out. It is released once, and what the registry then holds is copied for each test.
fn released() -> World {
    static RELEASED: OnceLock<Store> = OnceLock::new();
    let store = RELEASED.get_or_init(|| {
        let world = World::new();
        release(&world);
        world.store.lock().unwrap().clone()
    });
    let world = World::new();
    *world.store.lock().unwrap() = store.clone();
    world
}

fn release(world: &World) {
    for line in ["build-base", "build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
    world.ok("publish --promote-latest");
    world.ok("promote-base-latest");
}

fn bump(world: &World) {
    let file = world.root.join("images/Dockerfile.variant");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text.replace("OPENCODE_VERSION=1.18.18", "OPENCODE_VERSION=1.18.19")).unwrap();
}

fn json(world: &World, line: &str) -> serde_json::Value {
    serde_json::from_str(&world.ok(line)).unwrap()
}

#[test]
fn a_rollback_takes_all_floating_tags_back_and_a_downgrade_is_refused() {
    let world = released();
    let old = world.tags();
    bump(&world);
    release(&world);
    world.ok("rollback v1.18.18");
    let now = world.tags();
    for (tag, digest) in old.iter().filter(|(tag, _)| !tag.starts_with('v')) {
        assert!(now.contains(&(tag.clone(), digest.clone())), "{tag}");
    }
    assert!(now.iter().any(|(tag, _)| tag == "v1.18.19"), "the version tags stay");
    let text = world.fails("rollback v9.9.9", &[], 1);
    assert!(text.contains("no record of v9.9.9"), "{text}");

    // Forward again, and then the older tree may not take latest back unasked.
    world.ok("publish --promote-latest");
    let file = world.root.join("images/Dockerfile.variant");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("1.18.19", "1.18.18")).unwrap();
    let text = world.fails("publish --promote-latest", &[], 3);
    assert!(text.contains("latest stands at v1.18.19") && text.contains("--allow-downgrade"), "{text}");
    world.ok("publish --promote-latest --allow-downgrade");
}

#[test]
fn variants_that_do_not_share_the_base_are_not_published() {
    let world = World::new();
    world.ok("build-base");
    assert!(world.xtask_with("build", &[("FAKE_FIRST_LAYER", "other")]).status.success());
    for line in ["smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
    let text = world.fails("publish", &[], 3);
    assert!(text.contains("does not begin with the layers of its base"), "{text}");
    assert!(world.tags().is_empty());
}

#[test]
fn one_variant_that_cannot_be_built_does_not_cost_the_others_their_build() {
    let world = World::new();
    world.ok("build-base");
    let text = world.fails("build", &[("FAKE_UNBUILDABLE", "omos-with-pi")], 1);
    assert!(text.contains("1 of 4 variants cannot be built"), "{text}");
    world.log();
    world.ok("build");
    let bakes = world.log();
    assert_eq!(bakes.iter().filter(|line| line.contains("bake")).count(), 1);
    let bake = world.bake();
    assert!(bake.contains("staging:omos-with-pi-") && !bake.contains("staging:omos-HASH"), "{bake}");
}

#[test]
fn plan_tells_the_cause_and_changes_nothing() {
    let world = World::new();
    let plan = json(&world, "plan --json");
    assert_eq!(plan["rows"].as_array().unwrap().len(), 10);
    assert_eq!(plan["rows"][0]["actions"][0], "build");
    release(&world);
    let writes = world.store.lock().unwrap().writes;
    world.log();
    let plan = json(&world, "plan --json");
    let rows = plan["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["actions"] == serde_json::json!(["reuse"])), "{plan}");
    bump(&world);
    let plan = json(&world, "plan --json");
    assert_eq!(plan["rows"][0]["actions"], serde_json::json!(["reuse"]), "the base stays");
    assert_eq!(plan["rows"][2]["actions"], serde_json::json!(["build", "smoke", "retag"]));
    assert_eq!(plan["rows"][2]["causes"][0], "opencode 1.18.18 → 1.18.19");
    assert!(plan["estimated_seconds"].is_u64(), "{plan}");
    fs::write(world.root.join("rootfs/etc/new"), "x").unwrap();
    let text = world.ok("plan");
    assert!(text.contains("rootfs/etc/new added") && text.contains("the base is built anew"), "{text}");
    assert_eq!((world.log(), world.store.lock().unwrap().writes), (vec![], writes));
}

#[test]
fn explain_compares_images_and_the_tree() {
    let world = released();
    bump(&world);
    let text = world.ok("explain latest");
    assert!(text.contains("opencode 1.18.18 → 1.18.19"), "{text}");
    release(&world);
    let both = json(&world, "explain v1.18.18-omos v1.18.19-omos --json");
    assert_eq!(both["inputs"][0]["kind"], "version");
    assert_eq!(both["layers"][0]["shared"], 3, "the base, bun and omos");
    assert_eq!(both["layers"][0]["added"].as_array().unwrap().len(), 1);
    assert_eq!(both["packages"], serde_json::json!([]));
    let text = world.fails("explain nothing", &[], 1);
    assert!(text.contains("has an image \"nothing\""), "{text}");
}

#[test]
fn status_draws_the_grid_from_the_registry() {
    let world = World::new();
    assert!(world.fails("status", &[], 1).contains("nothing was released"));
    release(&world);
    let status = json(&world, "status --json");
    assert_eq!(status["release"], "v1.18.18");
    let rows = status["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for cell in ["built", "smoked", "staged", "tagged", "latest"] {
        assert!(rows.iter().all(|row| row[cell] == true), "{cell}: {status}");
    }
    bump(&world);
    release(&world);
    let text = world.ok("status --release-tag v1.18.18");
    assert!(text.contains("yes       yes       yes       yes       no"), "{text}");
}

/// Stores a ledger as another machine would have left it.
fn plant_ledger(world: &World, expires: u64) {
    let lease = serde_json::json!({ "expires": expires,
        "holder": { "host": "elsewhere", "realm": "x", "pid": 7, "started": "1" } });
    let ledger = serde_json::json!({ "lease": lease, "promotion": null, "latest": null }).to_string();
    let manifest = serde_json::json!({ "annotations": { "opencode-devbox.document": ledger } });
    let bytes = serde_json::to_vec(&manifest).unwrap();
    world.store.lock().unwrap().put("devbox-staging", "ledger", bytes);
}

#[test]
fn a_lease_keeps_a_second_release_out_until_it_expires() {
    let world = World::new();
    for line in ["build-base", "build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    plant_ledger(&world, now + 200);
    let text = world.fails("publish", &[], 3);
    assert!(text.contains("process 7 on elsewhere is promoting") && text.contains("--break-lease"), "{text}");
    assert!(world.tags().is_empty());
    plant_ledger(&world, now - 1);
    let output = world.xtask("publish");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("taking over the lease"), "{text}");
}

#[test]
fn a_build_that_would_fill_the_disk_is_refused() {
    let world = World::new();
    // Each look at the disk finds one gigabyte less than the one before.
    let left = world.root.join("left");
    fs::write(&left, "50").unwrap();
    let count = format!("n=$(cat {0})\necho $((n - 1)) > {0}\n", left.display());
    world.program("df", &format!("#!/bin/sh\n{count}echo Avail\necho ${{n}}000000000\n"));
    release(&world);
    bump(&world);
    fs::write(&left, "0").unwrap();
    let text = world.fails("build", &[], 3);
    assert!(text.contains("0 MB of disk are free and the last build of variants took 1000 MB"), "{text}");
    assert_eq!(world.log().iter().filter(|line| line.contains("bake")).count(), 3, "nothing more was built");
}

/// Docker Hub gives a token with fewer scopes than it was asked for, and refuses only what is then tried.
#[test]
fn a_refusal_names_account_repository_and_scope() {
    let world = World::new();
    world.program("crane", "#!/bin/sh\necho '{\"Username\":\"you\",\"Secret\":\"s3cret\"}'\n");
    world.store.lock().unwrap().refuse_writes = true;
    let text = world.fails("build-base", &[], 1);
    assert!(text.contains("the account you lacks pull,push on devbox-staging"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert_eq!(world.store.lock().unwrap().basic.as_deref(), Some("Basic eW91OnMzY3JldA=="));
}

/// The right to push is proved by beginning an upload, which leaves nothing behind.
#[test]
fn the_right_to_push_is_proved_without_writing() {
    use std::time::Duration;
    use xtask::tools::{http, registry::Registry, runner::Runner};
    let world = World::new();
    let runner = Runner::new(world.root.to_str().unwrap().into(), Duration::from_secs(5));
    let registry = Registry::new(&http::agent(Duration::from_secs(5), ""), None);
    let repository = format!("{}/devbox", world.host).parse().unwrap();
    registry.prove_push(&runner, &repository).unwrap();
    assert_eq!(world.store.lock().unwrap().writes, 0);
    world.store.lock().unwrap().refuse_writes = true;
    let error = registry.prove_push(&runner, &repository).unwrap_err().to_string();
    assert!(error.contains("HTTP 401") && error.contains("pull,push"), "{error}");
}

/// A command that hangs is ended and tried once more; then its failure counts, and what had moved is taken back.
#[test]
fn a_command_that_hangs_is_ended_and_the_floating_tags_are_taken_back() {
    let world = released();
    let old = world.tags();
    bump(&world);
    for line in ["build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
    let crane = world.root.with_file_name("bin").join("crane");
    let real = fs::read_to_string(&crane).unwrap();
    // The third floating tag hangs, from then on for good.
    let hang = "case \"$1 ${3:-}\" in 'tag latest-with-pi') exec sleep 30 ;; esac\n";
    world.program("crane", &real.replacen("set -euo pipefail\n", &format!("set -euo pipefail\n{hang}"), 1));
    let text = world.fails("publish --promote-latest", &[("DEVBOX_STALL_SECONDS", "1")], 1);
    assert!(
        text.contains("no output; trying again") && text.contains("was ended: it printed nothing for 1 s"),
        "{text}"
    );
    assert!(text.contains("were taken back to where they stood before v1.18.19"), "{text}");
    let now = world.tags();
    for (tag, digest) in old {
        assert!(now.contains(&(tag.clone(), digest)), "{tag}");
    }
    world.program("crane", &real);
    world.ok("publish --promote-latest");
}

/// A crane that, at this command line, kills the run that called it: before or after it did what it was told.
fn killing_crane(world: &World, at: &str, after: bool) {
    let real = fs::read_to_string(world.root.with_file_name("bin").join("crane")).unwrap();
    let kill = format!("case \"$*\" in {at}) kill -9 $PPID; exit 1 ;; esac\n");
    let text = match after {
        true => format!("{real}{kill}"),
        false => real.replacen("set -euo pipefail\n", &format!("set -euo pipefail\n{kill}"), 1),
    };
    world.program("crane", &text);
}

/// Runs a line that is killed on its way, then gives the world its own crane back.
fn killed(world: &World, line: &str, at: &str, after: bool) {
    let crane = world.root.with_file_name("bin").join("crane");
    let real = fs::read_to_string(&crane).unwrap();
    killing_crane(world, at, after);
    assert_eq!(world.xtask(line).status.code(), None, "{line} was not killed at {at}");
    world.program("crane", &real);
}

fn stage(world: &World) {
    for line in ["build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
}

fn stderr(world: &World, line: &str) -> String {
    let output = world.xtask(line);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {text}");
    text
}

#[test]
fn a_run_that_was_killed_between_two_tags_is_undone_or_completed() {
    let world = released();
    assert!(stderr(&world, "repair").contains("no promotion was cut off: nothing to repair"));
    let old = world.tags();
    bump(&world);
    stage(&world);
    killed(&world, "publish --promote-latest", "*@*' latest-with-pi'", false);
    assert!(world.ok("status").contains("the promotion of v1.18.19 was cut off or is under way"));
    let text = world.fails("publish", &[], 3);
    assert!(text.contains("the promotion of v1.18.19 was cut off: run `cargo xtask repair`"), "{text}");
    let text = stderr(&world, "repair --undo");
    assert!(text.contains("the floating tags stand where they stood before v1.18.19"), "{text}");
    let floating = |tags: Vec<(String, String)>| {
        tags.into_iter().filter(|(tag, _)| !tag.starts_with('v')).collect::<Vec<_>>()
    };
    assert_eq!(floating(world.tags()), floating(old));

    killed(&world, "publish --promote-latest", "*@*' latest-with-pi'", false);
    let report = json(&world, "repair --json");
    assert_eq!(
        (&report["release"], &report["result"]),
        (&"v1.18.19".into(), &"all tags stand at v1.18.19".into())
    );
    let tags: std::collections::BTreeMap<_, _> = world.tags().into_iter().collect();
    for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
        assert_eq!(tags[&format!("latest{suffix}")], tags[&format!("v1.18.19{suffix}")]);
    }
}

/// All tags stand, only the ledger does not say so: the same run again closes it.
#[test]
fn a_run_that_was_killed_after_its_last_tag_is_closed_by_the_next() {
    let world = released();
    bump(&world);
    stage(&world);
    killed(&world, "publish --promote-latest", "*@*' latest-omos-with-pi'", true);
    assert!(world.ok("status").contains("was cut off"));
    assert!(stderr(&world, "publish --promote-latest").contains("all tags stand already"));
    assert!(!world.ok("status").contains("was cut off"));
    let report = json(&world, "publish --promote-latest --json");
    assert_eq!((&report["release"], &report["moved"]), (&"v1.18.19".into(), &0.into()));
}

/// An image that is gone, or that no suite has passed, cannot be promoted by a repair either.
#[test]
fn a_repair_refuses_what_a_release_would_refuse() {
    let world = World::new();
    world.ok("build-base");
    stage(&world);
    // It dies before the first variant has its version tag.
    killed(&world, "publish", "copy*", false);
    world.fails("smoke omos --force", &[("FAKE_BROKEN", "omos")], 1);
    let text = world.fails("repair", &[], 1);
    assert!(text.contains("the image of v1.18.18-omos is untested or failed: sha256:"), "{text}");
    assert!(text.contains("v1.18.18 cannot be completed, run `cargo xtask repair --undo`"), "{text}");
    world.ok("smoke omos --force");
    let staged = world.staged("with-pi");
    world.store.lock().unwrap().forget(&format!("devbox-staging@{staged}"));
    let text = world.fails("repair", &[], 1);
    assert!(text.contains("the image of v1.18.18-with-pi is no longer staged"), "{text}");
    assert!(world.tags().is_empty());
}

#[test]
fn a_rollback_is_done_once_and_only_to_what_is_whole() {
    let world = released();
    bump(&world);
    release(&world);
    let report = json(&world, "rollback v1.18.18 --json");
    assert_eq!((&report["release"], &report["moved"]), (&"v1.18.18".into(), &4.into()));
    world.log();
    assert!(stderr(&world, "rollback v1.18.18").contains("the floating tags stand at v1.18.18 already"));
    assert_eq!(world.log(), [""; 0]);
    world.store.lock().unwrap().forget("devbox:v1.18.19-omos");
    let text = world.fails("rollback v1.18.19", &[], 1);
    assert!(text.contains("v1.18.19 is not complete in") && text.contains("v1.18.19-omos"), "{text}");
    assert!(world.fails("status --release-tag v9.9.9", &[], 1).contains("no record of v9.9.9"));
}

#[test]
fn explain_tells_packages_and_layers_and_what_it_cannot_compare() {
    let world = released();
    let text = world.ok("explain base-latest");
    assert!(text.contains("inputs: the same\nDebian packages: not recorded for both"), "{text}");
    let text = world.ok("explain latest");
    assert!(
        text.contains("Debian packages: the same\nlayers on linux/amd64: 2 shared, 0 gone (0.0 MB)"),
        "{text}"
    );
    bump(&world);
    world.ok("build");
    let packages = [("FAKE_PACKAGES", r"git\t1:2.48\tamd64\nnew\t1\tamd64\n")];
    assert!(world.xtask_with("smoke base", &packages).status.success());
    let text = world.ok("explain latest");
    let part =
        "Debian packages:\n  git 1:2.47 → 1:2.48\n  new 1 new\nlayers on linux/amd64: 1 shared, 1 gone";
    assert!(text.contains(part), "{text}");
    let print = world.ok("build base --print");
    let staged = print.split("devbox-staging:").nth(1).unwrap().split('"').next().unwrap();
    assert!(world.ok(&format!("explain {staged} latest")).contains("  new 1 gone\n"));

    // A base that is not built has no layers yet, and neither has what would stand upon it.
    fs::write(world.root.join("rootfs/etc/new"), "x").unwrap();
    for image in ["base-latest", "latest-omos"] {
        let text = world.ok(&format!("explain {image}"));
        assert!(text.contains("layers: one side is not built"), "{text}");
    }
    let index = crate::fakes::DEBIAN.as_bytes().to_vec();
    world.store.lock().unwrap().put("devbox", "foreign", index);
    let text = world.fails("explain foreign", &[], 1);
    assert!(text.contains("devbox:foreign does not say what it was made from"), "{text}");
    let file = world.root.join("images/devbox.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace(
            "components = [\"opencode\", \"bun\", \"omos\"]",
            "components = [\"opencode\", \"bun\"]",
        ),
    )
    .unwrap();
    assert!(world.fails("explain latest-omos", &[], 1).contains("this tree has no variant like latest-omos"));
}

#[test]
fn plan_tells_what_is_only_to_be_tested_and_tagged() {
    let world = World::new();
    world.ok("build-base");
    world.ok("build");
    world.ok("smoke omos");
    let plan = json(&world, "plan --json");
    let of = |variant: &str| {
        let rows = plan["rows"].as_array().unwrap();
        rows.iter().find(|row| row["image"] == variant).unwrap()["actions"].clone()
    };
    assert_eq!(of("base"), serde_json::json!(["reuse", "smoke", "retag"]));
    assert_eq!(of("omos"), serde_json::json!(["reuse", "retag"]));
    assert!(world.ok("plan").contains("how long it takes is not known"));
    release(&world);
    bump(&world);
    assert!(
        world.ok("plan").contains("s, going by the last recorded runs")
            || world.ok("plan").contains("nothing is to be")
    );
    let index = crate::fakes::DEBIAN.as_bytes().to_vec();
    world.store.lock().unwrap().put("devbox", "latest-omos", index);
    assert!(world.ok("plan").contains("the published image does not say what it was made from"));
}

#[test]
fn a_release_is_named_after_the_pinned_opencode_until_the_letters_end() {
    let world = World::new();
    world.ok("build-base");
    stage(&world);
    let text = world.fails("promote-base-latest", &[], 3);
    assert!(text.contains("are not published: run `cargo xtask publish --promote-latest`"), "{text}");
    let text = world.fails("publish --release-tag v1.18.99", &[], 1);
    assert!(
        text.contains("does not match the pinned opencode 1.18.18: run `cargo xtask bump-opencode 1.18.99`")
    );
    let index = crate::fakes::DEBIAN.as_bytes().to_vec();
    world.store.lock().unwrap().put("devbox", "v1.18.18", index.clone());
    let report = json(&world, "publish --json");
    assert_eq!((&report["release"], &report["moved"]), (&"v1.18.18b".into(), &4.into()));
    world.store.lock().unwrap().forget("devbox:v1.18.18b");
    for letter in 'b'..='z' {
        world.store.lock().unwrap().put("devbox", &format!("v1.18.18{letter}-omos"), index.clone());
    }
    let text = world.fails("publish", &[], 1);
    assert!(text.contains("all releases of 1.18.18 from bare to z are taken"), "{text}");
}
