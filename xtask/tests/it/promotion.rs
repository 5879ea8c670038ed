//! Promotions before registries whose reads lag and that refuse for a while, and what they do with changed variants.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use registry_lab::{Fault, RetryAfter, Rule};

use crate::recovery::{bump, release, released, stage};
use crate::support::env::{DEBIAN, TestEnv};
use crate::support::releases::{moved_versions, open_attempts};

fn tag(world: &TestEnv, tag: &str) -> Option<String> {
    world.registry().tag("devbox", tag)
}

fn latest(world: &TestEnv) -> Vec<Option<String>> {
    ["", "-omos", "-with-pi", "-omos-with-pi"].map(|suffix| tag(world, &format!("latest{suffix}"))).to_vec()
}

fn of_release(world: &TestEnv, release: &str) -> Vec<Option<String>> {
    ["", "-omos", "-with-pi", "-omos-with-pi"]
        .map(|suffix| tag(world, &format!("{release}{suffix}")))
        .to_vec()
}

fn settled(world: &TestEnv) {
    assert!(world.notes("repair").contains("no promotion was interrupted: nothing to repair"));
    assert_eq!(open_attempts(world.registry(), "devbox"), [""; 0]);
    assert_eq!(moved_versions(world.registry(), "devbox"), [""; 0]);
}

/// Public reports say that reads of Docker Hub and GHCR lag by seconds after a tag has moved.
#[test]
fn lagging_reads_end_in_one_release() {
    let world = released();
    bump(&world);
    // Far longer than a request takes, and no longer than a few looks.
    world.lab().set_lag(Duration::from_millis(700));
    release(&world);
    assert_eq!(latest(&world), of_release(&world, "v1.18.19"));
    let text = world.notes("publish --promote-latest");
    assert!(text.contains("all tags are up to date: nothing to publish"), "{text}");
    settled(&world);
}

/// A registry may answer a mount with the offer of an upload (distribution-spec, "Mounting a blob from another repository").
#[test]
fn crane_copies_what_a_registry_does_not_mount() {
    let world = TestEnv::new();
    world.ok("build-base");
    stage(&world);
    world.lab().arm([Rule::on("POST */devbox/blobs/uploads/*mount=*", Fault::Status(202)).nth(1)]);
    let text = world.notes("publish --promote-latest");
    assert_eq!(text.matches("crane copy").count(), 1, "{text}");
    assert_eq!(latest(&world), of_release(&world, "v1.18.18"));
    settled(&world);
}

/// The write of an attempt that is answered late is no lease: the run that came meanwhile has it.
#[test]
fn an_attempt_that_waits_for_its_write_sees_who_came_meanwhile() {
    let world = released();
    bump(&world);
    stage(&world);
    let client = world.lab().client();
    let other = TestEnv::before(client.host(), "devbox");
    let file = other.root.join("images/Dockerfile.variant");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("1.18.18", "1.18.20")).unwrap();
    stage(&other);
    let later = Fault::RetryLater(429, RetryAfter::Seconds(8));
    world.lab().arm([Rule::on("PUT */devbox-staging/manifests/promotion-*", later).nth(1)]);
    thread::scope(|scope| {
        let first = scope.spawn(|| world.run("publish --promote-latest"));
        let (start, refused) = (Instant::now(), |status| status == Some(429));
        while !world.lab().log().iter().any(|entry| refused(entry.status)) {
            assert!(start.elapsed() < Duration::from_secs(60), "the first run does not write its attempt");
            thread::sleep(Duration::from_millis(20));
        }
        other.ok("publish --promote-latest");
        let first = first.join().unwrap();
        let text = String::from_utf8_lossy(&first.stderr).into_owned();
        assert!(!first.status.success() && text.contains("latest is at v1.18.20"), "{text}");
    });
    assert_eq!(latest(&world), of_release(&world, "v1.18.20"));
    settled(&world);
}

