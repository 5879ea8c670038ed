use expect_test::expect;
use registry_lab::{Deletes, Lab};

use crate::{Run, crane, nobody, plain, push};

/// crane's output for deletions by tag and by digest, and the tags that remain of two on one manifest.
fn deletes(form: Deletes) -> String {
    let lab = Lab::start().deletes(form);
    let config = nobody(&lab);
    let digest = push(&lab, &config, "image:v1", "1");
    crane(&lab, &config, "tag REGISTRY/image:v1 v2").unwrap();
    let run = |reference: &str| {
        let result: Run = crane(&lab, &config, &format!("delete REGISTRY/image{reference}"));
        match result.ok {
            true => "deleted\n".to_owned(),
            false => plain(&lab, result.err.lines().last().unwrap_or_default()),
        }
    };
    let tags = || format!("{:?}\n", lab.registry().tags("image").keys().collect::<Vec<_>>());
    let mut text = run(":v1") + &tags();
    text += &(run(&format!("@{digest}")) + &tags());
    text
}

#[test]
fn registries_delete_in_different_ways() {
    let all = [Deletes::Digests, Deletes::Tags, Deletes::Untagged, Deletes::Nothing];
    let text: String = all.map(|form| format!("{form:?}\n{}", deletes(form))).concat();
    expect![[r#"
        Digests
        Error: DELETE http://REGISTRY/v2/image/manifests/v1: UNSUPPORTED: The operation is unsupported.
        ["v1", "v2"]
        deleted
        []
        Tags
        deleted
        ["v2"]
        deleted
        []
        Untagged
        Error: DELETE http://REGISTRY/v2/image/manifests/v1: UNSUPPORTED: The operation is unsupported.
        ["v1", "v2"]
        Error: DELETE http://REGISTRY/v2/image/manifests/DIGEST-A: DENIED: the manifest is referenced
        ["v1", "v2"]
        Nothing
        Error: DELETE http://REGISTRY/v2/image/manifests/v1: UNSUPPORTED: The operation is unsupported.
        ["v1", "v2"]
        Error: DELETE http://REGISTRY/v2/image/manifests/DIGEST-A: UNSUPPORTED: The operation is unsupported.
        ["v1", "v2"]
    "#]]
    .assert_eq(&text);
}
