//! What of both repositories nothing needs any more, and its deletion.
//!
//! Kept are the images and bases of version tags and floating tags; the staged images of the newest releases; what is younger
//! than a limit; and what refers to any of these, wherever it is stored. All else that has the form of this project's tags goes, children of indexes and referrers included, which no list names once their image is gone.
//! So the list of what a prune deletes is stored first: another run deletes what an interrupted one left.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::json;

use crate::error::{Missing, missing};
use crate::image::base::{BASE_LATEST, inputs_of};
use crate::image::build_record;
use crate::model::oci::{Content, Digest, Manifest};
use crate::model::promotion::{Attempt, AttemptId, Outcome, Promotion, PromotionKind};
use crate::model::reference::Repository;
use crate::model::retention::{Doomed, PruneRecord, Side, Use, prune_done_tag, prune_tag};
use crate::model::version::ReleaseTag;
use crate::promotion::lease::Lease;
use crate::promotion::ledger::{Journal, Ledger};
use crate::promotion::record::{self, Record};
use crate::tools::hub::Hub;
use crate::tools::parallel::side_by_side;
use crate::tools::registry::{self, Place, fallback_tag};

/// The artifact type of the list.
const KIND: &str = "application/vnd.opencode-devbox.prune.v1+json";

/// Manifests that one run deletes: each takes three requests, and the list has to fit into one manifest.
pub const AT_MOST: usize = 2000;

/// How long an attempt that another run took over is of interest whatever the limit, in seconds: its writes may not be visible.
const SUPERSEDED_SECONDS: u64 = 600;

/// Referrers of referrers, such as the signature of a list of packages, are followed this deep.
const DEPTH: usize = 3;

/// What is kept beyond the tags of users.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The newest releases whose staged images, base and record stay.
    pub releases: usize,
    /// Whatever is younger stays, in seconds.
    pub age: u64,
}

/// What a prune would delete.
pub struct Plan {
    pub record: PruneRecord,
    /// Lists of interrupted prunes, whose rest is part of this one.
    unfinished: Vec<String>,
    /// Tags that stay, in both repositories.
    pub kept: usize,
    /// Manifests beyond [`AT_MOST`].
    pub later: usize,
    /// True if images of unknown age were seen for the first time.
    notes_more: bool,
}

/// Both repositories at one moment.
struct Survey<'a> {
    ledger: &'a Ledger<'a>,
    limits: Limits,
    now: u64,
    /// What each tag points at.
    tags: BTreeMap<(Side, String), Digest>,
    records: BTreeMap<ReleaseTag, Record>,
    /// Lists of earlier prunes with their names, the newest last.
    prunes: Vec<(String, PruneRecord)>,
    unfinished: Vec<String>,
}

impl Plan {
    /// Reads both repositories. Nothing is written.
    pub fn make(ledger: &Ledger<'_>, journal: &Journal, limits: Limits) -> Result<Self> {
        let survey = Survey::read(ledger, limits)?;
        let kept = survey.kept(journal)?;
        survey.doomed(kept)
    }

    /// Tags that go.
    pub fn tags(&self) -> usize {
        self.record.deletes.iter().map(|it| it.tags.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.record.deletes.is_empty() && self.unfinished.is_empty()
    }
}

/// What stays, and why the rest does not.
#[derive(Default)]
struct Kept {
    /// Tags that go, with the reason.
    doomed: BTreeMap<(Side, String), String>,
    /// Manifests that stay: those of tags, and images that indexes name.
    manifests: BTreeSet<(Side, Digest)>,
    /// Images that are known to be kept somewhere, or that a verdict names as where its checks ran.
    subjects: BTreeSet<Digest>,
    unneeded_since: BTreeMap<String, u64>,
}

impl Kept {
    /// Notes the images that an index names.
    fn keep_images(&mut self, side: Side, index: &Manifest) {
        let images = children(index);
        self.subjects.extend(images.iter().cloned());
        self.manifests.extend(images.into_iter().map(|image| (side, image)));
    }
}

impl<'a> Survey<'a> {
    fn read(ledger: &'a Ledger<'a>, limits: Limits) -> Result<Self> {
        let (ctx, mut tags) = (ledger.ctx, BTreeMap::new());
        for side in [Side::Public, Side::Staging] {
            let repository = ledger.of(side);
            let names = ctx.registry.tags(&ctx.runner, repository)?;
            let digests = ctx.registry.digests(&ctx.runner, repository, &names)?;
            let known = names.into_iter().zip(digests);
            tags.extend(known.filter_map(|(name, digest)| Some(((side, name), digest?))));
        }
        let now = ctx.registry.now(&ledger.staging);
        let (records, prunes, unfinished) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut survey = Self { ledger, limits, now, tags, records, prunes, unfinished };
        survey.read_documents()?;
        Ok(survey)
    }