/// A write that was taken without an answer, and whose next try is refused, has moved the tag: it is returned too.
#[test]
fn a_refusal_after_an_uncertain_try_is_not_final() {
    let world = released();
    let old = latest(&world);
    bump(&world);
    stage(&world);
    let write = |n, fault| Rule::on("PUT */devbox/manifests/latest-with-pi", fault).nth(n);
    world.lab().arm([write(1, Fault::Lost), write(2, Fault::Status(403))]);
    let text = world.fails("publish --promote-latest", 1);
    assert!(text.contains("an earlier try may have been taken"), "{text}");
    assert!(text.contains("the floating tags point where they did before v1.18.19"), "{text}");
    assert_eq!(latest(&world), old);
    settled(&world);
    world.ok("publish --promote-latest");
    assert_eq!(latest(&world), of_release(&world, "v1.18.19"));
}

/// A gateway that gave up waiting cannot know whether the registry has taken the write.
#[test]
fn a_write_that_timed_out_in_a_gateway_is_taken_back() {
    let world = released();
    let old = latest(&world);
    bump(&world);
    stage(&world);
    world.lab().arm([Rule::on("PUT */devbox/manifests/latest-with-pi", Fault::Status(408)).nth(1)]);
    let text = world.fails("publish --promote-latest", 1);
    assert!(text.contains("an earlier try may have been taken"), "{text}");
    let is_it = |entry: &registry_lab::Entry| {
        entry.to_string().starts_with("PUT /v2/devbox/manifests/latest-with-pi")
    };
    assert_eq!(world.lab().log().iter().filter(|entry| is_it(entry)).count(), 2, "{text}");
    assert_eq!(latest(&world), old);
    settled(&world);
}

/// The published tags decide, whatever became of the journal.
#[test]
fn latest_never_goes_back_unasked() {
    let world = released();
    let old = TestEnv::before(world.lab().host(), "devbox");
    fs::write(world.root.join("rootfs/etc/new"), "x").unwrap();
    bump(&world);
    release(&world);
    let now = (latest(&world), tag(&world, "base-latest"));
    for attempt in world.registry().tags("devbox-staging").into_keys() {
        if attempt.starts_with("promotion-") {
            world.registry().forget("devbox-staging", &attempt);
        }
    }
    let text = old.fails("publish --promote-latest", 3);
    assert!(text.contains("latest is at v1.18.19, which is newer than v1.18.18"), "{text}");
    assert!(text.contains("--allow-downgrade"), "{text}");
    let text = old.fails("promote-base-latest", 3);
    assert!(text.contains("are not what latest points at"), "{text}");
    assert!(old.notes("publish").contains("nothing to publish"), "version tags are no step back");
    assert_eq!((latest(&world), tag(&world, "base-latest")), now);
    old.ok("publish --promote-latest --allow-downgrade");
    assert_eq!(latest(&world), of_release(&world, "v1.18.18"));
}

/// Takes the stanza of a variant out of the definition.
fn remove_variant(world: &TestEnv, name: &str) {
    let file = world.root.join("images/devbox.toml");
    let text = fs::read_to_string(&file).unwrap();
    let start = text.find(&format!("[[variant]]\nname = \"{name}\"\n")).unwrap();
    let end = start + text[start..].find("\n\n").unwrap() + 2;
    fs::write(&file, format!("{}{}", &text[..start], &text[end..])).unwrap();
}

fn stage_all(world: &TestEnv, variants: &[&str]) {
    world.ok("build");
    for variant in variants {
        world.ok(&format!("smoke {variant}"));
    }
}

#[test]
fn a_removed_variant_is_named_and_left_only_when_asked() {
    let world = released();
    remove_variant(&world, "omos-with-pi");
    bump(&world);
    stage_all(&world, &["base", "omos", "with-pi"]);
    let left = tag(&world, "latest-omos-with-pi");
    assert!(world.ok("plan").contains("latest-omos-with-pi is published and no variant has it"));
    let text = world.ok("status");
    assert!(text.contains("latest-omos-with-pi is published and no variant of this tree has it"), "{text}");
    let text = world.fails("publish --promote-latest", 3);
    assert!(text.contains("latest-omos-with-pi is published and no variant has it"), "{text}");
    assert!(text.contains("add \"-omos-with-pi\" to `retired` in images/devbox.toml"), "{text}");
    assert_eq!(tag(&world, "v1.18.19"), None, "nothing was published");
    world.configure("retired = []", "retired = [\"-omos-with-pi\"]");
    world.ok("publish --promote-latest");
    assert_eq!(tag(&world, "latest-omos-with-pi"), left, "it stays where it was");
    assert_eq!(latest(&world)[..3], of_release(&world, "v1.18.19")[..3]);
    assert!(world.notes("repair").contains("nothing to repair"), "a retired tag is no mixture");
}

