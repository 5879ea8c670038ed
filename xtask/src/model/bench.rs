//! Benchmark results and their presentation: costs, medians, ratios, the tables of `docs/benchmarks.md`. Refuses to
//! fill gaps: a figure without a run is missing, and the tables say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use super::layers::Layer;
use super::platform::Platform;
use super::table::{Kind, Row, Table};

/// A way to build the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Way {
    /// One Dockerfile, variant by variant
    #[value(alias = "a")]
    Original,
    /// A base of its own, the variants' steps on top of it in one bake
    #[value(alias = "b")]
    Plain,
    /// This pipeline: `build-base` and `build`
    #[value(alias = "c")]
    Ours,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Plain => "plain",
            Self::Ours => "ours",
        })
    }
}

/// What is built in a measured step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Everything, on an engine that has nothing.
    Cold,
    /// The next version of opencode, on the engine that built the version before.
    Bump,
    /// The same again.
    Again,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cold => "cold",
            Self::Bump => "bump of opencode",
            Self::Again => "nothing new",
        })
    }
}

/// What one step took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub seconds: f64,
    /// Of the engine, its builds, the registry and this program.
    pub cpu: f64,
    /// Bytes sent to the registry.
    pub pushed: f64,
    pub requests: f64,
    pub writes: f64,
    /// The most that was occupied, in bytes above what was there before the engine was started.
    pub disk: f64,
}

impl Cost {
    fn fields(&self) -> [f64; 6] {
        [self.seconds, self.cpu, self.pushed, self.requests, self.writes, self.disk]
    }

    fn of([seconds, cpu, pushed, requests, writes, disk]: [f64; 6]) -> Self {
        Self { seconds, cpu, pushed, requests, writes, disk }
    }

    /// Of one step after another.
    pub fn then(self, next: Self) -> Self {
        let (a, b) = (self.fields(), next.fields());
        Self { disk: self.disk.max(next.disk), ..Self::of(std::array::from_fn(|i| a[i] + b[i])) }
    }

    /// The median of each figure by itself; `None` of nothing.
    pub fn median(costs: &[Self]) -> Option<Self> {
        let figure = |index: usize| median(costs.iter().map(|cost| cost.fields()[index]).collect());
        (!costs.is_empty()).then(|| Self::of(std::array::from_fn(figure)))
    }
}

/// The middle of these figures, of which there is at least one.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
}

/// The layers of each image of one build, by variant and platform.
pub type Images = BTreeMap<(String, Platform), Vec<Layer>>;

/// What users and registries get from a bump.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The most new layers that an update of one variant downloads, and their bytes.
    pub layers: usize,
    pub bytes: u64,
    /// Distinct compressed bytes of all variants of one platform against its largest variant; the worst platform's.
    pub share: f64,
}

/// Compares the images of two builds. `None` where there is nothing to compare.
pub fn update(old: &Images, new: &Images) -> Option<Update> {
    let sum = |layers: &[Layer]| layers.iter().map(|(_, size)| size).sum::<u64>();
    let mut found = Update { layers: 0, bytes: 0, share: 0.0 };
    for (image, layers) in new {
        let there: BTreeSet<&String> = old.get(image)?.iter().map(|(digest, _)| digest).collect();
        let fresh: Vec<Layer> =
            layers.iter().filter(|(digest, _)| !there.contains(digest)).cloned().collect();
        found.layers = found.layers.max(fresh.len());
        found.bytes = found.bytes.max(sum(&fresh));
    }
    let platforms: BTreeSet<Platform> = new.keys().map(|(_, platform)| *platform).collect();
    for platform in platforms {
        let images = || new.iter().filter(|((_, its), _)| *its == platform).map(|(_, layers)| layers);
        let distinct: BTreeMap<String, u64> = images().flatten().cloned().collect();
        let largest = images().map(|layers| sum(layers)).max()?;
        found.share = found.share.max(distinct.values().sum::<u64>() as f64 / largest as f64);
    }
    (!new.is_empty()).then_some(found)
}

