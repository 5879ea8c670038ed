//! Moving public tags: the moves of a release or a rollback, and the ledger that is written before the first of them.
//!
//! The ledger is one small document in the staging repository. It says who may move public tags now (the lease) and
//! which moves the last promotion was about, with the digest that each tag had before. A promotion that was cut off can
//! so be completed or undone by any machine. Refuses nothing itself: [`crate::ledger`] acts on its answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::version::ReleaseTag;

/// How long a lease is good for, in seconds. Promotions take seconds; a holder that vanished blocks others this long.
pub const LEASE_SECONDS: u64 = 300;

/// What of the lease is kept for taking floating tags back, in seconds: a holder never moves a tag without a lease.
pub const UNDO_SECONDS: u64 = 90;

/// What a tag points at now: a digest, or nothing.
pub type Standing = BTreeMap<String, Option<String>>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Who may move public tags, until when; nobody between promotions.
    pub lease: Option<Lease>,
    /// The last promotion that began.
    pub promotion: Option<Promotion>,
    /// The release that the floating tags were last brought to.
    pub latest: Option<ReleaseTag>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub holder: Holder,
    /// Seconds since 1970.
    pub expires: u64,
}

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

/// Why a lease does not keep others out, or that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    Free,
    /// Its time is over.
    Expired,
    /// Its process on this machine is gone.
    Dead,
    Held,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    pub release: ReleaseTag,
    pub kind: PromotionKind,
    pub moves: Vec<Move>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromotionKind {
    Publish,
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Under way, or cut off.
    Open,
    Done,
    Undone,
}

/// One tag to point at one image. Version tags come first, floating tags after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub tag: String,
    /// `false` for a version tag, which is set once and never re-pointed.
    pub floating: bool,
    /// What the tag pointed at before; nothing for a new tag.
    pub from: Option<String>,
    pub to: String,
}

impl Ledger {
    /// Whether somebody else may be promoting. `alive` says whether a process of this very machine still runs.
    pub fn lease_state(&self, now: u64, me: &Holder, alive: impl Fn(&Holder) -> bool) -> LeaseState {
        match &self.lease {
            None => LeaseState::Free,
            Some(lease) if lease.expires <= now => LeaseState::Expired,
            Some(Lease { holder, .. })
                if holder.host == me.host && holder.realm == me.realm && !alive(holder) =>
            {
                LeaseState::Dead
            }
            Some(_) => LeaseState::Held,
        }
    }

    /// The promotion that was cut off, if one was.
    pub fn interrupted(&self) -> Option<&Promotion> {
        self.promotion.as_ref().filter(|promotion| promotion.outcome == Outcome::Open)
    }

    /// What a tag pointed at before any promotion that was cut off: the digest to go back to. Without this, a second
    /// release would take the first one's half for the state before.
    pub fn before(&self, tag: &str, now: Option<&String>) -> Option<String> {
        let cut_off = self.interrupted().and_then(|p| p.moves.iter().find(|m| m.floating && m.tag == tag));
        match cut_off {
            Some(it) if now == Some(&it.to) => it.from.clone(),
            _ => now.cloned(),
        }
    }

    /// True if bringing the floating tags to `release` would take them back to an older one.
    pub fn is_downgrade(&self, release: ReleaseTag) -> bool {
        self.latest.is_some_and(|latest| release < latest)
    }
}

impl Promotion {
    /// Moves that have not been made yet, in order.
    pub fn pending<'a>(&'a self, standing: &'a Standing) -> impl Iterator<Item = &'a Move> {
        self.moves.iter().filter(|it| at(standing, &it.tag) != Some(&it.to))
    }

    /// Floating tags to take back, the last first; a tag that did not exist before cannot be taken back, since
    /// registries have no portable way to delete a tag.
    pub fn to_undo<'a>(&'a self, standing: &'a Standing) -> impl Iterator<Item = &'a Move> {
        let moved = |it: &&Move| it.floating && it.from.is_some() && at(standing, &it.tag) == Some(&it.to);
        self.moves.iter().rev().filter(move |it| moved(it) && it.from.as_ref() != Some(&it.to))
    }

    /// True if some floating tags have moved and others have not.
    pub fn is_mixed(&self, standing: &Standing) -> bool {
        let mut floating = self.moves.iter().filter(|it| it.floating);
        let moved = |it: &Move| at(standing, &it.tag) == Some(&it.to);
        floating.clone().any(moved) && !floating.all(moved)
    }

    /// True if this promotion brings every floating tag of `other` to one release again.
    pub fn covers(&self, other: &Self) -> bool {
        let own = |tag: &str| self.moves.iter().any(|it| it.floating && it.tag == tag);
        other.moves.iter().filter(|it| it.floating).all(|it| own(&it.tag))
    }

    /// A line per tag that says what stands where.
    pub fn describe(&self, standing: &Standing) -> String {
        let line = |it: &Move| match at(standing, &it.tag) {
            Some(now) if now == &it.to => format!("{} stands at {}", it.tag, self.release),
            Some(now) => format!("{} stands at {now}", it.tag),
            None => format!("{} is absent", it.tag),
        };
        self.moves.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn at<'a>(standing: &'a Standing, tag: &str) -> Option<&'a String> {
    standing.get(tag)?.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> ReleaseTag {
        text.parse().expect("a release tag")
    }