    fn read_documents(&mut self) -> Result<()> {
        let (ctx, public) = (self.ledger.ctx, &self.ledger.public);
        let uses: Vec<(String, Use)> =
            self.on(Side::Staging).map(|(tag, _)| (tag.to_owned(), Use::of(Side::Staging, tag))).collect();
        for (tag, it) in &uses {
            match it {
                Use::Record(release) => {
                    // One that cannot be read keeps nothing but itself.
                    let record = record::readable(ctx, public, *release)?;
                    self.records.extend(record.map(|record| (*release, record)));
                }
                Use::Prune { id, done: false } => {
                    let document = ctx.registry.document(&ctx.runner, &self.ledger.staging, tag)?;
                    let Some(record) = document.and_then(|it| serde_json::from_value(it).ok()) else {
                        continue;
                    };
                    let is_done = self.tags.contains_key(&(Side::Staging, prune_done_tag(id)));
                    self.unfinished.extend((!is_done).then(|| id.clone()));
                    self.prunes.push((id.clone(), record));
                }
                _ => {}
            }
        }
        self.prunes.sort_by_key(|(_, record)| record.at);
        Ok(())
    }

    fn on(&self, side: Side) -> impl Iterator<Item = (&str, &Digest)> {
        self.tags
            .iter()
            .filter(move |((on, _), _)| *on == side)
            .map(|((_, tag), digest)| (tag.as_str(), digest))
    }

    fn is_young(&self, at: u64) -> bool {
        at + self.limits.age > self.now
    }

    /// Decides about every tag.
    fn kept(&self, journal: &Journal) -> Result<Kept> {
        let mut kept = Kept::default();
        let published: BTreeSet<ReleaseTag> = self
            .on(Side::Public)
            .filter_map(|(tag, _)| match Use::of(Side::Public, tag) {
                Use::Version(release) => Some(release),
                _ => None,
            })
            .collect();
        let recent: BTreeSet<ReleaseTag> =
            self.records.keys().rev().take(self.limits.releases).copied().collect();
        let needed = self.needed(&recent);
        self.keep_staged(&needed, &mut kept)?;
        let parents = self.parents(&kept)?;
        // `rollback` moves base-latest as well. Images of version tags have the same layers, so this keeps few bytes.
        let of_published = self.needed(&published);
        self.keep_bases(&needed.union(&of_published).cloned().collect(), &parents, &mut kept)?;
        // `repair` asks where the floating tags were put last.
        let last = self.ledger.last_completed(journal)?.map(|(id, _)| id);
        let last_list = self.prunes.last().map(|(id, _)| id.clone());
        for (tag, it) in self.on(Side::Staging).map(|(tag, _)| (tag, Use::of(Side::Staging, tag))) {
            let why = match it {
                Use::Record(release) if !recent.contains(&release) && !published.contains(&release) => {
                    let at = self.records.get(&release).map(|record| record.at);
                    at.filter(|at| !self.is_young(*at))
                        .map(|_| format!("record of {release}, which has no tag"))
                }
                Use::Attempt(id) => {
                    let is_last = last.as_ref() == Some(&id) || last_list == Some(list_name(&id));
                    let goes = !is_last && self.is_settled(journal, &id);
                    goes.then(|| "attempt that ended".to_owned())
                }
                Use::Prune { id, .. } => {
                    let known = self.prunes.iter().find(|(known, _)| *known == id);
                    let is_last = last_list.as_ref() == Some(&id);
                    let is_old = known.is_some_and(|(_, record)| !self.is_young(record.at));
                    (is_old && !is_last && !self.unfinished.contains(&id))
                        .then(|| "list of an earlier prune".to_owned())
                }
                _ => None,
            };
            kept.doomed.extend(why.map(|why| ((Side::Staging, tag.to_owned()), why)));
        }
        self.keep_children(&published, &recent, &mut kept)?;
        Ok(kept)
    }

