//! Writes the report of a release as one page of HTML, from its record and what else the registry holds of it. Refuses a
//! release that has no record; what was not recorded is reported as that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail};
use camino::Utf8PathBuf;
use jiff::Timestamp;

use crate::context::Context;
use crate::image::contents::{Contents, Files};
use crate::image::{base, build_record, verdict};
use crate::model::oci::Manifest;
use crate::model::reference::Repository;
use crate::model::report::{
    Cell, Change, Changes, FileChange, Grid, GridRow, ImageChange, ImageRow, LayerSize, Report, Requests,
    Sizes, Span, differences,
};
use crate::model::verdict::Verdict;
use crate::model::version::ReleaseTag;
use crate::output;
use crate::project::gitea;
use crate::promotion::record::{self, PlatformRecord, Record, VariantRecord};
use crate::promotion::release_tag;
use crate::tools::command::Cmd;

/// Characters of a digest that tell it from others; all of it is part of the provenance.
const SHORT: usize = 19;

/// Releases in the history of a check.
const HISTORY: usize = 5;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Release, such as v1.18.18 [default: the one that the floating tags are at]
    pub release: Option<ReleaseTag>,
    /// Show it in the browser
    #[arg(long)]
    pub open: bool,
    /// Read the layers of one variant as well, for their packages and files; downloads them
    #[arg(long)]
    pub files: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<()> {
    let path = write(ctx, args.release.or(ctx.release_tag), args.files)?;
    output::line(&path);
    if args.open {
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        ctx.runner.read(&Cmd::new(opener, [path.as_str()])).context("no browser is started")?;
    }
    Ok(())
}

/// Writes the report of a release, of the newest one if none is named, and returns the file.
pub fn write(ctx: &Context, release: Option<ReleaseTag>, files: bool) -> Result<Utf8PathBuf> {
    let repository = ctx.repository()?;
    let newest = || -> Result<Option<ReleaseTag>> { Ok(release_tag::floating(ctx, &repository)?.newest()) };
    let Some(release) = release.map_or_else(newest, |release| Ok(Some(release)))? else {
        bail!("nothing was released in {repository} yet: run `cargo xtask release`");
    };
    let html = collect(ctx, &repository, release, files)?.html().context("the template of the report")?;
    let path = gitea::report_file(ctx, release);
    if ctx.runner.dry_run {
        output::line(format!("# write {path}"));
        return Ok(path);
    }
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    fs::write(&path, html).with_context(|| format!("cannot write {path}"))?;
    Ok(path)
}

fn collect(ctx: &Context, repository: &Repository, release: ReleaseTag, files: bool) -> Result<Report> {
    let Some(record) = record::read(ctx, repository, release)? else {
        bail!("{repository} has no record of {release}: it was never released there");
    };
    let staging = ctx.staging(repository);
    let source = Source { ctx, staging, repository, record: &record };
    let older = source.older()?;
    // What users had before; a release that was published again has no other one there.
    let before = record.latest_before.filter(|before| *before != release);
    let before = older.iter().find(|it| before.is_none_or(|before| it.release == before));
    let run = record::run_of(ctx, &source.staging, &record)?;
    let time = i64::try_from(record.at).ok().and_then(|at| Timestamp::from_second(at).ok());
    let requests = run.iter().flat_map(|run| &run.requests);
    Ok(Report {
        release: release.to_string(),
        repository: repository.to_string(),
        released: time
            .map_or_else(|| "at an unknown time".to_owned(), |at| at.strftime("%F %H:%M UTC").to_string()),
        images: images(&record),
        spans: source.spans()?,
        sizes: source.sizes(files)?,
        changes: before.map(|before| source.changes(before, files)).transpose()?,
        grid: source.grid(&older),
        phases: run.iter().flat_map(|run| run.phases.clone()).collect(),
        requests: requests
            .map(|(host, sent)| Requests { host: host.clone(), requests: sent.requests, writes: sent.writes })
            .collect(),
        provenance: source.provenance()?,
    })
}

fn mb(bytes: u64) -> String {
    match bytes {
        1..50_000 => "< 0.1".to_owned(),
        _ => format!("{:.1}", bytes as f64 / 1e6),
    }
}

fn dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

