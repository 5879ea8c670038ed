//! Moves public tags, all or none of them, and keeps the ledger that lets any machine finish or undo it.
//!
//! Order: the lease is taken and the moves are written down with the digest that each tag has now; version tags are
//! set and read back; floating tags are moved and read back; the ledger is closed. What fails after the first floating
//! tag moved is taken back. Refuses while another run holds the lease.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::ctx::Ctx;
use crate::missing;
use crate::model::promotion::{
    LEASE_SECONDS, Lease, LeaseState, Ledger, Move, Outcome, Promotion, Standing, UNDO_SECONDS,
};
use crate::model::reference::Repository;
use crate::tools::registry::Place;
use crate::tools::{crane, process};

/// The tag of the ledger in the staging repository.
const TAG: &str = "ledger";
const KIND: &str = "application/vnd.opencode-devbox.ledger.v1+json";

/// The public repository, its staging repository and the ledger as it was last seen there.
pub struct Books<'a> {
    ctx: &'a Ctx,
    pub repository: Repository,
    pub staging: Repository,
    pub ledger: Ledger,
    /// Digest of the ledger that was read; nothing where none was ever written.
    seen: Option<String>,
}

impl<'a> Books<'a> {
    pub fn open(ctx: &'a Ctx, repository: &Repository, staging: &Repository) -> Result<Self> {
        let mut books = Self {
            ctx,
            repository: repository.clone(),
            staging: staging.clone(),
            ledger: Ledger::default(),
            seen: None,
        };
        (books.seen, books.ledger) = books.read()?;
        Ok(books)
    }

