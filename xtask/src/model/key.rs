//! Content keys: what an image is made from, as a short hash.
//!
//! A key covers the path, kind, mode and bytes of each input, the build arguments, and the digests of what is built
//! upon. Each field is written with its length, so that bytes cannot move from one field to the next unnoticed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Changes when the way of hashing changes, so that old and new keys never meet.
const FORMAT: &str = "opencode-devbox content key 1";

/// One file of a build context, as git would keep it: only the executable bit of the mode counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the repository's root, with `/`.
    pub path: String,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { executable: bool, bytes: Vec<u8> },
    Symlink { target: String },
}

/// The first 12 hexadecimal digits of the hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Computes the key of an image. The order of `entries` does not matter.
pub fn key(entries: &[Entry], args: &BTreeMap<String, String>, upon: &BTreeMap<String, String>) -> Key {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(FORMAT.as_bytes());
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    field(b"entries");
    field(&(sorted.len() as u64).to_be_bytes());
    for entry in sorted {
        field(entry.path.as_bytes());
        match &entry.kind {
            Kind::File { executable, bytes } => {
                field(if *executable { b"100755" } else { b"100644" });
                field(bytes);
            }
            Kind::Symlink { target } => {
                field(b"120000");
                field(target.as_bytes());
            }
        }
    }
    for (name, map) in [("args", args), ("upon", upon)] {
        field(name.as_bytes());
        field(&(map.len() as u64).to_be_bytes());
        for (key, value) in map {
            field(key.as_bytes());
            field(value.as_bytes());
        }
    }
    let mut text = hex(&hash.finalize());
    text.truncate(12);
    Key(text)
}

/// `sha256:<hex>` of bytes, as OCI descriptors write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Entry {
        Entry { path: path.to_owned(), kind: Kind::File { executable: false, bytes: text.into() } }
    }

    fn of(entries: &[Entry]) -> Key {
        key(entries, &BTreeMap::new(), &BTreeMap::new())
    }

    /// A published vector: if this changes, [`FORMAT`] has to change too.
    #[test]
    fn the_key_of_a_known_tree_stays() {
        let args = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let upon = BTreeMap::from([("linux/amd64".to_owned(), "sha256:00".to_owned())]);
        assert_eq!(key(&[file("a", "x")], &args, &upon).to_string(), "9de649629abe");
    }

    #[test]
    fn what_changes_a_key_and_what_does_not() {
        let plain = of(&[file("a", "12"), file("b", "3")]);
        assert_eq!(plain, of(&[file("b", "3"), file("a", "12")]), "order of files");
        assert_ne!(plain, of(&[file("a", "1"), file("b", "23")]), "byte moved between files");
        assert_ne!(plain, of(&[file("a", "12"), file("c", "3")]), "rename");
        assert_ne!(plain, of(&[file("a", "12\r\n"), file("b", "3")]), "line ending");
        let executable =
            Entry { path: "a".into(), kind: Kind::File { executable: true, bytes: b"12".to_vec() } };
        assert_ne!(plain, of(&[executable, file("b", "3")]), "mode");
        let link = |target: &str| Entry { path: "a".into(), kind: Kind::Symlink { target: target.into() } };
        assert_ne!(of(&[link("x")]), of(&[link("y")]), "symlink target");
        assert_ne!(of(&[link("x")]), of(&[file("a", "x")]), "kind");
        let upon = |digest: &str| BTreeMap::from([("linux/amd64".to_owned(), digest.to_owned())]);
        let none = BTreeMap::new();
        assert_ne!(key(&[], &none, &upon("1")), key(&[], &none, &upon("2")), "what is built upon");
        assert_ne!(key(&[], &upon("1"), &none), key(&[], &none, &upon("1")), "argument or base");
    }
}
