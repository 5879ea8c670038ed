//! cosign's keys, and signatures that cosign verifies: ECDSA with P-256 and SHA-256, as `cosign generate-key-pair` makes them.
//! The secret never leaves this process. Refuses other algorithms, and an encrypted key without its password.

use std::fmt;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::Deserialize;

use crate::model::oci::Digest;

/// SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The labels of an encrypted key, which cosign 2 renamed.
const ENCRYPTED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const PLAIN: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// The most memory that the derivation of a key may take: cosign's own parameters take 64 MB.
const MOST_WORK: u64 = 1 << 20;

/// Who is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    pub fn from_pem(text: &str) -> Result<Self> {
        let der = pem(text, PUBLIC).context("no PEM block PUBLIC KEY")?;
        let point = der.strip_prefix(&SPKI).filter(|point| point.len() == 65);
        Ok(Self(point.context("not an ECDSA key on P-256, which `cosign generate-key-pair` makes")?.to_vec()))
    }

    pub fn to_pem(&self) -> String {
        block(PUBLIC, &self.der())
    }

    fn der(&self) -> Vec<u8> {
        [&SPKI[..], &self.0[..]].concat()
    }

    /// How a bundle names the key, as cosign does.
    pub fn hint(&self) -> Result<String> {
        Ok(BASE64.encode(hex::decode(Digest::of(&self.der()).hex())?))
    }

    /// How a person compares the key: the SHA-256 of its DER form.
    pub fn fingerprint(&self) -> String {
        Digest::of(&self.der()).to_string()
    }

    pub fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(signed, signature).is_ok()
    }
}

/// A key that signs.
pub struct SigningKey(EcdsaKeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// A new key as PEM text, without a password.
    pub fn generate() -> Result<String> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Ok(block(PLAIN, der.map_err(|_| anyhow!("no random numbers for a key"))?.as_ref()))
    }

    /// Reads a key of `cosign generate-key-pair`, or a PKCS #8 key without a password.
    pub fn from_pem(text: &str, password: Option<&str>) -> Result<Self> {
        let encrypted = ENCRYPTED.iter().find_map(|label| pem(text, label));
        let der = match encrypted {
            Some(sealed) => open(&sealed, password.unwrap_or_default())?,
            None => pem(text, PLAIN)
                .context("no PEM block of a private key, which `cosign generate-key-pair` makes")?,
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &SystemRandom::new());
        let why = |why| anyhow!("not an ECDSA key on P-256, which `cosign generate-key-pair` makes: {why}");
        pair.map(Self).map_err(why)
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }

    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let signature = self.0.sign(&SystemRandom::new(), bytes);
        Ok(signature.map_err(|_| anyhow!("no random numbers for a signature"))?.as_ref().to_vec())
    }
}

/// How cosign keeps a key under a password (secure-systems-lab/go-securesystemslib, "encrypted").
#[derive(Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

fn open(sealed: &[u8], password: &str) -> Result<Vec<u8>> {
    let sealed: Sealed = serde_json::from_slice(sealed).context("an encrypted key of another format")?;
    let (kdf, cipher) = (&sealed.kdf, &sealed.cipher);
    if (kdf.name.as_str(), cipher.name.as_str()) != ("scrypt", "nacl/secretbox") {
        bail!(
            "a key encrypted by {} and {}: only scrypt and nacl/secretbox are known",
            kdf.name,
            cipher.name
        );
    }
    let Params { n, r, p } = kdf.params;
    if !n.is_power_of_two() || n.saturating_mul(u64::from(r)) > MOST_WORK || p > 16 {
        bail!("a key whose derivation takes too much memory or time");
    }
    let params = scrypt::Params::new(n.ilog2() as u8, r, p, 32).map_err(|why| anyhow!("{why}"))?;
    let mut key = [0; 32];
    scrypt::scrypt(password.as_bytes(), &BASE64.decode(&kdf.salt)?, &params, &mut key)
        .map_err(|why| anyhow!("{why}"))?;
    let nonce: [u8; 24] =
        BASE64.decode(&cipher.nonce)?.try_into().map_err(|_| anyhow!("a nonce of another length"))?;
    let opened = XSalsa20Poly1305::new(&Key::from(key))
        .decrypt(&Nonce::from(nonce), BASE64.decode(&sealed.ciphertext)?.as_slice());
    opened.map_err(|_| anyhow!("COSIGN_PASSWORD does not open the key"))
}

/// The bytes of the PEM block with a label (RFC 7468).
fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    BASE64.decode(body.split_whitespace().collect::<String>()).ok()
}

fn block(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    format!("{lines}\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cosign 3.1.1 wrote with an empty password, and its public half.
    const KEY: &str = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n\
        eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6\n\
        OCwicCI6MX0sInNhbHQiOiJiSGxoWmdicEVOa1VZdEcxd0pQNXNXZzkvaGNKODZ6\n\
        ZTExY0xuUDN3aitVPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94\n\
        Iiwibm9uY2UiOiJaeEhXWGp0akQxSjkycTJLeXFOc01HYTBIVldESktZRiJ9LCJj\n\
        aXBoZXJ0ZXh0IjoiTHNJcnd4VlNTZFNud2l1NGlYcnpGUytjakw3VXdRYWFVTWtt\n\
        c3UzQWNRN2NPeEJyaUF2T0VlSFhiMTcrSHJ5aitIWFptVnE4eDdIU3d0RFpFZVRC\n\
        NEk4K2lYeE9xV2FjYUN0d0YyVVhSSG12bDE0U0l4R2VzTkVSVFBEM0NYeVR6NGVC\n\
        YzdUVEJDbk5sTXlOL0NTRUl5SE13RmhoOGZtT2U5eUJQeXFoYjVWYlEweWhuMTVq\n\
        WTF1UnRJMTJCck9tMW5PZWJkSFRPcDgxQ0E9PSJ9\n\
        -----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    const KEY_PUB: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECkISX4j5hzZpvWrQDVXcel3+TEI7\n\
        IOVwK3qXfDiPgqfg8ktpYjud4qXXfplH4y6u6mMXYwOHK2SRNBKb7I7B0w==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn keys_of_cosign_are_read() {
        let key = SigningKey::from_pem(KEY, None).expect("a key");
        assert_eq!(key.public().to_pem(), KEY_PUB);
        let error = SigningKey::from_pem(KEY, Some("other")).expect_err("another password");
        assert_eq!(error.to_string(), "COSIGN_PASSWORD does not open the key");
    }

    #[test]
    fn a_signature_is_for_its_bytes_and_its_key() {
        let new = || SigningKey::from_pem(&SigningKey::generate().expect("a key"), None).expect("a key");
        let (key, other) = (new(), new());
        let public = PublicKey::from_pem(&key.public().to_pem()).expect("a public key");
        let signature = key.sign(b"text").expect("a signature");
        assert!(public.verifies(b"text", &signature));
        assert!(!public.verifies(b"test", &signature) && !public.verifies(b"text", b""));
        assert!(!other.public().verifies(b"text", &signature));
        assert_ne!(public.fingerprint(), other.public().fingerprint());
    }

    #[test]
    fn other_keys_are_refused() {
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", KEY_PUB] {
            assert!(SigningKey::from_pem(text, None).is_err(), "{text}");
        }
        for text in ["", KEY, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(PublicKey::from_pem(text).is_err(), "{text}");
        }
    }
}