    fn read(&self) -> Result<(Option<String>, Ledger)> {
        match self.ctx.registry.document(&self.ctx.runner, &self.staging, TAG)? {
            None => Ok((None, Ledger::default())),
            Some((digest, document)) => {
                let ledger = serde_json::from_value(document)
                    .with_context(|| format!("{} is not a ledger", self.staging.tag(TAG)))?;
                Ok((Some(digest.to_string()), ledger))
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        let document = serde_json::to_value(&self.ledger)?;
        let none = BTreeMap::new();
        let (runner, registry) = (&self.ctx.runner, &self.ctx.registry);
        let digest =
            registry.put_document(runner, &self.staging, &Place::Tag(TAG), KIND, &none, &document)?;
        self.seen = Some(digest.to_string());
        Ok(())
    }

    /// What these tags point at now.
    pub fn standing<'t>(&self, tags: impl IntoIterator<Item = &'t str>) -> Result<Standing> {
        let mut standing = Standing::new();
        for tag in tags {
            let digest = self.ctx.registry.digest(&self.ctx.runner, &self.repository, tag)?;
            standing.insert(tag.to_owned(), digest.map(String::from));
        }
        Ok(standing)
    }

    pub fn standing_of(&self, promotion: &Promotion) -> Result<Standing> {
        self.standing(promotion.moves.iter().map(|it| it.tag.as_str()))
    }

    /// Fails while another run may be moving tags; says so where it takes a lease over. Nothing is written.
    pub fn refuse_held(&self, break_lease: bool) -> Result<()> {
        let Some(lease) = &self.ledger.lease else { return Ok(()) };
        let now = process::now();
        let holder = format!("process {} on {}", lease.holder.pid, lease.holder.host);
        match self.ledger.lease_state(now, &self.ctx.holder, process::is_alive) {
            LeaseState::Held if !break_lease => Err(missing(format!(
                "{holder} is promoting in {}: wait for it, at most {} s, or run `cargo xtask repair --break-lease` if it is gone",
                self.repository,
                lease.expires.saturating_sub(now)
            ))),
            state => {
                self.ctx.say(format!("taking over the lease of {holder}: {state:?}").to_lowercase());
                Ok(())
            }
        }
    }

    /// Takes the lease for a promotion and writes its moves down.
    pub fn begin(&mut self, promotion: Promotion, break_lease: bool) -> Result<()> {
        self.refuse_held(break_lease)?;
        let (now_there, _) = self.read()?;
        if now_there != self.seen {
            bail!("another release moved tags in {} meanwhile: run the same command again", self.repository);
        }
        if let Some(cut_off) = self.ledger.interrupted()
            && !promotion.covers(cut_off)
            && cut_off.is_mixed(&self.standing_of(cut_off)?)
        {
            return Err(missing(format!(
                "the promotion of {} was cut off with its floating tags half moved: run `cargo xtask repair`",
                cut_off.release
            )));
        }
        let expires = process::now() + LEASE_SECONDS;
        self.ledger.lease = Some(Lease { holder: self.ctx.holder.clone(), expires });
        self.ledger.promotion = Some(promotion);
        self.write()?;
        if self.ctx.runner.dry_run {
            return Ok(());
        }
        // Registries cannot compare and swap: of two that wrote at once, the last one stands, and both look after a
        // time in which the other's write has arrived.
        thread::sleep(self.settle());
        self.lease_left().map(drop)
    }

    fn settle(&self) -> Duration {
        Duration::from_millis(if self.repository.is_loopback() { 100 } else { 2000 })
    }

    /// What is left of this run's lease; fails if another run has taken it, or too little is left to move tags and to
    /// take them back.
    fn lease_left(&self) -> Result<Duration> {
        if self.ctx.runner.dry_run {
            return Ok(Duration::from_secs(LEASE_SECONDS));
        }
        let mine = self.read()?.1.lease.filter(|lease| lease.holder == self.ctx.holder);
        let left = mine.map_or(0, |lease| lease.expires.saturating_sub(process::now()));
        if left < UNDO_SECONDS + 30 {
            return Err(missing(
                "another release took the lease, or this one ran out: run the same command again".to_owned(),
            ));
        }
        Ok(Duration::from_secs(left))
    }

    /// Makes the moves of the promotion that was begun. On failure nothing floating stays half moved, or the error
    /// says what stands where.
    pub fn promote(&mut self) -> Result<()> {
        let promotion = self.ledger.promotion.clone().context("no promotion was begun")?;
        if let Err(error) = self.set_version_tags(&promotion) {
            self.close(Outcome::Open);
            return Err(error.context(format!(
                "version tags of {} are not complete and no floating tag has moved; run the same command again",
                promotion.release
            )));
        }
        // Nobody else may move a tag as long as this run does: all of it fits into what is left of the lease.
        let left = self.lease_left()?;
        self.ctx.runner.begin(left - Duration::from_secs(UNDO_SECONDS));
        if let Err(error) = self.move_floating_tags(&promotion) {
            self.ctx.runner.begin(Duration::from_secs(UNDO_SECONDS));
            return Err(self.take_back(&promotion, error));
        }
        self.ctx.runner.begin(Duration::from_secs(UNDO_SECONDS));
        if promotion.moves.iter().any(|it| it.floating) {
            self.ledger.latest = Some(promotion.release);
        }
        self.finish(Outcome::Done)
    }

    fn set_version_tags(&self, promotion: &Promotion) -> Result<()> {
        let standing = self.standing_of(promotion)?;
        let pending: Vec<&Move> = promotion.pending(&standing).filter(|it| !it.floating).collect();
        for it in &pending {
            self.ctx
                .runner
                .run_again(&crane::copy(&self.staging.digest(&it.to), &self.repository.tag(&it.tag)))?;
        }
        self.read_back(&pending)
    }

    fn move_floating_tags(&self, promotion: &Promotion) -> Result<()> {
        let standing = self.standing_of(promotion)?;
        let pending: Vec<&Move> = promotion.pending(&standing).filter(|it| it.floating).collect();
        for it in &pending {
            self.ctx.runner.run_again(&crane::tag(&self.repository.digest(&it.to), &it.tag))?;
        }
        self.read_back(&pending)
    }

    fn read_back(&self, moves: &[&Move]) -> Result<()> {
        if self.ctx.runner.dry_run {
            return Ok(());
        }
        let standing = self.standing(moves.iter().map(|it| it.tag.as_str()))?;
        match moves.iter().find(|it| standing.get(&it.tag) != Some(&Some(it.to.clone()))) {
            None => Ok(()),
            Some(it) => bail!("{} does not read back as {}", self.repository.tag(&it.tag), it.to),
        }
    }

    /// Takes the floating tags back after `error`; returns the error to report.
    fn take_back(&mut self, promotion: &Promotion, error: anyhow::Error) -> anyhow::Error {
        let release = promotion.release;
        match self.undo(promotion) {
            Ok(()) => error.context(format!(
                "the floating tags were taken back to where they stood before {release}; run the same command again"
            )),
            Err(undo) => {
                self.close(Outcome::Open);
                let stands = match self.standing_of(promotion) {
                    Ok(standing) => promotion.describe(&standing),
                    Err(error) => format!("what stands where cannot be told: {error:#}"),
                };
                error.context(format!(
                    "{release} is half promoted and could not be taken back ({undo:#}); run `cargo xtask repair`\n{stands}"
                ))
            }
        }
    }

    /// Points every floating tag of a promotion back at what it pointed at before, and closes the ledger.
    pub fn undo(&mut self, promotion: &Promotion) -> Result<()> {
        let standing = self.standing_of(promotion)?;
        let mut back = Vec::new();
        for it in promotion.to_undo(&standing) {
            let from = it.from.clone().context("a tag without a digest before")?;
            self.ctx.runner.run_again(&crane::tag(&self.repository.digest(&from), &it.tag))?;
            back.push(Move { to: from, ..it.clone() });
        }
        self.read_back(&back.iter().collect::<Vec<_>>())?;
        let standing = self.standing_of(promotion)?;
        if promotion.is_mixed(&standing) {
            return Err(anyhow!("a tag that did not exist before cannot be taken back"));
        }
        self.finish(Outcome::Undone)
    }

    /// Closes the promotion in the ledger and gives the lease back.
    pub fn finish(&mut self, outcome: Outcome) -> Result<()> {
        if let Some(promotion) = &mut self.ledger.promotion {
            promotion.outcome = outcome;
        }
        self.ledger.lease = None;
        self.write().context("the tags stand, but the ledger could not be closed: run `cargo xtask repair`")
    }

    /// Gives the lease back on the way out of a failure, if the registry still takes it.
    fn close(&mut self, outcome: Outcome) {
        if let Err(error) = self.finish(outcome) {
            self.ctx.say(format!("{error:#}"));
        }
    }
}
