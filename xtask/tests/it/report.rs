//! The report of a release: what is in it, and that it refers to nothing else.

use std::fs;

use crate::recovery::{bump, release, released};
use crate::support::env::TestEnv;

/// Two releases, and the report of the second.
fn reported(line: &str) -> (TestEnv, String) {
    let world = released();
    bump(&world);
    release(&world);
    let path = world.ok(line);
    let html = fs::read_to_string(path.trim()).unwrap();
    (world, html)
}

/// The text of the page without its markup.
fn text(html: &str) -> String {
    let body = html.split_once("</style>").unwrap().1;
    let parts = body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    let text = parts.collect::<Vec<_>>().join(" ").replace("&#x2f;", "/").replace("&lt;", "<");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every element that is opened is closed in the opposite order.
#[track_caller]
fn is_well_formed(html: &str) {
    const VOID: [&str; 4] = ["meta", "br", "rect", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    for part in html.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("an open tag: {part}"));
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{closed}"),
            None if VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn a_report_shows_what_a_release_is_made_of() {
    let (world, html) = reported("report --files");
    is_well_formed(&html);
    let text = text(&html);
    for part in [
        "Release v1.18.19",
        "omos-with-pi linux/arm64 v1.18.19-omos-with-pi",
        "Compared with v1.18.18, the release before.",
        "opencode 1.18.18 1.18.19",
        "All packages are the same.",
        "opencode, linux/amd64",
        "Layer Added Removed Changed",
        "build of omos",
        "the base starts",
        "passed ran on base",
        "8 of 8",
        "Not recorded: phases that ran as commands of their own",
        "signed by the key that counts here",
        "cargo xtask verify v1.18.19",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(html.matches("<svg").count() == 2 && html.contains("<title>opencode: "), "{html}");
    // The first release has none before it.
    let first = world.ok("report v1.18.18");
    let first = fs::read_to_string(first.trim()).unwrap();
    assert!(first.contains("There is no earlier release"), "{first}");
    let text = world.fails("report v1.18.17", 1);
    assert!(text.contains("has no record of v1.18.17"), "{text}");
}

#[test]
fn a_report_refers_to_nothing_outside_of_itself() {
    let (_, html) = reported("report");
    for outside in
        ["<script", "<link", "<iframe", "<object", "<img", "src=", "url(", "@import", "http:", "https:"]
    {
        assert!(!html.contains(outside), "{outside}");
    }
    let links: Vec<&str> =
        html.split("href=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links {
        let id = link.strip_prefix('#').unwrap_or_else(|| panic!("{link} leads out of the page"));
        assert!(html.contains(&format!("id=\"{id}\"")), "{link}");
    }
    // What a picture shows is in words, too.
    for (element, needs) in
        [("<table", "<caption>"), ("<svg", "aria-label="), ("<section", "aria-labelledby=")]
    {
        let parts: Vec<&str> = html.split(element).skip(1).collect();
        assert!(!parts.is_empty() && parts.iter().all(|part| part.contains(needs)), "{element}");
    }
    assert_eq!(html.matches("<table").count(), html.matches("<caption>").count());
}

/// One command that does all of a release also stores what it took, and writes the report.
#[test]
fn a_release_in_one_run_records_phases_and_requests() {
    let world = TestEnv::new();
    for line in ["build-base", "build", "smoke base", "smoke omos", "smoke with-pi", "smoke omos-with-pi"] {
        world.ok(line);
    }
    let (_, told) = world.both("release");
    assert!(told.contains("the report of v1.18.18 is "), "{told}");
    let html = world.read(".devbox/reports/v1.18.18.html");
    let text = text(&html);
    let requests = format!("Host Requests Writes {} ", world.host);
    assert!(text.contains(&requests) && text.contains("Phase Seconds doctor"), "{text}");
    // A release that changes nothing stores nothing.
    let writes = world.writes();
    let (_, told) = world.both("release");
    assert!(!told.contains("the report of"), "{told}");
    assert_eq!(world.writes(), writes);
}

#[test]
fn a_dry_run_writes_no_report() {
    let world = released();
    assert!(world.ok("report --dry-run").starts_with("# write "));
    assert!(!world.root.join(".devbox/reports").exists());
}
