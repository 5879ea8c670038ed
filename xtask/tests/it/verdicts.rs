//! Which verdict counts: what an artifact says about the image that it refers to, in the registry's order.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use registry_lab::digest;
use serde_json::{Value, json};
use xtask::model::dsse;
use xtask::tools::cosign::SigningKey;

use crate::recovery::stage;
use crate::support::env::{KEY, TestEnv};

const VERDICT: &str = "application/vnd.opencode-devbox.verdict.v2+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A world in which the suite has failed on omos, and the digest of its image for amd64.
fn failed() -> (TestEnv, String) {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    for variant in ["base", "with-pi", "omos-with-pi"] {
        world.ok(&format!("smoke {variant}"));
    }
    world.fails_with("smoke omos", &[("FAKE_BROKEN", "omos")], 1);
    let image = amd64(&world, "omos");
    (world, image)
}

fn amd64(world: &TestEnv, variant: &str) -> String {
    let index = world.registry().blob(&world.staged(variant)).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// The referrers tag of an image, the digests it lists, and the verdict that the first one holds.
fn listed(world: &TestEnv, image: &str) -> (String, Value, Value) {
    let tag = image.replace(':', "-");
    let listing = world.registry().tag("devbox-staging", &tag).unwrap();
    let listing: Value = serde_json::from_slice(&world.registry().blob(&listing).unwrap()).unwrap();
    let entries = listing["manifests"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["artifactType"] == VERDICT).unwrap();
    let artifact = world.registry().blob(entry["digest"].as_str().unwrap()).unwrap();
    let artifact: Value = serde_json::from_slice(&artifact).unwrap();
    let document = artifact["annotations"]["opencode-devbox.document"].as_str().unwrap();
    (tag, listing.clone(), serde_json::from_str(document).unwrap())
}

/// The signature of a verdict by a key.
fn sign(key: &str, document: &str) -> String {
    let key = SigningKey::from_pem(key, None).unwrap();
    BASE64.encode(key.sign(&dsse::pae(VERDICT, document.as_bytes())).unwrap())
}

/// Stores a verdict as an artifact that refers to an image, and returns its entry for a listing.
fn artifact(world: &TestEnv, subject: &str, verdict: &Value) -> Value {
    let empty =
        json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2 });
    let size = world.registry().blob(subject).unwrap().len();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": VERDICT, "config": empty,
        "layers": [empty], "subject": { "mediaType": MANIFEST, "digest": subject, "size": size },
        "annotations": { "opencode-devbox.document": verdict.to_string(), "opencode-devbox.passed": "true",
            "opencode-devbox.signature": sign(KEY, &verdict.to_string()) } });
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let name = world.registry().put("devbox-staging", "planted", &bytes);
    json!({ "mediaType": MANIFEST, "digest": name, "size": bytes.len(), "artifactType": VERDICT,
        "annotations": manifest["annotations"] })
}

fn list(world: &TestEnv, tag: &str, mut listing: Value, more: &[Value]) {
    listing["manifests"].as_array_mut().unwrap().extend(more.iter().cloned());
    world.registry().put("devbox-staging", tag, &serde_json::to_vec(&listing).unwrap());
}

/// The checks of a verdict, each with this result.
fn checks(verdict: &Value, passed: bool) -> Vec<Value> {
    let checks = verdict["checks"].as_array().unwrap().iter();
    checks.map(|check| with(check, &json!({ "passed": passed }))).collect()
}

fn with(verdict: &Value, fields: &Value) -> Value {
    let mut verdict = verdict.clone();
    for (name, value) in fields.as_object().unwrap() {
        verdict[name] = value.clone();
    }
    verdict
}

#[track_caller]
fn is_refused(world: &TestEnv, case: &str) {
    let text = world.fails("publish", 3);
    assert!(text.contains("omos failed its smoke test on linux/amd64"), "{case}: {text}");
    assert!(world.tags().is_empty(), "{case}");
}

/// Whoever may write the listing cannot make a failed image pass: the artifact itself is read, and its subject compared.
#[test]
fn a_forged_listing_makes_nothing_pass() {
    let (world, image) = failed();
    is_refused(&world, "as it was tested");
    let (tag, listing, verdict) = listed(&world, &image);
    let passed = with(&verdict, &json!({ "checks": checks(&verdict, true), "sequence": 99 }));
    let annotations =
        json!({ "opencode-devbox.document": passed.to_string(), "opencode-devbox.passed": "true" });

    // The entry of the failure says that it passed.
    let mut forged = listing.clone();
    for entry in forged["manifests"].as_array_mut().unwrap() {
        entry["annotations"] = annotations.clone();
    }
    list(&world, &tag, forged, &[]);
    is_refused(&world, "annotations of the listing");

    // An entry for an artifact that does not exist.
    let nothing = json!({ "mediaType": MANIFEST, "digest": digest(b"nothing"), "size": 7, "artifactType": VERDICT,
        "annotations": annotations });
    list(&world, &tag, listing.clone(), &[nothing]);
    is_refused(&world, "an artifact that does not exist");

    // An artifact about this image that refers to another one, and one the other way round.
    let other = amd64(&world, "base");
    list(&world, &tag, listing.clone(), &[artifact(&world, &other, &passed)]);
    is_refused(&world, "another subject");
    let about_other = with(&passed, &json!({ "image": other }));
    list(&world, &tag, listing, &[artifact(&world, &image, &about_other)]);
    is_refused(&world, "another image in the verdict");
}

