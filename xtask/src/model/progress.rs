//! Reads how far a running program is from the lines that it prints: builds from BuildKit's `--progress=rawjson`, suites from
//! TAP, and everything else from its last line. Pure: the caller prints.

use std::collections::BTreeMap;

use base64::Engine as _;
use jiff::Timestamp;
use serde::Deserialize;

/// A running program, as the person who waits for it knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Such as `smoke omos linux/amd64`.
    pub name: String,
    pub form: Form,
    /// Seconds that it took last time, where that was recorded.
    pub last: Option<u64>,
}

/// How the lines of a program are to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Lines,
    /// BuildKit's rawjson on these targets and platforms, which it names where there are several.
    Build { targets: Vec<String>, platforms: Vec<String> },
    /// TAP with a prefix before each line, and as many checks.
    Tap { prefix: String, checks: usize },
}

/// A line of the terminal: what it is about, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub step: String,
}

/// Reads the output of one program.
pub struct Reader {
    work: Work,
    /// The last line, for a program that is read by its lines.
    last: String,
    build: Build,
    suite: Suite,
}

impl Reader {
    pub fn new(work: Work) -> Self {
        Self { work, last: String::new(), build: Build::default(), suite: Suite::default() }
    }

    /// Takes a line of output, and returns the lines that a log has of it.
    pub fn take(&mut self, line: &str) -> Vec<String> {
        match &self.work.form {
            Form::Build { targets, platforms } => match serde_json::from_str::<Status>(line) {
                Ok(status) => return self.build.take(status, targets, platforms),
                Err(_) => self.last = line.to_owned(),
            },
            Form::Tap { prefix, .. } => self.suite.take(line.strip_prefix(prefix.as_str()).unwrap_or(line)),
            Form::Lines => self.last = line.to_owned(),
        }
        vec![line.to_owned()]
    }

    /// The lines of a log that say why it failed, beyond what it printed by itself.
    pub fn failure(&self) -> Vec<String> {
        match self.work.form {
            Form::Build { .. } => self.build.failure(),
            Form::Tap { .. } => self.suite.failures.clone(),
            Form::Lines => Vec::new(),
        }
    }

    /// How far it is.
    pub fn lines(&self) -> Vec<Line> {
        let line = |step: String| vec![Line { name: self.work.name.clone(), step }];
        match &self.work.form {
            Form::Lines => line(self.last.trim().to_owned()),
            Form::Tap { checks, .. } => line(self.suite.step(*checks)),
            Form::Build { .. } if self.build.images.is_empty() => line("waiting for the builder".to_owned()),
            Form::Build { targets, .. } => {
                let verb = self.work.name.split(' ').next().unwrap_or_default();
                self.build.lines(if targets.len() > 1 { verb } else { &self.work.name })
            }
        }
    }
}

/// The results of a suite up to now.
#[derive(Default)]
struct Suite {
    done: usize,
    failed: usize,
    /// The check that ended last.
    check: String,
    /// What failed, with what explains it.
    failures: Vec<String>,
    explains: bool,
}

impl Suite {
    fn take(&mut self, line: &str) {
        if let Some((name, passed)) = result_of_line(line) {
            self.done += 1;
            self.failed += usize::from(!passed);
            (self.check, self.explains) = (name, !passed);
            if !passed {
                self.failures.push(line.to_owned());
            }
        } else if self.explains && line.starts_with("# ") {
            self.failures.push(line.to_owned());
        } else {
            self.explains = false;
        }
    }

    fn step(&self, checks: usize) -> String {
        let failed = match self.failed {
            0 => String::new(),
            count => format!(", {count} failed"),
        };
        format!("{}/{checks} checks{failed}  {}", self.done, self.check)
    }
}

/// `ok 3 - NAME # 0.1 s`, or the same with `not ok`.
pub fn result_of_line(line: &str) -> Option<(String, bool)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (_, rest) = rest.split_once(" - ")?;
    let name = rest.rsplit_once(" # ").map_or(rest, |(name, _)| name);
    Some((name.to_owned(), passed))
}

/// One line of rawjson (BuildKit, `client.SolveStatus`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    #[serde(default)]
    vertexes: Vec<Vertex>,
    #[serde(default)]
    statuses: Vec<Part>,
    #[serde(default)]
    logs: Vec<Log>,
    #[serde(default, rename = "warnings")]
    _warnings: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Vertex {
    digest: String,
    #[serde(default)]
    name: String,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    error: String,
}

