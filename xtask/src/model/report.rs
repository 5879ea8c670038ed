//! The report of a release as one page of HTML that refers to nothing outside of itself. Everything that it shows is escaped
//! by the template's engine; what a picture shows is in a table as well.

use std::collections::BTreeMap;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::progress::clock;
use super::treemap::{Area, squarified};

const TEMPLATE: &str = include_str!("../../templates/report.html");

/// A layer's parts that are drawn one by one; the smaller ones are one tile.
const PARTS: usize = 40;

/// Groups of tiles that have a pattern of their own in the page.
const GROUPS: usize = 6;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub release: String,
    pub repository: String,
    /// When it was released, in words.
    pub released: String,
    pub images: Vec<ImageRow>,
    pub spans: Vec<Span>,
    pub sizes: Vec<Sizes>,
    pub changes: Option<Changes>,
    pub grid: Grid,
    pub phases: Vec<(String, f64)>,
    pub requests: Vec<Requests>,
    pub provenance: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
pub struct ImageRow {
    pub variant: String,
    pub platform: String,
    pub tag: String,
    pub mb: String,
    pub built: String,
    pub smoke: String,
    pub digest: String,
}

/// Something that took time, in seconds since 1970.
#[derive(Clone, Debug, Serialize)]
pub struct Span {
    pub what: String,
    pub begin: u64,
    pub end: u64,
}

/// The layers of one image, with what is in them where that was read.
#[derive(Debug, Serialize)]
pub struct Sizes {
    pub image: String,
    pub layers: Vec<LayerSize>,
}

#[derive(Debug, Serialize)]
pub struct LayerSize {
    pub name: String,
    /// Compressed.
    pub bytes: u64,
    /// Uncompressed bytes by package or folder.
    pub parts: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Changes {
    pub since: String,
    pub versions: Vec<Change>,
    /// Nothing where they were not recorded for both.
    pub packages: Option<Vec<Change>>,
    pub layers: Vec<Change>,
    /// Nothing where the layers were not read.
    pub files: Option<Vec<FileChange>>,
    pub images: Vec<ImageChange>,
}

/// Something with its value before and after; a dash stands for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub name: String,
    pub before: String,
    pub after: String,
}

#[derive(Debug, Serialize)]
pub struct FileChange {
    pub layer: String,
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
}

#[derive(Debug, Serialize)]
pub struct ImageChange {
    pub image: String,
    pub mb_before: String,
    pub mb_after: String,
    pub seconds_before: String,
    pub seconds_after: String,
}

/// The verdict on each check of each image.
#[derive(Debug, Default, Serialize)]
pub struct Grid {
    pub images: Vec<String>,
    /// Releases of the history, the newest first.
    pub releases: Vec<String>,
    pub rows: Vec<GridRow>,
}

#[derive(Debug, Serialize)]
pub struct GridRow {
    pub check: String,
    /// For each image: passed, and where if not on that image.
    pub cells: Vec<Option<Cell>>,
    /// For each release of the history, on how many images it passed and on how many it was judged.
    pub history: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    pub passed: bool,
    /// The variant that it ran on, if not this image.
    pub from: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Requests {
    pub host: String,
    pub requests: usize,
    pub writes: usize,
}

/// What the template gets.
#[derive(Serialize)]
struct Context<'a> {
    report: &'a Report,
    bars: Vec<Bar>,
    whole: String,
    treemaps: Vec<Treemap>,
}

/// A line of the timeline, placed in percent of the whole.
#[derive(Serialize)]
struct Bar {
    what: String,
    begin: String,
    took: String,
    left: String,
    width: String,
}

/// A picture of an image's layers, in two shapes: for wide and for narrow pages.
#[derive(Serialize)]
struct Treemap {
    image: String,
    total: String,
    shapes: Vec<Shape>,
    rows: Vec<TileRow>,
}

#[derive(Serialize)]
struct Shape {
    class: &'static str,
    width: f64,
    height: f64,
    tiles: Vec<Tile>,
}

#[derive(Serialize)]
struct Tile {
    x: String,
    y: String,
    width: String,
    height: String,
    label: String,
    title: String,
    group: usize,
    /// It is a layer, around its parts.
    frame: bool,
}

