//! When a prune refuses, and that it writes nothing then.

use registry_lab::Deletes;
use serde_json::Value;
use xtask::model::promotion::LEASE_SECONDS;

use crate::recovery::{plant, released};

#[test]
fn a_prune_only_lists_unless_asked() {
    let world = released();
    let (tags, writes) = (world.registry().tags("devbox-staging"), world.writes());
    for line in ["prune", "prune --yes"] {
        let text = world.notes(line);
        assert!(text.contains("nothing to delete"), "{line}: {text}");
    }
    let stray = "omos-0123456789ab";
    let image = world.registry().tag("devbox", "base-latest").unwrap();
    let text = String::from_utf8(world.registry().blob(&image).unwrap()).unwrap();
    world.registry().put(
        "devbox-staging",
        stray,
        text.replace("\"schemaVersion\":2", "\"schemaVersion\": 2").as_bytes(),
    );
    world.registry().put(
        "devbox-staging",
        "somebody-else",
        text.replace("\"schemaVersion\":2", "\"schemaVersion\":  2").as_bytes(),
    );
    let text = world.notes("prune");
    assert!(text.contains("nothing to delete"), "of unknown age: {text}");
    let listed: Value = serde_json::from_str(&world.ok("prune --keep-days 0 --json")).unwrap();
    let tags_of = |it: &Value| it["tags"][0].as_str().unwrap_or_default().to_owned();
    let doomed: Vec<String> = listed["deletes"].as_array().unwrap().iter().map(tags_of).collect();
    // The attempt that moved base-latest has ended; the one that moved the other floating tags is what `repair` asks for.
    assert_eq!(
        (doomed.len(), &doomed[0], &listed["deleted"]),
        (2, &stray.to_owned(), &Value::from(false)),
        "{listed}"
    );
    assert!(doomed[1].starts_with("promotion-"), "{listed}");
    assert_eq!((world.writes(), world.registry().tags("devbox-staging").len()), (writes, tags.len() + 2));
}

#[test]
fn a_prune_refuses_beside_a_promotion_or_without_deletion() {
    let world = released();
    let image = world.registry().blob(&world.registry().tag("devbox", "base-latest").unwrap()).unwrap();
    let text = String::from_utf8(image).unwrap().replace("\"schemaVersion\":2", "\"schemaVersion\": 2");
    world.registry().put("devbox-staging", "omos-0123456789ab", text.as_bytes());
    world.lab().set_deletes(Deletes::Nothing);
    let text = world.fails("prune --keep-days 0 --yes", 3);
    assert!(text.contains("does not delete (HTTP 405)"), "{text}");
    assert!(!world.registry().tags("devbox-staging").keys().any(|tag| tag.starts_with("prune-")));
    world.lab().set_deletes(Deletes::Digests);
    let id = plant(&world, 100);
    let text = world.fails("prune --keep-days 0 --yes", 3);
    assert!(text.contains("process 7 on elsewhere is promoting"), "{text}");
    world.registry().forget("devbox-staging", &id.tag());
    plant(&world, LEASE_SECONDS + 1);
    let text = world.fails("prune --keep-days 0 --yes", 3);
    assert!(text.contains("v1.18.17 was interrupted") && text.contains("cargo xtask repair"), "{text}");
    assert!(world.registry().tag("devbox-staging", "omos-0123456789ab").is_some());
}
