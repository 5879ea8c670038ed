//! Moving public tags: the moves of a release or a rollback, and the journal of attempts at them.
//!
//! A registry has no compare-and-swap, its reads may lag behind its writes, and a write may arrive late. So no tag that
//! two runs share decides who may write. Each attempt is a tag of its own in the staging repository, which nobody else
//! ever writes, and further tags record its progress:
//!
//! ```text
//! promotion-<begun>-<nonce>              the attempt; its document is a Promotion
//! promotion-<begun>-<nonce>-alive-<at>   a sign of life
//! promotion-<begun>-<nonce>-<outcome>    how it ended, or that another run superseded it
//! ```
//!
//! Times are seconds since 1970 by the registry's clock. An attempt holds the lease once its own tag is visible and no
//! other attempt is alive: of two that begin at once, the one that becomes visible last sees the other. An attempt without
//! an end whose lease has expired was interrupted, and its document says what to complete or to undo.
//!
//! Refuses nothing itself: [`crate::promotion`] acts on its answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::oci::Digest;
use super::version::ReleaseTag;

/// How long an attempt holds the lease after its last sign of life, in seconds. Promotions take seconds; a run that
/// vanished on another machine keeps others out for this long.
pub const LEASE_SECONDS: u64 = 300;

/// What of the lease is kept for undoing moves, in seconds.
pub const UNDO_SECONDS: u64 = 90;

/// What of the lease nobody uses, in seconds: requests that are under way when it expires, and clocks that differ.
pub const MARGIN_SECONDS: u64 = 30;

/// After this many seconds without a sign of life a holder gives one.
pub const RENEW_SECONDS: u64 = LEASE_SECONDS / 3;

const PREFIX: &str = "promotion-";
const ALIVE: &str = "alive-";

/// What tags point at: a digest, or nothing.
pub type Standing = BTreeMap<String, Option<Digest>>;

/// One run of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub host: String,
    /// Boot and process namespace: process ids mean the same only within both.
    pub realm: String,
    pub pid: u32,
    /// Start time of the process, in clock ticks since boot.
    pub started: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// The document of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The release that the tags move to; nothing where only `base-latest` moves.
    pub release: Option<ReleaseTag>,
    pub kind: PromotionKind,
    /// Version tags first, floating tags after them.
    pub moves: Vec<Move>,
    pub holder: Holder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromotionKind {
    Publish,
    Rollback,
    BaseLatest,
    /// Moves nothing: the lease of a run that deletes what no release needs.
    Prune,
}

/// One tag to point at one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub tag: String,
    /// `false` for a version tag, which is set once and never re-pointed.
    pub floating: bool,
    /// What a floating tag pointed at before, which an undo returns it to; nothing for a new tag.
    pub from: Option<Digest>,
    pub to: Digest,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every tag reads as it was moved.
    Done,
    /// The floating tags read as they did before.
    Undone,
    /// No public tag was written.
    Unchanged,
    /// Another run has taken the lease, and completes or replaces this attempt.
    Superseded,
    /// The run gave up and says so; its moves are neither complete nor undone.
    Stopped,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Done, Self::Undone, Self::Unchanged, Self::Superseded, Self::Stopped];

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Unchanged => "unchanged",
            Self::Superseded => "superseded",
            Self::Stopped => "stopped",
        }
    }
}

/// Names an attempt; the order is that of their beginnings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AttemptId {
    /// Seconds since 1970 by the registry's clock.
    pub begun: u64,
    pub nonce: String,
}

impl AttemptId {
    pub fn tag(&self) -> String {
        format!("{PREFIX}{:010}-{}", self.begun, self.nonce)
    }

    pub fn alive_tag(&self, at: u64) -> String {
        format!("{}-{ALIVE}{at:010}", self.tag())
    }

    pub fn outcome_tag(&self, outcome: Outcome) -> String {
        format!("{}-{}", self.tag(), outcome.name())
    }
}

/// An attempt, read from its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub id: AttemptId,
    /// The last sign of life.
    pub alive: u64,
    pub outcome: Option<Outcome>,
}

impl Attempt {
    /// All attempts that the tags of a staging repository name, by start time.
    pub fn all(tags: &[String]) -> Vec<Self> {
        let mut attempts: BTreeMap<AttemptId, Self> = BTreeMap::new();
        for (id, rest) in tags.iter().filter_map(|tag| parse(tag)) {
            let begun = id.begun;
            let attempt = attempts.entry(id.clone()).or_insert(Self { id, alive: begun, outcome: None });
            if let Some(at) = rest.and_then(|rest| rest.strip_prefix(ALIVE)?.parse().ok()) {
                attempt.alive = attempt.alive.max(at);
            }
            let outcome = rest.and_then(|rest| Outcome::ALL.into_iter().find(|it| it.name() == rest));
            // The first of the list counts: a run that ended its attempt knows more than one that superseded it.
            attempt.outcome = match (attempt.outcome, outcome) {
                (Some(known), Some(new)) => Some(known.min(new)),
                (known, new) => known.or(new),
            };
        }
        attempts.into_values().collect()
    }

