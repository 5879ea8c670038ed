//! What a prune keeps and deletes of many releases, before a real registry: it never loses what a tag of users, a record or a
//! young image needs, wherever it is interrupted, and what is left is exactly that.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use registry_lab::{Deletes, Fault, Referrers, Registry, Rule};
use serde_json::Value;

use crate::crash::{FLOATING, is_exhaustive};
use crate::support::env::TestEnv;
use crate::support::releases::CHAIN;

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
fn needs_are_met(world: &TestEnv, path: &str, versions: &[usize], recent: &[usize]) {
    let (registry, staging) = (world.registry(), format!("{path}-staging"));
    for version in versions {
        for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
            is_whole(registry, path, &format!("v1.18.{version}{suffix}"));
        }
    }
    for tag in FLOATING {
        is_whole(registry, path, tag);
    }
    for version in versions {
        let record = registry.tag(&staging, &format!("release-v1.18.{version}")).unwrap();
        let record = manifest(registry, &record)["annotations"]["opencode-devbox.document"].take();
        let record: Value = serde_json::from_str(record.as_str().unwrap()).unwrap();
        for variant in record["variants"].as_array().unwrap() {
            for platform in variant["platforms"].as_array().unwrap() {
                // The verdict of an image that users have stays.
                let list = platform["digest"].as_str().unwrap().replace(':', "-");
                is_whole(registry, &staging, &list);
            }
        }
        if !recent.contains(version) {
            continue;
        }
        for variant in record["variants"].as_array().unwrap() {
            let key = format!("{}-{}", variant["name"].as_str().unwrap(), variant["key"].as_str().unwrap());
            is_whole(registry, &staging, &key);
        }
        is_whole(registry, path, record["base"]["tag"].as_str().unwrap());
    }
}

/// Every manifest that tags lead to, by indexes as well.
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

/// Copies a release that is in a registry, under other versions and keys: every manifest of it, with other digests.
struct Copies<'a> {
    registry: &'a Registry,
    path: &'a str,
    number: usize,
    known: BTreeSet<String>,
    made: BTreeMap<String, String>,
}

impl Copies<'_> {
    /// Other text for names that a release does not share with another one.
    fn renamed(&self, text: &str) -> String {
        let mut text = text.replace("1.18.18", &format!("1.18.{}", self.number));
        let tags = [self.path.to_owned(), format!("{}-staging", self.path)].map(|it| self.registry.tags(&it));
        for tag in tags.iter().flat_map(BTreeMap::keys) {
            let key = tag.rsplit('-').next().unwrap_or_default();
            if key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                text = text.replace(key, &format!("{:02x}{}", self.number, &key[2..]));
            }
        }
        text
    }

    /// The copy of a manifest, which it stores.
    fn copy(&mut self, digest: &str) -> String {
        if let Some(made) = self.made.get(digest) {
            return made.clone();
        }
        let mut text = String::from_utf8(self.registry.blob(digest).unwrap()).unwrap();
        let named: Vec<String> =
            self.known.iter().filter(|it| *it != digest && text.contains(it.as_str())).cloned().collect();
        for other in named {
            text = text.replace(&other, &self.copy(&other));
        }
        let image = format!("\"annotations\":{{\"name\":\"{}-", self.number);
        let text = self.renamed(&text.replace("\"annotations\":{\"name\":\"", &image));
        let made = registry_lab::digest(text.as_bytes());
        self.made.insert(digest.to_owned(), made.clone());
        for repository in [self.path.to_owned(), format!("{}-staging", self.path)] {
            if self.registry.manifests(&repository).iter().any(|it| it == digest) {
                self.registry.put(&repository, "copy", text.as_bytes());
            }
        }
        made
    }

    fn release(&mut self) {
        for repository in [self.path.to_owned(), format!("{}-staging", self.path)] {
            for (tag, digest) in self.registry.tags(&repository) {
                if tag == "copy" {
                    continue;
                }
                let made = self.copy(&digest);
                let tag = match tag.strip_prefix("sha256-") {
                    Some(hex) => self.copy(&format!("sha256:{hex}")).replace(':', "-"),
                    // Attempts are told by their beginning.
                    None if tag.starts_with("promotion-") => {
                        format!("promotion-{:010}{}", self.number, &tag["promotion-0000000000".len()..])
                    }
                    None => self.renamed(&tag),
                };
                if !FLOATING.contains(&tag.as_str()) {
                    self.registry.put(&repository, &tag, &self.registry.blob(&made).unwrap());
                }
            }
            self.registry.forget(&repository, "copy");
        }
    }
}