/// Everything that one run measured.
#[derive(Debug, Default)]
pub struct Report {
    pub costs: BTreeMap<(Way, Step), Vec<Cost>>,
    pub updates: BTreeMap<Way, Update>,
    /// Download, unpack, compress and push of a bump's new bytes, in seconds.
    pub floor: Vec<f64>,
}

const UNKNOWN: &str = "not measured";

impl Report {
    pub fn add(&mut self, way: Way, step: Step, cost: Cost) {
        self.costs.entry((way, step)).or_default().push(cost);
    }

    pub fn median(&self, way: Way, step: Step) -> Option<Cost> {
        Cost::median(self.costs.get(&(way, step))?)
    }

    pub fn runs(&self, way: Way, step: Step) -> usize {
        self.costs.get(&(way, step)).map_or(0, Vec::len)
    }

    /// The table of costs, one row for each step of each way.
    pub fn table(&self) -> String {
        let figures =
            ["Runs", "Seconds", "× ours", "CPU seconds", "Pushed MB", "Requests (writes)", "Peak disk MB"];
        let columns = ["Step", "Way"].map(|name| (name, Kind::Text)).into_iter();
        let mut table = Table::new(columns.chain(figures.map(|name| (name, Kind::Number))));
        for step in [Step::Cold, Step::Bump, Step::Again] {
            for way in [Way::Original, Way::Plain, Way::Ours] {
                let names = [step.to_string(), way.to_string()];
                table.add(names.into_iter().chain(self.figures(way, step)));
            }
        }
        table.markdown()
    }

    fn figures(&self, way: Way, step: Step) -> [String; 7] {
        let Some(cost) = self.median(way, step) else {
            return ["0", UNKNOWN, "", "", "", "", ""].map(str::to_owned);
        };
        let ours = self.median(Way::Ours, step);
        [
            self.runs(way, step).to_string(),
            format!("{:.1}", cost.seconds),
            ours.map_or(UNKNOWN.to_owned(), |ours| format!("{:.1}", cost.seconds / ours.seconds)),
            format!("{:.0}", cost.cpu),
            format!("{:.1}", cost.pushed / 1e6),
            format!("{:.0} ({:.0})", cost.requests, cost.writes),
            format!("{:.0}", cost.disk / 1e6),
        ]
    }

    /// What a bump means for those who download it, one row for each way.
    pub fn updates(&self) -> String {
        let mut table = Table::new([
            ("Way", Kind::Text),
            ("New layers of a variant, at most", Kind::Number),
            ("Their MB", Kind::Number),
            ("Distinct bytes of all variants ÷ largest variant", Kind::Number),
        ]);
        for way in [Way::Original, Way::Plain, Way::Ours] {
            let figures = self.updates.get(&way).map_or([UNKNOWN, "", ""].map(str::to_owned), |it| {
                [it.layers.to_string(), format!("{:.1}", it.bytes as f64 / 1e6), format!("{:.3}", it.share)]
            });
            table.add([way.to_string()].into_iter().chain(figures));
        }
        table.markdown()
    }

    /// The bump against the least that any way has to do.
    pub fn floor(&self) -> String {
        let costs: Vec<Cost> =
            self.floor.iter().map(|&seconds| Cost { seconds, ..Cost::default() }).collect();
        match (Cost::median(&costs), self.median(Way::Ours, Step::Bump)) {
            (Some(floor), Some(bump)) => format!(
                "Floor of the bump (download, unpack, compress and push of the new bytes, platforms side by side, \
                 median of {}): {:.1} s. Ours takes {:.1} times as long.\n",
                costs.len(),
                floor.seconds,
                bump.seconds / floor.seconds
            ),
            _ => format!("Floor of the bump: {UNKNOWN}.\n"),
        }
    }
}