    /// Digests that these releases and the floating tags need.
    fn needed(&self, releases: &BTreeSet<ReleaseTag>) -> BTreeSet<Digest> {
        let records =
            self.records.iter().filter(|(release, _)| releases.contains(release)).map(|(_, record)| record);
        let named = records.flat_map(|record| {
            record.variants.iter().map(|it| it.digest.as_str()).chain([record.base.digest.as_str()])
        });
        let named = named.filter_map(|text| text.parse().ok());
        let floating =
            self.on(Side::Public).filter(|(tag, _)| *tag == BASE_LATEST || tag.starts_with("latest"));
        named.chain(floating.map(|(_, digest)| digest.clone())).collect()
    }

    /// When an image was last released, by the records that are there.
    fn released_at(&self, digest: &Digest) -> Option<u64> {
        let names = |record: &&Record| {
            record.base.digest == **digest || record.variants.iter().any(|it| it.digest == **digest)
        };
        self.records.values().filter(names).map(|record| record.at).max()
    }

    /// When images were last known to be of use: released, or else built.
    fn last_uses(&self, images: &[Digest]) -> Result<Vec<Option<u64>>> {
        let released: Vec<Option<u64>> = images.iter().map(|image| self.released_at(image)).collect();
        let unknown: Vec<&Digest> =
            images.iter().zip(&released).filter(|(_, at)| at.is_none()).map(|(image, _)| image).collect();
        let (registry, runner, staging) =
            (&self.ledger.ctx.registry, &self.ledger.ctx.runner, &self.ledger.staging);
        let built = side_by_side(&unknown, |image| build_record::built_at(registry, runner, staging, image))?;
        let mut built = built.into_iter();
        Ok(released.into_iter().map(|at| at.or_else(|| built.next().flatten())).collect())
    }

    /// Decides about images that no release needs: those of unknown age count as used when a prune first saw them.
    fn judge(
        &self,
        side: Side,
        needed: &BTreeSet<Digest>,
        kept: &mut Kept,
        what: &dyn Fn(&str) -> Option<&'static str>,
    ) -> Result<()> {
        let candidates: Vec<(String, Digest, &str)> = self
            .on(side)
            .filter(|(_, digest)| !needed.contains(*digest))
            .filter_map(|(tag, digest)| Some((tag.to_owned(), digest.clone(), what(tag)?)))
            .collect();
        let images: Vec<Digest> = candidates.iter().map(|(_, digest, _)| digest.clone()).collect();
        let uses = self.last_uses(&images)?;
        for ((tag, digest, what), used) in candidates.into_iter().zip(uses) {
            let noted = self.prunes.last().and_then(|(_, record)| record.unneeded_since.get(&*digest));
            let since = used.or(noted.copied()).unwrap_or_else(|| {
                kept.unneeded_since.insert(digest.to_string(), self.now);
                self.now
            });
            if let Some(at) = noted.filter(|_| used.is_none()) {
                kept.unneeded_since.insert(digest.to_string(), *at);
            }
            if !self.is_young(since) {
                kept.unneeded_since.remove(&*digest);
                kept.doomed.insert((side, tag), what.to_owned());
            }
        }
        Ok(())
    }

    fn keep_staged(&self, needed: &BTreeSet<Digest>, kept: &mut Kept) -> Result<()> {
        self.judge(Side::Staging, needed, kept, &|tag| match Use::of(Side::Staging, tag) {
            Use::Keyed => Some("staged image"),
            Use::Rebuilt => Some("image that was built again"),
            _ => None,
        })
    }