#[derive(Serialize)]
struct TileRow {
    name: String,
    mb: String,
    percent: String,
    parts: Vec<(String, String)>,
}

impl Report {
    /// The page.
    pub fn html(&self) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template("report", TEMPLATE)?;
        let treemaps: Vec<Treemap> = self.sizes.iter().map(treemap).collect();
        let (bars, whole) = timeline(&self.spans);
        let context = Context { report: self, bars, whole, treemaps };
        let html = environment.get_template("report")?.render(minijinja::value::Serde(&context))?;
        // A line of the template that only decides leaves an empty one.
        Ok(html.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect())
    }
}

/// The bars of the timeline in the order of their beginnings, and what all of it took.
fn timeline(spans: &[Span]) -> (Vec<Bar>, String) {
    let mut spans = spans.to_vec();
    spans.sort_by(|a, b| (a.begin, a.end, &a.what).cmp(&(b.begin, b.end, &b.what)));
    let first = spans.iter().map(|span| span.begin).min().unwrap_or(0);
    let last = spans.iter().map(|span| span.end).max().unwrap_or(0);
    let whole = last.saturating_sub(first).max(1);
    let percent = |seconds: u64| format!("{:.2}", seconds as f64 * 100.0 / whole as f64);
    let bar = |span: &Span| Bar {
        what: span.what.clone(),
        begin: clock(span.begin - first),
        took: clock(span.end.saturating_sub(span.begin)),
        left: percent(span.begin - first),
        width: percent(span.end.saturating_sub(span.begin)),
    };
    (spans.iter().map(bar).collect(), clock(whole))
}

fn mb(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}

/// A layer's parts with their share of its compressed bytes, the largest first, the small ones as one.
fn shares(layer: &LayerSize) -> Vec<(String, f64)> {
    let sum: u64 = layer.parts.values().sum();
    if sum == 0 {
        return Vec::new();
    }
    let share = |bytes: u64| bytes as f64 * layer.bytes as f64 / sum as f64;
    let mut all: Vec<(String, f64)> =
        layer.parts.iter().map(|(name, bytes)| (name.clone(), share(*bytes))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if all.len() > PARTS {
        let rest: f64 = all.drain(PARTS..).map(|(_, bytes)| bytes).sum();
        all.push(("smaller parts".to_owned(), rest));
    }
    all
}

fn treemap(sizes: &Sizes) -> Treemap {
    let mut layers: Vec<&LayerSize> = sizes.layers.iter().collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.bytes));
    let total: u64 = layers.iter().map(|layer| layer.bytes).sum();
    let row = |layer: &&LayerSize| TileRow {
        name: layer.name.clone(),
        mb: mb(layer.bytes as f64),
        percent: format!("{:.1}", layer.bytes as f64 * 100.0 / total.max(1) as f64),
        parts: shares(layer).into_iter().take(8).map(|(name, bytes)| (name, mb(bytes))).collect(),
    };
    let shape = |class, width, height| Shape { class, width, height, tiles: tiles(&layers, width, height) };
    Treemap {
        image: sizes.image.clone(),
        total: mb(total as f64),
        shapes: vec![shape("wide", 1000.0, 480.0), shape("tall", 360.0, 640.0)],
        rows: layers.iter().map(row).collect(),
    }
}

/// Height of a line of text in a tile, and width of a letter at most.
const LINE: f64 = 15.0;
const LETTER: f64 = 7.2;

fn tiles(layers: &[&LayerSize], width: f64, height: f64) -> Vec<Tile> {
    let values: Vec<f64> = layers.iter().map(|layer| layer.bytes as f64).collect();
    let areas = squarified(&values, Area { x: 0.0, y: 0.0, width, height });
    let mut tiles = Vec::new();
    for (at, (layer, area)) in layers.iter().zip(areas).enumerate() {
        let group = at % GROUPS;
        let parts = shares(layer);
        tiles.push(tile(&layer.name, layer.bytes as f64, area, group, !parts.is_empty()));
        // Below the name of the layer.
        let inside = Area {
            x: area.x + 2.0,
            y: area.y + LINE + 4.0,
            width: (area.width - 4.0).max(0.0),
            height: (area.height - LINE - 6.0).max(0.0),
        };
        let values: Vec<f64> = parts.iter().map(|(_, bytes)| *bytes).collect();
        if inside.width > 20.0 && inside.height > 10.0 {
            let areas = squarified(&values, inside);
            let of = |((name, bytes), area): (&(String, f64), Area)| tile(name, *bytes, area, group, false);
            tiles.extend(parts.iter().zip(areas).map(of));
        }
    }
    tiles
}

