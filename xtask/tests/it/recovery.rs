//! Leases, undo, repair, rollback, and the phases that only look, before a real registry.

use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use registry_lab::{Fault, Registry, Rule};
use tempfile::TempDir;
use xtask::model::oci::Digest;
use xtask::model::promotion::{AttemptId, Holder, LEASE_SECONDS, Move, Promotion, PromotionKind};

use crate::support::env::{DEBIAN, TestEnv};

/// A world in which v1.18.18 is out. It is released once, and what the registry then holds is copied for each test.
pub fn released() -> TestEnv {
    static RELEASED: OnceLock<TempDir> = OnceLock::new();
    let data = RELEASED.get_or_init(|| {
        let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let world = TestEnv::new();
        release(&world);
        world.registry().save(data.path());
        data
    });
    TestEnv::of(Registry::restore(data.path()))
}

pub fn release(world: &TestEnv) {
    for line in ["build-base", "build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
    world.ok("publish --promote-latest");
    world.ok("promote-base-latest");
}

pub fn bump(world: &TestEnv) {
    let file = world.root.join("images/Dockerfile.variant");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text.replace("OPENCODE_VERSION=1.18.18", "OPENCODE_VERSION=1.18.19")).unwrap();
}

fn json(world: &TestEnv, line: &str) -> serde_json::Value {
    serde_json::from_str(&world.ok(line)).unwrap()
}

#[test]
fn a_rollback_moves_all_floating_tags_and_refuses_a_downgrade() {
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
    let text = world.fails("rollback v9.9.9", 1);
    assert!(text.contains("no record of v9.9.9"), "{text}");

    // Forward again, and then the older tree may not take latest back unasked.
    world.ok("publish --promote-latest");
    let file = world.root.join("images/Dockerfile.variant");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("1.18.19", "1.18.18")).unwrap();
    let text = world.fails("publish --promote-latest", 3);
    assert!(text.contains("latest is at v1.18.19") && text.contains("--allow-downgrade"), "{text}");
    world.ok("publish --promote-latest --allow-downgrade");
}

#[test]
fn variants_that_do_not_share_the_base_are_not_published() {
    let world = TestEnv::new();
    world.ok("build-base");
    assert!(world.run_with("build", &[("FAKE_FIRST_LAYER", "other")]).status.success());
    for line in ["smoke base", "publish"] {
        let text = world.fails(line, 1);
        assert!(
            text.contains("has other layers than its base and one for each of opencode"),
            "{line}: {text}"
        );
    }
    assert!(world.tags().is_empty());
}

#[test]
fn one_broken_variant_does_not_stop_the_other_builds() {
    let world = TestEnv::new();
    world.ok("build-base");
    let text = world.fails_with("build", &[("FAKE_UNBUILDABLE", "omos-with-pi")], 1);
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
    let world = TestEnv::new();
    let plan = json(&world, "plan --json");
    assert_eq!(plan["rows"].as_array().unwrap().len(), 10);
    assert_eq!(plan["rows"][0]["actions"][0], "build");
    release(&world);
    let writes = world.writes();
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
    assert!(text.contains("rootfs/etc/new added") && text.contains("the base is rebuilt"), "{text}");
    assert_eq!((world.log(), world.writes()), (vec![], writes));
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
    assert_eq!(both["layers"][0]["added"].as_array().unwrap().len(), 2, "opencode and the identity");
    assert_eq!(both["packages"], serde_json::json!([]));
    let text = world.fails("explain nothing", 1);
    assert!(text.contains("has an image \"nothing\""), "{text}");
}

#[test]
fn status_draws_the_grid_from_the_registry() {
    let world = TestEnv::new();
    assert!(world.fails("status", 1).contains("nothing was released"));
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
    assert!(text.contains("yes    yes     yes     yes     no"), "{text}");
}