    /// A base stays as long as something that stays was made from it.
    fn keep_bases(
        &self,
        needed: &BTreeSet<Digest>,
        parents: &BTreeSet<String>,
        kept: &mut Kept,
    ) -> Result<()> {
        let (ctx, public) = (self.ledger.ctx, &self.ledger.public);
        let mut needed = needed.clone();
        for (_, digest) in self.on(Side::Public).filter(|(tag, _)| Use::of(Side::Public, tag) == Use::Keyed) {
            let index = ctx.registry.manifest(&ctx.runner, public, digest)?;
            if index.is_some_and(|index| index.images().any(|(_, image)| parents.contains(&**image))) {
                needed.insert(digest.clone());
            }
        }
        self.judge(Side::Public, &needed, kept, &|tag| {
            (Use::of(Side::Public, tag) == Use::Keyed).then_some("base")
        })
    }

    /// Images that staged images which stay were made from.
    fn parents(&self, kept: &Kept) -> Result<BTreeSet<String>> {
        let mut parents = BTreeSet::new();
        for index in self.indexes(Side::Staging, kept)? {
            parents.extend(inputs_of(&index).into_iter().flat_map(|inputs| inputs.parents.into_values()));
        }
        Ok(parents)
    }

    /// The images under content keys that stay.
    fn indexes(&self, side: Side, kept: &Kept) -> Result<Vec<Manifest>> {
        let stays = |tag: &str| !kept.doomed.contains_key(&(side, tag.to_owned()));
        let is_keyed = |tag: &str| {
            matches!(Use::of(side, tag), Use::Keyed | Use::Rebuilt)
                || side == Side::Public && tag == BASE_LATEST
        };
        let digests: BTreeSet<&Digest> =
            self.on(side).filter(|(tag, _)| is_keyed(tag) && stays(tag)).map(|(_, digest)| digest).collect();
        let digests: Vec<&Digest> = digests.into_iter().collect();
        let ctx = self.ledger.ctx;
        let read = ctx.registry.manifests(&ctx.runner, self.ledger.of(side), &digests)?;
        Ok(read.into_iter().flatten().collect())
    }

    /// True for an attempt that ended, and whose writes are visible.
    fn is_settled(&self, journal: &Journal, id: &AttemptId) -> bool {
        let visible = |attempt: &Attempt| {
            attempt.outcome != Some(Outcome::Superseded) || attempt.alive + SUPERSEDED_SECONDS < self.now
        };
        let attempt = journal.attempts.iter().find(|attempt| attempt.id == *id);
        attempt.is_some_and(|it| !it.is_unsettled() && visible(it) && !self.is_young(it.alive))
    }

    /// Notes what indexes that stay name, and the images that stay.
    fn keep_children(
        &self,
        published: &BTreeSet<ReleaseTag>,
        recent: &BTreeSet<ReleaseTag>,
        kept: &mut Kept,
    ) -> Result<()> {
        for side in [Side::Public, Side::Staging] {
            for index in self.indexes(side, kept)? {
                kept.keep_images(side, &index);
            }
            for (tag, digest) in self.on(side) {
                if !kept.doomed.contains_key(&(side, tag.to_owned())) {
                    kept.manifests.insert((side, digest.clone()));
                    kept.subjects.insert(digest.clone());
                }
            }
        }
        // Records name the images of version tags, so that those need not be read.
        for (_, record) in self.records.iter().filter(|(it, _)| published.contains(it) || recent.contains(it))
        {
            for platform in record.variants.iter().flat_map(|it| &it.platforms) {
                let origins =
                    platform.checks.iter().filter_map(|check| Some(check.from.as_ref()?.image.clone()));
                kept.subjects.extend(origins);
                if let Ok(image) = platform.digest.parse::<Digest>() {
                    kept.subjects.insert(image.clone());
                    kept.manifests.insert((Side::Public, image));
                }
            }
        }
        self.keep_unrecorded(kept)
    }

