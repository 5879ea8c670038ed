//! Compares two builds of an image file by file: kind, mode, owner, link target, checksum and time.

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
    /// Paths that differ, each with the reason.
    pub different: Vec<String>,
}

pub fn compare(first: &Listing, second: &Listing) -> Difference {
    let mut result = Difference::default();
    let paths: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    for path in paths {
        let why = match (first.get(path), second.get(path)) {
            (Some(_), None) => "is in the first build only",
            (None, _) => "is in the second build only",
            (Some(a), Some(b)) if a.attributes != b.attributes => "has another mode, owner or target",
            (Some(a), Some(b)) if a.digest != b.digest => "has other bytes",
            (Some(a), Some(b)) if a.time != b.time => "has another time",
            _ => {
                result.same += 1;
                continue;
            }
        };
        result.different.push(format!("{path} {why}"));
    }
    result
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
    fn check(found: &str, sum: &str, different: &[&str]) {
        let compared = compare(&listing(FOUND, "00"), &listing(found, sum));
        assert_eq!(compared.different, different);
    }

    #[test]
    fn what_differs_is_named() {
        check(FOUND, "00", &[]);
        check(FOUND, "01", &["/etc/passwd has other bytes"]);
        check(&FOUND.replace("0777", "0755"), "00", &["/bin/sh has another mode, owner or target"]);
        check(&FOUND.replace("bash", "dash"), "00", &["/bin/sh has another mode, owner or target"]);
        check(
            &FOUND.replace("bin/sh", "bin/rsh"),
            "00",
            &["/bin/rsh is in the second build only", "/bin/sh is in the first build only"],
        );
        check(&FOUND.replace("1.5\tl", "1.6\tl"), "00", &["/bin/sh has another time"]);
    }
}
