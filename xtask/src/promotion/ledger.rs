//! The journal of attempts to move public tags ([`crate::model::promotion`]): one tag in the staging repository each.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;

use crate::context::Context;
use crate::error::missing;
use crate::model::oci::{Digest, Manifest};
use crate::model::promotion::{Attempt, AttemptId, Outcome, Promotion, Standing};
use crate::model::reference::Repository;
use crate::tools::process;
use crate::tools::registry::{self, Place};

pub(super) const KIND: &str = "application/vnd.opencode-devbox.promotion.v1+json";

/// How long ago an attempt may have ended for its moves to be read, in seconds: longer than a registry's reads lag.
const RECENT_SECONDS: u64 = 600;

/// The public repository, its staging repository, and the attempts that are recorded there.
pub struct Ledger<'a> {
    pub ctx: &'a Context,
    pub public: Repository,
    pub staging: Repository,
}

/// The attempts at one moment.
pub struct Journal {
    pub attempts: Vec<Attempt>,
    /// Documents of attempts that are unsettled, and of those that were superseded so recently that their writes may not
    /// be visible yet.
    documents: BTreeMap<AttemptId, Promotion>,
    /// Unsettled attempts whose tags hold no promotion: somebody else's images, or damaged documents.
    pub unreadable: Vec<AttemptId>,
    /// Seconds since 1970 by the registry's clock.
    now: u64,
}

impl Journal {
    pub(super) fn without(mut self, own: &AttemptId) -> Self {
        self.attempts.retain(|attempt| attempt.id != *own);
        self.documents.remove(own);
        self
    }

    pub fn document(&self, id: &AttemptId) -> Option<&Promotion> {
        self.documents.get(id)
    }

    /// Attempts whose runs may still write.
    pub fn held(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.is_held(self.now) && !self.is_dead(attempt))
    }

    /// Attempts that were interrupted, the newest first, with what they were to do.
    pub fn interrupted(&self) -> impl Iterator<Item = (&Attempt, &Promotion)> {
        let over = |attempt: &&Attempt| {
            attempt.is_unsettled() && (!attempt.is_held(self.now) || self.is_dead(attempt))
        };
        let attempts = self.attempts.iter().rev().filter(over);
        attempts.filter_map(|attempt| Some((attempt, self.documents.get(&attempt.id)?)))
    }

    /// What a floating tag pointed at before any interrupted promotion. Without this, a second release would take the
    /// first one's half for the state before.
    pub fn before(&self, tag: &str, now: Option<&Digest>) -> Option<Digest> {
        self.interrupted().fold(now.cloned(), |digest, (_, promotion)| promotion.before(tag, digest.as_ref()))
    }

    /// The image that a version tag was promised to by an attempt whose writes may not be visible yet.
    pub fn promised(&self, tag: &str) -> Option<&Digest> {
        let open = |attempt: &&Attempt| {
            matches!(attempt.outcome, None | Some(Outcome::Stopped | Outcome::Superseded))
        };
        let promotions = self.attempts.iter().filter(open).filter_map(|it| self.documents.get(&it.id));
        promotions.flat_map(Promotion::versions).find(|it| it.tag == tag).map(|it| &it.to)
    }

    /// True if the attempt's process ran on this machine and is gone.
    fn is_dead(&self, attempt: &Attempt) -> bool {
        let me = process::holder();
        self.documents.get(&attempt.id).is_some_and(|promotion| {
            let holder = &promotion.holder;
            holder.host == me.host && holder.realm == me.realm && !process::is_alive(holder)
        })
    }
}

impl<'a> Ledger<'a> {
    pub fn new(ctx: &'a Context, public: &Repository) -> Self {
        Self { ctx, public: public.clone(), staging: ctx.staging(public) }
    }

    /// Reads the attempts, and the documents of those that matter.
    pub fn journal(&self) -> Result<Journal> {
        let (client, runner) = (&self.ctx.registry, &self.ctx.runner);
        let attempts = Attempt::all(&client.tags(runner, &self.staging)?);
        let now = client.now(&self.staging);
        let matters = |attempt: &&Attempt| {
            let superseded = attempt.outcome == Some(Outcome::Superseded);
            attempt.is_unsettled() || superseded && attempt.alive + RECENT_SECONDS > now
        };
        let mut unread: Vec<Attempt> = attempts.iter().filter(matters).cloned().collect();
        let (mut documents, mut unreadable) = (BTreeMap::new(), Vec::new());
        // A list may show an attempt before its document can be read: its holder has to be known, since only a process of
        // this machine can be known to be dead.
        client.poll(runner, || {
            let tags: Vec<String> = unread.iter().map(|attempt| attempt.id.tag()).collect();
            let found = client.manifests(runner, &self.staging, &tags)?;
            for (attempt, manifest) in std::mem::take(&mut unread).into_iter().zip(found) {
                match manifest.as_ref().map(promotion_of) {
                    None => unread.push(attempt),
                    Some(Some(promotion)) => drop(documents.insert(attempt.id, promotion)),
                    Some(None) if attempt.is_unsettled() => unreadable.push(attempt.id),
                    Some(None) => {}
                }
            }
            Ok(!unread.iter().any(|attempt| attempt.is_held(now)))
        })?;
        Ok(Journal { documents, unreadable, attempts, now })
    }

    /// What these tags point at now.
    pub fn standing<T: AsRef<str>>(&self, tags: impl IntoIterator<Item = T>) -> Result<Standing> {
        let tags: Vec<String> = tags.into_iter().map(|tag| tag.as_ref().to_owned()).collect();
        let digests = self.ctx.registry.digests(&self.ctx.runner, &self.public, &tags)?;
        Ok(tags.into_iter().zip(digests).collect())
    }