#[test]
fn a_renamed_variant_is_an_added_and_a_removed_one() {
    let world = released();
    world.configure("suffix = \"-omos\"\n", "suffix = \"-slim\"\n");
    bump(&world);
    stage(&world);
    let plan = world.ok("plan");
    assert!(plan.contains("latest-slim is new"), "{plan}");
    assert!(plan.contains("latest-omos is published and no variant has it"), "{plan}");
    assert!(world.ok("status").contains("latest-slim is not published yet"));
    let text = world.fails("publish --promote-latest", 3);
    assert!(text.contains("latest-omos is published and no variant has it"), "{text}");
    world.configure("suffix = \"-slim\"\n", "suffix = \"-omos\"\n");
    stage(&world);
    world.ok("publish --promote-latest");
}

#[test]
fn a_rollback_leaves_tags_without_an_image_only_when_asked() {
    let world = TestEnv::new();
    remove_variant(&world, "omos-with-pi");
    world.ok("build-base");
    stage_all(&world, &["base", "omos", "with-pi"]);
    world.ok("publish --promote-latest");
    let definition = fs::read_to_string(crate::support::env::tree().join("images/devbox.toml")).unwrap();
    let start = definition.find("[[variant]]\nname = \"omos-with-pi\"\n").unwrap();
    let stanza = &definition[start..start + definition[start..].find("\n\n").unwrap() + 2];
    let own = "[[variant]]\nname = \"with-pi\"\n";
    world.configure(own, &format!("{stanza}{own}"));
    bump(&world);
    stage(&world);
    assert!(world.notes("publish --promote-latest").contains("latest-omos-with-pi is new"));
    let now = world.tags();
    let text = world.fails("rollback v1.18.18", 3);
    assert!(text.contains("v1.18.18 has no image for latest-omos-with-pi: give --keep-others"), "{text}");
    assert_eq!(world.tags(), now, "nothing has moved");
    let text = world.notes("rollback v1.18.18 --keep-others");
    assert!(text.contains("latest-omos-with-pi stays where it is"), "{text}");
    assert_eq!(latest(&world)[..3], of_release(&world, "v1.18.18")[..3]);
    assert_eq!(latest(&world)[3], of_release(&world, "v1.18.19")[3]);
}

/// Two bases that were built at once leave the second one's digest under the tag of the key: digests are enough.
#[test]
fn a_rollback_needs_no_tag_of_the_base() {
    let world = released();
    let base = tag(&world, "base-latest").unwrap();
    fs::write(world.root.join("rootfs/etc/new"), "x").unwrap();
    bump(&world);
    release(&world);
    for (name, digest) in world.registry().tags("devbox") {
        if name.starts_with("base-") && digest == base {
            world.registry().put("devbox", &name, DEBIAN.as_bytes());
        }
    }
    world.ok("rollback v1.18.18");
    assert_eq!(tag(&world, "base-latest"), Some(base));
    assert_eq!(latest(&world), of_release(&world, "v1.18.18"));
    settled(&world);
}

/// A mixture that no journal tells of, as an older release or another tool may have left it.
#[test]
fn a_mixture_without_a_journal_is_brought_to_the_newest_release() {
    let world = released();
    let old = of_release(&world, "v1.18.18");
    bump(&world);
    release(&world);
    for attempt in world.registry().tags("devbox-staging").into_keys() {
        if attempt.starts_with("promotion-") {
            world.registry().forget("devbox-staging", &attempt);
        }
    }
    for (suffix, digest) in [("-omos", &old[1]), ("-with-pi", &old[2])] {
        let manifest = world.registry().blob(digest.as_ref().unwrap()).unwrap();
        world.registry().put("devbox", &format!("latest{suffix}"), &manifest);
    }
    let text = world.notes("repair");
    assert!(text.contains("the floating tags are at v1.18.19"), "{text}");
    assert_eq!(latest(&world), of_release(&world, "v1.18.19"));
    settled(&world);
}