/// A registry with releases 1.18.1 to 1.18.17 and so on up to a number, each on a base of its own; the floating tags are at
/// 1.18.18. None of the older ones has a floating tag.
fn with_releases(numbers: impl IntoIterator<Item = usize>) -> TestEnv {
    let world = TestEnv::new();
    for line in CHAIN {
        world.ok(line);
    }
    // Copies are made of the first release alone.
    let (registry, path) = (world.registry().clone(), "devbox");
    registry.copy("devbox", "first");
    registry.copy("devbox-staging", "first-staging");
    let known: BTreeSet<String> =
        ["first", "first-staging"].iter().flat_map(|it| registry.manifests(it)).collect();
    for number in numbers {
        registry.copy("first", "one");
        registry.copy("first-staging", "one-staging");
        let mut copies =
            Copies { registry: &registry, path: "one", number, known: known.clone(), made: BTreeMap::new() };
        copies.release();
        for side in ["", "-staging"] {
            for (tag, digest) in registry.tags(&format!("one{side}")) {
                registry.put(&format!("{path}{side}"), &tag, &registry.blob(&digest).unwrap());
            }
            for digest in
                copies.made.values().filter(|it| registry.manifests(&format!("one{side}")).contains(it))
            {
                registry.put(&format!("{path}{side}"), "copy", &registry.blob(digest).unwrap());
            }
            registry.remove(&format!("one{side}"));
            registry.forget(&format!("{path}{side}"), "copy");
        }
    }
    for side in ["", "-staging"] {
        registry.remove(&format!("first{side}"));
    }
    world
}

const PRUNE: &str = "prune --keep-releases 3 --keep-days 0 --yes";

/// Nothing of a deleted release is left without a tag, beyond what the releases themselves leave.
#[track_caller]
fn nothing_is_stray(registry: &Registry, repository: &str, before: &BTreeSet<String>) {
    let stray: Vec<String> = held(registry, repository)
        .difference(&reachable(registry, repository))
        .filter(|it| !before.contains(*it))
        .cloned()
        .collect();
    assert_eq!(stray, [""; 0], "{repository}");
}

#[test]
fn thirty_releases_are_pruned_to_what_is_needed() {
    let numbers: Vec<usize> = (1..18).chain(19..32).collect();
    let world = with_releases(numbers.iter().copied());
    let registry = world.registry();
    let mut versions = numbers;
    versions.push(18);
    needs_are_met(&world, "devbox", &versions, &versions);
    let before: BTreeSet<String> = ["devbox", "devbox-staging"]
        .iter()
        .flat_map(|it| held(registry, it).difference(&reachable(registry, it)).cloned().collect::<Vec<_>>())
        .collect();
    let tags = registry.tags("devbox-staging").len();
    let text = world.ok(PRUNE);
    print!("{}", text.lines().last().unwrap());
    // 1.18.18 is where the floating tags are, and the others are the newest.
    needs_are_met(&world, "devbox", &versions, &[18, 29, 30, 31]);
    for repository in ["devbox", "devbox-staging"] {
        nothing_is_stray(registry, repository, &before);
    }
    let left = registry.tags("devbox-staging");
    let staged = |start: &str| left.keys().filter(|tag| tag.starts_with(start)).count();
    // Four releases keep their staged images, and the three newest and 1.18.18 their bases.
    assert_eq!((staged("omos-with-pi-"), staged("with-pi-"), staged("release-")), (4, 4, 31), "{left:?}");
    let bases = registry.tags("devbox").into_keys().filter(|tag| tag.starts_with("base-")).count();
    assert_eq!((bases, tags > left.len()), (5, true));
    assert!(world.notes(PRUNE).contains("nothing to delete"));
}