    /// Reads the images of public tags that no record names.
    fn keep_unrecorded(&self, kept: &mut Kept) -> Result<()> {
        let recorded: BTreeSet<&str> =
            self.records.values().flat_map(|it| it.variants.iter().map(|it| it.digest.as_str())).collect();
        let is_image = |tag: &str| matches!(Use::of(Side::Public, tag), Use::Version(_) | Use::Kept);
        let unknown: BTreeSet<&Digest> = self
            .on(Side::Public)
            .filter(|(tag, digest)| is_image(tag) && !recorded.contains(&***digest))
            .map(|(_, digest)| digest)
            .collect();
        let unknown: Vec<&Digest> = unknown.into_iter().collect();
        let ctx = self.ledger.ctx;
        for index in ctx.registry.manifests(&ctx.runner, &self.ledger.public, &unknown)?.into_iter().flatten()
        {
            kept.keep_images(Side::Public, &index);
        }
        Ok(())
    }
}

/// The images that an index names.
fn children(manifest: &Manifest) -> Vec<Digest> {
    match &manifest.content {
        Content::Index(index) => {
            index.manifests().iter().filter_map(|entry| entry.digest().as_ref().parse().ok()).collect()
        }
        Content::Image(_) => Vec::new(),
    }
}

/// What goes, by repository and digest: its tags, and why.
#[derive(Default)]
struct Sweep {
    entries: Vec<((Side, Digest), String)>,
    seen: BTreeSet<(Side, Digest)>,
    /// Images whose referrers go.
    subjects: BTreeSet<Digest>,
}

impl Sweep {
    fn add(&mut self, side: Side, digest: Digest, why: &str) {
        if self.seen.insert((side, digest.clone())) {
            self.entries.push(((side, digest), why.to_owned()));
        }
    }
}

impl Survey<'_> {
    /// The manifests that go, in an order in which no index is ever without its images: indexes, their images, what refers
    /// to them, records. A manifest that a tag needs which stays is left alone, whatever list names it.
    fn doomed(self, mut kept: Kept) -> Result<Plan> {
        let mut sweep = Sweep::default();
        for ((side, tag), why) in &kept.doomed {
            sweep.add(*side, self.tags[&(*side, tag.clone())].clone(), why);
        }
        let mut gone: BTreeSet<Digest> = BTreeSet::new();
        let indexes = kept
            .doomed
            .keys()
            .filter(|(side, tag)| matches!(Use::of(*side, tag), Use::Keyed | Use::Rebuilt | Use::Record(_)));
        let indexes: BTreeSet<(Side, Digest)> = indexes.map(|it| (it.0, self.tags[it].clone())).collect();
        for (side, digest) in indexes {
            for image in self.manifest(side, &digest)?.as_ref().map(children).unwrap_or_default() {
                gone.insert(image.clone());
                if !kept.manifests.contains(&(side, image.clone())) && self.has(side, &image)? {
                    sweep.add(side, image, "image of a deleted index");
                }
            }
            gone.insert(digest);
        }
        gone.extend(self.orphans(&kept)?);
        gone.retain(|image| !kept.subjects.contains(image));
        self.sweep_referrers(gone, &mut sweep, &mut kept)?;
        // What an interrupted prune left, if nothing needs it now.
        let unfinished = self.prunes.iter().filter(|(id, _)| self.unfinished.contains(id));
        for it in unfinished.flat_map(|(_, record)| &record.deletes) {
            if !kept.manifests.contains(&(it.repository, it.digest.clone()))
                && self.has(it.repository, &it.digest)?
            {
                sweep.add(it.repository, it.digest.clone(), &it.why);
            }
        }
        self.plan(sweep, &kept)
    }

    fn manifest(&self, side: Side, digest: &Digest) -> Result<Option<Manifest>> {
        let ctx = self.ledger.ctx;
        ctx.registry.manifest(&ctx.runner, self.ledger.of(side), digest)
    }

    fn has(&self, side: Side, digest: &Digest) -> Result<bool> {
        let ctx = self.ledger.ctx;
        ctx.registry.has(&ctx.runner, self.ledger.of(side), digest)
    }

