//! A release that meets a fault at every single write, before real registries with and without lagging reads: afterwards
//! no floating tag mixes releases, no version tag has moved, no attempt is open, `repair` ends, and a rerun ends in the
//! same digests.
//!
//! The registry and crane are the real ones. Images are tiny, and pushed by a stand-in for docker. Each case begins with
//! a copy of a registry in which everything before its own phases is done. `cargo xtask test` plays a sample with a fixed
//! seed, `cargo xtask test --exhaustive` all cases.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use registry_lab::{Client, Fault, Lab, Registry, RetryAfter, Rule, Tags};

use crate::support::env::TestEnv;
use crate::support::releases::{CHAIN, moved_versions, open_attempts, put_debian};

pub const FLOATING: [&str; 5] =
    ["latest", "latest-omos", "latest-with-pi", "latest-omos-with-pi", "base-latest"];

/// What precedes the promotion, and the promotion.
pub const STAGE: std::ops::Range<usize> = 0..6;
const PROMOTE: std::ops::Range<usize> = 6..8;

const SEED: u64 = 20261130;

/// Cases that a run of all tests plays; most of the time of a case is spent waiting, the rest computing.
const SAMPLE: usize = 90;

/// Cases side by side: most wait for a retry or a lag, hence many more than processors.
const SIDE_BY_SIDE: usize = 40;

pub fn is_exhaustive() -> bool {
    std::env::var("DEVBOX_TEST_EXHAUSTIVE").is_ok_and(|value| value == "1")
}

/// A tree at a client of a lab.
pub struct Bench {
    pub world: TestEnv,
}

impl Bench {
    pub fn new(client: &Client, path: &str) -> Self {
        Self { world: TestEnv::before(client.host(), path) }
    }

    /// The release after the seeded one: a new base and new variants.
    fn bump(&self) {
        fs::write(self.world.root.join("rootfs/etc/devbox-test"), "changed\n").unwrap();
        self.version("1.18.18", "1.18.19");
    }

