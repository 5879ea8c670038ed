//! The right to move public tags, and the moves. The lease is checked before every write: by both clocks of this machine
//! since the last sign of life, and by a look whether another run has superseded it. A run that lost its lease stops
//! without another write, and does not undo either: the run that has the lease now repairs what it left.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::model::oci::{Digest, Manifest};
use crate::model::promotion::{
    AttemptId, LEASE_SECONDS, MARGIN_SECONDS, Move, Outcome, Promotion, RENEW_SECONDS, Standing, UNDO_SECONDS,
};
use crate::output;
use crate::promotion::ledger::Ledger;
use crate::tools::{process, registry};

/// How long a tag that was moved may take to read back.
const READ_BACK: Duration = Duration::from_secs(60);

/// Reads in a row that have to agree, once one of them did not: several servers may answer.
const AGREEING_READS: usize = 3;

pub struct Lease<'a> {
    ledger: &'a Ledger<'a>,
    pub id: AttemptId,
    pub promotion: Promotion,
    /// The attempt as it is stored; nothing in a dry run.
    manifest: Option<Manifest>,
    /// This machine's monotonic and wall clock (seconds since 1970) at the last sign of life. A machine that slept, or
    /// a process that was stopped, shows in one of them.
    alive: Cell<(Instant, u64)>,
}

/// The lease expired or another run has it. Nothing more was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LeaseLost(String);

/// What a write is part of: undoing may use time that moving leaves.
#[derive(Clone, Copy)]
enum Part {
    Move,
    Undo,
}

impl<'a> Lease<'a> {
    pub(super) fn new(
        ledger: &'a Ledger<'a>,
        id: AttemptId,
        promotion: Promotion,
        manifest: Manifest,
        clock: (Instant, u64),
    ) -> Self {
        Self { ledger, id, promotion, manifest: Some(manifest), alive: Cell::new(clock) }
    }

    /// The lease of a dry run, which writes nothing.
    pub(super) fn dry(ledger: &'a Ledger<'a>, promotion: Promotion) -> Self {
        let id = AttemptId { begun: 0, nonce: String::new() };
        Self { ledger, id, promotion, manifest: None, alive: Cell::new((Instant::now(), process::now())) }
    }