    /// True if its run may still write: it has no end, and its lease has not expired.
    pub fn is_held(&self, now: u64) -> bool {
        self.outcome.is_none() && self.expires() > now
    }

    /// When its lease expires, in seconds since 1970 by the registry's clock.
    pub fn expires(&self) -> u64 {
        self.alive + LEASE_SECONDS
    }

    /// True if its moves may be neither complete nor undone.
    pub fn is_unsettled(&self) -> bool {
        matches!(self.outcome, None | Some(Outcome::Stopped))
    }
}

/// The attempt that a tag belongs to, and what follows its name.
pub fn parse(tag: &str) -> Option<(AttemptId, Option<&str>)> {
    let mut parts = tag.strip_prefix(PREFIX)?.splitn(3, '-');
    let (begun, nonce) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    Some((AttemptId { begun, nonce }, parts.next()))
}

impl Promotion {
    /// The release, or what moves without one.
    pub fn name(&self) -> String {
        match (self.release, self.kind) {
            (Some(release), _) => release.to_string(),
            (None, PromotionKind::Prune) => "no tag (a prune)".to_owned(),
            (None, _) => "base-latest".to_owned(),
        }
    }

    /// True if it moves no tag, so that nothing is left to repair wherever it was interrupted.
    pub fn is_prune(&self) -> bool {
        self.kind == PromotionKind::Prune
    }

    /// Moves that have not been made yet, in order.
    pub fn pending<'a>(&'a self, standing: &'a Standing) -> impl Iterator<Item = &'a Move> {
        self.moves.iter().filter(|it| at(standing, &it.tag) != Some(&it.to))
    }

    pub fn floating(&self) -> impl DoubleEndedIterator<Item = &Move> + Clone {
        self.moves.iter().filter(|it| it.floating)
    }

    pub fn versions(&self) -> impl Iterator<Item = &Move> {
        self.moves.iter().filter(|it| !it.floating)
    }

    /// True if one floating tag or more could be left behind by the others.
    pub fn can_be_mixed(&self) -> bool {
        self.floating().count() > 1
    }

    /// True if some floating tags have moved and others have not. Tags that already pointed at their image do not count.
    pub fn is_mixed(&self, standing: &Standing) -> bool {
        let mut moved = self
            .floating()
            .filter(|it| it.from.as_ref() != Some(&it.to))
            .map(|it| at(standing, &it.tag) == Some(&it.to));
        let first = moved.next();
        moved.any(|other| Some(other) != first)
    }

