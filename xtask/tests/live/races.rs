//! Two releases at once: with the same release tag, of the same and of other images, and with different release tags; on
//! slow and lagging registries, with clocks that differ, and with a run that was stopped for longer than its lease.
//! Afterwards `repair` ends, the floating tags are at one release, and no version tag has moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use registry_lab::{Client, Delay, Fault, Lab, Lag, Registry, Rule};

use crate::crash::{Bench, FLOATING, STAGE, is_exhaustive};
use crate::support::releases::{moved_versions, open_attempts, put_debian};

const SEED: u64 = 20261130;

/// Races of a run of all tests, and of an exhaustive one.
const SAMPLE: usize = 20;
const ALL: usize = 200;

/// The trees of the two releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trees {
    Same,
    /// One release tag for other images.
    OtherImages,
    OtherRelease,
}

#[derive(Debug)]
struct Race {
    number: usize,
    trees: Trees,
    /// How much later the second one starts.
    offset: Duration,
    delay: Duration,
    lag: Duration,
    /// How far the registry's clock is ahead for the second one, in seconds.
    skew: i64,
    /// A fault of the first one.
    fault: Option<(&'static str, Fault)>,
}

/// A registry in which v1.18.18 is out, and three trees are staged and tested.
fn prepare() -> Arc<Registry> {
    let registry = Registry::start();
    put_debian(&registry);
    let lab = Lab::before(&registry);
    let bench = Bench::new(&lab, "race/devbox");
    assert_eq!(bench.phases(&lab, 0..8), None);
    for tree in 0..3 {
        let bench = Bench::new(&lab, "race/devbox");
        change(&bench, tree);
        assert_eq!(bench.phases(&lab, STAGE), None);
    }
    registry
}

/// The trees by number: v1.18.19, other images of v1.18.19, v1.18.20.
fn change(bench: &Bench, tree: usize) {
    bench.version("1.18.18", if tree == 2 { "1.18.20" } else { "1.18.19" });
    if tree == 1 {
        let file = bench.world.root.join("images/fetch-component");
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "# changed\n").unwrap();
    }
}

struct Site {
    registry: Arc<Registry>,
    lab: Lab,
    second: Client,
    first_bench: Bench,
    /// The second run's trees.
    benches: [Bench; 3],
}

impl Site {
    fn new(registry: &Arc<Registry>) -> Self {
        let lab = Lab::before(registry);
        let second = lab.client();
        let first_bench = Bench::new(&lab, "");
        change(&first_bench, 0);
        let benches = [0, 1, 2].map(|tree| {
            let bench = Bench::new(&second, "");
            change(&bench, tree);
            bench
        });
        Self { registry: registry.clone(), lab, second, first_bench, benches }
    }

    /// Plays a race and returns which of the runs reported success, or what went wrong.
    fn play(&mut self, race: &Race) -> Result<&'static str, String> {
        let name = format!("race-{}-{}", race.number, race.skew);
        self.registry.copy("race", &name);
        let path = format!("{name}/devbox");
        let tree =
            [Trees::Same, Trees::OtherImages, Trees::OtherRelease].iter().position(|it| *it == race.trees);
        let bench = &mut self.benches[tree.unwrap()];
        (self.first_bench.world.path, bench.world.path) = (path.clone(), path.clone());
        let seed = race.number as u64;
        self.lab.set_delay(Delay::random(seed, Duration::ZERO, race.delay));
        self.second.set_delay(Delay::random(seed + 1, Duration::ZERO, race.delay));
        self.lab.set_lag(Lag::random(seed, Duration::ZERO, race.lag));
        self.second.set_clock_skew(race.skew);
        self.lab.arm(race.fault.iter().map(|(at, fault)| Rule::on(at, *fault).nth(1)));
        self.second.arm([]);
        let tag = if race.trees == Trees::OtherRelease { "v1.18.20" } else { "v1.18.19" };
        let (lab, client, first) = (&self.lab, &self.second, &self.first_bench);
        let publish = |bench: &Bench, client: &Client, tag: &str| {
            bench.run(client, &format!("publish --promote-latest --release-tag {tag}"))
        };
        let results = thread::scope(|scope| {
            let one = scope.spawn(|| publish(first, lab, "v1.18.19"));
            thread::sleep(race.offset);
            let two = publish(bench, client, tag);
            [one.join().unwrap(), two]
        });
        self.lab.set_delay(Duration::ZERO);
        self.second.set_delay(Duration::ZERO);
        let check = self.check(race, &path, &results);
        self.lab.settle();
        self.registry.remove(&name);
        match check {
            Ok(()) => Ok(match results.each_ref().map(Option::is_none) {
                [true, true] => "both",
                [true, false] => "the first",
                [false, true] => "the second",
                [false, false] => "none",
            }),
            Err(why) => Err(format!("{race:?}: {why}\nfirst: {:?}\nsecond: {:?}", results[0], results[1])),
        }
    }

    /// Both have ended: what is left is repaired by the first one's machine.
    fn check(&self, race: &Race, path: &str, results: &[Option<String>; 2]) -> Result<(), String> {
        if race.trees == Trees::OtherImages && results.iter().all(Option::is_none) {
            return Err("both report success for one version tag with other images".to_owned());
        }
        if let Some(text) = self.first_bench.run(&self.lab, "repair") {
            return Err(format!("repair failed: {text}"));
        }
        let output = self.first_bench.output(&self.lab, "repair", &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        if !text.contains("nothing to repair") {
            return Err(format!("repair does not end: {text}"));
        }
        let moved = moved_versions(&self.registry, path);
        if !moved.is_empty() {
            return Err(format!("version tags have moved: {moved:?}"));
        }
        let open = open_attempts(&self.registry, path);
        if !open.is_empty() {
            return Err(format!("attempts are open: {open:?}"));
        }
        // Each floating tag is at the image of some version tag, and all at one release.
        let tags = self.registry.tags(path);
        let releases: BTreeSet<Vec<&str>> = FLOATING[..4]
            .iter()
            .map(|floating| {
                let suffix = floating.trim_start_matches("latest");
                let at = |release: &&str| tags.get(&format!("{release}{suffix}")) == tags.get(*floating);
                ["v1.18.18", "v1.18.19", "v1.18.20"].into_iter().filter(at).collect()
            })
            .collect();
        match releases.len() == 1 && !releases.contains(&Vec::new()) {
            true => Ok(()),
            false => Err(format!("the floating tags are mixed: {releases:?} {tags:?}")),
        }
    }
}

