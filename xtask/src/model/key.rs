//! Content keys: names of images that depend only on what goes into them.
//!
//! The key is a SHA-256 over a record of the inputs ([`Inputs`]) that travels with the image, so that any machine can
//! say later why two images differ. Every field is written with its length before it, so no two different records give
//! the same stream. Time, commit and repository name are no inputs. Refuses nothing: the
//! caller that reads the inputs validates them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Changes when the way of hashing changes, so that old and new keys never meet.
const FORMAT: &str = "opencode-devbox content key 3";

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

/// Mode and content of one input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInput {
    /// As git writes it: `100644`, `100755`, or `120000` for a symbolic link.
    pub mode: String,
    /// SHA-256 of the bytes, or of the link's target, in hexadecimal.
    pub sha256: String,
}

/// Everything that an image is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    pub files: BTreeMap<String, FileInput>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Resolved digests of the parent images, by platform or name. Images of earlier versions record them as `upon`.
    #[serde(alias = "upon")]
    pub parents: BTreeMap<String, String>,
    /// Pinned versions, to name a change by; the files hold them, so they are no part of the key themselves.
    pub versions: BTreeMap<String, String>,
}

/// The first 12 hexadecimal digits of the hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Inputs {
    /// The record of `entries`, in whichever order they come.
    pub fn new(entries: &[Entry], args: BTreeMap<String, String>, parents: BTreeMap<String, String>) -> Self {
        let files = entries.iter().map(|entry| (entry.path.clone(), FileInput::of(&entry.kind))).collect();
        Self { files, args, parents, versions: BTreeMap::new() }
    }

    /// The name of the image.
    pub fn key(&self) -> Key {
        let mut hash = Sha256::new();
        let mut field = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        field(FORMAT);
        field("files");
        field(&self.files.len().to_string());
        for (path, file) in &self.files {
            [path, &file.mode, &file.sha256].into_iter().for_each(|text| field(text));
        }
        for (name, map) in [("args", &self.args), ("parents", &self.parents)] {
            field(name);
            field(&map.len().to_string());
            for (key, value) in map {
                field(key);
                field(value);
            }
        }
        let mut text = hex::encode(hash.finalize());
        text.truncate(12);
        Key(text)
    }

    /// Differences from `old`: the causes of a rebuild. Changed versions are named
    /// before the files that hold them.
    pub fn changes(&self, old: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, from, to) in differences(&old.versions, &self.versions) {
            changes.push(Change::Version { name, from, to });
        }
        for (path, from, to) in differences(&old.files, &self.files) {
            changes.push(match (from, to) {
                (None, _) => Change::Added(path),
                (_, None) => Change::Removed(path),
                (Some(from), Some(to)) if from.sha256 == to.sha256 => {
                    Change::Mode { path, from: from.mode, to: to.mode }
                }
                (Some(from), Some(_)) => Change::Edited { path, was: from.sha256, lines: None },
            });
        }
        for (name, from, to) in differences(&old.args, &self.args) {
            changes.push(Change::Argument { name, from, to });
        }
        for (name, from, to) in differences(&old.parents, &self.parents) {
            changes.push(Change::Parent { name, from, to });
        }
        changes
    }
}

impl FileInput {
    fn of(kind: &Kind) -> Self {
        let (mode, bytes) = match kind {
            Kind::File { executable: true, bytes } => ("100755", bytes.as_slice()),
            Kind::File { executable: false, bytes } => ("100644", bytes.as_slice()),
            Kind::Symlink { target } => ("120000", target.as_bytes()),
        };
        Self { mode: mode.to_owned(), sha256: hex::encode(Sha256::digest(bytes)) }
    }
}

/// One difference between the inputs of two images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Change {
    Version {
        name: String,
        from: Option<String>,
        to: Option<String>,
    },
    #[serde(serialize_with = "path_only")]
    Added(String),
    #[serde(serialize_with = "path_only")]
    Removed(String),
    Mode {
        path: String,
        from: String,
        to: String,
    },
    /// `lines` is how many lines differ, where the old text could be had.
    Edited {
        path: String,
        was: String,
        lines: Option<usize>,
    },
    Argument {
        name: String,
        from: Option<String>,
        to: Option<String>,
    },
    Parent {
        name: String,
        from: Option<String>,
        to: Option<String>,
    },
}

fn path_only<S: serde::Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    BTreeMap::from([("path", path)]).serialize(serializer)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Self::Version { name, from, to } => write!(f, "{name} {} → {}", or_none(from), or_none(to)),
            Self::Added(path) => write!(f, "{path} added"),
            Self::Removed(path) => write!(f, "{path} removed"),
            Self::Mode { path, from, to } => write!(f, "{path} mode {from} → {to}"),
            Self::Edited { path, lines: None, .. } => write!(f, "{path} changed"),
            Self::Edited { path, lines: Some(1), .. } => write!(f, "{path} changed: 1 line"),
            Self::Edited { path, lines: Some(lines), .. } => write!(f, "{path} changed: {lines} lines"),
            Self::Argument { name, from, to } => write!(f, "{name}={} → {}", or_none(from), or_none(to)),
            Self::Parent { name, from: None, .. } => write!(f, "{name} is new"),
            Self::Parent { name, to: None, .. } => write!(f, "{name} is gone"),
            Self::Parent { name, .. } => write!(f, "{name} moved"),
        }
    }
}

