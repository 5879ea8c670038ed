use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use expect_test::expect;
use registry_lab::{Lab, Referrers, digest};
use serde_json::{Value, json};

use crate::{crane, header, nobody, plain, push, transcript};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An OCI layout with one artifact that refers to an image.
fn layout(dir: &Path, subject: &str, size: usize, kind: &str) {
    let write = |bytes: &[u8]| {
        let name = digest(bytes);
        let folder = dir.join("blobs/sha256");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name.trim_start_matches("sha256:")), bytes).unwrap();
        json!({ "digest": name, "size": bytes.len() })
    };
    let with_type = |mut descriptor: Value, kind: &str| {
        descriptor["mediaType"] = json!(kind);
        descriptor
    };
    let empty = with_type(write(b"{}"), EMPTY);
    let subject = json!({ "mediaType": MANIFEST, "digest": subject, "size": size });
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": empty,
        "layers": [empty], "subject": subject, "annotations": { "kind": kind } });
    let manifest = with_type(write(manifest.to_string().as_bytes()), MANIFEST);
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Pushes an artifact that refers to an image with crane.
fn attach(lab: &Lab, subject: &str, kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), subject, 423, kind);
    let line = format!("push {} REGISTRY/image:artifact-{}", dir.path().display(), kind.replace('/', "-"));
    crane(lab, &nobody(lab), &line).unwrap();
}

/// A lab with one image, and its digest.
fn with_image(form: Referrers) -> (Lab, String) {
    let lab = Lab::start();
    let image = push(&lab, &nobody(&lab), "image:latest", "1");
    lab.set_referrers(form);
    lab.arm([]);
    (lab, image)
}

