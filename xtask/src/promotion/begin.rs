//! The way to the lease: the plan, the images that it needs, the attempt, and a second look once the lease is held.
//!
//! Refuses to begin while another run holds the lease, and while an interrupted promotion could leave floating tags mixed
//! that the new one does not move.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::model::oci::{Digest, Manifest};
use crate::model::promotion::{AttemptId, Outcome, Promotion, PromotionKind};
use crate::output;
use crate::promotion::lease::Lease;
use crate::promotion::ledger::{Journal, KIND, Ledger};
use crate::tools::registry::Place;
use crate::tools::{crane, process};

/// How often a promotion is planned again because tags moved while its lease was taken.
const PLANS: usize = 3;

/// How long two runs that began at once may wait for each other.
const RIVALS_WITHIN: Duration = Duration::from_secs(90);

impl Ledger<'_> {
    /// Takes the lease for the promotion that `plan` makes of the journal and of the tags as they are. The plan is made
    /// again once the lease is held, since reads before it may have been stale.
    pub fn begin(&self, plan: &dyn Fn(&Journal) -> Result<Promotion>) -> Result<Lease<'_>> {
        let journal = self.journal()?;
        let promotion = plan(&journal)?;
        self.begin_with(journal, promotion, plan)
    }

    /// The same for a plan that was made of a journal a moment ago.
    pub fn begin_with(
        &self,
        mut journal: Journal,
        mut promotion: Promotion,
        plan: &dyn Fn(&Journal) -> Result<Promotion>,
    ) -> Result<Lease<'_>> {
        for _ in 0..PLANS {
            self.refuse_held(&journal)?;
            self.refuse_unreadable(&journal)?;
            self.refuse_mixture(&journal, &promotion)?;
            if self.ctx.runner.dry_run {
                self.copy(&promotion)?;
                output::line(format!(
                    "# take the lease in {}: promotion of {}",
                    self.staging,
                    promotion.name()
                ));
                return Ok(Lease::dry(self, promotion));
            }
            self.copy(&promotion)?;
            let lease = self.claim(promotion)?;
            let current = lease.or_withdraw(self.confirm(&lease))?;
            let again = lease.or_withdraw(plan(&current))?;
            if again == lease.promotion {
                lease.or_withdraw(self.supersede(&current, &lease))?;
                return Ok(lease);
            }
            lease.end(Outcome::Unchanged)?;
            (journal, promotion) = (self.journal()?, again);
        }
        bail!("tags in {} kept moving while the lease was taken: run the same command again", self.public)
    }

    /// Brings the images into the public repository, by digest: no tag moves. Images that it has are skipped.
    fn copy(&self, promotion: &Promotion) -> Result<()> {
        let (runner, registry) = (&self.ctx.runner, &self.ctx.registry);
        let images: BTreeSet<&Digest> = match promotion.kind {
            // A rollback may go to an image that is only staged any more.
            PromotionKind::Rollback => promotion.moves.iter().map(|it| &it.to).collect(),
            _ => promotion.versions().map(|it| &it.to).collect(),
        };
        for image in images {
            let is_linked = match runner.dry_run {
                true => registry.has(runner, &self.public, image)?,
                false => registry.link(runner, &self.staging, &self.public, image)?,
            };
            if !is_linked {
                runner.run_again(&crane::copy(&self.staging.digest(image), &self.public.digest(image)))?;
            }
        }
        Ok(())
    }

    /// Stores the attempt under a name of its own.
    fn claim(&self, promotion: Promotion) -> Result<Lease<'_>> {
        let random = RandomState::new().hash_one(promotion.holder.started.as_str());
        let id = AttemptId { begun: self.ctx.registry.now(&self.staging), nonce: format!("{random:016x}") };
        let clock = (Instant::now(), process::now());
        let (runner, tag, document) = (&self.ctx.runner, id.tag(), json!(promotion));
        let none = BTreeMap::new();
        let place = Place::Tag(&tag);
        let digest = self.ctx.registry.put_document(runner, &self.staging, &place, KIND, &none, &document)?;
        let manifest = self.ctx.registry.manifest(runner, &self.staging, &digest)?;
        let manifest: Manifest = manifest.context("the attempt that was stored is gone")?;
        Ok(Lease::new(self, id, promotion, manifest, clock))
    }

    /// Waits until the attempt is visible and no other run is alive. Of two that began at once the later one withdraws.
    fn confirm(&self, lease: &Lease<'_>) -> Result<Journal> {
        let start = Instant::now();
        let mut seen = None;
        let visible = self.ctx.registry.poll(&self.ctx.runner, || {
            let journal = self.journal()?;
            let is_visible = journal.attempts.iter().any(|attempt| attempt.id == lease.id);
            seen = Some(journal);
            Ok(is_visible)
        })?;
        let Some(mut journal) = seen.filter(|_| visible) else {
            bail!("{} does not show what was written to it: run the same command again", self.staging);
        };
        loop {
            let Some(rival) = journal.held().find(|attempt| attempt.id != lease.id).cloned() else {
                return Ok(journal.without(&lease.id));
            };
            if rival.id < lease.id || start.elapsed() > RIVALS_WITHIN {
                return Err(self.held_by(&journal, &rival));
            }
            thread::sleep(Duration::from_millis(500));
            journal = self.journal()?;
        }
    }

    /// Names a release whose version tags stay incomplete because another release goes on.
    fn report_incomplete(&self, promotion: &Promotion) -> Result<()> {
        let standing = self.standing(promotion.versions().map(|it| &it.tag))?;
        let set = standing.values().flatten().count();
        if set > 0 && set < standing.len() {
            self.ctx.say(format!(
                "warning: {} has {set} of {} version tags: run `cargo xtask publish --release-tag {}` from its commit to complete it",
                promotion.name(),
                standing.len(),
                promotion.name()
            ));
        }
        Ok(())
    }

    /// Marks interrupted attempts, so that a run that continues finds that its lease is lost.
    fn supersede(&self, journal: &Journal, lease: &Lease<'_>) -> Result<()> {
        for (attempt, promotion) in journal.interrupted().filter(|(attempt, _)| attempt.id != lease.id) {
            match promotion.is_prune() {
                true => self.ctx.say("a prune was interrupted: run `cargo xtask prune` to complete it"),
                false => self
                    .ctx
                    .say(format!("continuing after the interrupted promotion of {}", promotion.name())),
            }
            if promotion.release != lease.promotion.release {
                self.report_incomplete(promotion)?;
            }
            self.mark(&attempt.id, Outcome::Superseded)?;
        }
        Ok(())
    }
}