#[test]
fn an_interrupted_prune_loses_nothing_and_the_next_completes_it() {
    let mut world = with_releases([12, 13, 14, 15, 16]);
    let registry = world.registry().clone();
    let versions = [12, 13, 14, 15, 16, 18];
    let copy = |to: &str| {
        registry.copy("devbox", to);
        registry.copy("devbox-staging", &format!("{to}-staging"));
    };
    copy("reference");
    world.path = "reference".to_owned();
    world.lab().arm([]);
    let before: BTreeSet<String> = ["reference", "reference-staging"]
        .iter()
        .flat_map(|it| held(&registry, it).difference(&reachable(&registry, it)).cloned().collect::<Vec<_>>())
        .collect();
    world.ok(PRUNE);
    let writes = world.lab().counts().writes;
    needs_are_met(&world, "reference", &versions, &[15, 16, 18]);
    let kept = |path: &str| {
        let is_own = |tag: &String| !tag.starts_with("promotion-") && !tag.starts_with("prune-");
        let all = ["", "-staging"].map(|side| registry.tags(&format!("{path}{side}")));
        all.map(|tags| tags.into_iter().filter(|(tag, _)| is_own(tag)).collect::<BTreeMap<_, _>>())
    };
    let expected = kept("reference");
    let mut random = Rng::with_seed(20261201);
    let points: Vec<usize> = match is_exhaustive() {
        true => (1..=writes).collect(),
        false => [1, 2, 3, 4, writes - 2, writes - 1]
            .into_iter()
            .chain((0..6).map(|_| random.usize(5..writes)))
            .collect(),
    };
    println!("{writes} writes, killed or refused after {points:?}");
    for (number, point) in points.into_iter().enumerate() {
        let (path, lab) = (format!("case-{point}"), world.lab());
        copy(&path);
        let fault = [Fault::KillAfter, Fault::KillAfter, Fault::Lost, Fault::Status(500)][number % 4];
        let times = if fault == Fault::Status(500) { 9 } else { 1 };
        lab.arm([Rule::at_write(point, fault).times(times)]);
        lab.set_referrers(Referrers::Absent);
        world.path = path.clone();
        let (code, text) = world.struck(PRUNE, &[]);
        world.lab().arm([]);
        needs_are_met(&world, &path, &versions, &[15, 16, 18]);
        let (again, told) = world.struck(PRUNE, &[]);
        assert_eq!(again, Some(0), "{point} {fault}: {told}\nafter {code:?}: {text}");
        assert_eq!(kept(&path), expected, "{point} {fault}");
        for side in ["", "-staging"] {
            nothing_is_stray(&registry, &format!("{path}{side}"), &before);
        }
        needs_are_met(&world, &path, &versions, &[15, 16, 18]);
        for side in ["", "-staging"] {
            registry.remove(&format!("{path}{side}"));
        }
    }
}

/// With the referrers API, in a registry that deletes single tags, and where reads lag.
#[test]
fn a_prune_works_with_the_referrers_api_and_where_reads_lag() {
    let world = with_releases([14, 15, 16]);
    world.lab().set_referrers(Referrers::Present);
    world.lab().set_deletes(Deletes::Tags);
    world.lab().set_lag(std::time::Duration::from_secs(1));
    world.ok(PRUNE);
    needs_are_met(&world, "devbox", &[14, 15, 16, 18], &[15, 16, 18]);
    world.lab().settle();
    assert!(world.notes(PRUNE).contains("nothing to delete"));
}
