//! Digests, manifests and indexes as a registry holds them (image-spec 1.1). Refuses digests that are not SHA-256, and
//! bytes that are no image manifest or index.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key;
use super::platform::Platform;

/// The media types of what this pipeline stores (image-spec).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// `sha256:` and 64 hexadecimal digits (image-spec, "Digests"). The only algorithm that registries use for images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(key::digest(bytes))
    }

    /// The hexadecimal digits without the algorithm.
    pub fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = oci_spec::image::Digest::from_str(text).map_err(|error| error.to_string());
        match parsed {
            Ok(digest) if digest.algorithm().as_ref() == "sha256" => Ok(Self(text.to_owned())),
            _ => Err(format!("{text:?} is not a SHA-256 digest")),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl Deref for Digest {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A manifest or index with the bytes that its digest is made from.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub media_type: MediaType,
    pub content: Content,
    /// The image of each platform that this family is built for: an index names them; a single-platform image is its
    /// own, where its configuration was read ([`Self::of_platform`]).
    images: BTreeMap<Platform, Digest>,
}

#[derive(Clone, Debug)]
pub enum Content {
    Index(Box<ImageIndex>),
    Image(Box<ImageManifest>),
}

impl Manifest {
    /// Reads the bytes of a manifest. Its members decide what it is, since an OCI manifest may leave out its media type.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| format!("is not JSON: {error}"))?;
        let given = value["mediaType"].as_str().map(MediaType::from);
        let mut images = BTreeMap::new();
        let (content, implied) = if value.get("manifests").is_some() {
            let index: ImageIndex =
                serde_json::from_value(value).map_err(|error| format!("is not an index: {error}"))?;
            for entry in index.manifests() {
                if let (Some(platform), Ok(digest)) = (platform(entry), entry.digest().as_ref().parse()) {
                    images.entry(platform).or_insert(digest);
                }
            }
            (Content::Index(Box::new(index)), MediaType::ImageIndex)
        } else {
            let image: ImageManifest =
                serde_json::from_value(value).map_err(|error| format!("is not a manifest: {error}"))?;
            (Content::Image(Box::new(image)), MediaType::ImageManifest)
        };
        let media_type = given.unwrap_or(implied);
        Ok(Self { digest: Digest::of(&bytes), bytes, media_type, content, images })
    }

    /// A single-platform image whose configuration names this platform.
    pub fn of_platform(mut self, platform: Platform) -> Self {
        self.images.insert(platform, self.digest.clone());
        self
    }

    /// The image of each platform.
    pub fn images(&self) -> impl Iterator<Item = (Platform, &Digest)> {
        self.images.iter().map(|(platform, digest)| (*platform, digest))
    }

    /// The digest of one platform's image.
    pub fn platform(&self, platform: Platform) -> Option<&Digest> {
        self.images.get(&platform)
    }

    /// The image manifest, if this is no index.
    pub fn as_image(&self) -> Option<&ImageManifest> {
        match &self.content {
            Content::Image(image) => Some(image),
            Content::Index(_) => None,
        }
    }

    /// The digest of a single-platform image's configuration.
    pub fn config(&self) -> Option<&str> {
        Some(self.as_image()?.config().digest().as_ref())
    }

    /// Digest and compressed size in bytes of each layer of a single-platform image, in order.
    pub fn layers(&self) -> Vec<(String, u64)> {
        let layers = self.as_image().map(ImageManifest::layers).into_iter().flatten();
        layers.map(|layer| (layer.digest().to_string(), layer.size())).collect()
    }

    /// Compressed bytes of all layers of a single-platform image.
    pub fn layer_bytes(&self) -> u64 {
        self.layers().iter().map(|(_, size)| size).sum()
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = match &self.content {
            Content::Index(index) => index.annotations(),
            Content::Image(image) => image.annotations(),
        };
        annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// What another manifest refers to this one by.
    pub fn subject(&self) -> Subject {
        let (media_type, size) = (self.media_type.to_string(), self.bytes.len() as u64);
        Subject { media_type, digest: self.digest.clone(), size }
    }

    /// What another manifest refers to one platform's image by, without reading that image.
    pub fn subject_of(&self, platform: Platform) -> Option<Subject> {
        let image = self.platform(platform)?;
        let Content::Index(index) = &self.content else { return Some(self.subject()) };
        let entry = index.manifests().iter().find(|entry| entry.digest().as_ref() == &**image)?;
        let (media_type, size) = (entry.media_type().to_string(), entry.size());
        Some(Subject { media_type, digest: image.clone(), size })
    }
}

/// A manifest as another one refers to it (image-spec, "Descriptor").
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// An index that holds an image for every platform that was asked for.
#[derive(Clone, Debug)]
pub struct CompleteIndex {
    manifest: Manifest,
    images: BTreeMap<Platform, Digest>,
}

impl CompleteIndex {
    /// `None` if the image of some platform is missing.
    pub fn new(manifest: Manifest, platforms: &[Platform]) -> Option<Self> {
        let image = |platform: &Platform| Some((*platform, manifest.platform(*platform)?.clone()));
        let images = platforms.iter().map(image).collect::<Option<_>>()?;
        Some(Self { manifest, images })
    }

    /// The image of each platform that was asked for.
    pub fn images(&self) -> impl Iterator<Item = (Platform, &Digest)> {
        self.images.iter().map(|(platform, digest)| (*platform, digest))
    }
}

impl Deref for CompleteIndex {
    type Target = Manifest;

    fn deref(&self) -> &Manifest {
        &self.manifest
    }
}

/// The platform of an index entry, if the family is built for it.
fn platform(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    match (platform.os(), platform.architecture()) {
        (Os::Linux, Arch::Amd64) => Some(Platform::LinuxAmd64),
        (Os::Linux, Arch::ARM64) => Some(Platform::LinuxArm64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn digests_are_sha256_with_64_digits() {
        let digest: Digest = format!("sha256:{HEX}").parse().expect("a digest");
        assert_eq!((digest.hex(), &digest), (HEX, &Digest::of(b"{}")));
        let long = format!("sha512:{HEX}{HEX}");
        for text in ["", "latest", "sha256:", "sha256:44", "sha1:44136fa3", long.as_str()] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_index_is_complete_only_with_all_platforms() {
        let both = [Platform::LinuxAmd64, Platform::LinuxArm64];
        let entry = |arch: &str, os: &str| {
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
                "digest": format!("sha256:{HEX}"), "platform": { "architecture": arch, "os": os } })
        };
        let index = |entries: Vec<Value>| {
            let bytes = json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes();
            Manifest::parse(bytes).expect("an index")
        };
        let whole =
            index(vec![entry("amd64", "linux"), entry("arm64", "linux"), entry("unknown", "unknown")]);
        assert_eq!(whole.media_type, MediaType::ImageIndex);
        let complete = CompleteIndex::new(whole, &both).expect("complete");
        assert_eq!(complete.images().count(), 2);
        let part = index(vec![entry("amd64", "linux"), entry("arm64", "windows")]);
        assert!(CompleteIndex::new(part.clone(), &both).is_none());
        assert!(CompleteIndex::new(part, &both[..1]).is_some());
    }

    #[test]
    fn bytes_that_are_no_manifest_are_refused() {
        for text in ["", "<html>", "{}", "[]", r#"{"manifests":3}"#] {
            assert!(Manifest::parse(text.as_bytes().to_vec()).is_err(), "{text}");
        }
    }
}
