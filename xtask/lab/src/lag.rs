//! Reads that lag behind writes of tags: for a while after a write, a tag has its old value, or does not exist yet.
//!
//! Reads by digest do not lag. In lists of tags, a new tag is missing until its window ends, and so is a new referrer in
//! the list of its image.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::pattern::Pattern;

/// How long each write of a tag stays invisible.
#[derive(Clone, Debug)]
pub struct Lag {
    min: Duration,
    max: Duration,
    random: fastrand::Rng,
    tags: Vec<(Pattern, Duration)>,
    reads: usize,
    flickers: bool,
}

impl From<Duration> for Lag {
    fn from(lag: Duration) -> Self {
        Self::random(0, lag, lag)
    }
}

impl Lag {
    pub fn none() -> Self {
        Duration::ZERO.into()
    }

    /// A new random lag for each write, the same ones for the same seed.
    pub fn random(seed: u64, min: Duration, max: Duration) -> Self {
        Self { min, max, random: fastrand::Rng::with_seed(seed), tags: Vec::new(), reads: 0, flickers: false }
    }

    /// So many reads of a tag after its write do not see it, however long they take.
    pub fn reads(reads: usize) -> Self {
        Self { reads, ..Self::none() }
    }

    /// Another lag for the tags that match `repository:tag`, or the referrers that match `repository@digest`. The first
    /// pattern that matches counts.
    #[must_use]
    pub fn of(mut self, tags: &str, lag: Duration) -> Self {
        self.tags.push((Pattern::new(tags), lag));
        self
    }

    /// Every other read within a window already gets the new value, as from one of two replicas.
    #[must_use]
    pub fn flickering(mut self) -> Self {
        self.flickers = true;
        self
    }

    fn next(&mut self, name: &str) -> Duration {
        if let Some((_, lag)) = self.tags.iter().find(|(pattern, _)| pattern.is_match(name)) {
            return *lag;
        }
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.u64(nanoseconds(self.min)..=nanoseconds(self.max)))
    }
}

/// What a read of a tag gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Current,
    /// An older digest; `None` before the first write.
    Old(Option<String>),
}

#[derive(Debug)]
struct History {
    before: Option<String>,
    /// In their order.
    writes: Vec<Write>,
    reads: usize,
}

/// A value, and from when and from which read on it is visible.
#[derive(Debug)]
struct Write {
    digest: Option<String>,
    from: Instant,
    from_read: usize,
}

#[derive(Debug)]
struct State {
    lag: Lag,
    tags: HashMap<String, History>,
}

/// The writes whose windows have not ended.
#[derive(Debug)]
pub(crate) struct Lagging(Mutex<State>);

impl Default for Lagging {
    fn default() -> Self {
        Self(Mutex::new(State { lag: Lag::none(), tags: HashMap::new() }))
    }
}

impl Lagging {
    /// Sets the lag of later writes; the windows of earlier ones go on.
    pub fn set(&self, lag: Lag) {
        self.0.lock().unwrap().lag = lag;
    }

    /// Ends all windows now.
    pub fn settle(&self) {
        self.0.lock().unwrap().tags.clear();
    }

    /// Notes a write of a tag that had the digest `before`. It is `None` where there was, or is, no such tag.
    pub fn note(&self, name: &str, before: Option<String>, digest: Option<String>) {
        let mut state = self.0.lock().unwrap();
        let (lag, reads) = (state.lag.next(name), state.lag.reads);
        if lag.is_zero() && reads == 0 && !state.tags.contains_key(name) {
            return;
        }
        let history =
            state.tags.entry(name.to_owned()).or_insert(History { before, writes: Vec::new(), reads: 0 });
        let from_read = history.reads + reads;
        history.writes.push(Write { digest, from: Instant::now() + lag, from_read });
    }

    /// Counts a read, and returns what it gets.
    pub fn read(&self, name: &str) -> View {
        self.look(name, 1)
    }

    /// What a read would get.
    pub fn view(&self, name: &str) -> View {
        self.look(name, 0)
    }

    fn look(&self, name: &str, reads: usize) -> View {
        let mut state = self.0.lock().unwrap();
        let flickers = state.lag.flickers;
        let Some(history) = state.tags.get_mut(name) else { return View::Current };
        let now = Instant::now();
        let is_visible = |write: &Write| write.from <= now && write.from_read <= history.reads;
        let visible = history.writes.iter().rposition(is_visible);
        history.reads += reads;
        if visible == Some(history.writes.len() - 1) {
            state.tags.remove(name);
            return View::Current;
        }
        if flickers && history.reads.is_multiple_of(2) {
            return View::Current;
        }
        let value = visible.map_or(&history.before, |index| &history.writes[index].digest);
        View::Old(value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn old(digest: &str) -> View {
        View::Old(Some(digest.to_owned()))
    }

    #[test]
    fn a_read_gets_the_newest_value_whose_window_has_ended() {
        let lagging = Lagging::default();
        lagging.set(Lag::from(LONG).of("*:quick", Duration::from_nanos(1)));
        lagging.note("r:t", None, Some("a".into()));
        assert_eq!(lagging.read("r:t"), View::Old(None));
        lagging.note("r:quick", Some("a".into()), Some("b".into()));
        assert_eq!(lagging.read("r:quick"), View::Current);
        assert_eq!(lagging.read("r:other"), View::Current);
        // A later write with no lag overtakes an earlier one.
        lagging.set(Lag::none());
        lagging.note("r:t", Some("a".into()), Some("b".into()));
        assert_eq!(lagging.read("r:t"), View::Current);
    }

    #[test]
    fn an_earlier_write_can_be_visible_before_a_later_one() {
        let lagging = Lagging::default();
        lagging.set(Duration::from_nanos(1).into());
        lagging.note("r:t", None, Some("a".into()));
        lagging.set(LONG.into());
        lagging.note("r:t", Some("a".into()), Some("b".into()));
        assert_eq!(lagging.read("r:t"), old("a"));
        lagging.settle();
        assert_eq!(lagging.read("r:t"), View::Current);
    }

    #[test]
    fn random_lags_differ_and_come_again_with_their_seed() {
        let lags = |seed: u64| -> Vec<Duration> {
            let mut lag = Lag::random(seed, Duration::from_secs(1), LONG).of("r:quick", Duration::ZERO);
            ["r:a", "r:a", "r:b", "r:quick"].map(|name| lag.next(name)).to_vec()
        };
        let [first, second, third, quick] = lags(7)[..] else { panic!() };
        assert!(first != second && second != third && quick.is_zero());
        assert!([first, second, third].iter().all(|lag| (Duration::from_secs(1)..=LONG).contains(lag)));
        assert_eq!(lags(7), lags(7));
        assert_ne!(lags(7), lags(8));
    }

    #[test]
    fn a_window_can_be_so_many_reads() {
        let lagging = Lagging::default();
        lagging.set(Lag::reads(2));
        lagging.note("r:t", Some("a".into()), Some("b".into()));
        assert_eq!(lagging.view("r:t"), old("a"));
        let views: Vec<View> = (0..3).map(|_| lagging.read("r:t")).collect();
        assert_eq!(views, [old("a"), old("a"), View::Current]);
    }

    #[test]
    fn a_flickering_tag_has_both_values() {
        let lagging = Lagging::default();
        lagging.set(Lag::from(LONG).flickering());
        lagging.note("r:t", Some("a".into()), Some("b".into()));
        let views: Vec<View> = (0..4).map(|_| lagging.read("r:t")).collect();
        assert_eq!(views, [old("a"), View::Current, old("a"), View::Current]);
    }
}