    /// Images that are in neither repository, although a tag lists what refers to them.
    fn orphans(&self, kept: &Kept) -> Result<Vec<Digest>> {
        let subjects = self.tags.keys().filter_map(|(side, tag)| match Use::of(*side, tag) {
            Use::Referrers(subject) => Some(subject),
            _ => None,
        });
        let unknown: BTreeSet<Digest> = subjects.filter(|subject| !kept.subjects.contains(subject)).collect();
        let unknown: Vec<Digest> = unknown.into_iter().collect();
        let (registry, runner) = (&self.ledger.ctx.registry, &self.ledger.ctx.runner);
        let (public, staging) = (&self.ledger.public, &self.ledger.staging);
        let is_gone = |subject: &Digest| -> Result<bool> {
            Ok(!registry.has(runner, staging, subject)? && !registry.has(runner, public, subject)?)
        };
        let gone = side_by_side(&unknown, is_gone)?;
        Ok(unknown.into_iter().zip(gone).filter_map(|(subject, gone)| gone.then_some(subject)).collect())
    }

    /// What refers to images that are gone, and to that in turn, with the tags that list it.
    fn sweep_referrers(&self, gone: BTreeSet<Digest>, sweep: &mut Sweep, kept: &mut Kept) -> Result<()> {
        let (registry, runner) = (&self.ledger.ctx.registry, &self.ledger.ctx.runner);
        let mut subjects: Vec<Digest> = gone.into_iter().collect();
        for _ in 0..DEPTH {
            let mut next = Vec::new();
            sweep.subjects.extend(subjects.iter().cloned());
            for side in [Side::Public, Side::Staging] {
                let repository = self.ledger.of(side);
                let found = side_by_side(&subjects, |it| registry.referring(runner, repository, it))?;
                for artifact in found.into_iter().flatten() {
                    // Its tags, such as those that lead to a verdict, are about the same image.
                    kept.manifests.remove(&(side, artifact.clone()));
                    sweep.add(side, artifact.clone(), "refers to a deleted image");
                    next.push(artifact);
                }
                for subject in &subjects {
                    let list = fallback_tag(subject);
                    let lists =
                        self.on(side).filter(|(tag, _)| *tag == list || tag.starts_with(&format!("{list}.")));
                    for (_, digest) in lists {
                        kept.manifests.remove(&(side, digest.clone()));
                        sweep.add(side, digest.clone(), "lists what refers to a deleted image");
                    }
                }
            }
            subjects = next;
        }
        Ok(())
    }

    fn plan(self, sweep: Sweep, kept: &Kept) -> Result<Plan> {
        let mut deletes = Vec::new();
        for ((side, digest), why) in sweep.entries {
            let mut tags: Vec<String> =
                self.on(side).filter(|(_, at)| **at == digest).map(|(tag, _)| tag.to_owned()).collect();
            let stays = |tag: &String| match Use::of(side, tag) {
                Use::Kept | Use::Version(_) => true,
                Use::Referrers(subject) => !sweep.subjects.contains(&subject),
                _ => false,
            };
            if kept.manifests.contains(&(side, digest.clone())) || tags.iter().any(stays) {
                continue;
            }
            tags.sort_by_key(|tag| order(side, tag));
            deletes.push(Doomed { repository: side, digest, tags, why, bytes: None });
        }
        let later = deletes.len().saturating_sub(AT_MOST);
        deletes.truncate(AT_MOST);
        let going: usize = deletes.iter().map(|it| it.tags.len()).sum();
        let (unneeded_since, kept) = (kept.unneeded_since.clone(), self.tags.len() - going);
        let mut record = PruneRecord { at: self.now, deletes, unneeded_since };
        self.weigh(&mut record)?;
        let known = self.prunes.last().map(|(_, last)| &last.unneeded_since);
        let is_new = |image: &String| known.is_none_or(|known| !known.contains_key(image));
        let notes_more = record.unneeded_since.keys().any(is_new);
        let unfinished = if later == 0 { self.unfinished } else { Vec::new() };
        Ok(Plan { record, unfinished, kept, later, notes_more })
    }

