use std::time::Duration;

use registry_lab::{Lab, Lag};

use crate::{crane, nobody, push};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_tag_has_its_old_value_until_its_window_ends() {
    let lab = Lab::start();
    let config = nobody(&lab);
    let old = push(&lab, &config, "team/image:latest", "old");
    lab.set_lag(LONG);
    let new = push(&lab, &config, "team/image:latest", "new");
    assert_ne!(old, new);
    let read = |line: &str| crane(&lab, &config, line);
    assert_eq!(read("digest REGISTRY/team/image:latest").unwrap(), old);
    assert!(!read("manifest REGISTRY/team/image:latest").unwrap().is_empty());
    // By digest, the new image is visible at once.
    assert_eq!(read(&format!("digest REGISTRY/team/image@{new}")).unwrap(), new);
    assert_eq!(lab.registry().tag("team/image", "latest"), Some(new.clone()));
    lab.settle();
    assert_eq!(read("digest REGISTRY/team/image:latest").unwrap(), new);
}

#[test]
fn a_new_tag_is_absent_until_its_window_ends() {
    let lab = Lab::start();
    let config = nobody(&lab);
    push(&lab, &config, "team/image:v1", "1");
    lab.set_lag(Lag::from(LONG).of("*:v3", Duration::ZERO));
    for tag in ["v2", "v3"] {
        crane(&lab, &config, &format!("tag REGISTRY/team/image:v1 {tag}")).unwrap();
    }
    let read = |line: &str| crane(&lab, &config, line);
    assert!(read("digest REGISTRY/team/image:v2").unwrap_err().contains("404 Not Found"));
    let text = read("manifest REGISTRY/team/image:v2").unwrap_err();
    assert!(text.contains("MANIFEST_UNKNOWN: manifest unknown; map[Tag:v2]"), "{text}");
    assert_eq!(read("ls REGISTRY/team/image").unwrap(), "v1\nv3");
    lab.settle();
    assert_eq!(read("ls REGISTRY/team/image").unwrap(), "v1\nv2\nv3");
}

#[test]
fn a_window_ends_by_itself_and_both_clients_see_the_same() {
    let lab = Lab::start();
    let (config, other) = (nobody(&lab), lab.client());
    let old = push(&lab, &config, "image:latest", "old");
    lab.set_lag(Duration::from_secs(2));
    let new = push(&lab, &config, "image:latest", "new");
    let read = |host: &str| {
        let output =
            std::process::Command::new("crane").args(["digest", &format!("{host}/image:latest")]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(read(other.host()), old);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(read(other.host()), new);
    assert_eq!(read(lab.host()), new);
    assert_eq!(other.counts().manifest_heads, 2);
}

#[test]
fn crane_gets_both_values_of_a_flickering_tag() {
    let lab = Lab::start();
    let config = nobody(&lab);
    let old = push(&lab, &config, "image:latest", "old");
    lab.set_lag(Lag::from(LONG).flickering());
    let new = push(&lab, &config, "image:latest", "new");
    let read = || crane(&lab, &config, "digest REGISTRY/image:latest").unwrap();
    // The push itself has read the tag before its write.
    assert_eq!([read(), read(), read()], [old.clone(), new, old]);
}

#[test]
fn a_window_can_last_for_a_number_of_reads() {
    let lab = Lab::start();
    let config = nobody(&lab);
    push(&lab, &config, "image:v1", "1");
    lab.set_lag(Lag::reads(1));
    crane(&lab, &config, "tag REGISTRY/image:v1 v2").unwrap();
    let read = || crane(&lab, &config, "manifest REGISTRY/image:v2");
    read().unwrap_err();
    read().unwrap();
}
