//! What a prune keeps and deletes of many releases, before a real registry: it never loses what a tag of users, a record or a
//! young image needs, wherever it is interrupted, and what is left is exactly that.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use registry_lab::{Deletes, Fault, Referrers, Registry, Rule, Tags};
use serde_json::Value;

use crate::crash::{FLOATING, is_exhaustive};
use crate::support::env::TestEnv;
use crate::support::releases::CHAIN;

fn manifest(registry: &Registry, digest: &str) -> Value {
    serde_json::from_slice(&registry.blob(digest).unwrap()).unwrap()
}

/// A repository at one moment.
struct View<'a> {
    registry: &'a Registry,
    name: String,
    tags: Tags,
    held: BTreeSet<String>,
}

impl<'a> View<'a> {
    fn of(registry: &'a Registry, name: &str) -> Self {
        let (tags, held) = (registry.tags(name), registry.manifests(name).into_iter().collect());
        Self { registry, name: name.to_owned(), tags, held }
    }

    /// A tag, and the images that its index names, have to be there.
    #[track_caller]
    fn is_whole(&self, tag: &str) {
        let Some(digest) = self.tags.get(tag) else { panic!("{}:{tag} is gone", self.name) };
        assert!(self.held.contains(digest), "{}:{tag}", self.name);
        for image in manifest(self.registry, digest)["manifests"].as_array().into_iter().flatten() {
            let image = image["digest"].as_str().unwrap();
            assert!(self.held.contains(image), "an image of {}:{tag} is gone", self.name);
        }
    }
}

/// What users and the newest releases need, told by the registry's own files.
#[track_caller]
fn needs_are_met(world: &TestEnv, path: &str, versions: &[usize], recent: &[usize]) {
    let registry = world.registry();
    let (public, staging) = (View::of(registry, path), View::of(registry, &format!("{path}-staging")));
    for version in versions {
        for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
            public.is_whole(&format!("v1.18.{version}{suffix}"));
        }
    }
    for tag in FLOATING {
        public.is_whole(tag);
    }
    for version in versions {
        let record = &staging.tags[&format!("release-v1.18.{version}")];
        let record = manifest(registry, record)["annotations"]["opencode-devbox.document"].take();
        let record: Value = serde_json::from_str(record.as_str().unwrap()).unwrap();
        for variant in record["variants"].as_array().unwrap() {
            for platform in variant["platforms"].as_array().unwrap() {
                // The verdict of an image that users have stays.
                let list = platform["digest"].as_str().unwrap().replace(':', "-");
                staging.is_whole(&list);
            }
        }
        // `rollback` points base-latest at it.
        public.is_whole(record["base"]["tag"].as_str().unwrap());
        if !recent.contains(version) {
            continue;
        }
        for variant in record["variants"].as_array().unwrap() {
            let key = format!("{}-{}", variant["name"].as_str().unwrap(), variant["key"].as_str().unwrap());
            staging.is_whole(&key);
        }
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
    number: usize,
    keys: &'a BTreeSet<String>,
    /// The manifests of both repositories.
    held: &'a [BTreeSet<String>; 2],
    made: BTreeMap<String, String>,
}