/// An attempt that another machine has begun so many seconds ago, at a release whose floating tag does not move.
pub fn plant(world: &TestEnv, seconds_ago: u64) -> AttemptId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let id = AttemptId { begun: now - seconds_ago, nonce: format!("{seconds_ago:016x}") };
    let moves =
        vec![Move { tag: "v1.18.17".into(), floating: false, from: None, to: Digest::of(DEBIAN.as_bytes()) }];
    let holder = Holder { host: "elsewhere".into(), realm: "x".into(), pid: 7, started: "1".into() };
    let release = Some("v1.18.17".parse().unwrap());
    world.plant(&id, &Promotion { release, kind: PromotionKind::Publish, moves, holder });
    id
}

#[test]
fn a_lease_keeps_a_second_release_out_until_it_expires() {
    let world = TestEnv::new();
    world.ok("build-base");
    stage(&world);
    let id = plant(&world, LEASE_SECONDS - 100);
    let text = world.fails("publish", 3);
    assert!(text.contains("process 7 on elsewhere is promoting") && text.contains("--break-lease"), "{text}");
    assert!(world.tags().is_empty());
    world.registry().forget("devbox-staging", &id.tag());
    plant(&world, LEASE_SECONDS + 1);
    let text = world.notes("publish");
    assert!(text.contains("continuing after the interrupted promotion of v1.18.17"), "{text}");
}

#[test]
fn a_lease_is_broken_only_when_asked() {
    let world = released();
    let id = plant(&world, 100);
    let text = world.fails("repair", 3);
    assert!(text.contains("process 7 on elsewhere is promoting"), "{text}");
    let text = world.notes("repair --break-lease");
    assert!(text.contains(&format!("breaking the lease of {}", id.tag())), "{text}");
    assert!(world.notes("repair").contains("nothing to repair"));
}

#[test]
fn a_build_that_would_fill_the_disk_is_refused() {
    let world = TestEnv::new();
    // Each look at the disk finds one gigabyte less than the one before.
    let left = world.root.join("left");
    fs::write(&left, "50").unwrap();
    world.disk(&format!("$(n=$(cat {0}); echo $((n - 1)) > {0}; echo $n)", left.display()));
    release(&world);
    bump(&world);
    fs::write(&left, "0").unwrap();
    let text = world.fails("build", 3);
    assert!(text.contains("0 MB of disk are free and the last build of variants took 1000 MB"), "{text}");
    assert_eq!(world.log().iter().filter(|line| line.contains("bake")).count(), 3, "nothing more was built");
}

/// The registry answers a tag's writes no more: what had moved is returned, and the next run completes it.
#[test]
fn a_registry_that_falls_silent_has_the_floating_tags_returned() {
    let world = released();
    let old = world.tags();
    bump(&world);
    stage(&world);
    let silent = Rule::on("PUT */devbox/manifests/latest-with-pi", Fault::Silence);
    world.lab().arm([silent.times(5)]);
    let text = world.fails_with("publish --promote-latest", &[("DEVBOX_HTTP_TIMEOUT", "1")], 1);
    assert!(text.contains("timed out; trying again"), "{text}");
    assert!(text.contains("the floating tags point where they did before v1.18.19"), "{text}");
    let now = world.tags();
    for (tag, digest) in old {
        assert!(now.contains(&(tag.clone(), digest)), "{tag}");
    }
    world.lab().arm([]);
    world.ok("publish --promote-latest");
}

/// A command that prints nothing is ended and tried once more; then its failure counts, before any tag has moved.
#[test]
fn a_copy_that_hangs_is_ended() {
    let world = released();
    let old = world.tags();
    bump(&world);
    stage(&world);
    // Without a mount it is crane that stores the manifests.
    world.lab().arm([
        Rule::on("POST */devbox/blobs/uploads/*mount=*", Fault::Status(202)).nth(1),
        Rule::on("PUT */devbox/manifests/sha256:*", Fault::Silence),
    ]);
    let text = world.fails_with("publish --promote-latest", &[("DEVBOX_STALL_SECONDS", "1")], 1);
    assert!(
        text.contains("no output; trying again") && text.contains("was ended: it printed nothing for 1 s"),
        "{text}"
    );
    assert_eq!(world.tags(), old);
    world.lab().arm([]);
    world.ok("publish --promote-latest");
}

