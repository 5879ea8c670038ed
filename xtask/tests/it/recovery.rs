//! Leases, undo, repair, rollback, and the phases that only look, with a fake outside world.

use std::fs;

use crate::fakes::World;

fn released() -> World {
    let world = World::new();
    release(&world);
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
    assert_eq!(world.log().iter().filter(|line| line.contains("bake")).count(), 2, "nothing more was built");
}

/// Docker Hub gives a token with fewer scopes than it was asked for, and refuses only what is then tried.
#[test]
fn a_refusal_names_account_repository_and_scope() {
    let world = World::new();
    world.program("crane", "#!/bin/sh\necho '{\"username\":\"you\",\"password\":\"s3cret\"}'\n");
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
    let registry = Registry::new(&http::agent(Duration::from_secs(5)));
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