    /// True if this promotion moves every floating tag of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.floating().all(|it| self.floating().any(|own| own.tag == it.tag))
    }

    /// What a tag pointed at before this promotion, if it was interrupted after it moved the tag.
    pub fn before(&self, tag: &str, now: Option<&Digest>) -> Option<Digest> {
        match self.floating().find(|it| it.tag == tag) {
            Some(it) if now == Some(&it.to) => it.from.clone(),
            _ => now.cloned(),
        }
    }

    /// A line per tag that names what it points at.
    pub fn describe(&self, standing: &Standing) -> String {
        let line = |it: &Move| match at(standing, &it.tag) {
            Some(now) if now == &it.to => format!("{}: {}", it.tag, self.name()),
            Some(now) => format!("{}: {now}", it.tag),
            None => format!("{}: absent", it.tag),
        };
        self.moves.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn at<'a>(standing: &'a Standing, tag: &str) -> Option<&'a Digest> {
    standing.get(tag)?.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn promotion() -> Promotion {
        let it = |tag: &str, floating, from: Option<&str>, to: &str| Move {
            tag: tag.into(),
            floating,
            from: from.map(digest),
            to: digest(to),
        };
        let moves = vec![
            it("v1.2.3", false, None, "new"),
            it("latest", true, Some("old"), "new"),
            it("latest-omos", true, Some("old-omos"), "new-omos"),
        ];
        let holder = Holder { host: "a".into(), realm: "r".into(), pid: 1, started: "9".into() };
        let release = Some("v1.2.3".parse().expect("a release tag"));
        Promotion { release, kind: PromotionKind::Publish, moves, holder }
    }

    fn standing(pairs: &[(&str, &str)]) -> Standing {
        pairs.iter().map(|(tag, text)| ((*tag).to_owned(), Some(digest(text)))).collect()
    }

    fn attempts(tags: &[&str]) -> Vec<Attempt> {
        Attempt::all(&tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_attempt_is_told_by_its_tags_in_any_order() {
        let id = AttemptId { begun: 1_700_000_000, nonce: "0a1b".into() };
        assert_eq!(id.tag(), "promotion-1700000000-0a1b");
        let tags = [id.alive_tag(1_700_000_100), id.outcome_tag(Outcome::Done), id.tag(), "latest".into()];
        let found = Attempt::all(&tags);
        assert_eq!(found, [Attempt { id, alive: 1_700_000_100, outcome: Some(Outcome::Done) }]);
        assert!(attempts(&["release-v1.2.3", "promotion-", "promotion-x-y", "base-0123"]).is_empty());
    }

    #[test]
    fn the_end_that_a_run_wrote_itself_counts() {
        let both = ["promotion-0000000001-a-superseded", "promotion-0000000001-a-done"];
        assert_eq!(attempts(&both)[0].outcome, Some(Outcome::Done));
        let stopped = ["promotion-0000000001-a-stopped", "promotion-0000000001-a-superseded"];
        assert_eq!(attempts(&stopped)[0].outcome, Some(Outcome::Superseded));
        assert!(!attempts(&stopped)[0].is_unsettled());
    }

    #[test]
    fn a_lease_ends_by_time_or_by_word() {
        let only = &attempts(&["promotion-0000000100-a"])[0];
        assert!(only.is_held(100 + LEASE_SECONDS - 1) && !only.is_held(100 + LEASE_SECONDS));
        let renewed = &attempts(&["promotion-0000000100-a", "promotion-0000000100-a-alive-0000000200"])[0];
        assert!(renewed.is_held(100 + LEASE_SECONDS) && renewed.is_unsettled());
        let stopped = &attempts(&["promotion-0000000100-a", "promotion-0000000100-a-stopped"])[0];
        assert!(!stopped.is_held(101) && stopped.is_unsettled());
        let done = &attempts(&["promotion-0000000100-a-done"])[0];
        assert!(!done.is_held(101) && !done.is_unsettled());
    }

    #[test]
    fn attempts_have_the_order_of_their_beginnings() {
        let found = attempts(&["promotion-0000000200-a", "promotion-0000000100-b", "promotion-0000000100-a"]);
        let order: Vec<_> = found.iter().map(|it| (it.id.begun, it.id.nonce.as_str())).collect();
        assert_eq!(order, [(100, "a"), (100, "b"), (200, "a")]);
    }

    #[test]
    fn an_interrupted_promotion_is_mixed_or_not() {
        let it = promotion();
        let half = standing(&[("v1.2.3", "new"), ("latest", "new"), ("latest-omos", "old-omos")]);
        assert!(it.is_mixed(&half));
        assert_eq!(it.pending(&half).map(|it| it.tag.as_str()).collect::<Vec<_>>(), ["latest-omos"]);
        let before = standing(&[("latest", "old"), ("latest-omos", "old-omos")]);
        assert!(!it.is_mixed(&before));
        let after = standing(&[("v1.2.3", "new"), ("latest", "new"), ("latest-omos", "new-omos")]);
        assert!(!it.is_mixed(&after));
        let mut partly = promotion();
        partly.moves[1].from = Some(partly.moves[1].to.clone());
        assert!(!partly.is_mixed(&half), "latest is at the image where it was");
        let old = digest("old-omos");
        assert_eq!(it.describe(&half), format!("v1.2.3: v1.2.3\nlatest: v1.2.3\nlatest-omos: {old}"));
        assert!(it.describe(&before).starts_with("v1.2.3: absent\n"));
    }

    #[test]
    fn a_promotion_covers_one_whose_floating_tags_it_moves() {
        let (all, mut part) = (promotion(), promotion());
        part.moves.remove(2);
        assert!(all.covers(&all) && all.covers(&part) && part.covers(&part) && !part.covers(&all));
        part.moves.push(Move { floating: false, ..all.moves[2].clone() });
        assert!(!part.covers(&all), "a version tag is no floating tag");
        assert!(all.can_be_mixed() && !part.can_be_mixed());
    }

    #[test]
    fn an_undo_returns_to_what_was_before_an_interrupted_promotion() {
        let it = promotion();
        let before = |tag: &str, now: &str| it.before(tag, Some(&digest(now)));
        assert_eq!(before("latest", "new"), Some(digest("old")), "moved by the interrupted promotion");
        assert_eq!(before("latest-omos", "old-omos"), Some(digest("old-omos")), "not moved yet");
        assert_eq!(before("latest", "other"), Some(digest("other")), "moved by another run since");
        assert_eq!(before("v1.2.3", "new"), Some(digest("new")), "a version tag never goes back");
    }

    #[test]
    fn the_document_survives_its_own_writing() {
        let text = serde_json::to_string(&promotion()).expect("json");
        assert_eq!(serde_json::from_str::<Promotion>(&text).expect("a promotion"), promotion());
    }
}