/// Plays races side by side and prints how many; fails with all that went wrong.
fn play_all(races: &[Race]) {
    let registry = prepare();
    let (next, failures, start) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    let winners: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..6.min(races.len()) {
            scope.spawn(|| {
                let mut site = Site::new(&registry);
                while let Some(race) = races.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match site.play(race) {
                        Ok(winner) => *winners.lock().unwrap().entry(winner).or_default() += 1,
                        Err(error) => {
                            println!("{error}\n");
                            failures.lock().unwrap().push(error);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let (seconds, winners) = (start.elapsed().as_secs(), winners.into_inner().unwrap());
    println!("{} races, {} failed, {seconds} s; success by {winners:?}", races.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn random_race(number: usize, random: &mut Rng) -> Race {
    let trees = [Trees::Same, Trees::OtherImages, Trees::OtherRelease][number % 3];
    let milliseconds = |most: u64, random: &mut Rng| Duration::from_millis(random.u64(..=most));
    Race {
        number,
        trees,
        offset: milliseconds(3000, random),
        delay: milliseconds(150, random),
        lag: if random.u8(..3) == 0 { milliseconds(3000, random) } else { Duration::ZERO },
        skew: 0,
        fault: None,
    }
}

#[test]
fn two_releases_at_once_never_leave_a_mixture() {
    let mut random = Rng::with_seed(SEED);
    let races: Vec<Race> = (0..ALL).map(|number| random_race(number, &mut random)).collect();
    play_all(&races[..if is_exhaustive() { ALL } else { SAMPLE }]);
}

/// To one of the two machines the registry's clock is ten minutes ahead or behind.
#[test]
fn clocks_that_differ_never_leave_a_mixture() {
    let mut random = Rng::with_seed(SEED);
    let races: Vec<Race> = (0..if is_exhaustive() { 60 } else { 6 })
        .map(|number| {
            let skew = if number % 2 == 0 { 600 } else { -600 };
            Race { skew, ..random_race(number, &mut random) }
        })
        .collect();
    play_all(&races);
}

/// The first run is stopped after one of its writes, and goes on when the second one has had its lease for a while: the
/// lease has expired by the second one's clock, and in an exhaustive run by that of everybody.
#[test]
fn a_run_that_was_stopped_does_not_go_on_without_its_lease() {
    let mut random = Rng::with_seed(SEED);
    let points = [
        "PUT */devbox-staging/manifests/promotion-*",
        "PUT */devbox/manifests/v1.18.19",
        "PUT */devbox/manifests/v1.18.19-with-pi",
        "PUT */devbox/manifests/latest",
        "PUT */devbox/manifests/latest-with-pi",
        "PUT */devbox/manifests/latest-omos-with-pi",
    ];
    let times = if is_exhaustive() { vec![(12, 400), (320, 0)] } else { vec![(12, 400)] };
    let mut races = Vec::new();
    for (seconds, skew) in times {
        for at in points {
            let race = random_race(races.len(), &mut random);
            let fault = Some((at, Fault::PauseAfter(Duration::from_secs(seconds))));
            // With everybody's clock the second one starts when the lease is over.
            let offset = Duration::from_secs(if skew == 0 { 308 } else { 4 });
            races.push(Race { offset, delay: Duration::ZERO, skew, fault, ..race });
        }
    }
    play_all(&races);
}