/// A tester's clock orders nothing: a failure counts until a later run of the same kind has passed.
#[test]
fn skewed_clocks_hide_no_failure() {
    let (world, image) = failed();
    let (tag, listing, failure) = listed(&world, &image);
    let (sequence, at) = (failure["sequence"].as_u64().unwrap(), failure["at"].as_u64().unwrap());
    let verdict = |passed: bool, sequence: u64, at: u64, emulated: bool| {
        let checks = checks(&failure, passed);
        let fields = json!({ "checks": checks, "sequence": sequence, "at": at, "emulated": emulated });
        artifact(&world, &image, &with(&failure, &fields))
    };
    let emulated = failure["emulated"].as_bool().unwrap();
    let earlier = verdict(true, sequence.saturating_sub(1), at + 600, emulated);
    list(&world, &tag, listing.clone(), &[earlier]);
    is_refused(&world, "an earlier pass by a clock that is ahead");
    list(&world, &tag, listing.clone(), &[verdict(true, sequence + 1, at + 600, !emulated)]);
    is_refused(&world, "a pass of the other kind");
    list(&world, &tag, listing, &[verdict(true, sequence + 1, at - 600, emulated)]);
    let text = world.fails("publish", 3);
    assert!(!text.contains("omos failed its smoke test on linux/amd64"), "{text}");
    assert!(text.contains("omos failed its smoke test on linux/arm64"), "{text}");
    // A real run counts after all of them.
    stage(&world);
    world.ok("smoke omos --force");
    world.ok("publish");
}

/// The log of the starts of the suite, without anything else.
fn smokes(world: &TestEnv) -> Vec<String> {
    world.log().into_iter().filter(|line| line.starts_with("smoke ")).collect()
}

fn both(images: &[&str]) -> Vec<String> {
    let on = |image| ["linux/amd64", "linux/arm64"].map(|platform| format!("smoke {image} {platform}"));
    images.iter().flat_map(on).collect()
}

/// A check that has passed is not run again in another variant or after a bump, and `--force` runs it.
#[test]
fn a_check_runs_once_for_all_images_with_the_same_layers() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    world.log();
    world.ok("smoke base");
    assert_eq!(smokes(&world), both(&["base image", "base"]));
    for variant in ["omos", "with-pi", "omos-with-pi"] {
        world.ok(&format!("smoke {variant}"));
        assert_eq!(smokes(&world), both(&[variant]), "the base has passed");
    }
    let of = |variant: &str| {
        let (_, _, verdict) = listed(&world, &amd64(&world, variant));
        let place = |check: &Value| {
            let from = check["from"]["variant"].as_str().unwrap_or("here");
            format!("{} {from}", check["name"].as_str().unwrap())
        };
        verdict["checks"].as_array().unwrap().iter().map(place).collect::<Vec<_>>()
    };
    let layer = |name: &str, place: &str| format!("the layer of {name} holds its own files only {place}");
    let mut expected = [
        "the base starts base image",
        "opencode answers base",
        "omos is set up omos",
        "pi answers with-pi",
        "the labels are there here",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.extend([
        layer("bun", "omos"),
        layer("identity", "here"),
        layer("omos", "omos"),
        layer("opencode", "base"),
        layer("pi", "with-pi"),
    ]);
    let mut found = of("omos-with-pi");
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    world.ok("smoke with-pi");
    assert_eq!(smokes(&world), [""; 0]);
    world.ok("smoke with-pi --force");
    assert_eq!(smokes(&world), both(&["base image", "with-pi"]));
}

/// Soundness of all this: a layer that holds a file of another one is refused before anything is published.
#[test]
fn a_layer_with_foreign_files_fails_its_image() {
    let world = TestEnv::new();
    world.ok("build-base");
    let foreign = [("FAKE_FOREIGN_FILE", "etc/passwd")];
    assert!(world.run_with("build", &foreign).status.success());
    let text = world.fails("smoke base", 1);
    assert!(text.contains("the layer of opencode in base on linux/amd64 has /etc/passwd"), "{text}");
    let text = world.fails("publish", 3);
    assert!(text.contains("base failed its smoke test on linux/amd64"), "{text}");
    assert!(world.tags().is_empty());
}