    /// Withdraws the attempt if something failed before its first public tag.
    pub fn or_withdraw<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err()
            && let Err(error) = self.end(Outcome::Unchanged)
        {
            self.ledger.ctx.say(format!("{error:#}"));
        }
        result
    }

    /// Fails if the lease is lost; gives a sign of life when one is due.
    pub fn fence(&self) -> Result<()> {
        self.check(Part::Move)
    }

    /// Makes the moves. On failure no floating tag stays moved, or the error names what points where.
    pub fn promote(&self) -> Result<()> {
        if let Err(error) = self.set_version_tags() {
            if error.is::<LeaseLost>() {
                return Err(error);
            }
            let outcome = self.outcome_without_floating(&error);
            return Err(self.stop(outcome, error.context(format!(
                "version tags of {} are not complete and no floating tag has moved; run the same command again",
                self.promotion.name()
            ))));
        }
        let mut written = Vec::new();
        let moved = self.move_floating_tags(&mut written);
        if let Err(error) = moved.and_then(|()| self.read_back(self.promotion.floating())) {
            if registry::is_final(&error) {
                // What was refused for good was not written.
                written.pop();
            }
            return Err(if error.is::<LeaseLost>() { error } else { self.undo_written(&written, error) });
        }
        self.end(Outcome::Done).map_err(|error| match error.is::<LeaseLost>() {
            true => error,
            false => error.context(
                "all tags have moved, but the promotion could not be closed: run `cargo xtask repair`",
            ),
        })
    }

    /// How the attempt ends whose version tags could not be set: nothing is left to complete if none of them is set and none
    /// may still arrive.
    fn outcome_without_floating(&self, error: &anyhow::Error) -> Outcome {
        let set = |standing: Standing| {
            self.promotion.versions().any(|it| standing.get(&it.tag).and_then(Option::as_ref) == Some(&it.to))
        };
        match self.ledger.standing_of(&self.promotion).map(set) {
            Ok(false) if registry::is_final(error) => Outcome::Unchanged,
            _ => Outcome::Stopped,
        }
    }

    /// Points every floating tag back at what it pointed at before. Reads may be stale, so all of them are written.
    pub fn undo(&self) -> Result<()> {
        let floating: Vec<&Move> = self.promotion.floating().collect();
        self.take_back(&floating)?;
        if !self.ledger.ctx.runner.dry_run
            && self.promotion.is_mixed(&self.ledger.standing_of(&self.promotion)?)
        {
            self.end(Outcome::Stopped)?;
            return Err(anyhow!(
                "a tag that did not exist before {} cannot be removed: run `cargo xtask repair` to complete the release",
                self.promotion.name()
            ));
        }
        self.end(Outcome::Undone)
    }

    /// Version tags are set once: one that points elsewhere stops the promotion, and one that is set is not written again,
    /// which a registry with immutable tags may refuse.
    fn set_version_tags(&self) -> Result<()> {
        for it in self.promotion.versions() {
            self.point(it, &it.to, Part::Move, true)?;
        }
        self.read_back(self.promotion.versions())
    }

    fn move_floating_tags<'m>(&'m self, written: &mut Vec<&'m Move>) -> Result<()> {
        // Read now what the moves and an undo need: a registry that limits reads must not stop them half-way.
        let ends = self.promotion.floating().flat_map(|it| it.from.iter().chain([&it.to]));
        let ends: Vec<Digest> = ends.cloned().collect();
        let ctx = self.ledger.ctx;
        ctx.registry.manifests(&ctx.runner, &self.ledger.public, &ends)?;
        for it in self.promotion.floating() {
            written.push(it);
            self.point(it, &it.to, Part::Move, false)?;
        }
        Ok(())
    }

    /// Writes one tag, its lease checked right before each request that is sent. With `once`, a tag that is set is not
    /// written.
    fn point(&self, it: &Move, to: &Digest, part: Part, once: bool) -> Result<()> {
        let (ctx, public) = (self.ledger.ctx, &self.ledger.public);
        if ctx.runner.dry_run {
            if !once || !self.is_set(it)? {
                output::line(format!("crane tag {} {}", public.digest(to), it.tag));
            }
            return Ok(());
        }
        let image = ctx.registry.manifest(&ctx.runner, public, to)?;
        let image = image.with_context(|| format!("{} is gone", public.digest(to)))?;
        ctx.say(format!("{} -> {to}", public.tag(&it.tag)));
        let is_set = Cell::new(false);
        let fence = || {
            self.check(part)?;
            is_set.set(once && self.is_set(it)?);
            if is_set.get() {
                bail!("{} is set already", it.tag);
            }
            self.check_clocks(part)
        };
        match ctx.registry.point_tag(&ctx.runner, public, &it.tag, &image, &fence) {
            Err(_) if is_set.get() => Ok(()),
            written => written,
        }
    }

    /// True if a version tag points at its image. Fails if it points at another one: it never moves.
    fn is_set(&self, it: &Move) -> Result<bool> {
        let (ctx, public) = (self.ledger.ctx, &self.ledger.public);
        match ctx.registry.digests(&ctx.runner, public, std::slice::from_ref(&it.tag))?.pop().flatten() {
            None => Ok(false),
            Some(now) if now == it.to => Ok(true),
            Some(now) => Err(anyhow!(
                "{} points at {now} and version tags never move: release under the next letter",
                public.tag(&it.tag)
            )),
        }
    }

    /// Fails if the lease is lost; gives a sign of life when one is due.
    fn check(&self, part: Part) -> Result<()> {
        self.check_clocks(part)?;
        let (ctx, staging) = (self.ledger.ctx, &self.ledger.staging);
        let tag = self.id.outcome_tag(Outcome::Superseded);
        if ctx.registry.digests(&ctx.runner, staging, &[tag])?.iter().any(Option::is_some) {
            return Err(self.lost("another run has taken the lease"));
        }
        if self.age() > RENEW_SECONDS {
            self.renew()?;
        }
        self.check_clocks(part)
    }

    fn check_clocks(&self, part: Part) -> Result<()> {
        let usable = match part {
            Part::Move => LEASE_SECONDS - UNDO_SECONDS,
            Part::Undo => LEASE_SECONDS - MARGIN_SECONDS,
        };
        match self.age() < usable {
            true => Ok(()),
            false => Err(self.lost("the lease expired")),
        }
    }

    /// Seconds since the last sign of life, by the clock that counts more.
    fn age(&self) -> u64 {
        let (monotonic, wall) = self.alive.get();
        monotonic.elapsed().as_secs().max(process::now().saturating_sub(wall))
    }

    fn renew(&self) -> Result<()> {
        let (ctx, clock) = (self.ledger.ctx, (Instant::now(), process::now()));
        let manifest = self.manifest.as_ref().context("a lease without an attempt")?;
        let tag = self.id.alive_tag(ctx.registry.now(&self.ledger.staging));
        ctx.registry.point_tag(&ctx.runner, &self.ledger.staging, &tag, manifest, &|| Ok(()))?;
        self.alive.set(clock);
        Ok(())
    }

    fn lost(&self, why: &str) -> anyhow::Error {
        anyhow::Error::new(LeaseLost(format!(
            "{why} while {} was promoted; nothing more was written: run `cargo xtask repair`",
            self.promotion.name()
        )))
    }

    /// Looks until every tag reads as it was moved. Once one does not, several reads in a row have to agree.
    fn read_back<'m>(&self, moves: impl Iterator<Item = &'m Move>) -> Result<()> {
        self.await_tags(&moves.map(|it| (it.tag.clone(), it.to.clone())).collect())
    }

    fn await_tags(&self, expected: &BTreeMap<String, Digest>) -> Result<()> {
        if self.ledger.ctx.runner.dry_run || expected.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let (mut pause, mut agreed, mut needed) = (Duration::from_millis(100), 0, 1);
        loop {
            let standing = self.ledger.standing(expected.keys())?;
            match expected.iter().find(|(tag, to)| standing.get(*tag).and_then(Option::as_ref) != Some(*to)) {
                None => {
                    agreed += 1;
                    if agreed >= needed {
                        return Ok(());
                    }
                }
                Some((tag, to)) => {
                    (agreed, needed) = (0, AGREEING_READS);
                    if start.elapsed() > READ_BACK {
                        return Err(anyhow!(
                            "{} does not read back as {to} within {} s",
                            self.ledger.public.tag(tag),
                            READ_BACK.as_secs()
                        ));
                    }
                }
            }
            self.check_clocks(Part::Undo)?;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Returns what this run wrote to where it was, after `error`; returns the error to report.
    fn undo_written(&self, written: &[&Move], error: anyhow::Error) -> anyhow::Error {
        let name = self.promotion.name();
        let undone = self.take_back(written);
        if undone.as_ref().is_err_and(|error| error.is::<LeaseLost>()) {
            return error.context(
                "the lease was lost before the floating tags could be returned: run `cargo xtask repair`",
            );
        }
        let standing = self.ledger.standing_of(&self.promotion);
        let untouched = |standing: &Standing| {
            let is_back = |it: &Move| standing.get(&it.tag).and_then(Option::as_ref) == it.from.as_ref();
            self.promotion.floating().all(is_back)
        };
        match (undone, standing) {
            (Ok(()), Ok(standing)) if untouched(&standing) => {
                if let Err(error) = self.end(Outcome::Undone) {
                    self.ledger.ctx.say(format!("{error:#}"));
                }
                error.context(format!(
                    "the floating tags point where they did before {name}; run the same command again"
                ))
            }
            (undone, standing) => {
                let points = match standing {
                    Ok(standing) => self.promotion.describe(&standing),
                    Err(error) => format!("where the tags point is unknown: {error:#}"),
                };
                let why = undone.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
                self.stop(Outcome::Stopped, error.context(format!(
                    "{name} is half promoted and could not be undone{why}; run `cargo xtask repair`\n{points}"
                )))
            }
        }
    }

    /// Writes where these tags pointed before, the last first, and reads them back. A tag that cannot be written does not
    /// keep the others where they are, unless the lease is lost.
    fn take_back(&self, moves: &[&Move]) -> Result<()> {
        let (mut expected, mut failed) = (BTreeMap::new(), None);
        for it in moves.iter().rev() {
            let Some(from) = &it.from else { continue };
            match self.point(it, from, Part::Undo, false) {
                Err(error) if error.is::<LeaseLost>() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
                Ok(()) => drop(expected.insert(it.tag.clone(), from.clone())),
            }
        }
        self.await_tags(&expected)?;
        failed.map_or(Ok(()), Err)
    }

    /// Ends the attempt on the way out of a failure, so that others need not wait until its lease expires.
    fn stop(&self, outcome: Outcome, error: anyhow::Error) -> anyhow::Error {
        if let Err(unclosed) = self.end(outcome) {
            self.ledger.ctx.say(format!("{unclosed:#}"));
        }
        error
    }

    /// Ends the attempt, and gives the lease back.
    pub fn end(&self, outcome: Outcome) -> Result<()> {
        let (ctx, staging) = (self.ledger.ctx, &self.ledger.staging);
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let tag = self.id.outcome_tag(outcome);
        let fence = || self.check(Part::Undo);
        ctx.registry.point_tag(&ctx.runner, staging, &tag, manifest, &fence)?;
        ctx.registry.await_tag(&ctx.runner, staging, &tag, &manifest.digest)
    }
}
