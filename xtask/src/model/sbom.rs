//! What an image contains, as a value that each format of a software bill of materials is written from. The same image gives
//! the same bytes: names and times come from the image.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::checksum::Checksum;
use super::oci::Digest;
use super::platform::Platform;

/// An image of one platform and all that is known to be in it.
#[derive(Clone, Debug)]
pub struct Bill {
    pub image: Image,
    /// By package URL.
    parts: BTreeMap<String, Part>,
}

#[derive(Clone, Debug)]
pub struct Image {
    /// `opencode-devbox`, and the variant.
    pub name: String,
    /// Repository with its host.
    pub repository: String,
    pub digest: Digest,
    pub platform: Platform,
    /// Seconds since 1970.
    pub created: i64,
    /// Where the project is, for the names of documents.
    pub source: String,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Library,
    Program,
    Model,
}

/// A package, a program or a group of files in an image.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: String,
    pub version: String,
    /// Package URL without qualifiers.
    pub purl: String,
    /// Qualifiers of the package URL.
    pub qualifiers: String,
    pub kind: Kind,
    pub licence: Option<Licence>,
    pub checksum: Option<Checksum>,
    /// The layers that it is in; several have a package that several components bring.
    pub layers: BTreeSet<Digest>,
}

/// A licence as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Licence {
    /// An SPDX expression.
    Expression(String),
    /// Words of the package's own, such as the short names of Debian's copyright files.
    Words(Vec<String>),
}

impl Image {
    /// When it was made, in the form of both formats (RFC 3339).
    pub fn timestamp(&self) -> String {
        Timestamp::from_second(self.created).unwrap_or_default().to_string()
    }

    /// Its package URL.
    pub fn locator(&self) -> String {
        let name = self.repository.rsplit('/').next().unwrap_or_default();
        let (arch, repository) = (self.platform.arch(), encoded(&self.repository));
        format!("{}?arch={arch}&repository_url={repository}", purl("oci", name, &self.digest))
    }
}

impl Part {
    /// The package URL with its qualifiers.
    pub fn locator(&self) -> String {
        match self.qualifiers.is_empty() {
            true => self.purl.clone(),
            false => format!("{}?{}", self.purl, self.qualifiers),
        }
    }
}

impl Bill {
    pub fn new(image: Image) -> Self {
        Self { image, parts: BTreeMap::new() }
    }

    /// Adds a part. One that is there already has one more layer; a component keeps its own name.
    pub fn add(&mut self, part: Part) {
        match self.parts.get_mut(&part.locator()) {
            Some(known) => known.layers.extend(part.layers),
            None => {
                self.parts.insert(part.locator(), part);
            }
        }
    }

    /// All parts in the order of their package URLs.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }
}

/// Package URL (purl-spec, "Rules for each purl component"): everything but letters, digits and `.-_~:` is encoded.
pub fn purl(kind: &str, name: &str, version: &str) -> String {
    let name: Vec<String> = name.split('/').map(encoded).collect();
    format!("pkg:{kind}/{}@{}", name.join("/"), encoded(version))
}

/// Percent-encoding (purl-spec, "Character encoding").
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A UUID of version 8 (RFC 9562) from the beginning of a digest.
pub fn uuid(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An image with one part of each kind.
    pub fn bill() -> Bill {
        let (layer, other) = (Digest::of(b"layer"), Digest::of(b"other"));
        let mut bill = Bill::new(Image {
            name: "opencode-devbox omos".to_owned(),
            repository: "docker.io/me/devbox".to_owned(),
            digest: Digest::of(b"image"),
            platform: Platform::LinuxArm64,
            created: 1_766_000_000,
            source: "https://example.org/devbox".to_owned(),
        });
        let part = |name: &str, purl: String, kind, licence, layer: &Digest| Part {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            purl,
            qualifiers: String::new(),
            kind,
            licence,
            checksum: None,
            layers: BTreeSet::from([layer.clone()]),
        };
        let words = Licence::Words(vec!["GPL-2+".to_owned(), "Expat".to_owned()]);
        let mut debian =
            part("git", purl("deb/debian", "git", "1:2.47+b1"), Kind::Library, Some(words), &layer);
        debian.qualifiers = "arch=arm64".to_owned();
        debian.checksum = Checksum::sha256(Digest::of(b"deb").hex()).ok();
        let mit = || Some(Licence::Expression("MIT".to_owned()));
        let npm = || purl("npm", "@a/b", "1.0");
        bill.add(debian);
        bill.add(part("omos", npm(), Kind::Program, mit(), &layer));
        bill.add(part("@a/b", npm(), Kind::Library, mit(), &other));
        bill.add(part(
            "embedding-model",
            purl("generic", "embedding-model", "mini"),
            Kind::Model,
            None,
            &layer,
        ));
        bill
    }

    #[test]
    fn package_urls_are_encoded() {
        assert_eq!(purl("npm", "@a/b", "1.0.0"), "pkg:npm/%40a/b@1.0.0");
        assert_eq!(purl("deb/debian", "libstdc++6", "1:2+b1~x"), "pkg:deb/debian/libstdc%2B%2B6@1:2%2Bb1~x");
    }

    #[test]
    fn a_part_of_two_components_is_there_once_with_both_layers() {
        let bill = bill();
        let parts: Vec<(&str, usize)> = bill.parts().map(|it| (it.name.as_str(), it.layers.len())).collect();
        assert_eq!(parts, [("git", 1), ("embedding-model", 1), ("omos", 2)]);
    }

    #[test]
    fn a_uuid_is_of_version_8() {
        let digest: Digest = format!("sha256:{}", "0123456789abcdef".repeat(4)).parse().expect("a digest");
        assert_eq!(uuid(&digest), "01234567-89ab-8def-a123-456789abcdef");
    }
}
