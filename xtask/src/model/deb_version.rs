//! The order of Debian package versions (deb-version(7), "Sorting algorithm"). Refuses nothing: every string has a
//! place in that order.

use std::cmp::Ordering;

/// Compares `[epoch:]upstream[-revision]`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let split = |text: &str| -> (u64, String, String) {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| part(&a.1, &b.1)).then_with(|| part(&a.2, &b.2))
}

/// Letters and digits take turns: the letters in dpkg's order, the digits as numbers.
fn part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (letters_a, rest_a) = a.split_at(a.find(|c: char| c.is_ascii_digit()).unwrap_or(a.len()));
        let (letters_b, rest_b) = b.split_at(b.find(|c: char| c.is_ascii_digit()).unwrap_or(b.len()));
        let (digits_a, next_a) =
            rest_a.split_at(rest_a.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_a.len()));
        let (digits_b, next_b) =
            rest_b.split_at(rest_b.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_b.len()));
        let order = letters(letters_a, letters_b).then_with(|| digits(digits_a, digits_b));
        if order != Ordering::Equal || (next_a.is_empty() && next_b.is_empty()) {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
}

/// A tilde sorts before everything, even the end; letters before the other characters.
fn letters(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<char>| match c {
        Some('~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        Some(c) => i64::from(u32::from(c)) + 256,
    };
    let length = a.len().max(b.len());
    let at = |text: &str, index: usize| weight(text.chars().nth(index));
    (0..length).map(|i| at(a, i).cmp(&at(b, i))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn digits(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn less(a: &str, b: &str) {
        assert_eq!(
            (compare(a, b), compare(b, a), compare(a, a)),
            (Ordering::Less, Ordering::Greater, Ordering::Equal),
            "{a} {b}"
        );
    }

    /// Checked once against `dpkg --compare-versions`.
    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        less("1.0", "1.1");
        less("1.9", "1.10");
        less("3.5.1-1", "3.5.1-1+deb13u1");
        less("3.5.1-1+deb13u1", "3.5.1-1+deb13u2");
        less("1.0~rc1-1", "1.0-1");
        less("9.9", "1:0.1");
        less("2.41-12", "2.41-12+b1");
        less("1.0-1", "1.0.1-1");
        less("1.0a", "1.0+");
        less("1.0-9", "1.0-010");
        assert_eq!(compare("1.0-1", "1.00-01"), Ordering::Equal);
    }
}