    /// Notes the size of each manifest's own layers: those that no other one of the list, and no image that stays under a
    /// content key, has. Blobs that only version tags share count as well, since a registry may keep them for each repository.
    fn weigh(&self, record: &mut PruneRecord) -> Result<()> {
        let ctx = self.ledger.ctx;
        let limited = |side| ctx.registry.budget(self.ledger.of(side)).is_some();
        if limited(Side::Public) || limited(Side::Staging) {
            return Ok(());
        }
        let mut counted = BTreeSet::new();
        let going: BTreeSet<(Side, &Digest)> =
            record.deletes.iter().map(|it| (it.repository, &it.digest)).collect();
        let stay: Vec<(Side, Digest)> = self
            .tags
            .iter()
            .filter(|((side, tag), digest)| {
                matches!(Use::of(*side, tag), Use::Keyed | Use::Rebuilt) && !going.contains(&(*side, digest))
            })
            .map(|((side, _), digest)| (*side, digest.clone()))
            .collect();
        for (side, digest) in stay {
            let Some(index) = self.manifest(side, &digest)? else { continue };
            for image in children(&index) {
                let image = self.manifest(side, &image)?;
                counted.extend(image.iter().flat_map(Manifest::layers).map(|(layer, _)| layer));
            }
        }
        for it in &mut record.deletes {
            let Some(manifest) = self.manifest(it.repository, &it.digest)? else { continue };
            let own = manifest.layers().into_iter().filter(|(layer, _)| counted.insert(layer.clone()));
            it.bytes = Some(manifest.bytes.len() as u64 + own.map(|(_, size)| size).sum::<u64>());
        }
        Ok(())
    }
}

/// The name of an attempt goes first and its end last: without its end it would look interrupted.
fn order(side: Side, tag: &str) -> (u8, String) {
    let rank = match Use::of(side, tag) {
        Use::Attempt(id) if id.tag() == tag => 0,
        Use::Attempt(_) if tag.contains("-alive-") => 1,
        _ => 2,
    };
    (rank, tag.to_owned())
}