/// Names whose values differ, with the old and the new value.
fn differences<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Vec<(String, Option<T>, Option<T>)> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pairs = names.into_iter().map(|name| (name.clone(), old.get(name).cloned(), new.get(name).cloned()));
    pairs.filter(|(_, from, to)| from != to).collect()
}

/// `sha256:<hex>` of bytes, as OCI descriptors write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Entry {
        Entry { path: path.to_owned(), kind: Kind::File { executable: false, bytes: text.into() } }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn of(entries: &[Entry]) -> Key {
        Inputs::new(entries, map(&[]), map(&[])).key()
    }

    #[test]
    fn digests_are_written_as_oci_writes_them() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }

    /// A published vector: if this changes, [`FORMAT`] has to change too.
    #[test]
    fn the_key_of_a_known_tree_stays() {
        let inputs = Inputs::new(&[file("a", "x")], map(&[("A", "1")]), map(&[("linux/amd64", "sha256:00")]));
        assert_eq!(inputs.key().to_string(), "2ee0f1ed26ad");
    }

    /// The table of docs/architecture.md, "What changes a key".
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
        let with =
            |args: &[(&str, &str)], parents: &[(&str, &str)]| Inputs::new(&[], map(args), map(parents)).key();
        assert_ne!(with(&[], &[("p", "1")]), with(&[], &[("p", "2")]), "the images below");
        assert_ne!(with(&[("p", "1")], &[]), with(&[], &[("p", "1")]), "argument or base");
        let mut named = Inputs::new(&[file("a", "12"), file("b", "3")], map(&[]), map(&[]));
        named.versions.insert("opencode".into(), "1.18.18".into());
        assert_eq!(plain, named.key(), "a version's name is not an input, its file is");
    }

    #[test]
    fn changes_are_told_as_causes() {
        let parents = map(&[("Debian", "1"), ("base linux/arm64", "1")]);
        let mut old = Inputs::new(&[file("a", "1"), file("b", "2")], map(&[("X", "1")]), parents);
        old.versions = map(&[("opencode", "1.18.15")]);
        let executable =
            Entry { path: "b".into(), kind: Kind::File { executable: true, bytes: b"2".to_vec() } };
        let entries = [file("a", "3"), executable, file("c", "")];
        let mut new =
            Inputs::new(&entries, map(&[("X", "2")]), map(&[("Debian", "2"), ("base linux/amd64", "1")]));
        new.versions = map(&[("opencode", "1.18.18")]);
        let told: Vec<String> = new.changes(&old).iter().map(ToString::to_string).collect();
        let expected = [
            "opencode 1.18.15 → 1.18.18",
            "a changed",
            "b mode 100644 → 100755",
            "c added",
            "X=1 → 2",
            "Debian moved",
            "base linux/amd64 is new",
            "base linux/arm64 is gone",
        ];
        assert_eq!(told, expected);
        assert!(old.changes(&old).is_empty());
    }

    mod properties {
        use super::*;
        use proptest::collection::btree_map;
        use proptest::prelude::*;

        type Tree = BTreeMap<String, (bool, Vec<u8>)>;

        fn entries(tree: &Tree) -> Vec<Entry> {
            let entry = |(path, (executable, bytes)): (&String, &(bool, Vec<u8>))| Entry {
                path: path.clone(),
                kind: Kind::File { executable: *executable, bytes: bytes.clone() },
            };
            tree.iter().map(entry).collect()
        }

        fn trees() -> impl Strategy<Value = Tree> {
            btree_map("[a-c/]{1,4}", (any::<bool>(), proptest::collection::vec(0..3u8, 0..4)), 0..4)
        }

        fn maps() -> impl Strategy<Value = BTreeMap<String, String>> {
            btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3)
        }

        proptest! {
            /// Keys are equal exactly where the inputs are.
            #[test]
            fn equal_keys_mean_equal_inputs(
                a in (trees(), maps(), maps()),
                b in (trees(), maps(), maps()),
            ) {
                let key = |(tree, args, parents): &(Tree, _, _)| -> Key {
                    let (args, parents): (&BTreeMap<_, _>, &BTreeMap<_, _>) = (args, parents);
                    Inputs::new(&entries(tree), args.clone(), parents.clone()).key()
                };
                prop_assert_eq!(a == b, key(&a) == key(&b));
            }

            #[test]
            fn the_order_of_files_does_not_matter(tree in trees(), seed in any::<usize>()) {
                let plain = entries(&tree);
                let mut turned = plain.clone();
                if !turned.is_empty() {
                    let by = seed % turned.len();
                    turned.rotate_left(by);
                    turned.reverse();
                }
                prop_assert_eq!(of(&plain), of(&turned));
            }

            /// Exactly the changes are reported.
            #[test]
            fn changes_are_none_exactly_where_keys_agree(a in trees(), b in trees()) {
                let [a, b] = [a, b].map(|tree| Inputs::new(&entries(&tree), map(&[]), map(&[])));
                prop_assert_eq!(a.changes(&b).is_empty(), a.key() == b.key());
            }
        }
    }
}