/// What one compression of the same image means.
#[derive(Clone, Debug, Serialize)]
pub struct Compressed {
    pub name: String,
    pub bytes: u64,
    /// Compressing and pushing, pulling and unpacking, the first start of opencode.
    pub push: f64,
    pub pull: f64,
    pub start: f64,
}

impl Row for Compressed {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("Compression", Kind::Text),
        ("MB", Kind::Number),
        ("Compress and push, s", Kind::Number),
        ("Pull and unpack, s", Kind::Number),
        ("First start, s", Kind::Number),
    ];

    fn cells(&self) -> Vec<String> {
        let figures = [self.bytes as f64 / 1e6, self.push, self.pull, self.start];
        [self.name.clone()].into_iter().chain(figures.map(|figure| format!("{figure:.1}"))).collect()
    }
}

/// A layer of the base after an update of a few packages.
#[derive(Clone, Debug, Serialize)]
pub struct Refreshed {
    pub name: String,
    pub bytes: u64,
    /// Its digest changed, so a user downloads it again.
    pub is_downloaded: bool,
}

impl Row for Refreshed {
    const COLUMNS: &'static [(&'static str, Kind)] =
        &[("Layer", Kind::Text), ("MB", Kind::Number), ("Downloaded again, MB", Kind::Number)];

    fn cells(&self) -> Vec<String> {
        let mb = format!("{:.1}", self.bytes as f64 / 1e6);
        let again = if self.is_downloaded { mb.clone() } else { "0".to_owned() };
        vec![self.name.clone(), mb, again]
    }
}

/// All layers of a base as one line.
pub fn all_layers(layers: &[Refreshed]) -> String {
    let mb =
        |layers: &mut dyn Iterator<Item = &Refreshed>| layers.map(|it| it.bytes).sum::<u64>() as f64 / 1e6;
    let (all, again) = (mb(&mut layers.iter()), mb(&mut layers.iter().filter(|it| it.is_downloaded)));
    format!("A user downloads {again:.1} of {all:.1} MB.\n")
}

/// Debian packages that the base installs: the words between `apt install` and the next command of its Dockerfile.
pub fn packages(dockerfile: &str) -> Option<String> {
    let (_, rest) = dockerfile.split_once("\napt install -y --no-install-recommends \\\n")?;
    let mut words = Vec::new();
    for line in rest.lines() {
        words.extend(line.trim_end_matches('\\').split_whitespace());
        if !line.ends_with('\\') {
            return Some(words.join(" "));
        }
    }
    None
}