/// Runs a line that is killed right after the registry has taken a request.
pub fn killed(world: &TestEnv, line: &str, after: &str) {
    world.lab().arm([Rule::on(after, Fault::KillAfter)]);
    let (code, text) = world.struck(line, &[]);
    assert_eq!(code, None, "{line} was not killed after {after}: {text}");
    world.lab().arm([]);
}

pub fn stage(world: &TestEnv) {
    for line in ["build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
}

#[test]
fn a_run_killed_between_two_tags_is_undone_or_completed() {
    let world = released();
    assert!(world.notes("repair").contains("no promotion was interrupted: nothing to repair"));
    let old = world.tags();
    bump(&world);
    stage(&world);
    killed(&world, "publish --promote-latest", "PUT */devbox/manifests/latest-omos");
    assert!(world.ok("status").contains("the promotion of v1.18.19 was interrupted"));
    let text = world.fails("publish", 3);
    assert!(text.contains("the promotion of v1.18.19 was interrupted: run `cargo xtask repair`"), "{text}");
    let text = world.notes("repair --undo");
    assert!(text.contains("the floating tags point where they did before v1.18.19"), "{text}");
    let floating = |tags: Vec<(String, String)>| {
        tags.into_iter().filter(|(tag, _)| !tag.starts_with('v')).collect::<Vec<_>>()
    };
    assert_eq!(floating(world.tags()), floating(old));

    killed(&world, "publish --promote-latest", "PUT */devbox/manifests/latest-omos");
    let report = json(&world, "repair --json");
    assert_eq!(
        (&report["release"], &report["result"]),
        (&"v1.18.19".into(), &"all tags are at v1.18.19".into())
    );
    let tags: std::collections::BTreeMap<_, _> = world.tags().into_iter().collect();
    for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
        assert_eq!(tags[&format!("latest{suffix}")], tags[&format!("v1.18.19{suffix}")]);
    }
}

/// All tags have moved, and the attempt has no end: the same run again closes it.
#[test]
fn a_run_killed_after_its_last_tag_is_closed_by_the_next() {
    let world = released();
    bump(&world);
    stage(&world);
    killed(&world, "publish --promote-latest", "PUT */devbox/manifests/latest-omos-with-pi");
    assert!(world.ok("status").contains("was interrupted"));
    assert!(world.notes("publish --promote-latest").contains("all tags are up to date"));
    assert!(!world.ok("status").contains("was interrupted"));
    let report = json(&world, "publish --promote-latest --json");
    assert_eq!((&report["release"], &report["moved"]), (&"v1.18.19".into(), &0.into()));
}

#[test]
fn an_interrupted_move_of_base_latest_is_closed_by_the_next() {
    let world = released();
    fs::write(world.root.join("rootfs/etc/changed"), "x").unwrap();
    world.ok("build-base");
    stage(&world);
    world.ok("publish --promote-latest");
    let open = || crate::support::releases::open_attempts(world.registry(), "devbox");
    killed(&world, "promote-base-latest", "PUT */devbox/manifests/base-latest");
    assert_eq!(open().len(), 1);
    assert!(world.notes("promote-base-latest").contains("already"));
    assert_eq!(open(), [""; 0]);
}

/// An image that is gone, or that no suite has passed, cannot be promoted by a repair either.
#[test]
fn a_repair_refuses_what_a_release_would_refuse() {
    let world = TestEnv::new();
    world.ok("build-base");
    stage(&world);
    // It dies before the first variant has its version tag.
    killed(&world, "publish", "PUT */devbox-staging/manifests/promotion-*");
    world.fails_with("smoke omos --force", &[("FAKE_BROKEN", "omos")], 1);
    let text = world.fails("repair", 1);
    assert!(text.contains("the image of v1.18.18-omos is untested or failed: sha256:"), "{text}");
    assert!(text.contains("v1.18.18 cannot be completed, run `cargo xtask repair --undo`"), "{text}");
    world.ok("smoke omos --force");
    let staged = world.staged("with-pi");
    world.registry().forget("devbox-staging", &staged);
    let text = world.fails("repair", 1);
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
    assert!(world.notes("rollback v1.18.18").contains("the floating tags are at v1.18.18 already"));
    assert_eq!(world.log(), [""; 0]);
    // The image is what counts, not the tag that it was published under.
    let image = world.registry().tag("devbox", "v1.18.19-omos").unwrap();
    world.registry().forget("devbox", "v1.18.19-omos");
    world.ok("rollback v1.18.19 --dry-run");
    world.registry().forget("devbox", &image);
    world.registry().forget("devbox-staging", &image);
    let text = world.fails("rollback v1.18.19", 1);
    assert!(text.contains("v1.18.19 is not complete in") && text.contains(&image), "{text}");
    assert!(world.fails("status --release-tag v9.9.9", 1).contains("no record of v9.9.9"));
}

