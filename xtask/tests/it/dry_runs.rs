//! What each phase would run, in whole: a dry run prints every command line that it can know, and changes nothing.

use expect_test::{ExpectFile, expect_file};

use crate::recovery::{bump, release, released};
use crate::support::env::{TestEnv, without_inputs};

/// Compares the plan of a command with its golden file. Nothing is written and no program that changes something runs.
#[track_caller]
fn check(world: &TestEnv, line: &str, golden: ExpectFile) {
    world.log();
    let writes = world.writes();
    let plan = world.ok(&format!("{line} --dry-run"));
    assert_eq!((world.log(), world.writes()), (vec![], writes), "{line}");
    golden.assert_eq(&world.without_chance(&without_inputs(&plan)));
}

#[test]
fn each_phase_prints_what_it_would_run() {
    let world = TestEnv::new();
    check(&world, "build-base", expect_file!["golden/dry-run/build-base.txt"]);
    world.ok("build-base");
    check(&world, "build", expect_file!["golden/dry-run/build.txt"]);
    world.ok("build");
    check(&world, "smoke omos", expect_file!["golden/dry-run/smoke.txt"]);
    for variant in ["base", "omos", "with-pi", "omos-with-pi"] {
        world.ok(&format!("smoke {variant}"));
    }
    check(&world, "publish --promote-latest", expect_file!["golden/dry-run/publish.txt"]);
    world.ok("publish --promote-latest");
    check(&world, "promote-base-latest", expect_file!["golden/dry-run/promote-base-latest.txt"]);
}

#[test]
fn a_rollback_prints_the_tags_that_it_would_move() {
    let world = released();
    bump(&world);
    release(&world);
    check(&world, "rollback v1.18.18", expect_file!["golden/dry-run/rollback.txt"]);
}