/// One image of the plain way, as bake takes it.
pub fn plain_target(context: &str, args: &BTreeMap<String, String>, tag: &str, secrets: &[String]) -> Value {
    json!({
        "context": context,
        "dockerfile": "bench/Dockerfile",
        "target": "npm",
        "args": args,
        "tags": [tag],
        "secret": secrets,
        "output": ["type=image,push=true,store=false"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(seconds: f64, disk: f64) -> Cost {
        Cost { seconds, disk, ..Cost::default() }
    }

    #[test]
    fn medians_and_sums_are_taken_by_figure() {
        let costs = [cost(5.0, 1.0), cost(1.0, 9.0), cost(3.0, 2.0)];
        assert_eq!(Cost::median(&costs), Some(cost(3.0, 2.0)));
        assert_eq!(Cost::median(&costs[..2]), Some(cost(3.0, 5.0)));
        assert_eq!(Cost::median(&[]), None);
        assert_eq!(costs[0].then(costs[1]), cost(6.0, 9.0));
    }

    #[test]
    fn what_was_not_measured_is_said_so() {
        let mut report = Report::default();
        for seconds in [30.0, 20.0, 40.0] {
            report.add(Way::Ours, Step::Bump, cost(seconds, 2e6));
        }
        report.add(Way::Plain, Step::Bump, cost(90.0, 3e6));
        report.floor.push(20.0);
        let table = report.table();
        assert!(
            table.contains("| bump of opencode | ours | 3 | 30.0 | 1.0 | 0 | 0.0 | 0 (0) | 2 |"),
            "{table}"
        );
        assert!(table.contains("| bump of opencode | plain | 1 | 90.0 | 3.0 |"), "{table}");
        assert!(table.contains("| bump of opencode | original | 0 | not measured |"), "{table}");
        assert!(report.floor().contains("20.0 s. Ours takes 1.5 times"), "{}", report.floor());
        assert!(Report::default().floor().contains(UNKNOWN));
        assert!(report.updates().contains("| ours | not measured |"));
    }

    #[test]
    fn an_update_is_what_is_new_in_the_worst_variant() {
        let layer = |name: &str, size| (name.to_owned(), size);
        let key = |name: &str| (name.to_owned(), Platform::LinuxAmd64);
        let old = Images::from([
            (key("base"), vec![layer("b", 500), layer("o1", 50)]),
            (key("omos"), vec![layer("b", 500), layer("o1", 50), layer("m", 20)]),
        ]);
        let mut new = old.clone();
        for layers in new.values_mut() {
            layers[1] = layer("o2", 60);
        }
        assert_eq!(update(&old, &new), Some(Update { layers: 1, bytes: 60, share: 1.0 }));
        // A layer that is rebuilt after the changed one is downloaded again, and nothing is shared.
        new.insert(key("omos"), vec![layer("b", 500), layer("o3", 60), layer("m2", 20)]);
        let found = update(&old, &new).expect("two builds");
        assert_eq!((found.layers, found.bytes), (2, 80));
        assert!((found.share - 640.0 / 580.0).abs() < 1e-9);
        assert_eq!(update(&Images::new(), &new), None);
    }

    #[test]
    fn the_bases_packages_are_read_from_its_dockerfile() {
        let dockerfile = include_str!("../../../images/Dockerfile.base");
        let words = packages(dockerfile).expect("one list of packages");
        assert!(words.starts_with("awscli ") && words.ends_with(" zstd") && !words.contains('\\'), "{words}");
        assert_eq!(packages("RUN true"), None);
    }

    #[test]
    fn bytes_are_told_in_millions() {
        let mut report = Report::default();
        report.updates.insert(Way::Ours, Update { layers: 1, bytes: 57_900_000, share: 1.0 });
        assert!(report.updates().contains("| ours | 1 | 57.9 | 1.000 |"), "{}", report.updates());
        let row = Compressed { name: "gzip".to_owned(), bytes: 57_900_000, push: 3.0, pull: 2.0, start: 1.0 };
        assert!(Table::of(&[row]).markdown().ends_with("|\n| gzip | 57.9 | 3.0 | 2.0 | 1.0 |\n"));
    }

    #[test]
    fn a_refresh_counts_the_layers_that_changed() {
        let row =
            |name: &str, bytes, is_downloaded| Refreshed { name: name.to_owned(), bytes, is_downloaded };
        let rows = [row("Go", 64_000_000, false), row("the other packages", 46_400_000, true)];
        let table = "| Go | 64.0 | 0 |\n| the other packages | 46.4 | 46.4 |\n";
        assert!(Table::of(&rows).markdown().ends_with(table));
        assert_eq!(all_layers(&rows), "A user downloads 46.4 of 110.4 MB.\n");
    }

    #[test]
    fn the_plain_way_pushes_one_image_for_each_target() {
        let target = plain_target(
            "/c",
            &BTreeMap::new(),
            "localhost/x:base",
            &["type=file,id=ca,src=/ca.crt".to_owned()],
        );
        assert_eq!((&target["tags"], &target["target"]), (&json!(["localhost/x:base"]), &json!("npm")));
        assert_eq!(target["secret"], json!(["type=file,id=ca,src=/ca.crt"]));
    }
}