#[test]
fn explain_compares_packages_and_layers() {
    let world = released();
    let text = world.ok("explain base-latest");
    assert!(text.contains("inputs: the same\nDebian packages: the same"), "{text}");
    let text = world.ok("explain latest");
    assert!(
        text.contains("Debian packages: the same\nlayers on linux/amd64: 3 shared, 0 gone (0.0 MB)"),
        "{text}"
    );
    bump(&world);
    fs::write(world.root.join("rootfs/etc/changed"), "x").unwrap();
    // Other packages are another layer.
    let packages =
        [("FAKE_PACKAGES", r"git\t1:2.48\tamd64\nnew\t1\tamd64\n"), ("FAKE_FIRST_LAYER", "packages")];
    for line in ["build-base", "build", "smoke base"] {
        assert!(world.run_with(line, &packages).status.success(), "{line}");
    }
    let text = world.ok("explain latest");
    let part =
        "Debian packages:\n  git 1:2.47 → 1:2.48\n  new 1 new\nlayers on linux/amd64: 0 shared, 3 gone";
    assert!(text.contains(part), "{text}");
    let print = world.ok("build base --print");
    let staged = print.split("devbox-staging:").nth(1).unwrap().split('"').next().unwrap();
    assert!(world.ok(&format!("explain {staged} latest")).contains("  new 1 gone\n"));

    // A base that is not built has no layers yet, and neither has an image on top of it.
    fs::write(world.root.join("rootfs/etc/new"), "x").unwrap();
    for image in ["base-latest", "latest-omos"] {
        let text = world.ok(&format!("explain {image}"));
        assert!(text.contains("layers: one side is not built"), "{text}");
    }
    world.registry().put("devbox", "foreign", DEBIAN.as_bytes());
    let text = world.fails("explain foreign", 1);
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
    assert!(world.fails("explain latest-omos", 1).contains("this tree has no variant like latest-omos"));
}

#[test]
fn plan_tells_what_is_only_to_be_tested_and_tagged() {
    let world = TestEnv::new();
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
    world.registry().put("devbox", "latest-omos", DEBIAN.as_bytes());
    assert!(world.ok("plan").contains("the published image does not say what it was made from"));
}

#[test]
fn a_release_has_the_opencode_version_and_letters_up_to_z() {
    let world = TestEnv::new();
    world.ok("build-base");
    stage(&world);
    let text = world.fails("promote-base-latest", 3);
    assert!(
        text.contains("are not what latest points at: run `cargo xtask publish --promote-latest`"),
        "{text}"
    );
    let text = world.fails("publish --release-tag v1.18.99", 1);
    assert!(
        text.contains("does not match the pinned opencode 1.18.18: run `cargo xtask bump-opencode 1.18.99`")
    );
    world.registry().put("devbox", "v1.18.18", DEBIAN.as_bytes());
    let report = json(&world, "publish --json");
    assert_eq!((&report["release"], &report["moved"]), (&"v1.18.18b".into(), &4.into()));
    for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
        world.registry().forget("devbox", &format!("v1.18.18b{suffix}"));
    }
    for letter in 'b'..='z' {
        world.registry().put("devbox", &format!("v1.18.18{letter}-omos"), DEBIAN.as_bytes());
    }
    let text = world.fails("publish", 1);
    assert!(text.contains("all releases of 1.18.18 from v1.18.18 to v1.18.18z are taken"), "{text}");
}