    pub fn standing_of(&self, promotion: &Promotion) -> Result<Standing> {
        self.standing(promotion.moves.iter().map(|it| it.tag.as_str()))
    }

    /// The last attempt, whatever became of it.
    pub fn last(&self, journal: &Journal) -> Result<Option<Promotion>> {
        let Some(attempt) = journal.attempts.last() else { return Ok(None) };
        self.read(&attempt.id)
    }

    /// The last promotion that was completed and moved floating tags of variants.
    pub fn completed(&self, journal: &Journal) -> Result<Option<Promotion>> {
        Ok(self.last_completed(journal)?.map(|(_, promotion)| promotion))
    }

    /// The same, with its name.
    pub(super) fn last_completed(&self, journal: &Journal) -> Result<Option<(AttemptId, Promotion)>> {
        for attempt in journal.attempts.iter().rev().filter(|it| it.outcome == Some(Outcome::Done)) {
            if let Some(promotion) = self.read(&attempt.id)?.filter(Promotion::can_be_mixed) {
                return Ok(Some((attempt.id.clone(), promotion)));
            }
        }
        Ok(None)
    }

    fn read(&self, id: &AttemptId) -> Result<Option<Promotion>> {
        let manifest = self.ctx.registry.manifest(&self.ctx.runner, &self.staging, &id.tag())?;
        Ok(manifest.as_ref().and_then(promotion_of))
    }

    /// Fails while another run may be moving tags. Nothing is written.
    pub fn refuse_held(&self, journal: &Journal) -> Result<()> {
        match journal.held().next() {
            None => Ok(()),
            Some(attempt) => Err(self.held_by(journal, attempt)),
        }
    }

    pub(super) fn held_by(&self, journal: &Journal, attempt: &Attempt) -> anyhow::Error {
        let holder = journal.document(&attempt.id).map(|promotion| promotion.holder.to_string());
        missing(format!(
            "{} is promoting in {}: wait for it, at most {} s, or run `cargo xtask repair --break-lease` if it is gone",
            holder.unwrap_or_else(|| "another run".to_owned()),
            self.public,
            attempt.expires().saturating_sub(journal.now)
        ))
    }

    /// Fails if an attempt is of nobody knows what.
    pub(super) fn refuse_unreadable(&self, journal: &Journal) -> Result<()> {
        match journal.unreadable.first() {
            None => Ok(()),
            Some(id) => Err(missing(format!(
                "{} is named as an attempt at a promotion and holds none: run `cargo xtask repair`",
                self.staging.tag(&id.tag())
            ))),
        }
    }

    /// Settles attempts that hold no promotion, so that nobody waits for them. No public tag is written.
    pub fn settle_unreadable(&self, journal: &Journal) -> Result<()> {
        for id in &journal.unreadable {
            self.ctx.say(format!("{} holds no promotion: settled", self.staging.tag(&id.tag())));
            if !self.ctx.runner.dry_run {
                self.mark(id, Outcome::Superseded)?;
            }
        }
        Ok(())
    }

    /// Fails if an interrupted promotion may have moved some floating tags that this one leaves alone.
    pub(super) fn refuse_mixture(&self, journal: &Journal, promotion: &Promotion) -> Result<()> {
        let left = journal.interrupted().find(|(_, it)| it.can_be_mixed() && !promotion.covers(it));
        match left {
            None => Ok(()),
            Some((_, interrupted)) => Err(missing(format!(
                "the promotion of {} was interrupted and its floating tags may be mixed: run `cargo xtask repair`",
                interrupted.name()
            ))),
        }
    }

    /// Marks every held attempt as superseded: its run stops before its next write.
    pub fn break_leases(&self) -> Result<()> {
        let journal = self.journal()?;
        for attempt in journal.held() {
            self.ctx.say(format!("breaking the lease of {}", attempt.id.tag()));
            self.mark(&attempt.id, Outcome::Superseded)?;
        }
        Ok(())
    }

    /// Marks interrupted attempts as done whose moves are all made. A dry run marks none.
    pub fn close_completed(&self, journal: &Journal, is_complete: impl Fn(&Promotion) -> bool) -> Result<()> {
        for (attempt, _) in journal.interrupted().filter(|(_, it)| is_complete(it)) {
            if !self.ctx.runner.dry_run {
                self.mark(&attempt.id, Outcome::Done)?;
            }
        }
        Ok(())
    }

    /// Writes how an attempt ended, and waits until it can be read.
    pub fn mark(&self, id: &AttemptId, outcome: Outcome) -> Result<()> {
        let (registry, runner) = (&self.ctx.registry, &self.ctx.runner);
        let begun = registry.manifest(runner, &self.staging, &id.tag())?;
        let tag = id.outcome_tag(outcome);
        let digest = match begun.filter(|manifest| promotion_of(manifest).is_some()) {
            Some(begun) => {
                registry.point_tag(runner, &self.staging, &tag, &begun, &|| Ok(()))?;
                begun.digest
            }
            // What somebody else stored may refer to content that is gone, which a registry takes under no second tag.
            None => {
                let (place, document) = (Place::Tag(&tag), json!({ "settles": id.tag() }));
                registry.put_document(runner, &self.staging, &place, KIND, &BTreeMap::new(), &document)?
            }
        };
        registry.await_tag(runner, &self.staging, &tag, &digest)
    }
}

/// The promotion that a manifest holds, if it is an attempt.
fn promotion_of(manifest: &Manifest) -> Option<Promotion> {
    serde_json::from_value(registry::document_of(manifest)?).ok()
}