impl Copies<'_> {
    /// Other text for names that a release does not share with another one.
    fn renamed(&self, text: &str) -> String {
        let text = text.replace("1.18.18", &format!("1.18.{}", self.number));
        let key = |text: String, key: &String| {
            text.replace(key, &format!("{:04x}{}", 0xd000 + self.number, &key[4..]))
        };
        self.keys.iter().fold(text, key)
    }

    /// The copy of a manifest, which it stores.
    fn copy(&mut self, digest: &str) -> String {
        if let Some(made) = self.made.get(digest) {
            return made.clone();
        }
        let mut text = String::from_utf8(self.registry.blob(digest).unwrap()).unwrap();
        let known = self.held.iter().flatten();
        let named: Vec<String> =
            known.filter(|it| *it != digest && text.contains(it.as_str())).cloned().collect();
        for other in named {
            text = text.replace(&other, &self.copy(&other));
        }
        let image = format!("\"annotations\":{{\"name\":\"{}-", self.number);
        let text = self.renamed(&text.replace("\"annotations\":{\"name\":\"", &image));
        let made = registry_lab::digest(text.as_bytes());
        self.made.insert(digest.to_owned(), made.clone());
        for (side, held) in ["devbox", "devbox-staging"].iter().zip(self.held) {
            if held.contains(digest) {
                self.registry.put(side, "copy", text.as_bytes());
            }
        }
        made
    }

    fn release(&mut self, tags: &[Tags; 2]) {
        for (repository, tags) in ["devbox", "devbox-staging"].iter().zip(tags) {
            for (tag, digest) in tags.iter().filter(|(tag, _)| !FLOATING.contains(&tag.as_str())) {
                let made = self.copy(digest);
                let tag = match tag.strip_prefix("sha256-") {
                    Some(hex) => self.copy(&format!("sha256:{hex}")).replace(':', "-"),
                    // Attempts are told by their beginning.
                    None if tag.starts_with("promotion-") => {
                        format!("promotion-{:010}{}", self.number, &tag["promotion-0000000000".len()..])
                    }
                    None => self.renamed(tag),
                };
                self.registry.put(repository, &tag, &self.registry.blob(&made).unwrap());
            }
        }
    }
}

/// A registry with a release 1.18.18, where the floating tags are, and copies of it under other versions, each on a base of
/// its own.
fn with_releases(numbers: impl IntoIterator<Item = usize>) -> TestEnv {
    let world = TestEnv::new();
    for line in CHAIN {
        world.ok(line);
    }
    let registry = world.registry();
    let both = ["devbox", "devbox-staging"];
    let (tags, held) = (both.map(|it| registry.tags(it)), both.map(|it| held(registry, it)));
    let key = |tag: &String| {
        let key = tag.rsplit('-').next().unwrap_or_default();
        (key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| key.to_owned())
    };
    let keys: BTreeSet<String> = tags.iter().flat_map(BTreeMap::keys).filter_map(key).collect();
    for number in numbers {
        let made = BTreeMap::new();
        Copies { registry, number, keys: &keys, held: &held, made }.release(&tags);
    }
    for repository in both {
        registry.forget(repository, "copy");
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

/// Thirty releases in an exhaustive run, else a third of them.
#[test]
fn many_releases_are_pruned_to_what_is_needed() {
    let (first, end) = if is_exhaustive() { (1, 32) } else { (13, 24) };
    let numbers: Vec<usize> = (first..18).chain(19..end).collect();
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
    needs_are_met(&world, "devbox", &versions, &[18, end - 3, end - 2, end - 1]);
    for repository in ["devbox", "devbox-staging"] {
        nothing_is_stray(registry, repository, &before);
    }
    let left = registry.tags("devbox-staging");
    let staged = |start: &str| left.keys().filter(|tag| tag.starts_with(start)).count();
    // Four releases keep their staged images, and all with a version tag their bases.
    assert_eq!(
        (staged("omos-with-pi-"), staged("with-pi-"), staged("release-")),
        (4, 4, versions.len()),
        "{left:?}"
    );
    let bases = registry.tags("devbox").into_keys().filter(|tag| tag.starts_with("base-")).count();
    assert_eq!((bases, tags > left.len()), (versions.len() + 1, true));
    assert!(world.notes(PRUNE).contains("nothing to delete"));
}

#[test]
fn an_interrupted_prune_loses_nothing_and_is_completed() {
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
        false => [2, 3, 4, writes - 1].into_iter().chain((0..2).map(|_| random.usize(5..writes))).collect(),
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
fn a_prune_works_with_a_referrers_api_and_lagging_reads() {
    let world = with_releases([14, 15, 16]);
    world.lab().set_referrers(Referrers::Present);
    world.lab().set_deletes(Deletes::Tags);
    world.lab().set_lag(std::time::Duration::from_secs(1));
    world.ok(PRUNE);
    needs_are_met(&world, "devbox", &[14, 15, 16, 18], &[15, 16, 18]);
    world.lab().settle();
    assert!(world.notes(PRUNE).contains("nothing to delete"));
}