    pub fn version(&self, from: &str, to: &str) {
        let file = self.world.root.join("images/Dockerfile.variant");
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(from, to)).unwrap();
    }

    /// Runs phases until one fails; returns its output, or nothing if all went well.
    pub fn phases(&self, client: &Client, range: std::ops::Range<usize>) -> Option<String> {
        CHAIN[range].iter().find_map(|line| self.run(client, line))
    }

    /// Runs a command line; returns its output if it failed.
    pub fn run(&self, client: &Client, line: &str) -> Option<String> {
        let output = self.output(client, line, &[]);
        (!output.status.success()).then(|| format!("{line}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    pub fn output(&self, client: &Client, line: &str, env: &[(&str, &str)]) -> Output {
        let mut command = self.world.command(line);
        command.env("DEVBOX_HTTP_TIMEOUT", "4").env("DEVBOX_STALL_SECONDS", "6").process_group(0);
        let child =
            command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        client.set_process_group(child.id());
        child.wait_with_output().unwrap()
    }
}

/// True if the floating tags are all at the old or all at the new release. `base-latest` follows the others.
fn is_whole(tags: &Tags, old: &Tags, new: &Tags) -> bool {
    let at = |all: &Tags| FLOATING[..4].iter().all(|tag| tags.get(*tag) == all.get(*tag));
    at(old) || at(new)
}

#[derive(Clone, Debug)]
struct Case {
    /// The phases that the fault meets.
    phases: std::ops::Range<usize>,
    /// The write that it strikes, and how many from there on: once, or until all tries are used up.
    write: usize,
    times: usize,
    fault: Fault,
    lag: u64,
    /// Repairs from the journal alone before the tree is asked again.
    repairs: bool,
}

impl Case {
    fn name(&self) -> String {
        let phase = if self.phases == PROMOTE { "promote" } else { "stage" };
        format!("{phase}-{}-{}-x{}-lag{}", self.write, self.fault, self.times, self.lag)
    }
}

/// Registries at the beginning of each kind of case, and where all cases have to end.
struct Stage {
    registry: Arc<Registry>,
    old: Tags,
    new: Tags,
    /// Writes of the phases before the promotion, and of the promotion.
    writes: [usize; 2],
}

/// The second release up to its verdicts, on top of the first one.
fn prepare() -> Stage {
    let registry = Registry::start();
    put_debian(&registry);
    let lab = Lab::before(&registry);
    let mut bench = Bench::new(&lab, "seed/devbox");
    assert_eq!(bench.phases(&lab, 0..8), None);
    let old = registry.tags("seed/devbox");
    registry.copy("seed", "staged");
    bench.bump();
    bench.world.path = "staged/devbox".to_owned();
    lab.arm([]);
    assert_eq!(bench.phases(&lab, STAGE), None);
    let staging = lab.counts().writes;
    registry.copy("staged", "reference");
    bench.world.path = "reference/devbox".to_owned();
    lab.arm([]);
    assert_eq!(bench.phases(&lab, PROMOTE), None);
    let promoting = lab.counts().writes;
    let new = with_signatures(registry.tags("reference/devbox"));
    assert!(FLOATING.iter().all(|tag| old[*tag] != new[*tag]), "a bump moves every floating tag");
    lab.arm([]);
    assert_eq!(bench.phases(&lab, 0..8), None);
    assert_eq!(lab.counts().writes, 0, "a finished release writes nothing");
    println!("writes: {staging} before the promotion, {promoting} of it");
    Stage { registry, old, new, writes: [staging, promoting] }
}

/// Every crash point with every fault and lag. What takes minutes to wait for is played at fewer points.
fn cases(writes: [usize; 2]) -> Vec<Case> {
    let later = |seconds| Fault::RetryLater(429, RetryAfter::Seconds(seconds));
    let faults = [
        (Fault::KillAfter, 1),
        (Fault::Status(429), 1),
        (later(1), 1),
        (later(8), 2),
        (later(60), 6),
        (Fault::Status(500), 1),
        (Fault::Reset, 1),
        (Fault::Lost, 1),
        (Fault::Silence, 1),
    ];
    let (mut random, mut cases) = (Rng::with_seed(SEED), Vec::new());
    for (phases, writes) in [STAGE, PROMOTE].into_iter().zip(writes) {
        for (lag, rarely) in [(0, 1), (2, 1), (20, 6)] {
            for (fault, every) in &faults {
                let stride = (rarely * every).min(writes);
                let points = (1 + random.usize(..stride)..=writes).step_by(stride);
                cases.extend(points.map(|write| {
                    let times = if *fault == Fault::KillAfter || random.bool() { 1 } else { 6 };
                    let (phases, fault, repairs) = (phases.clone(), *fault, random.bool());
                    Case { phases, write, times, fault, lag, repairs }
                }));
            }
        }
    }
    cases
}

/// Some of each fault and lag, most of them in the promotion.
fn sample(all: Vec<Case>) -> Vec<Case> {
    let mut random = Rng::with_seed(SEED);
    let mut groups: BTreeMap<(String, u64, bool), Vec<Case>> = BTreeMap::new();
    // A lag beside minutes of waiting for each write would take most of the time of a sample.
    for case in all.into_iter().filter(|case| case.lag < 20 || !case.fault.to_string().ends_with("60s")) {
        let key = (case.fault.to_string(), case.lag, case.phases == PROMOTE);
        groups.entry(key).or_default().push(case);
    }
    let mut cases = Vec::new();
    for (key, group) in &mut groups {
        random.shuffle(group);
        // What takes minutes to wait for is played in the promotion only.
        let (is_long, is_promotion) = (key.1 == 20 || key.0.ends_with("60s"), key.2);
        cases.extend(group.pop().filter(|_| is_promotion || !is_long));
    }
    let quick = |key: &&(String, u64, bool)| key.1 < 20 && !key.0.ends_with("60s") && !key.0.ends_with("8s");
    let weight = |key: &(String, u64, bool)| if key.2 { 3 } else { 1 };
    let keys: Vec<_> =
        groups.keys().filter(quick).flat_map(|key| std::iter::repeat_n(key.clone(), weight(key))).collect();
    while cases.len() < SAMPLE {
        let key = random.choice(&keys).unwrap();
        cases.extend(groups.get_mut(key).unwrap().pop());
    }
    cases
}

/// Signatures have other bytes each time, so of the tags that list them only the names count.
fn with_signatures(tags: Tags) -> Tags {
    let digest = |name: &str, digest| if name.starts_with("sha256-") { String::new() } else { digest };
    tags.into_iter().map(|(name, it)| (name.clone(), digest(&name, it))).collect()
}

/// Plays one case and returns what went wrong.
fn play(stage: &Stage, lab: &Lab, bench: &mut Bench, case: &Case) -> Result<(), String> {
    let (registry, name) = (&stage.registry, case.name());
    registry.copy(if case.phases == PROMOTE { "staged" } else { "seed" }, &name);
    bench.world.path = format!("{name}/devbox");
    lab.set_lag(Duration::from_secs(case.lag));
    // A machine that has read nothing before.
    let _ = fs::remove_dir_all(bench.world.root.join(".devbox"));
    let rule = match case.times {
        1 => Rule::at_write(case.write, case.fault),
        times => Rule::at_write(case.write, case.fault).times(times),
    };
    lab.arm([rule]);
    let first = bench.phases(lab, case.phases.clone());
    lab.arm([]);
    let path = bench.world.path.clone();
    let check = |when: &str, whole: bool| {
        let (tags, moved) = (registry.tags(&path), moved_versions(registry, &path));
        if !moved.is_empty() {
            return Err(format!("{when}: version tags have moved: {moved:?}\nafter: {first:?}"));
        }
        if whole && !is_whole(&tags, &stage.old, &stage.new) {
            return Err(format!("{when}: floating tags mix releases: {tags:?}\nafter: {first:?}"));
        }
        Ok(())
    };
    // A run that could still act has left a whole set, or said that it could not.
    let told = first.as_ref().is_some_and(|text| text.contains("half promoted"));
    check("after the fault", case.fault != Fault::KillAfter && !told)?;
    if case.repairs {
        if let Some(text) = bench.run(lab, "repair") {
            return Err(format!("repair failed: {text}\nafter: {first:?}"));
        }
        check("after repair", true)?;
    }
    if let Some(text) = bench.phases(lab, case.phases.start..8) {
        return Err(format!("the rerun failed: {text}\nafter: {first:?}"));
    }
    check("after the rerun", true)?;
    if with_signatures(registry.tags(&path)) != stage.new {
        return Err(format!("the rerun ends elsewhere: {:?}", registry.tags(&path)));
    }
    let open = open_attempts(registry, &path);
    if !open.is_empty() {
        return Err(format!("an attempt is left open: {open:?}\nafter: {first:?}"));
    }
    let output = bench.output(lab, "repair", &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !text.contains("nothing to repair") {
        return Err(format!("repair does not end: {text}\nafter: {first:?}"));
    }
    lab.settle();
    registry.remove(&name);
    Ok(())
}

#[test]
fn a_release_survives_a_fault_at_any_write() {
    let stage = prepare();
    let all = cases(stage.writes);
    let total = all.len();
    let mut cases = if is_exhaustive() { all } else { sample(all) };
    if let Ok(only) = std::env::var("CRASH_ONLY") {
        cases.retain(|case| case.name().starts_with(&only));
    }
    // The longest first.
    cases.sort_by_key(|case| std::cmp::Reverse((case.lag, case.fault.to_string().ends_with("60s"))));
    let (next, failures, start) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(cases.len()) {
            scope.spawn(|| {
                let lab = Lab::before(&stage.registry);
                let mut bench = Bench::new(&lab, "");
                bench.bump();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if std::env::var_os("CRASH_PROGRESS").is_some() {
                        println!("{} s: {}", start.elapsed().as_secs(), case.name());
                    }
                    if let Err(error) = play(&stage, &lab, &mut bench, case) {
                        let text = format!("{} repair {}: {error}", case.name(), case.repairs);
                        println!("{text}\n");
                        failures.lock().unwrap().push(text);
                    }
                    let done = done.fetch_add(1, Ordering::SeqCst) + 1;
                    if done.is_multiple_of(10) {
                        println!("{done} of {} cases, {} s", cases.len(), start.elapsed().as_secs());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    println!(
        "{} crash points, {} of {total} cases, {} failed, {} s",
        stage.writes.iter().sum::<usize>(),
        cases.len(),
        failures.len(),
        start.elapsed().as_secs()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