fn get(lab: &Lab, path: &str) -> Value {
    let output =
        Command::new("curl").args(["-sS", &format!("http://{}{path}", lab.host())]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn kinds(index: &Value) -> Vec<String> {
    let entries = index["manifests"].as_array().unwrap();
    entries.iter().map(|entry| entry["artifactType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn with_the_api_crane_writes_no_tag() {
    let (lab, image) = with_image(Referrers::Present);
    attach(&lab, &image, "test/a");
    assert!(!lab.registry().tags("image").keys().any(|tag| tag.starts_with("sha256-")));
    let index = get(&lab, &format!("/v2/image/referrers/{image}"));
    let (entry, none) = (&index["manifests"][0], get(&lab, &format!("/v2/image/referrers/{}", digest(b"x"))));
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(entry["annotations"]["kind"], "test/a");
    assert_eq!(entry["digest"], lab.registry().tag("image", "artifact-test-a").unwrap());
    assert_eq!(none["manifests"], json!([]));
    // A new one lags as a tag does.
    lab.set_lag(Duration::from_secs(60));
    attach(&lab, &image, "test/b");
    assert_eq!(get(&lab, &format!("/v2/image/referrers/{image}")), index);
    lab.settle();
    let index = get(&lab, &format!("/v2/image/referrers/{image}"));
    assert_eq!(kinds(&index), ["test/a", "test/b"]);
    // A copied repository has the same.
    lab.registry().copy("image", "copy/image");
    assert_eq!(get(&lab, &format!("/v2/copy/image/referrers/{image}")), index);
}

#[test]
fn without_the_api_crane_writes_the_tag() {
    let (lab, image) = with_image(Referrers::Absent);
    attach(&lab, &image, "test/a");
    expect![[r#"
        GET /v2/ 200
        HEAD /v2/image/manifests/artifact-test-a 404
        HEAD /v2/image/blobs/DIGEST-A 404
        POST /v2/image/blobs/uploads/ 202
        PATCH /v2/image/blobs/uploads/UPLOAD 202
        PUT /v2/image/blobs/uploads/UPLOAD?digest=DIGEST-A 201
        PUT /v2/image/manifests/artifact-test-a 201
        GET /v2/image/referrers/DIGEST-B 404
        GET /v2/image/manifests/sha256-66eff994b464eb0bba217a924a03e1e584d74044f6e22551ed1d3be0812cd73b 404
        PUT /v2/image/manifests/sha256-66eff994b464eb0bba217a924a03e1e584d74044f6e22551ed1d3be0812cd73b 201
    "#]]
    .assert_eq(&transcript(&lab));
    let tag = lab.registry().tag("image", &image.replace(':', "-")).unwrap();
    let index: Value = serde_json::from_slice(&lab.registry().blob(&tag).unwrap()).unwrap();
    // crane lists the type of the config, where the specification has the `artifactType`.
    assert_eq!(kinds(&index), [EMPTY]);
}

#[test]
fn what_crane_writes_for_each_other_form() {
    let mut text = String::new();
    let forms = [Referrers::Ignored, Referrers::Html];
    let errors = [400, 401, 403, 405, 406, 501].map(Referrers::Status);
    for form in forms.into_iter().chain(errors) {
        let (lab, image) = with_image(form);
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path(), &image, 423, "test/a");
        let run =
            crane(&lab, &nobody(&lab), &format!("push {} REGISTRY/image:artifact", dir.path().display()));
        let has_tag = lab.registry().tags("image").contains_key(&image.replace(':', "-"));
        text += &format!("{form:?}: fallback tag {has_tag}, succeeds {}\n", run.ok);
        text += &plain(&lab, if run.ok { "" } else { &run.err });
    }
    expect![[r#"
        Ignored: fallback tag false, succeeds true
        Html: fallback tag false, succeeds true
        Status(400): fallback tag true, succeeds true
        Status(401): fallback tag false, succeeds false
        pushed blob: DIGEST-A
        Error: GET http://REGISTRY/v2/image/referrers/DIGEST-B: UNAUTHORIZED: the registry fails as the test asks
        Status(403): fallback tag false, succeeds false
        pushed blob: DIGEST-A
        Error: GET http://REGISTRY/v2/image/referrers/DIGEST-B: DENIED: the registry fails as the test asks
        Status(405): fallback tag false, succeeds false
        pushed blob: DIGEST-A
        Error: GET http://REGISTRY/v2/image/referrers/DIGEST-B: UNSUPPORTED: the registry fails as the test asks
        Status(406): fallback tag false, succeeds false
        pushed blob: DIGEST-A
        Error: GET http://REGISTRY/v2/image/referrers/DIGEST-B: UNSUPPORTED: the registry fails as the test asks
        Status(501): fallback tag false, succeeds false
        pushed blob: DIGEST-A
        Error: GET http://REGISTRY/v2/image/referrers/DIGEST-B: UNSUPPORTED: the registry fails as the test asks
    "#]].assert_eq(&text);
}

#[test]
fn pages_follow_each_other_and_can_be_filtered() {
    let (lab, image) = with_image(Referrers::Paged(2));
    for kind in ["test/c", "test/a", "test/b"] {
        attach(&lab, &image, kind);
    }
    let path = format!("/v2/image/referrers/{image}");
    assert_eq!(kinds(&get(&lab, &path)), ["test/c", "test/a"]);
    let link = header(&lab, "-i", &path, "link").unwrap();
    let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    assert_eq!(kinds(&get(&lab, next)), ["test/b"]);
    assert_eq!(header(&lab, "-i", next, "link"), None);
    let filtered = format!("{path}?artifactType=test%2Fb");
    assert_eq!(kinds(&get(&lab, &filtered)), ["test/b"]);
    assert_eq!(header(&lab, "-i", &filtered, "oci-filters-applied").unwrap(), "artifactType");
    lab.set_referrers(Referrers::Unordered);
    let mut sorted = kinds(&get(&lab, &path));
    sorted.sort();
    assert_eq!(sorted, ["test/a", "test/b", "test/c"]);
}