impl Ledger<'_> {
    pub fn of(&self, side: Side) -> &Repository {
        match side {
            Side::Public => &self.public,
            Side::Staging => &self.staging,
        }
    }

    /// Fails where an interrupted promotion may need what nothing else does.
    fn refuse_interrupted(&self, journal: &Journal) -> Result<()> {
        self.refuse_held(journal)?;
        self.refuse_unreadable(journal)?;
        match journal.interrupted().find(|(_, it)| !it.is_prune()) {
            None => Ok(()),
            Some((_, it)) => Err(missing(format!(
                "the promotion of {} was interrupted and may need what a prune deletes: run `cargo xtask repair`",
                it.name()
            ))),
        }
    }

    /// What a prune would delete now. Nothing is written.
    pub fn plan_prune(&self, limits: Limits) -> Result<Plan> {
        let journal = self.journal()?;
        self.refuse_interrupted(&journal)?;
        Plan::make(self, &journal, limits)
    }

    /// Deletes what nothing needs: with the lease, which keeps releases from beginning, and after the list is stored.
    pub fn prune(&self, limits: Limits) -> Result<Plan> {
        // A run with nothing to do writes nothing.
        let first = self.plan_prune(limits)?;
        if first.is_empty() && !first.notes_more {
            return Ok(first);
        }
        let nothing = |journal: &Journal| {
            self.refuse_interrupted(journal)?;
            let (kind, holder) = (PromotionKind::Prune, self.ctx.holder.clone());
            Ok(Promotion { release: None, kind, moves: Vec::new(), holder })
        };
        let lease = self.begin(&nothing)?;
        let plan = lease.or_withdraw(self.prepare(&lease, limits))?;
        let deleted = self.delete_all(&lease, &plan);
        // Whatever was not deleted is on the list, so nothing is left to repair.
        let ended = lease.end(if deleted.is_ok() { Outcome::Done } else { Outcome::Unchanged });
        deleted.and(ended)?;
        Ok(plan)
    }

    /// Makes the plan and stores it.
    fn prepare(&self, lease: &Lease<'_>, limits: Limits) -> Result<Plan> {
        let ctx = self.ctx;
        let journal = self.journal()?.without(&lease.id);
        let plan = Plan::make(self, &journal, limits)?;
        if plan.is_empty() && !plan.notes_more {
            return Ok(plan);
        }
        if !self.public.is_docker_hub() {
            let sides: BTreeSet<Side> = plan.record.deletes.iter().map(|it| it.repository).collect();
            for side in sides {
                ctx.registry.prove_delete(&ctx.runner, self.of(side))?;
            }
        }
        lease.fence()?;
        let (tag, document) = (prune_tag(&list_name(&lease.id)), json!(plan.record));
        let place = Place::Tag(&tag);
        let none = BTreeMap::new();
        let digest = ctx.registry.put_document(&ctx.runner, &self.staging, &place, KIND, &none, &document)?;
        ctx.registry.await_tag(&ctx.runner, &self.staging, &tag, &digest)?;
        Ok(plan)
    }

    fn delete_all(&self, lease: &Lease<'_>, plan: &Plan) -> Result<()> {
        let ctx = self.ctx;
        if plan.is_empty() && !plan.notes_more {
            return Ok(());
        }
        let hub = match self.public.is_docker_hub() {
            true => Some(Hub::login(&ctx.hub_account()?)?),
            false => None,
        };
        for (number, it) in plan.record.deletes.iter().enumerate() {
            lease.fence()?;
            match &hub {
                Some(hub) => self.delete_on_hub(hub, it)?,
                None => drop(ctx.registry.delete(&ctx.runner, self.of(it.repository), &it.digest)?),
            }
            if (number + 1).is_multiple_of(100) {
                ctx.say(format!("{} of {} manifests deleted", number + 1, plan.record.deletes.len()));
            }
        }
        if hub.is_none() {
            self.delete_tags_left(lease, plan)?;
        }
        for id in plan.unfinished.iter().chain([&list_name(&lease.id)]) {
            self.close_prune(lease, id)?;
        }
        Ok(())
    }

    /// Docker Hub deletes a tag by its own API, and a manifest by the registry's once no tag has it.
    fn delete_on_hub(&self, hub: &Hub, it: &Doomed) -> Result<()> {
        let (ctx, repository) = (self.ctx, self.of(it.repository));
        for tag in &it.tags {
            hub.delete_tag(repository, tag)?;
        }
        match ctx.registry.delete(&ctx.runner, repository, &it.digest) {
            // It deletes manifests without tags by itself, late.
            Err(error) if registry::is_final(&error) || error.is::<Missing>() => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// Deletes tags that their registry left when it deleted their manifest, and waits until none is seen.
    fn delete_tags_left(&self, lease: &Lease<'_>, plan: &Plan) -> Result<()> {
        let (registry, runner) = (&self.ctx.registry, &self.ctx.runner);
        for side in [Side::Public, Side::Staging] {
            let repository = self.of(side);
            let ours = plan.record.deletes.iter().filter(|it| it.repository == side);
            let tags: BTreeSet<String> = ours.flat_map(|it| it.tags.iter().cloned()).collect();
            let left = || -> Result<Vec<String>> {
                let listed: BTreeSet<String> = registry.tags(runner, repository)?.into_iter().collect();
                let left: Vec<String> = tags.intersection(&listed).cloned().collect();
                let digests = registry.digests(runner, repository, &left)?;
                Ok(left.into_iter().zip(digests).filter_map(|(tag, at)| at.map(|_| tag)).collect())
            };
            if tags.is_empty() || registry.poll(runner, || Ok(left()?.is_empty()))? {
                continue;
            }
            for tag in left()? {
                lease.fence()?;
                registry.delete(runner, repository, &tag)?;
            }
        }
        Ok(())
    }

    /// Notes that everything on a list is deleted.
    fn close_prune(&self, lease: &Lease<'_>, id: &str) -> Result<()> {
        let (registry, runner) = (&self.ctx.registry, &self.ctx.runner);
        let Some(list) = registry.manifest(runner, &self.staging, &prune_tag(id))? else { return Ok(()) };
        let tag = prune_done_tag(id);
        registry.point_tag(runner, &self.staging, &tag, &list, &|| lease.fence())?;
        registry.await_tag(runner, &self.staging, &tag, &list.digest)
    }
}

/// The name of the list of a prune, after its attempt.
fn list_name(attempt: &AttemptId) -> String {
    format!("{:010}-{}", attempt.begun, attempt.nonce)
}
