//! What is signed, and that every kind of tampering is found by `verify` and goes no further than `publish`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use xtask::model::dsse::{self, BUNDLE, SIGN};
use xtask::tools::cosign::SigningKey;

use crate::recovery::released;
use crate::support::env::{KEY, TestEnv};

const RELEASE: &str = "application/vnd.opencode-devbox.release.v1+json";

fn read(world: &TestEnv, digest: &str) -> Value {
    serde_json::from_slice(&world.registry().blob(digest).unwrap()).unwrap()
}

/// The tag that lists what refers to an image in the public repository, and the listing.
fn listing(world: &TestEnv, image: &str) -> (String, Value) {
    let tag = image.replace(':', "-");
    let digest = world.registry().tag("devbox", &tag).unwrap();
    (tag, read(world, &digest))
}

/// The checks of `verify` that failed.
fn failed(world: &TestEnv, tag: &str) -> Vec<String> {
    let output = world.run(&format!("verify {tag} --json"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false);
    let names: Vec<String> = checks
        .map(|it| format!("{} {}", it["about"].as_str().unwrap(), it["check"].as_str().unwrap()))
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!names.is_empty())));
    assert_eq!(report["passed"], names.is_empty());
    names
}

#[test]
fn every_published_tag_verifies() {
    let world = released();
    for variant in ["", "-omos", "-with-pi", "-omos-with-pi"] {
        for tag in ["v1.18.18", "latest"] {
            assert_eq!(failed(&world, &format!("{tag}{variant}")), [""; 0], "{tag}{variant}");
        }
    }
    let text = world.ok("verify latest");
    assert!(text.contains("smoke test passed") && text.contains("linux/arm64"), "{text}");
    let text = world.fails("verify v1.18.19", 3);
    assert!(text.contains("does not exist"), "{text}");
}

/// Nothing of an image says who signed it, so another key is nobody.
#[test]
fn another_key_verifies_nothing() {
    let mut world = released();
    world.set("COSIGN_KEY", &SigningKey::generate().unwrap());
    let found = failed(&world, "latest");
    assert!(found.contains(&"index signature".to_owned()), "{found:?}");
    let text = world.fails("publish", 3);
    assert!(text.contains("base is untested on linux/amd64"), "{text}");
}

#[test]
fn a_stripped_signature_is_found_and_made_again() {
    let world = released();
    let (tag, mut stripped) = listing(&world, &world.staged("omos"));
    stripped["manifests"] = json!([]);
    world.registry().put("devbox", &tag, stripped.to_string().as_bytes());
    assert_eq!(
        failed(&world, "v1.18.18-omos"),
        ["index signature", "index signature is of the release", "index revision"]
    );
    assert_eq!(failed(&world, "v1.18.18"), [""; 0]);
    let text = world.notes("publish");
    assert!(text.contains("signed 1 images of v1.18.18"), "{text}");
    assert_eq!(failed(&world, "v1.18.18-omos"), [""; 0]);
    let writes = world.writes();
    world.ok("publish --promote-latest");
    assert_eq!(world.writes(), writes, "a rerun writes nothing");
}

#[test]
fn another_image_under_a_tag_is_found() {
    let world = released();
    let other = world.registry().blob(&world.staged("with-pi")).unwrap();
    world.registry().put("devbox", "v1.18.18-omos", &other);
    assert_eq!(
        failed(&world, "v1.18.18-omos"),
        [
            "index digest is in the record",
            "linux/amd64 digest is in the record",
            "linux/amd64 smoke test passed",
            "linux/arm64 digest is in the record",
            "linux/arm64 smoke test passed",
        ]
    );
    let text = world.fails("publish --release-tag v1.18.18", 1);
    assert!(text.contains("v1.18.18-omos is another image"), "{text}");
}

/// A signature is for the image that it names: attached to another one it counts for nothing.
#[test]
fn a_signature_of_another_image_counts_for_nothing() {
    let world = released();
    let (image, other) = (world.staged("omos"), world.staged("base"));
    let (_, of_other) = listing(&world, &other);
    let mut moved = read(&world, of_other["manifests"][0]["digest"].as_str().unwrap());
    assert_eq!(
        (&moved["artifactType"], &moved["annotations"]["dev.sigstore.bundle.predicateType"]),
        (&json!(BUNDLE), &json!(SIGN))
    );
    moved["subject"]["digest"] = json!(image);
    let bytes = moved.to_string().into_bytes();
    let digest = world.registry().put("devbox", "planted", &bytes);
    let (tag, mut forged) = listing(&world, &image);
    forged["manifests"] = json!([{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
        "size": bytes.len(), "artifactType": BUNDLE }]);
    world.registry().put("devbox", &tag, forged.to_string().as_bytes());
    assert!(failed(&world, "latest-omos").contains(&"index signature".to_owned()));
    let text = world.notes("publish");
    assert!(text.contains("signed 1 images of v1.18.18"), "{text}");
}

/// Stores a release record under a tag, with its signature or another one.
fn plant_record(world: &TestEnv, tag: &str, record: &Value, key: &str) {
    let digest = world.registry().tag("devbox-staging", "release-v1.18.18").unwrap();
    let mut artifact = read(world, &digest);
    let text = record.to_string();
    let signature =
        SigningKey::from_pem(key, None).unwrap().sign(&dsse::pae(RELEASE, text.as_bytes())).unwrap();
    artifact["annotations"] = json!({ "opencode-devbox.document": text,
        "opencode-devbox.signature": BASE64.encode(signature) });
    world.registry().put("devbox-staging", tag, artifact.to_string().as_bytes());
}

#[test]
fn a_forged_or_replayed_record_is_found_and_written_again() {
    let world = released();
    let record = world.document("release-v1.18.18");
    let other = SigningKey::generate().unwrap();
    let mut forged = record.clone();
    forged["variants"][1]["digest"] = record["variants"][0]["digest"].clone();
    let mut older = record.clone();
    older["release"] = json!("v1.18.17");
    for (case, planted, key) in [("forged", &forged, other.as_str()), ("replayed", &older, KEY)] {
        plant_record(&world, "release-v1.18.18", planted, key);
        assert_eq!(failed(&world, "latest-omos"), ["v1.18.18 release record"], "{case}");
        world.ok("publish --promote-latest");
        assert_eq!(failed(&world, "latest-omos"), [""; 0], "{case}");
    }
}
