//! What a prune keeps and deletes, before real registries: a prune never loses what a tag of users, a record or a young image
//! needs, wherever it is interrupted, and what is left is exactly that.

use std::collections::BTreeSet;
use std::fs;

use registry_lab::{Fault, Referrers, Registry, Rule};
use serde_json::Value;

use crate::recovery::{release, released};
use crate::support::env::TestEnv;

const FLOATING: [&str; 5] = ["latest", "latest-omos", "latest-with-pi", "latest-omos-with-pi", "base-latest"];

/// Releases the same family under one more version, on a base of its own.
fn next(world: &TestEnv, from: usize) {
    let file = world.root.join("images/Dockerfile.variant");
    let text = fs::read_to_string(&file).unwrap();
    let version = |number: usize| format!("OPENCODE_VERSION=1.18.{number}");
    fs::write(&file, text.replace(&version(from), &version(from + 1))).unwrap();
    fs::write(world.root.join("rootfs/etc/devbox-test"), format!("{from}\n")).unwrap();
    release(world);
}

fn manifest(registry: &Registry, digest: &str) -> Value {
    serde_json::from_slice(&registry.blob(digest).unwrap()).unwrap()
}

/// The images that an index names, which have to be there.
#[track_caller]
fn is_whole(registry: &Registry, repository: &str, tag: &str) {
    let held: BTreeSet<String> = registry.manifests(repository).into_iter().collect();
    let digest = registry.tag(repository, tag).unwrap_or_else(|| panic!("{repository}:{tag} is gone"));
    assert!(held.contains(&digest), "{repository}:{tag}");
    for image in manifest(registry, &digest)["manifests"].as_array().into_iter().flatten() {
        assert!(held.contains(image["digest"].as_str().unwrap()), "an image of {repository}:{tag} is gone");
    }
}

/// What users and the newest releases need, told by the registry's own files.
#[track_caller]
fn needs_are_met(world: &TestEnv, versions: &[usize], recent: &[usize]) {
    let registry = world.registry();
    for version in versions {
        for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
            is_whole(registry, "devbox", &format!("v1.18.{version}{suffix}"));
        }
    }
    for tag in FLOATING {
        is_whole(registry, "devbox", tag);
    }
    for version in versions {
        let record = world.document(&format!("release-v1.18.{version}"));
        for variant in record["variants"].as_array().unwrap() {
            for platform in variant["platforms"].as_array().unwrap() {
                // The verdict of an image that users have stays.
                let list = platform["digest"].as_str().unwrap().replace(':', "-");
                is_whole(registry, "devbox-staging", &list);
            }
        }
        if !recent.contains(version) {
            continue;
        }
        for variant in record["variants"].as_array().unwrap() {
            let key = format!("{}-{}", variant["name"].as_str().unwrap(), variant["key"].as_str().unwrap());
            is_whole(registry, "devbox-staging", &key);
        }
        is_whole(registry, "devbox", record["base"]["tag"].as_str().unwrap());
    }
}

/// Every manifest that tags lead to, by indexes and by what refers to it.
fn reachable(registry: &Registry, repository: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<String> = registry.tags(repository).into_values().collect();
    while let Some(digest) = next.pop() {
        if found.insert(digest.clone()) {
            let document = manifest(registry, &digest);
            let images = document["manifests"].as_array().into_iter().flatten();
            next.extend(images.map(|image| image["digest"].as_str().unwrap().to_owned()));
        }
    }
    found
}

fn held(registry: &Registry, repository: &str) -> BTreeSet<String> {
    registry.manifests(repository).into_iter().collect()
}

#[test]
fn a_prune_leaves_what_is_needed_and_nothing_else() {
    let world = released();
    for version in 18..22 {
        next(&world, version);
    }
    let registry = world.registry();
    let (before, writes) = (registry.tags("devbox-staging"), world.writes());
    let text = world.ok("prune --keep-releases 2 --keep-days 0");
    assert!(text.contains("would delete ") && text.contains("staged image"), "{text}");
    assert_eq!((world.writes(), registry.tags("devbox-staging")), (writes, before.clone()), "only listed");
    let text = world.ok("prune --keep-days 30 --yes");
    assert!(text.is_empty(), "everything is young: {text}");

    let (text, notes) = world.both("prune --keep-releases 2 --keep-days 0 --yes");
    assert!(text.contains("deleted ") && !text.contains("would"), "{text}{notes}");
    needs_are_met(&world, &[18, 19, 20, 21, 22], &[21, 22]);
    let after = registry.tags("devbox-staging");
    let count =
        |tags: &registry_lab::Tags, start: &str| tags.keys().filter(|tag| tag.starts_with(start)).count();
    assert_eq!((count(&before, "omos-"), count(&after, "omos-")), (10, 4), "two variants' names begin so");
    assert_eq!(count(&after, "release-"), 5, "records of what users can pull stay");
    assert!(count(&after, "promotion-") <= 4, "{after:?}");
    let bases = registry.tags("devbox").into_keys().filter(|tag| tag.starts_with("base-")).count();
    assert_eq!(bases, 3, "two bases and base-latest");
    for repository in ["devbox", "devbox-staging"] {
        let lost: Vec<String> =
            held(registry, repository).difference(&reachable(registry, repository)).cloned().collect();
        // Attempts at a sign of life, replaced lists of referrers and verdicts that were replaced have no tag any more.
        let stray: Vec<Value> = lost
            .iter()
            .map(|it| manifest(registry, it))
            .filter(|it| it["annotations"]["name"].is_string())
            .collect();
        assert_eq!(stray, [Value::Null; 0], "{repository}");
    }
    let text = world.notes("prune --keep-releases 2 --keep-days 0 --yes");
    assert!(text.contains("nothing to delete"), "{text}");
    // What is left still works.
    world.ok("rollback v1.18.21");
    next(&world, 22);
    assert!(world.notes("repair").contains("nothing to repair"));
}