/// A tile with as much of its name as has room.
fn tile(name: &str, bytes: f64, area: Area, group: usize, frame: bool) -> Tile {
    let number = |value: f64| format!("{value:.1}");
    let letters = ((area.width - 8.0).max(0.0) / LETTER) as usize;
    let full = format!("{name} {}", mb(bytes));
    let label = match area.height >= LINE + 2.0 && letters >= 4 {
        false => String::new(),
        true if full.chars().count() <= letters => full,
        true if name.chars().count() <= letters => name.to_owned(),
        true => name.chars().take(letters - 1).chain(['…']).collect(),
    };
    Tile {
        x: number(area.x),
        y: number(area.y),
        width: number(area.width),
        height: number(area.height),
        label,
        title: format!("{name}: {} MB", mb(bytes)),
        group,
        frame,
    }
}

/// What differs between two maps, in their order.
pub fn differences<V: PartialEq + ToString>(
    before: &BTreeMap<String, V>,
    after: &BTreeMap<String, V>,
) -> Vec<Change> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let text = |value: Option<&V>| value.map_or_else(|| "–".to_owned(), V::to_string);
    let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differing
        .map(|name| Change {
            name: name.clone(),
            before: text(before.get(name)),
            after: text(after.get(name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped_and_nothing_is_referred_to() {
        let bad = "<script>alert('x')</script>\"&".to_owned();
        let report = Report {
            release: bad.clone(),
            repository: bad.clone(),
            released: bad.clone(),
            provenance: vec![(bad.clone(), bad.clone())],
            sizes: vec![Sizes {
                image: bad.clone(),
                layers: vec![LayerSize {
                    name: bad.clone(),
                    bytes: 500_000_000,
                    parts: BTreeMap::from([(bad.clone(), 5)]),
                }],
            }],
            spans: vec![Span { what: bad.clone(), begin: 10, end: 75 }],
            ..Report::default()
        };
        let html = report.html().expect("a page");
        assert!(!html.contains("<script") && html.matches("&lt;script&gt;").count() >= 8, "{html}");
    }

    #[test]
    fn bars_are_in_percent_of_the_whole() {
        let span = |what: &str, begin, end| Span { what: what.to_owned(), begin, end };
        let (bars, whole) = timeline(&[span("b", 150, 200), span("a", 100, 150)]);
        assert_eq!(
            (bars[0].what.as_str(), bars[0].left.as_str(), bars[0].width.as_str()),
            ("a", "0.00", "50.00")
        );
        assert_eq!(
            (bars[1].begin.as_str(), bars[1].left.as_str(), whole.as_str()),
            ("0:50", "50.00", "1:40")
        );
    }

    #[test]
    fn many_parts_of_a_layer_are_one() {
        let parts: BTreeMap<String, u64> = (1..=100).map(|it| (format!("p{it:03}"), it)).collect();
        let layer = LayerSize { name: "x".to_owned(), bytes: 5050, parts };
        let shares = shares(&layer);
        assert_eq!((shares.len(), shares[0].0.as_str()), (PARTS + 1, "p100"));
        assert!((shares.iter().map(|(_, bytes)| bytes).sum::<f64>() - 5050.0).abs() < 1e-6);
    }

    #[test]
    fn differences_name_what_is_new_and_gone() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let found = differences(
            &map(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &map(&[("b", "2"), ("c", "1"), ("d", "1")]),
        );
        let texts: Vec<String> =
            found.iter().map(|it| format!("{} {} {}", it.name, it.before, it.after)).collect();
        assert_eq!(texts, ["a 1 –", "b 1 2", "d – 1"]);
    }
}
