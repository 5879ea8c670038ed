//! Promotions before a registry in a state that this program did not leave: foreign tags, damaged documents, tags and
//! manifests that somebody deleted, and tags that nobody may write twice.

use std::fs;

use registry_lab::{Immutable, PullLimit};
use xtask::model::oci::Digest;
use xtask::model::promotion::{AttemptId, Holder, LEASE_SECONDS, Move, Promotion, PromotionKind};

use crate::recovery::{bump, killed, release, released, stage};
use crate::support::env::{DEBIAN, TestEnv};
use crate::support::releases::{moved_versions, open_attempts};

const STAGING: &str = "devbox-staging";

fn tag(world: &TestEnv, tag: &str) -> Option<String> {
    world.registry().tag("devbox", tag)
}

fn tags(world: &TestEnv, name: &str) -> Vec<Option<String>> {
    ["", "-omos", "-with-pi", "-omos-with-pi"].map(|suffix| tag(world, &format!("{name}{suffix}"))).to_vec()
}

fn settled(world: &TestEnv) {
    let text = world.notes("repair");
    assert!(text.contains("no promotion was interrupted: nothing to repair"), "{text}");
    assert_eq!(open_attempts(world.registry(), "devbox"), [""; 0]);
    assert_eq!(moved_versions(world.registry(), "devbox"), [""; 0]);
}

fn attempt(seconds_ago: u64) -> AttemptId {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    AttemptId { begun: now - seconds_ago, nonce: "00000000000000aa".into() }
}

/// Harbor and ECR refuse to write an immutable tag again, whatever it would point at.
#[test]
fn immutable_version_tags_are_written_once() {
    for style in [Immutable::Harbor, Immutable::Ecr] {
        let world = released();
        bump(&world);
        stage(&world);
        world.lab().set_immutable(style.tags("v*"));
        world.ok("publish");
        world.ok("publish --promote-latest");
        assert_eq!(tags(&world, "latest"), tags(&world, "v1.18.19"));
        settled(&world);
    }
}

/// A rollback that leaves a tag without an image on the newer release has moved what it was asked to move.
#[test]
fn a_repair_does_not_undo_a_rollback_that_kept_a_tag() {
    let world = TestEnv::new();
    let file = world.root.join("images/devbox.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let start = whole.find("[[variant]]\nname = \"omos-with-pi\"\n").unwrap();
    let end = start + whole[start..].find("\n\n").unwrap() + 2;
    fs::write(&file, format!("{}{}", &whole[..start], &whole[end..])).unwrap();
    for line in ["build-base", "build", "smoke base", "smoke omos", "smoke with-pi"] {
        world.ok(line);
    }
    world.ok("publish --promote-latest");
    fs::write(&file, whole).unwrap();
    bump(&world);
    stage(&world);
    world.ok("publish --promote-latest");
    world.ok("rollback v1.18.18 --keep-others");
    let now = world.tags();
    let text = world.notes("repair");
    assert!(text.contains("nothing to repair"), "{text}");
    assert_eq!(world.tags(), now, "latest goes back to the release that was rolled back");
}

/// Somebody's own tag, and a document that is damaged, look like attempts: `repair` settles them.
#[test]
fn what_looks_like_an_attempt_and_is_none_is_settled_by_repair() {
    let damaged = DEBIAN.replace(
        "\"schemaVersion\":2,",
        "\"schemaVersion\":2,\"annotations\":{\"opencode-devbox.document\":\"{\\\"release\\\":7}\"},",
    );
    for manifest in [DEBIAN, damaged.as_str()] {
        let world = released();
        let id = attempt(LEASE_SECONDS + 60);
        world.registry().put(STAGING, &id.tag(), manifest.as_bytes());
        bump(&world);
        stage(&world);
        let text = world.fails("publish --promote-latest", 3);
        assert!(text.contains(&id.tag()) && text.contains("run `cargo xtask repair`"), "{text}");
        world.ok("status");
        let text = world.notes("repair");
        assert!(text.contains(&id.tag()), "{text}");
        settled(&world);
        world.ok("publish --promote-latest");
        assert_eq!(tags(&world, "latest"), tags(&world, "v1.18.19"));
    }
}

/// The tag of an attempt may be deleted while its signs of life are there.
#[test]
fn the_lease_of_an_attempt_whose_document_is_gone_can_be_broken() {
    let mut world = released();
    let id = attempt(100);
    world.registry().put(STAGING, &id.alive_tag(id.begun + 60), DEBIAN.as_bytes());
    // The document is waited for as long as reads may lag: everything else of this world reads at once.
    world.set("DEVBOX_LAG_SECONDS", "2");
    let text = world.notes("repair --break-lease");
    assert!(text.contains(&format!("breaking the lease of {}", id.tag())), "{text}");
    settled(&world);
}

