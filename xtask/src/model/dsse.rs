//! What is signed and how a signature travels: statements (in-toto attestation v1), the bytes that a signature covers (DSSE
//! v1.0.2, "PAE"), Sigstore's bundle, in which cosign looks for both, and the artifact that attaches a bundle to an image.
//! Refuses nothing: who signed is decided where keys are.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use super::oci::{Digest, EMPTY, MANIFEST, Manifest, Subject};

/// The media type of a bundle, and the artifact type of what refers to an image with one.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The predicate of what `cosign sign` writes and `cosign verify` looks for.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// The annotation of an artifact that names the predicate of its bundle, as cosign writes it.
pub const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PAYLOAD: &str = "application/vnd.in-toto+json";

/// The bytes that a signature over a payload covers.
pub fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// A statement about images.
pub fn statement<'a>(
    images: impl IntoIterator<Item = &'a Digest>,
    annotations: &BTreeMap<String, String>,
    kind: &str,
    predicate: &Value,
) -> String {
    let subject = |image: &Digest| {
        let mut subject = json!({ "digest": { "sha256": image.hex() } });
        if !annotations.is_empty() {
            subject["annotations"] = json!(annotations);
        }
        subject
    };
    let subjects: Vec<Value> = images.into_iter().map(subject).collect();
    json!({ "_type": STATEMENT, "subject": subjects, "predicateType": kind, "predicate": predicate })
        .to_string()
}

/// The bytes that the signature of a statement covers.
pub fn signed_bytes(statement: &str) -> Vec<u8> {
    pae(PAYLOAD, statement.as_bytes())
}

/// A statement with its signature; `hint` names the key.
pub fn bundle(statement: &str, signature: &[u8], hint: &str) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": hint } },
        "dsseEnvelope": { "payload": BASE64.encode(statement), "payloadType": PAYLOAD,
            "signatures": [{ "sig": BASE64.encode(signature) }] },
    })
}

/// What is attached to an image: an artifact with one blob, the bundle.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub artifact: Manifest,
    /// The bundle.
    pub blob: Vec<u8>,
}

impl Attachment {
    /// Attaches a bundle to an image, as cosign does.
    pub fn new(subject: &Subject, predicate: &str, bundle: &Value) -> Result<Self, String> {
        let blob = bundle.to_string().into_bytes();
        let empty = json!({ "mediaType": EMPTY, "digest": Digest::of(b"{}"), "size": 2 });
        let layer = json!({ "mediaType": BUNDLE, "digest": Digest::of(&blob), "size": blob.len() });
        let annotations = json!({ "dev.sigstore.bundle.content": "dsse-envelope", PREDICATE: predicate });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
            "config": empty, "layers": [layer], "annotations": annotations, "subject": subject });
        Ok(Self { artifact: Manifest::parse(manifest.to_string().into_bytes())?, blob })
    }
}

/// A statement as a bundle carries it, with the signatures that are to be checked.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The artifact that has the bundle.
    pub artifact: Digest,
    pub statement: Value,
    /// The bytes that each signature covers.
    pub signed: Vec<u8>,
    pub signatures: Vec<Vec<u8>>,
}

impl Carried {
    /// What the bundle of an artifact carries; `None` if it is no bundle with an in-toto statement.
    pub fn of(artifact: &Digest, bundle: &Value) -> Option<Self> {
        let envelope = &bundle["dsseEnvelope"];
        let kind = envelope["payloadType"].as_str().filter(|kind| *kind == PAYLOAD)?;
        let payload = BASE64.decode(envelope["payload"].as_str()?).ok()?;
        let signatures = envelope["signatures"].as_array()?.iter();
        let signatures = signatures.filter_map(|it| BASE64.decode(it["sig"].as_str()?).ok()).collect();
        let statement: Value = serde_json::from_slice(&payload).ok()?;
        let is_statement = statement["_type"] == STATEMENT;
        let artifact = artifact.clone();
        is_statement.then(|| Self { artifact, signed: pae(kind, &payload), statement, signatures })
    }

    /// The annotations of an image, if the statement is about it and has this predicate.
    pub fn about(&self, image: &Digest, kind: &str) -> Option<BTreeMap<String, String>> {
        let subjects = self.statement["subject"].as_array()?;
        let subject = subjects.iter().find(|it| it["digest"]["sha256"] == *image.hex())?;
        (self.statement["predicateType"] == kind)
            .then(|| serde_json::from_value(subject["annotations"].clone()).unwrap_or_default())
    }

    pub fn predicate(&self) -> &Value {
        &self.statement["predicate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        // DSSE, "protocol.md": the test vector of PAE.
        let bytes = pae("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_bundle_carries_its_statement() {
        let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
        let annotations = BTreeMap::from([("release".to_owned(), "v1.18.18".to_owned())]);
        let text = statement([&image], &annotations, SIGN, &json!({}));
        let carried = Carried::of(&other, &bundle(&text, b"signature", "hint")).expect("a bundle");
        assert_eq!(
            (carried.signed.clone(), &carried.signatures[0][..]),
            (signed_bytes(&text), &b"signature"[..])
        );
        assert_eq!(carried.about(&image, SIGN), Some(annotations));
        assert_eq!((carried.about(&other, SIGN), carried.about(&image, "other")), (None, None));
        assert!(Carried::of(&other, &json!({ "dsseEnvelope": { "payloadType": "text/plain" } })).is_none());
    }
}