/// A part of a step, such as a layer that is pushed.
#[derive(Deserialize)]
struct Part {
    id: String,
    vertex: String,
    completed: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Log {
    vertex: String,
    #[serde(default)]
    data: String,
}

/// How many of its last lines a failed step is explained by.
const EXPLAINED: usize = 20;

/// A step of a build.
struct Step {
    number: usize,
    name: String,
    started: Option<Timestamp>,
    running: bool,
    ended: bool,
    error: String,
    /// The beginning of a line that is not complete yet.
    rest: Vec<u8>,
    lines: Vec<String>,
    /// What it does now, by its parts.
    part: String,
}

/// The steps of a build up to now, and which of them belong to which image.
#[derive(Default)]
struct Build {
    steps: BTreeMap<String, Step>,
    /// Target and platform of each image, with the digests of its steps in their order.
    images: BTreeMap<String, Vec<String>>,
}

impl Build {
    fn take(&mut self, status: Status, targets: &[String], platforms: &[String]) -> Vec<String> {
        let mut log = Vec::new();
        for vertex in status.vertexes {
            let of = image_and_step(&vertex.name, targets, platforms);
            self.vertex(vertex, of, &mut log);
        }
        for part in status.statuses {
            if let Some(step) = self.steps.get_mut(&part.vertex) {
                step.part = if part.completed.is_some() { String::new() } else { part.id };
            }
        }
        for chunk in status.logs {
            let Some(step) = self.steps.get_mut(&chunk.vertex) else { continue };
            let data = base64::engine::general_purpose::STANDARD.decode(&chunk.data).unwrap_or_default();
            step.rest.extend(data);
            let Some(end) = step.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = step.rest.drain(..=end).collect();
            for line in String::from_utf8_lossy(&whole).lines() {
                log.push(format!("#{} {line}", step.number));
                step.lines.push(line.to_owned());
            }
        }
        log
    }

    fn vertex(&mut self, vertex: Vertex, (image, name): (String, String), log: &mut Vec<String>) {
        let number = self.steps.len() + 1;
        let images = &mut self.images;
        let step = self.steps.entry(vertex.digest.clone()).or_insert_with(|| {
            images.entry(image).or_default().push(vertex.digest.clone());
            Step {
                number,
                name,
                started: None,
                running: false,
                ended: false,
                error: String::new(),
                rest: Vec::new(),
                lines: Vec::new(),
                part: String::new(),
            }
        });
        if vertex.started.is_some() && step.started.is_none() {
            step.started = vertex.started;
            log.push(format!("#{} {}", step.number, vertex.name));
        }
        step.running = vertex.started.is_some() && vertex.completed.is_none();
        let Some(completed) = vertex.completed.filter(|_| !step.ended) else { return };
        step.ended = true;
        if !step.rest.is_empty() {
            let line = String::from_utf8_lossy(&step.rest).into_owned();
            log.push(format!("#{} {line}", step.number));
            step.lines.push(line);
            step.rest.clear();
        }
        let seconds = step.started.map_or(0.0, |started| completed.duration_since(started).as_secs_f64());
        log.push(match (vertex.error.is_empty(), vertex.cached) {
            (false, _) => format!("#{} ERROR: {}", step.number, vertex.error),
            (true, true) => format!("#{} CACHED", step.number),
            (true, false) => format!("#{} DONE {seconds:.1}s", step.number),
        });
        step.error = vertex.error;
    }

    /// The failed steps with their last lines, as BuildKit's plain progress repeats them.
    fn failure(&self) -> Vec<String> {
        // A step that was ended since another one failed explains nothing.
        let failed = self.steps.values().filter(|step| !step.error.is_empty());
        let told = failed.filter(|step| !step.error.contains("context canceled"));
        told.flat_map(|step| {
            let image =
                self.images.iter().find(|(_, all)| all.iter().any(|it| self.number(it) == step.number));
            let image = image.map(|(image, _)| image.as_str()).filter(|image| !image.is_empty());
            let name = image.map_or(step.name.clone(), |image| format!("[{image}] {}", step.name));
            let first = step.lines.len().saturating_sub(EXPLAINED);
            let lines = step.lines[first..].iter().cloned();
            let ends = ["------".to_owned(), format!(" > {name}:")].into_iter().chain(lines);
            ends.chain([format!("ERROR: {}", step.error), "------".to_owned()]).collect::<Vec<_>>()
        })
        .collect()
    }

    fn number(&self, digest: &str) -> usize {
        self.steps.get(digest).map_or(0, |step| step.number)
    }

