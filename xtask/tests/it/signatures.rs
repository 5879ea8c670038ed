//! What is signed, and that every kind of tampering is found by `verify` and goes no further than `publish`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use xtask::model::dsse::{self, BUNDLE, PREDICATE, SIGN};
use xtask::model::{sbom_cyclonedx, sbom_spdx};
use xtask::promotion::attest::{provenance, test_result};
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

/// The newest artifact with a predicate that refers to an image.
fn artifact(world: &TestEnv, image: &str, predicate: &str) -> String {
    let (_, listing) = listing(world, image);
    let entries = listing["manifests"].as_array().unwrap().iter();
    let newest = entries.rev().find(|it| it["annotations"][PREDICATE] == predicate).unwrap();
    newest["digest"].as_str().unwrap().to_owned()
}

/// The statement that an artifact carries.
fn statement(world: &TestEnv, artifact: &str) -> Value {
    let manifest = read(world, artifact);
    let bundle = read(world, manifest["layers"][0]["digest"].as_str().unwrap());
    let payload = BASE64.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// An index and the images of its platforms.
fn images(world: &TestEnv, index: &str) -> Vec<String> {
    let entries = read(world, index)["manifests"].as_array().unwrap().clone();
    let images = entries.iter().map(|it| it["digest"].as_str().unwrap().to_owned());
    [index.to_owned()].into_iter().chain(images).collect()
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
        [
            "index signature",
            "index signature is of the release",
            "index revision",
            "index provenance",
            "index test result"
        ]
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
    let mut moved = read(&world, &artifact(&world, &other, SIGN));
    assert_eq!(moved["artifactType"], BUNDLE);
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

/// Whoever may write to the staging repository could name any image as one of an older release.
#[test]
fn no_tag_moves_by_a_record_of_another_key() {
    let world = released();
    let mut forged = world.document("release-v1.18.18");
    forged["variants"][1]["digest"] = forged["variants"][0]["digest"].clone();
    plant_record(&world, "release-v1.18.18", &forged, &SigningKey::generate().unwrap());
    let before = world.registry().tags("devbox");
    let text = world.fails("rollback v1.18.18", 3);
    assert!(text.contains("the trusted key has not signed"), "{text}");
    assert_eq!(world.registry().tags("devbox"), before);
}

#[test]
fn statements_are_about_the_images_that_have_them() {
    let world = released();
    let index = world.staged("omos");
    let images = images(&world, &index);
    for image in &images {
        for kind in [provenance::KIND, test_result::KIND] {
            let statement = statement(&world, &artifact(&world, image, kind));
            let subjects: Vec<String> = statement["subject"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| format!("sha256:{}", it["digest"]["sha256"].as_str().unwrap()))
                .collect();
            assert_eq!((&subjects, &statement["predicateType"]), (&images, &json!(kind)));
        }
    }
    for image in &images[1..] {
        for kind in [sbom_cyclonedx::PREDICATE, sbom_spdx::PREDICATE] {
            let statement = statement(&world, &artifact(&world, image, kind));
            let subject = statement["subject"].as_array().unwrap();
            assert_eq!(
                (subject.len(), &subject[0]["digest"]["sha256"]),
                (1, &json!(image.trim_start_matches("sha256:")))
            );
        }
    }
    let made = statement(&world, &artifact(&world, &index, provenance::KIND))["predicate"].clone();
    let definition = &made["buildDefinition"];
    assert_eq!(definition["externalParameters"]["variant"], "omos");
    let source = definition["externalParameters"]["source"].clone();
    assert_eq!(
        source,
        json!({ "uri": "git+https://gitea.jordbo.se/joakimp/opencode-devbox" }),
        "no checkout, no commit"
    );
    let materials = definition["resolvedDependencies"].as_array().unwrap();
    let base = world.registry().tag("devbox", "base-latest").unwrap();
    assert_eq!(materials[1]["digest"]["sha256"], base.trim_start_matches("sha256:"));
    assert!(materials.iter().any(|it| it["name"] == "images/Dockerfile.variant"), "{materials:?}");
    let nodes = definition["internalParameters"]["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &nodes[0]["how"]), (2, &json!("native")));
    let times = &made["runDetails"]["metadata"];
    assert!(times["startedOn"].as_str().unwrap() <= times["finishedOn"].as_str().unwrap(), "{times}");
    let tests = statement(&world, &artifact(&world, &index, test_result::KIND))["predicate"].clone();
    let passed = tests["passedTests"].as_array().unwrap();
    assert_eq!((&tests["result"], &tests["failedTests"]), (&json!("PASSED"), &json!([])));
    assert!(passed.iter().any(|it| it.as_str().unwrap().starts_with("linux/arm64: ")), "{passed:?}");
    let of_base = artifact(&world, &base, provenance::KIND);
    assert_eq!(
        statement(&world, &of_base)["predicate"]["buildDefinition"]["externalParameters"]["variant"],
        "base image"
    );
}

/// Another statement in the place of one that was attached: that of another image, one of another key, or none.
#[test]
fn a_replaced_statement_is_found_and_made_again() {
    let world = released();
    let first = |variant: &str| images(&world, &world.staged(variant)).remove(1);
    replace(&world, &world.staged("omos"), &world.staged("with-pi"), provenance::KIND, "index provenance");
    replace(&world, &first("omos"), &first("with-pi"), sbom_spdx::PREDICATE, "linux/amd64 SBOM (SPDX)");
}

fn replace(world: &TestEnv, image: &str, other: &str, kind: &str, check: &str) {
    let mut forged = read(world, &artifact(world, image, kind));
    let text = statement(world, &artifact(world, image, kind)).to_string();
    let stranger = SigningKey::from_pem(&SigningKey::generate().unwrap(), None).unwrap();
    let signature = stranger.sign(&dsse::signed_bytes(&text)).unwrap();
    let bundle = dsse::bundle(&text, &signature, &stranger.public().hint().unwrap()).to_string();
    forged["layers"][0]["digest"] = json!(world.registry().put_blob("devbox", bundle.as_bytes()));
    forged["layers"][0]["size"] = json!(bundle.len());
    let mut moved = read(world, &artifact(world, other, kind));
    moved["subject"]["digest"] = json!(image);
    for (case, replacement) in [("stranger", Some(forged)), ("moved", Some(moved)), ("none", None)] {
        let (tag, mut listing) = listing(world, image);
        let entries = listing["manifests"].as_array_mut().unwrap();
        entries.retain(|it| it["annotations"][PREDICATE] != kind);
        if let Some(replacement) = replacement {
            let bytes = replacement.to_string().into_bytes();
            let digest = world.registry().put("devbox", "planted", &bytes);
            entries
                .push(json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                "size": bytes.len(), "artifactType": BUNDLE, "annotations": { PREDICATE: kind } }));
        }
        world.registry().put("devbox", &tag, listing.to_string().as_bytes());
        assert_eq!(failed(world, "latest-omos"), [check], "{case}");
        let text = world.notes("publish");
        assert!(text.contains("signed 1 images of v1.18.18"), "{case}: {text}");
        assert_eq!(failed(world, "latest-omos"), [""; 0], "{case}");
    }
}