fn images(record: &Record) -> Vec<ImageRow> {
    let row = |variant: &VariantRecord, it: &PlatformRecord| ImageRow {
        variant: variant.name.clone(),
        platform: it.platform.to_string(),
        tag: variant.version_tag.clone(),
        mb: mb(it.bytes),
        built: it.built.as_ref().map_or_else(
            || "not recorded".to_owned(),
            |built| format!("{}, node {}", format!("{:?}", built.how).to_lowercase(), built.node),
        ),
        smoke: match it.smoke_emulated {
            true => format!("{} s, emulated", it.smoke_seconds),
            false => format!("{} s", it.smoke_seconds),
        },
        digest: it.digest.chars().take(SHORT).collect(),
    };
    let all =
        record.variants.iter().flat_map(|variant| variant.platforms.iter().map(move |it| (variant, it)));
    all.map(|(variant, it)| row(variant, it)).collect()
}

/// Where the parts of a report come from.
struct Source<'a> {
    ctx: &'a Context,
    staging: Repository,
    repository: &'a Repository,
    record: &'a Record,
}

impl Source<'_> {
    fn build(&self, what: String, place: &Repository, digest: &str) -> Result<Option<Span>> {
        let Some(image) = self.ctx.registry.manifest(&self.ctx.runner, place, digest)? else {
            return Ok(None);
        };
        let built = build_record::read(self.ctx, &self.staging, &image.digest)?;
        let end = built.as_ref().and_then(|it| it.at);
        Ok(built.zip(end).map(|(it, end)| Span { what, begin: end.saturating_sub(it.seconds), end }))
    }

    /// Builds and smoke tests of this release, with their times: those that began less than a day before it.
    fn spans(&self) -> Result<Vec<Span>> {
        let base = self.build("build of the base".to_owned(), self.repository, &self.record.base.digest)?;
        let mut spans: Vec<Span> = base.into_iter().collect();
        for variant in &self.record.variants {
            let what = format!("build of {}", variant.name);
            spans.extend(self.build(what, &self.staging, &variant.digest)?);
            for it in &variant.platforms {
                let verdicts = verdict::all(self.ctx, &self.staging, &it.digest)?;
                let of_release = |verdict: &&Verdict| verdict.seconds > 0 && verdict.at <= self.record.at;
                let newest = verdicts.iter().filter(of_release).max_by_key(|verdict| verdict.at);
                spans.extend(newest.map(|verdict| Span {
                    what: format!("smoke test of {} on {}", variant.name, it.platform),
                    begin: verdict.at.saturating_sub(verdict.seconds),
                    end: verdict.at,
                }));
            }
        }
        spans.retain(|span| span.begin + 24 * 3600 > self.record.at);
        Ok(spans)
    }

    /// The variant that has the most, on its first platform.
    fn largest<'r>(&self, record: &'r Record) -> Option<(&'r VariantRecord, &'r PlatformRecord)> {
        let first = |variant: &'r VariantRecord| Some((variant, variant.platforms.first()?));
        record.variants.iter().filter_map(first).max_by_key(|(_, it)| it.bytes)
    }

    fn image(&self, digest: &str) -> Result<Option<Manifest>> {
        match self.ctx.registry.manifest(&self.ctx.runner, &self.staging, digest)? {
            Some(image) => Ok(Some(image)),
            None => self.ctx.registry.manifest(&self.ctx.runner, self.repository, digest),
        }
    }

    /// Where an image is: staging drops the ones of old releases.
    fn place(&self, digest: &str) -> Result<&Repository> {
        let is_staged = self.ctx.registry.has(&self.ctx.runner, &self.staging, digest)?;
        Ok(if is_staged { &self.staging } else { self.repository })
    }

    /// The names of an image's layers in their order: those of the base, then the components of its variant. A layer that
    /// this tree has no name for is numbered.
    fn names(&self, variant: &str, count: usize) -> Vec<String> {
        let config = &self.ctx.config;
        let components = config.variant(variant).map(|it| it.components.clone()).unwrap_or_default();
        let base = config.base_layers.iter().map(|layer| layer.name.clone());
        // Debian's own layers come first; how many there are is what is left over.
        let named: Vec<String> = base.chain(components).chain(["identity of the image".to_owned()]).collect();
        let first = count.saturating_sub(named.len());
        let debian =
            (1..=first).map(|at| if first == 1 { "Debian".to_owned() } else { format!("Debian {at}") });
        debian.chain(named).take(count).collect()
    }

    fn layers(&self, variant: &str, image: &Manifest) -> Vec<(String, (String, u64))> {
        let layers = image.layers();
        self.names(variant, layers.len()).into_iter().zip(layers).collect()
    }

    fn sizes(&self, files: bool) -> Result<Vec<Sizes>> {
        let Some((variant, it)) = self.largest(self.record) else { return Ok(Vec::new()) };
        let Some(image) = self.image(&it.digest)? else { return Ok(Vec::new()) };
        let layers = self.layers(&variant.name, &image);
        let digests: Vec<String> = layers.iter().map(|(_, (digest, _))| digest.clone()).collect();
        let contents = match files {
            true => Contents::read(self.ctx, self.place(&it.digest)?, &image, &digests),
            false => Contents::default(),
        };
        let layer = |(name, (digest, bytes)): (String, (String, u64))| LayerSize {
            name,
            bytes,
            parts: contents.parts(&digest),
        };
        let layers = layers.into_iter().map(layer).collect();
        Ok(vec![Sizes { image: format!("{} on {}", variant.name, it.platform), layers }])
    }

    fn changes(&self, before: &Record, files: bool) -> Result<Changes> {
        let (mut layers, mut images) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for variant in &self.record.variants {
            let old = before.variants.iter().find(|it| it.name == variant.name);
            for it in &variant.platforms {
                let old = old.and_then(|old| old.platforms.iter().find(|old| old.platform == it.platform));
                images.push(ImageChange {
                    image: format!("{} {}", variant.name, it.platform),
                    mb_before: dash(old.map(|old| mb(old.bytes))),
                    mb_after: mb(it.bytes),
                    seconds_before: dash(old.map(|old| old.smoke_seconds)),
                    seconds_after: it.smoke_seconds.to_string(),
                });
                let Some(old) = old else { continue };
                let changed = self.changed_layers(&variant.name, old, it)?;
                layers.extend(changed.into_iter().filter(|change| seen.insert(change.name.clone())));
            }
        }
        Ok(Changes {
            since: before.release.to_string(),
            versions: differences(&before.versions, &self.record.versions),
            packages: self.packages(before)?,
            layers,
            files: if files { self.files(before)? } else { None },
            images,
        })
    }

    fn changed_layers(
        &self,
        variant: &str,
        old: &PlatformRecord,
        new: &PlatformRecord,
    ) -> Result<Vec<Change>> {
        let (Some(before), Some(after)) = (self.image(&old.digest)?, self.image(&new.digest)?) else {
            return Ok(Vec::new());
        };
        let by_name = |image: &Manifest| self.layers(variant, image).into_iter().collect::<BTreeMap<_, _>>();
        let (before, after) = (by_name(&before), by_name(&after));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let change = |name: &String| {
            let (was, is) = (before.get(name), after.get(name));
            (was != is).then(|| Change {
                name: format!("{name}, {}", new.platform),
                before: dash(was.map(|(_, bytes)| mb(*bytes))),
                after: dash(is.map(|(_, bytes)| mb(*bytes))),
            })
        };
        Ok(names.into_iter().filter_map(change).collect())
    }

    /// Debian packages that differ, as smoke tests recorded them; `None` where one release has no list.
    fn packages(&self, before: &Record) -> Result<Option<Vec<Change>>> {
        let (Some(old), Some(new)) = (self.package_list(before)?, self.package_list(self.record)?) else {
            return Ok(None);
        };
        Ok(Some(differences(&old, &new)))
    }

    fn package_list(&self, record: &Record) -> Result<Option<BTreeMap<String, String>>> {
        for it in record.variants.iter().flat_map(|variant| &variant.platforms) {
            let verdicts = verdict::all(self.ctx, &self.staging, &it.digest)?;
            let Some(verdict) = verdicts.iter().find(|verdict| !verdict.packages.is_empty()) else {
                continue;
            };
            let pair = |line: &str| {
                let mut words = line.split('\t');
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            };
            return Ok(Some(verdict.packages.lines().filter_map(pair).collect()));
        }
        Ok(None)
    }

    /// How many files differ in each layer that differs, in the largest image.
    fn files(&self, before: &Record) -> Result<Option<Vec<FileChange>>> {
        let Some((variant, new)) = self.largest(self.record) else { return Ok(None) };
        let old = before.variants.iter().find(|it| it.name == variant.name);
        let old = old.and_then(|old| old.platforms.iter().find(|it| it.platform == new.platform));
        let Some(old) = old else { return Ok(None) };
        let (Some(old_image), Some(new_image)) = (self.image(&old.digest)?, self.image(&new.digest)?) else {
            return Ok(None);
        };
        let by_name =
            |image: &Manifest| self.layers(&variant.name, image).into_iter().collect::<BTreeMap<_, _>>();
        let (was, is) = (by_name(&old_image), by_name(&new_image));
        let mut changes = Vec::new();
        for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            if was.get(name) == is.get(name) {
                continue;
            }
            let read = |record: &PlatformRecord, image: &Manifest, layer: Option<&(String, u64)>| {
                let Some((digest, _)) = layer else { return Ok(Files::new()) };
                let digests = std::slice::from_ref(digest);
                let mut contents = Contents::read(self.ctx, self.place(&record.digest)?, image, digests);
                Ok::<_, anyhow::Error>(contents.layers.remove(digest).unwrap_or_default())
            };
            let (a, b) = (read(old, &old_image, was.get(name))?, read(new, &new_image, is.get(name))?);
            changes.push(FileChange {
                layer: name.clone(),
                added: b.keys().filter(|path| !a.contains_key(*path)).count(),
                removed: a.keys().filter(|path| !b.contains_key(*path)).count(),
                changed: a.iter().filter(|(path, bytes)| b.get(*path).is_some_and(|it| it != *bytes)).count(),
            });
        }
        Ok(Some(changes))
    }

    fn grid(&self, older: &[Record]) -> Grid {
        let images: Vec<(&VariantRecord, &PlatformRecord)> =
            self.record.variants.iter().flat_map(|it| it.platforms.iter().map(move |of| (it, of))).collect();
        let mut names: Vec<&str> = Vec::new();
        for check in images.iter().flat_map(|(_, it)| &it.checks) {
            if !names.contains(&check.name.as_str()) {
                names.push(&check.name);
            }
        }
        let cell = |it: &PlatformRecord, name: &str| {
            let check = it.checks.iter().find(|check| check.name == name)?;
            let from = check.from.as_ref().map(|from| from.variant.clone());
            Some(Cell { passed: check.passed, from })
        };
        let history = |name: &str, record: &Record| {
            let platforms = record.variants.iter().flat_map(|variant| &variant.platforms);
            let checks: Vec<bool> = platforms
                .filter_map(|it| it.checks.iter().find(|check| check.name == name))
                .map(|check| check.passed)
                .collect();
            (checks.iter().filter(|passed| **passed).count(), checks.len())
        };
        let row = |name: &&str| GridRow {
            check: (*name).to_owned(),
            cells: images.iter().map(|(_, it)| cell(it, name)).collect(),
            history: older.iter().map(|record| history(name, record)).collect(),
        };
        Grid {
            images: images
                .iter()
                .map(|(variant, it)| format!("{} {}", variant.name, it.platform.arch()))
                .collect(),
            releases: older.iter().map(|record| record.release.to_string()).collect(),
            rows: names.iter().map(row).collect(),
        }
    }

    /// The records of the releases before this one that can be read, the newest first.
    fn older(&self) -> Result<Vec<Record>> {
        let tags = self.ctx.registry.tags(&self.ctx.runner, &self.staging)?;
        let parse = |tag: &String| tag.strip_prefix(record::TAG)?.parse::<ReleaseTag>().ok();
        let mut releases: Vec<ReleaseTag> = tags.iter().filter_map(parse).collect();
        releases.retain(|release| *release < self.record.release);
        releases.sort_by(|a, b| b.cmp(a));
        releases.truncate(HISTORY);
        let read = |release: &ReleaseTag| record::readable(self.ctx, self.repository, *release).transpose();
        releases.iter().filter_map(read).collect()
    }

    fn provenance(&self) -> Result<Vec<(String, String)>> {
        let record = self.record;
        let signed = record::signed(self.ctx, self.repository, record.release)?.is_some();
        let mut facts = vec![
            ("Commit".to_owned(), record.revision.clone().unwrap_or_else(|| "none".to_owned())),
            (
                "Record".to_owned(),
                match signed {
                    true => "signed by the key that counts here".to_owned(),
                    false => "not signed by the key that counts here".to_owned(),
                },
            ),
            ("Base".to_owned(), format!("{} {}", record.base.tag, record.base.digest)),
        ];
        let base = self.ctx.registry.manifest(&self.ctx.runner, self.repository, &record.base.digest)?;
        let parents = base.as_ref().and_then(base::inputs_of).unwrap_or_default().parents;
        facts.extend(parents.into_iter().map(|(name, digest)| (format!("Parent, {name}"), digest)));
        for variant in &record.variants {
            facts.push((format!("{}, content key", variant.name), variant.key.clone()));
            facts.push((format!("{}, index", variant.name), variant.digest.clone()));
            let images = variant.platforms.iter();
            facts.extend(images.map(|it| (format!("{}, {}", variant.name, it.platform), it.digest.clone())));
        }
        facts.extend(
            record.versions.iter().map(|(name, version)| (format!("Version of {name}"), version.clone())),
        );
        let tag = record.variants.first().map(|variant| variant.version_tag.clone()).unwrap_or_default();
        facts.push(("Verify it by".to_owned(), format!("cargo xtask verify {tag}")));
        Ok(facts)
    }
}
