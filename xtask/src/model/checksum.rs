//! Checksums of published files: npm's Subresource Integrity and Python's SHA-256. Refuses weaker sums than these two.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest, Sha256, Sha512};

/// What the bytes of a file have to hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    Sha256(Vec<u8>),
    Sha512(Vec<u8>),
}

impl Checksum {
    /// `sha512-<base64>` (W3C Subresource Integrity). SHA-1, which very old packages have, proves nothing.
    pub fn integrity(text: &str) -> Result<Self> {
        let Some(encoded) = text.split(' ').find_map(|word| word.strip_prefix("sha512-")) else {
            bail!("the checksum {text:?} is not SHA-512");
        };
        Ok(Self::Sha512(BASE64.decode(encoded).with_context(|| format!("the checksum {text:?}"))?))
    }

    /// 64 hexadecimal digits.
    pub fn sha256(text: &str) -> Result<Self> {
        let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() == 32);
        Ok(Self::Sha256(bytes.with_context(|| format!("the checksum {text:?} is not SHA-256"))?))
    }

    /// A name for the checksum that a file system takes.
    pub fn id(&self) -> String {
        match self {
            Self::Sha256(bytes) => format!("sha256-{}", hex::encode(bytes)),
            Self::Sha512(bytes) => format!("sha512-{}", hex::encode(bytes)),
        }
    }

    /// Starts hashing in the way of this checksum.
    pub fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Sha512(_) => Hasher::Sha512(Box::new(Sha512::new())),
        }
    }
}

/// A hash in the making.
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub fn finish(self) -> Checksum {
        match self {
            Self::Sha256(hash) => Checksum::Sha256(hash.finalize().to_vec()),
            Self::Sha512(hash) => Checksum::Sha512(hash.finalize().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_and_made() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let checksum = Checksum::sha256(empty).expect("a checksum");
        assert_eq!(
            (checksum.hasher().finish(), checksum.id()),
            (checksum.clone(), format!("sha256-{empty}"))
        );
        let sri =
            "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";
        let checksum = Checksum::integrity(sri).expect("a checksum");
        assert_eq!(checksum.hasher().finish(), checksum);
        let mut hasher = Checksum::sha256(empty).expect("a checksum").hasher();
        hasher.update(b"abc");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.finish().id(), format!("sha256-{abc}"));
        for text in ["", "sha1-x", "sha512-???"] {
            assert!(Checksum::integrity(text).is_err(), "{text}");
        }
        assert!(Checksum::sha256(&empty[2..]).is_err() && Checksum::sha256("é").is_err());
    }
}