    fn promotion() -> Promotion {
        let it = |tag: &str, floating, from: Option<&str>, to: &str| Move {
            tag: tag.into(),
            floating,
            from: from.map(Into::into),
            to: to.into(),
        };
        let moves = vec![
            it("v1.2.3", false, None, "new"),
            it("latest", true, Some("old"), "new"),
            it("latest-omos", true, Some("old-omos"), "new-omos"),
        ];
        Promotion { release: release("v1.2.3"), kind: PromotionKind::Publish, moves, outcome: Outcome::Open }
    }

    fn standing(pairs: &[(&str, &str)]) -> Standing {
        pairs.iter().map(|(tag, digest)| ((*tag).to_owned(), Some((*digest).to_owned()))).collect()
    }

    fn tags<'a>(moves: impl Iterator<Item = &'a Move>) -> Vec<&'a str> {
        moves.map(|it| it.tag.as_str()).collect()
    }

    #[test]
    fn a_promotion_cut_off_in_the_middle_can_go_on_or_back() {
        let it = promotion();
        let half = standing(&[("v1.2.3", "new"), ("latest", "new"), ("latest-omos", "old-omos")]);
        assert!(it.is_mixed(&half));
        assert_eq!(tags(it.pending(&half)), ["latest-omos"]);
        assert_eq!(tags(it.to_undo(&half)), ["latest"]);
        let before = standing(&[("latest", "old"), ("latest-omos", "old-omos")]);
        assert!(!it.is_mixed(&before));
        let after = standing(&[("v1.2.3", "new"), ("latest", "new"), ("latest-omos", "new-omos")]);
        assert!(!it.is_mixed(&after));
        let expected = "v1.2.3 stands at v1.2.3\nlatest stands at v1.2.3\nlatest-omos stands at old-omos";
        assert_eq!(it.describe(&half), expected);
        assert!(it.describe(&before).starts_with("v1.2.3 is absent\nlatest stands at old\n"));
        assert_eq!(tags(it.pending(&before)), ["v1.2.3", "latest", "latest-omos"]);
        assert_eq!(tags(it.to_undo(&before)), [""; 0]);
    }

    #[test]
    fn a_promotion_covers_another_if_it_moves_all_of_its_floating_tags() {
        let (all, mut part) = (promotion(), promotion());
        part.moves.remove(2);
        assert!(all.covers(&all) && all.covers(&part) && part.covers(&part) && !part.covers(&all));
        part.moves.push(Move { floating: false, ..all.moves[2].clone() });
        assert!(!part.covers(&all), "a version tag is no floating tag");
        assert!(
            part.covers(&Promotion { moves: all.moves[..1].to_vec(), ..all.clone() }),
            "version tags do not count"
        );
    }

    #[test]
    fn a_second_release_goes_back_to_before_the_first_was_cut_off() {
        let ledger = Ledger { promotion: Some(promotion()), ..Ledger::default() };
        let before = |tag: &str, now: &str| ledger.before(tag, Some(&now.to_owned()));
        assert_eq!(
            before("latest", "new").as_deref(),
            Some("old"),
            "moved by the promotion that was cut off"
        );
        assert_eq!(before("latest-omos", "old-omos").as_deref(), Some("old-omos"), "not moved yet");
        assert_eq!(before("latest", "other").as_deref(), Some("other"), "moved by somebody since");
        assert_eq!(before("latest-omos", "new").as_deref(), Some("new"), "where another tag was moved");
        assert_eq!(before("v1.2.3", "new").as_deref(), Some("new"), "a version tag never goes back");
        let mut done = ledger.clone();
        done.promotion.as_mut().expect("one").outcome = Outcome::Done;
        assert_eq!(done.before("latest", Some(&"new".to_owned())).as_deref(), Some("new"));
    }

    #[test]
    fn a_lease_ends_by_time_or_with_its_process() {
        let me = Holder { host: "a".into(), realm: "r".into(), pid: 1, started: "9".into() };
        let other = Holder { host: "b".into(), ..me.clone() };
        let held = |holder: &Holder| Ledger {
            lease: Some(Lease { holder: holder.clone(), expires: 100 }),
            ..Ledger::default()
        };
        assert_eq!(Ledger::default().lease_state(0, &me, |_| true), LeaseState::Free);
        assert_eq!(
            held(&other).lease_state(99, &me, |_| false),
            LeaseState::Held,
            "another machine: cannot tell"
        );
        assert_eq!(held(&other).lease_state(100, &me, |_| true), LeaseState::Expired);
        assert_eq!(held(&me).lease_state(99, &me, |_| true), LeaseState::Held);
        assert_eq!(held(&me).lease_state(99, &me, |_| false), LeaseState::Dead);
    }

    #[test]
    fn an_older_release_is_a_downgrade() {
        let ledger = Ledger { latest: Some(release("v1.18.18b")), ..Ledger::default() };
        assert!(ledger.is_downgrade(release("v1.18.18")) && ledger.is_downgrade(release("v1.9.20")));
        assert!(!ledger.is_downgrade(release("v1.18.18b")) && !ledger.is_downgrade(release("v1.18.18c")));
        assert!(!Ledger::default().is_downgrade(release("v0.0.1")));
    }

    #[test]
    fn the_ledger_survives_its_own_writing() {
        let ledger = Ledger { promotion: Some(promotion()), latest: Some(release("v1.0.0")), lease: None };
        let text = serde_json::to_string(&ledger).expect("json");
        assert_eq!(serde_json::from_str::<Ledger>(&text).expect("a ledger"), ledger);
    }
}