/// A version tag that somebody else has set meanwhile: the attempt can only be undone, and that is what `repair` says.
#[test]
fn a_repair_whose_version_tag_is_taken_names_the_command() {
    let world = released();
    bump(&world);
    stage(&world);
    let to = |variant: &str| world.staged(variant).parse::<Digest>().unwrap();
    let it = |tag: &str, floating, variant: &str| Move {
        tag: tag.into(),
        floating,
        from: floating.then(|| world.registry().tag("devbox", tag).unwrap().parse().unwrap()),
        to: to(variant),
    };
    let moves = vec![
        it("v1.18.19", false, "base"),
        it("v1.18.19-omos", false, "omos"),
        it("latest", true, "base"),
        it("latest-omos", true, "omos"),
    ];
    let holder = Holder { host: "elsewhere".into(), realm: "x".into(), pid: 7, started: "1".into() };
    let release = Some("v1.18.19".parse().unwrap());
    world.plant(
        &attempt(LEASE_SECONDS + 60),
        &Promotion { release, kind: PromotionKind::Publish, moves, holder },
    );
    world.registry().put("devbox", "v1.18.19-omos", DEBIAN.as_bytes());
    let before = world.tags();
    let text = world.fails("repair", 1);
    assert!(text.contains("v1.18.19-omos is another image"), "{text}");
    assert!(text.contains("run `cargo xtask repair --undo`"), "{text}");
    assert!(!text.contains("run the same command again"), "{text}");
    assert_eq!(world.tags(), before);
    world.ok("repair --undo");
    let text = world.notes("repair");
    assert!(text.contains("nothing to repair"), "{text}");
}

/// The base is mostly the same in both releases, so that its tag is where it was whether or not the others have moved.
#[test]
fn a_rollback_that_was_interrupted_can_be_undone() {
    let world = released();
    bump(&world);
    release(&world);
    let now = world.tags();
    killed(&world, "rollback v1.18.18", "PUT */devbox/manifests/latest-omos");
    let text = world.notes("repair --undo");
    assert!(text.contains("the floating tags point where they did before v1.18.18"), "{text}");
    assert_eq!(world.tags(), now);
    settled(&world);
}

/// A floating tag of the newest release that somebody deleted is set again.
#[test]
fn a_floating_tag_that_was_deleted_is_set_again_by_repair() {
    let world = released();
    let before = tags(&world, "latest");
    world.registry().forget("devbox", "latest-omos");
    let text = world.notes("repair");
    assert!(text.contains("the floating tags are at v1.18.18"), "{text}");
    assert_eq!(tags(&world, "latest"), before);
    settled(&world);
}

/// The record can be written again from what is published.
#[test]
fn a_damaged_record_is_written_again() {
    let world = released();
    world.registry().forget("devbox", "latest-omos");
    world.registry().put(STAGING, "release-v1.18.18", DEBIAN.as_bytes());
    let text = world.fails("status", 1);
    assert!(text.contains("release-v1.18.18") && text.contains("run `cargo xtask publish"), "{text}");
    world.ok("publish --promote-latest");
    world.ok("status");
}

/// The downgrade guard knows the releases of a family in which no variant has the empty suffix.
#[test]
fn latest_never_goes_back_where_every_variant_has_a_suffix() {
    let world = TestEnv::new();
    world.configure("name = \"base\"\nsuffix = \"\"\n", "name = \"base\"\nsuffix = \"-core\"\n");
    let old = TestEnv::before(world.lab().host(), "devbox");
    old.configure("name = \"base\"\nsuffix = \"\"\n", "name = \"base\"\nsuffix = \"-core\"\n");
    release(&world);
    bump(&world);
    release(&world);
    assert!(world.ok("status").contains("v1.18.19"));
    let text = old.fails("publish --promote-latest", 3);
    assert!(text.contains("latest is at v1.18.19, which is newer than v1.18.18"), "{text}");
    assert_eq!(tag(&world, "latest-core"), tag(&world, "v1.18.19-core"));
}

/// A rollback on a machine that knows no manifest reads what it needs before its first write.
#[test]
fn a_rollback_beyond_the_limit_of_reads_writes_no_tag() {
    let world = released();
    bump(&world);
    release(&world);
    let before = world.tags();
    fs::remove_dir_all(world.root.join(".devbox/manifests")).unwrap();
    for limit in [9, 7, 5, 3] {
        world.lab().set_pull_limit(PullLimit::from(limit));
        world.lab().arm([]);
        let output = world.run("rollback v1.18.18");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert_ne!(world.tags(), before);
            world.lab().set_pull_limit(None);
            world.ok("publish --promote-latest");
            world.ok("promote-base-latest");
            continue;
        }
        let moves: Vec<_> = world
            .lab()
            .log()
            .into_iter()
            .filter(|entry| entry.method == "PUT" && entry.to_string().contains("/devbox/manifests/latest"))
            .map(|entry| entry.to_string())
            .collect();
        assert!(moves.is_empty(), "limit {limit}: {text}\n{moves:?}");
        assert_eq!(world.tags(), before, "limit {limit}: {text}");
        fs::remove_dir_all(world.root.join(".devbox/manifests")).unwrap();
    }
}
