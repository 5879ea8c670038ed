//! Registries in the forms that there are: with and without the referrers API, behind proxies, at every form of a loopback
//! address, with dates in `Retry-After`.

use registry_lab::{Address, Fault, Lab, Referrers, RetryAfter, Rule};

use crate::recovery::{released, stage};
use crate::support::env::TestEnv;

/// A verdict that was stored is found again, whatever the registry answers when it is asked for referrers.
#[test]
fn verdicts_are_found_in_every_form_of_the_referrers_api() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    let statuses = [400, 401, 403, 405, 406, 501].map(Referrers::Status);
    let forms = [
        Referrers::Absent,
        Referrers::Present,
        Referrers::Unordered,
        Referrers::Paged(1),
        Referrers::Ignored,
        Referrers::Html,
    ];
    for form in forms.into_iter().chain(statuses) {
        world.lab().set_referrers(form);
        world.log();
        world.ok("smoke omos --force");
        let log = world.log();
        let tested = log.iter().filter(|line| line.starts_with("smoke omos ")).count();
        assert_eq!(tested, 2, "{form:?}: both platforms are tested: {log:?}");
        let text = world.notes("smoke omos");
        assert!(text.contains("passed before"), "{form:?}: {text}");
        assert_eq!(world.log(), [""; 0], "{form:?}");
    }
    // A failure of the registry is no missing verdict.
    world.lab().set_referrers(Referrers::Status(500));
    let text = world.fails("smoke omos", 1);
    assert!(text.contains("cannot list what refers to"), "{text}");
}

#[test]
fn a_date_in_retry_after_is_waited_for() {
    let world = TestEnv::new();
    let later = Fault::RetryLater(429, RetryAfter::Date(2));
    world.lab().arm([Rule::on("HEAD */manifests/*", later).nth(1)]);
    let text = world.notes("base-decide");
    let told = ["Retry-After 1 s", "Retry-After 2 s"].iter().any(|part| text.contains(part));
    assert!(told && text.contains("trying again"), "{text}");
    // One that is too far away is told and not waited for.
    let later = Fault::RetryLater(429, RetryAfter::Date(7200));
    world.lab().arm([Rule::on("HEAD */manifests/*", later)]);
    assert!(world.fails("base-decide", 1).contains("rate limited"));
}

#[test]
fn a_loopback_registry_is_not_asked_through_the_proxy() {
    let world = TestEnv::new();
    let proxy = "http://127.0.0.1:9";
    let env = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
        .map(|name| (name, proxy));
    let output = world.run_with("base-decide", &env);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(world.lab().counts().requests > 0);
}

#[test]
fn every_loopback_address_is_a_registry_on_this_machine() {
    let world = released();
    let file = world.root.join("images/Dockerfile.variant");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("1.18.18", "1.18.19")).unwrap();
    stage(&world);
    for address in [Address::V6, Address::Name] {
        let lab = Lab::with(world.registry().clone(), address);
        let repository = format!("{}/devbox", lab.host());
        for line in ["publish --promote-latest", "promote-base-latest", "status", "repair"] {
            let mut command = world.command(&format!("{line} --repository {repository}"));
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{repository}: {line}: {text}");
        }
        assert!(lab.counts().requests > 0);
    }
    assert_eq!(world.registry().tag("devbox", "latest"), world.registry().tag("devbox", "v1.18.19"));
}

/// The content key is short, and any account that may push can put anything under it.
#[test]
fn an_image_under_a_key_with_other_inputs_is_refused() {
    let world = TestEnv::new();
    world.ok("build-base");
    stage(&world);
    let registry = world.registry();
    let tags = registry.tags("devbox-staging");
    let key = |variant: &str| {
        let staged = world.staged(variant);
        tags.iter().find(|(_, digest)| **digest == staged).unwrap().0.clone()
    };
    let foreign = registry.blob(&world.staged("base")).unwrap();
    let own = registry.blob(&world.staged("omos")).unwrap();
    registry.put("devbox-staging", &key("omos"), &foreign);
    for line in ["build", "smoke omos", "publish"] {
        let text = world.fails(line, 1);
        assert!(text.contains("was made from other inputs than its name promises"), "{line}: {text}");
        assert!(text.contains("delete that tag"), "{line}: {text}");
    }
    registry.put("devbox-staging", &key("with-pi"), &own);
    let base = registry.tags("devbox").into_keys().find(|tag| tag.starts_with("base-")).unwrap();
    registry.put("devbox", &base, &own);
    let text = world.fails("build-base", 1);
    assert!(text.contains(&format!("{base} is an image that was made from other inputs")), "{text}");
    assert!(world.tags().is_empty());
}
