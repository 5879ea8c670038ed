//! Promotions before a registry in a state that this program did not leave: foreign tags, damaged documents, tags and
//! manifests that somebody deleted, and tags that nobody may write twice.

use std::fs;

use registry_lab::{Immutable, PullLimit};
use xtask::model::oci::Digest;
use xtask::model::promotion::{AttemptId, Holder, LEASE_SECONDS, Move, Promotion, PromotionKind};

use crate::crash::{moved_versions, open_attempts};
use crate::fakes::{DEBIAN, World};
use crate::recovery::{bump, killed, release, released, stage};

const STAGING: &str = "devbox-staging";

fn tag(world: &World, tag: &str) -> Option<String> {
    world.registry().tag("devbox", tag)
}

fn tags(world: &World, name: &str) -> Vec<Option<String>> {
    ["", "-omos", "-with-pi", "-omos-with-pi"].map(|suffix| tag(world, &format!("{name}{suffix}"))).to_vec()
}

fn settled(world: &World) {
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
        let output = world.xtask("rollback v1.18.18");
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
