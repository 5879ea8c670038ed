//! Compares two builds of an image file by file: kind, mode, owner, link target and checksum. Times are only counted: a
//! package manager that unpacks twice leaves other times on the folders that it makes. Refuses no difference itself:
//! which are allowed, `images/devbox.toml` says.

use std::collections::{BTreeMap, BTreeSet};

/// One file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Kind, mode, owner and link target, as find prints them.
    pub attributes: String,
    /// SHA-256 of a regular file.
    pub digest: Option<String>,
    pub time: String,
}

pub type Listing = BTreeMap<String, File>;

/// Reads what the recipe in [`super::bake`] lists. `found` has path, attributes and time of everything, and `sums` the
/// checksums of regular files; records end in a zero byte, since a file name may hold anything else.
pub fn parse(found: &str, sums: &str) -> Listing {
    let digests: BTreeMap<&str, &str> = sums
        .split('\0')
        .filter_map(|record| record.split_once("  ./"))
        .map(|(sum, path)| (path, sum))
        .collect();
    let file = |record: &str| {
        let mut fields = record.splitn(3, '\t');
        let (time, attributes, path) = (fields.next()?, fields.next()?, fields.next()?);
        let digest = digests.get(path).map(|sum| (*sum).to_owned());
        Some((format!("/{path}"), File { attributes: attributes.to_owned(), digest, time: time.to_owned() }))
    };
    found.split('\0').filter_map(file).collect()
}

/// What two builds have in common and what not.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    pub same: usize,
    /// The same but for their times.
    pub other_times: usize,
    /// Paths that may differ, and do.
    pub documented: Vec<String>,
    /// Paths that may not, each with what is wrong.
    pub unexpected: Vec<String>,
}

/// Compares two listings. A pattern in `may_differ` is a path; one that ends in a slash includes everything below it.
pub fn compare(first: &Listing, second: &Listing, may_differ: &[String]) -> Difference {
    let mut result = Difference::default();
    let paths: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    for path in paths {
        let why = match (first.get(path), second.get(path)) {
            (Some(_), None) => "is in the first build only",
            (None, _) => "is in the second build only",
            (Some(a), Some(b)) if a.attributes != b.attributes => "has another mode, owner or target",
            (Some(a), Some(b)) if a.digest != b.digest => "has other bytes",
            (Some(a), Some(b)) => {
                result.same += 1;
                result.other_times += usize::from(a.time != b.time);
                continue;
            }
        };
        match covers(may_differ, path) {
            true => result.documented.push(path.clone()),
            false => result.unexpected.push(format!("{path} {why}")),
        }
    }
    result
}

fn covers(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|pattern| path == pattern || pattern.ends_with('/') && path.starts_with(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &str =
        "1.5\tf 0644 0:0 \tetc/passwd\x001.5\tl 0777 0:0 bash\tbin/sh\x002\tf 0644 0:0 \tvar/cache/x\ty\0";

    fn listing(found: &str, sum: &str) -> Listing {
        parse(found, &format!("{sum}  ./etc/passwd\0aa  ./var/cache/x\ty\0"))
    }

    #[track_caller]
    fn check(found: &str, sum: &str, documented: &[&str], unexpected: &[&str]) {
        let (first, second) = (listing(FOUND, "00"), listing(found, sum));
        let found = compare(&first, &second, &["/var/cache/".to_owned()]);
        assert_eq!(
            (found.documented.as_slice(), found.unexpected.as_slice()),
            (
                documented.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice(),
                unexpected.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice(),
            )
        );
    }

    #[test]
    fn what_differs_is_named_unless_it_may() {
        check(FOUND, "00", &[], &[]);
        check(FOUND, "01", &[], &["/etc/passwd has other bytes"]);
        check(&FOUND.replace("0777", "0755"), "00", &[], &["/bin/sh has another mode, owner or target"]);
        check(&FOUND.replace("bash", "dash"), "00", &[], &["/bin/sh has another mode, owner or target"]);
        check(
            &FOUND.replace("bin/sh", "bin/rsh"),
            "00",
            &[],
            &["/bin/rsh is in the second build only", "/bin/sh is in the first build only"],
        );
        check(&FOUND.replace("cache/x", "cache/z"), "00", &["/var/cache/x\ty", "/var/cache/z\ty"], &[]);
    }

    #[test]
    fn a_time_alone_is_counted_and_makes_no_difference() {
        let later = listing(&FOUND.replace("1.5", "1.6"), "00");
        let found = compare(&listing(FOUND, "00"), &later, &[]);
        assert_eq!((found.same, found.other_times, found.unexpected.len()), (3, 2, 0));
    }
}
