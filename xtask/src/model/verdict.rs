//! What the smoke suite found out about one image on one platform, and which of several verdicts counts. Refuses nothing:
//! the publishing phase asks whether the verdict that counts has passed.

use serde::{Deserialize, Serialize};

use super::platform::Platform;

/// One run of the suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub image: String,
    pub platform: Platform,
    pub variant: String,
    /// Content key of the suite: its scripts and what it was asked to expect.
    pub suite: String,
    pub passed: bool,
    /// True if the image ran under emulation.
    #[serde(default)]
    pub emulated: bool,
    pub seconds: u64,
    /// When it ended, in seconds since 1970 by the tester's clock, which orders nothing.
    pub at: u64,
    /// One more than the highest that the image's verdicts had when this one was recorded; 0 in verdicts from before
    /// there was an order.
    #[serde(default)]
    pub sequence: u64,
    /// Debian packages of the image: name, version and architecture, a line each, separated by tabs.
    pub packages: String,
}

/// The sequence of the next verdict on an image.
pub fn next_sequence(verdicts: &[Verdict]) -> u64 {
    verdicts.iter().map(|it| it.sequence).max().unwrap_or(0) + 1
}

/// The verdict that counts among those of one suite on one image, in the order of their listing.
///
/// Native and emulated runs are judged apart, since they fail for different reasons: a failure counts until a later run of
/// the same kind has passed. Of two that were recorded at once the failure counts.
pub fn counting(verdicts: &[Verdict]) -> Option<&Verdict> {
    let newest = |emulated: bool| {
        let of_kind = verdicts.iter().enumerate().filter(|(_, it)| it.emulated == emulated);
        let order = |(position, it): &(usize, &Verdict)| {
            (it.sequence, if it.sequence == 0 { *position } else { 0 }, !it.passed)
        };
        of_kind.max_by_key(order).map(|(_, it)| it)
    };
    let kinds = [newest(false), newest(true)];
    let failed = kinds.into_iter().flatten().find(|it| !it.passed);
    failed.or_else(|| kinds.into_iter().flatten().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sequence: u64, passed: bool, emulated: bool, at: u64) -> Verdict {
        Verdict {
            image: "sha256:1".into(),
            platform: Platform::LinuxArm64,
            variant: "base".into(),
            suite: "s".into(),
            passed,
            emulated,
            seconds: 1,
            at,
            sequence,
            packages: String::new(),
        }
    }

    fn passes(verdicts: &[Verdict]) -> Option<bool> {
        counting(verdicts).map(|it| it.passed)
    }

    #[test]
    fn a_failure_counts_until_a_later_pass_of_its_kind() {
        assert_eq!(passes(&[]), None);
        let (failed, passed) = (verdict(1, false, false, 9000), verdict(2, true, false, 1));
        assert_eq!(passes(std::slice::from_ref(&failed)), Some(false));
        // The clock of the second tester is behind, and the listing is in another order.
        assert_eq!(passes(&[passed.clone(), failed]), Some(true));
        assert_eq!(passes(&[passed.clone(), verdict(3, false, false, 2)]), Some(false));
        assert_eq!(passes(&[passed, verdict(2, false, false, 2)]), Some(false), "at once");
    }

    #[test]
    fn native_and_emulated_are_judged_apart() {
        let native = verdict(1, true, false, 1);
        assert_eq!(passes(&[native.clone(), verdict(2, false, true, 2)]), Some(false));
        assert_eq!(passes(&[verdict(1, false, false, 1), verdict(2, true, true, 2)]), Some(false));
        let both = [verdict(1, true, true, 1), native];
        assert!(!counting(&both).expect("a verdict").emulated, "a native pass is worth more");
    }

    #[test]
    fn verdicts_without_an_order_have_that_of_their_listing() {
        assert_eq!(passes(&[verdict(0, false, false, 9), verdict(0, true, false, 1)]), Some(true));
        assert_eq!(passes(&[verdict(0, true, false, 9), verdict(0, false, false, 1)]), Some(false));
        assert_eq!(next_sequence(&[verdict(0, true, false, 9), verdict(4, true, true, 9)]), 5);
        assert_eq!(next_sequence(&[]), 1);
    }
}