    /// A line for each image, with the step that began last among those that run.
    fn lines(&self, name: &str) -> Vec<Line> {
        let of_image = |(image, digests): (&String, &Vec<String>)| {
            let steps: Vec<&Step> = digests.iter().filter_map(|digest| self.steps.get(digest)).collect();
            let running = steps.iter().filter(|step| step.running).max_by_key(|step| step.started);
            let done = steps.iter().filter(|step| step.ended).count();
            let what = match running {
                Some(step) if step.part.is_empty() => step.name.clone(),
                Some(step) => format!("{}: {}", step.name, step.part),
                None if done == steps.len() => return None,
                None => "waiting for other steps".to_owned(),
            };
            // A build of one image has no name of it in its steps.
            let name = if image.is_empty() { name.to_owned() } else { format!("{name} {image}") };
            Some(Line { name, step: format!("{done}/{} steps  {what}", steps.len()) })
        };
        let lines: Vec<Line> = self.images.iter().filter_map(of_image).collect();
        match lines.is_empty() {
            true => vec![Line { name: name.to_owned(), step: String::new() }],
            false => lines,
        }
    }
}

/// The image that a step belongs to, such as `omos linux/arm64`, and the step without it. BuildKit puts both into brackets,
/// `[omos linux/amd64->arm64 fetch 2/4] RUN …`, but the target only where there are several, and so with the platform.
fn image_and_step(name: &str, targets: &[String], platforms: &[String]) -> (String, String) {
    let Some((inside, rest)) = name.strip_prefix('[').and_then(|name| name.split_once("] ")) else {
        return (String::new(), name.to_owned());
    };
    let mut words = inside.split(' ').peekable();
    let target = words.next_if(|word| targets.len() > 1 && targets.iter().any(|target| target == word));
    let platform = match words.next_if(|word| word.contains('/') && word.starts_with(char::is_alphabetic)) {
        Some(word) => {
            let (os, arch) = word.split_once('/').unwrap_or_default();
            Some(format!("{os}/{}", arch.rsplit("->").next().unwrap_or(arch)))
        }
        None if platforms.len() == 1 && words.peek() != Some(&"internal") => Some(platforms[0].clone()),
        None => None,
    };
    let stage = words.filter(|word| *word != "internal").collect::<Vec<_>>().join(" ");
    let image = target.map(str::to_owned).into_iter().chain(platform).collect::<Vec<_>>().join(" ");
    (image, if stage.is_empty() { rest.to_owned() } else { format!("[{stage}] {rest}") })
}

/// A span of time as a clock shows it, such as `1:05`.
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Something that a run did not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The verb: `build`, `smoke`.
    pub action: &'static str,
    pub what: String,
    pub why: String,
}

/// What was skipped and why, in a line each: equal reasons are one.
pub fn skipped(all: &[Skipped]) -> Vec<String> {
    let mut groups: Vec<(&'static str, &str, Vec<&str>)> = Vec::new();
    for it in all {
        match groups.iter_mut().find(|(action, why, _)| (*action, *why) == (it.action, it.why.as_str())) {
            Some((_, _, what)) => what.push(&it.what),
            None => groups.push((it.action, &it.why, vec![&it.what])),
        }
    }
    let line = |(action, why, what): (&str, &str, Vec<&str>)| {
        format!("skipped: {action} {}: {why}", what.join(", "))
    };
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_tap() {
        let of = |line| result_of_line(line);
        assert_eq!(of("ok 3 - git answers # 0.1 s"), Some(("git answers".to_owned(), true)));
        assert_eq!(of("not ok 12 - a # b # 10.0 s"), Some(("a # b".to_owned(), false)));
        for line in ["# ok 3 - x", "1..3", "TAP version 13", "ok"] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn checks_are_counted_and_failures_kept() {
        let form = Form::Tap { prefix: "omos: ".to_owned(), checks: 3 };
        let mut reader = Reader::new(Work { name: "smoke omos".to_owned(), form, last: None });
        let lines = [
            "TAP version 13",
            "ok 2 - a # 0.1 s",
            "not ok 1 - b # 2.0 s",
            "# why",
            "ok 3 - c # 0.1 s",
            "# no",
        ];
        for line in lines {
            assert_eq!(reader.take(&format!("omos: {line}")), [format!("omos: {line}")]);
        }
        let step = "3/3 checks, 1 failed  c".to_owned();
        assert_eq!(reader.lines(), [Line { name: "smoke omos".to_owned(), step }]);
        assert_eq!(reader.failure(), ["not ok 1 - b # 2.0 s", "# why"]);
    }

    #[test]
    fn a_step_belongs_to_an_image() {
        let (two, both) =
            (["omos", "base"].map(String::from), ["linux/amd64", "linux/arm64"].map(String::from));
        let of =
            |name: &str, targets: &[String], platforms: &[String]| image_and_step(name, targets, platforms);
        let pair = |image: &str, step: &str| (image.to_owned(), step.to_owned());
        assert_eq!(
            of("[omos linux/amd64->arm64 fetch 2/4] RUN x", &two, &both),
            pair("omos linux/arm64", "[fetch 2/4] RUN x")
        );
        assert_eq!(of("[omos internal] load x", &two, &both), pair("omos", "load x"));
        assert_eq!(
            of("[base base 2/3] COPY x", &two, &both[..1]),
            pair("base linux/amd64", "[base 2/3] COPY x")
        );
        assert_eq!(of("[base 2/3] COPY x", &two[1..], &both[1..]), pair("linux/arm64", "[base 2/3] COPY x"));
        assert_eq!(of("[internal] load x", &two, &both), pair("", "load x"));
        assert_eq!(of("exporting to image", &two, &both), pair("", "exporting to image"));
    }

    #[test]
    fn equal_reasons_are_one_line() {
        let it =
            |action, what: &str, why: &str| Skipped { action, what: what.to_owned(), why: why.to_owned() };
        let all = [
            it("build", "a", "old"),
            it("smoke", "a", "old"),
            it("build", "b", "old"),
            it("build", "c", "x"),
        ];
        assert_eq!(
            skipped(&all),
            ["skipped: build a, b: old", "skipped: smoke a: old", "skipped: build c: x"]
        );
    }

    #[test]
    fn a_clock_has_hours_only_where_they_passed() {
        assert_eq!([5, 65, 3605].map(clock), ["0:05", "1:05", "1:00:05"]);
    }
}
