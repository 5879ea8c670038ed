//! How many requests a release costs. A registry may limit the manifests that an account reads (Docker Hub counts each GET),
//! so the goals are upper bounds. What docker itself asks for is not counted: its stand-in has an address of its own.

use std::fmt::Write as _;
use std::fs;

use registry_lab::{Counts, Lab};

use crate::support::env::{DEBIAN, TestEnv};
use crate::support::releases::CHAIN;

struct Site {
    lab: Lab,
    open: Lab,
    world: TestEnv,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::start();
        lab.registry().put("debian", "trixie-slim", DEBIAN.as_bytes());
        let (open, world) = (Lab::before(lab.registry()), TestEnv::before(lab.host(), "team/devbox"));
        // A public base has exactly what the tree includes; only a loopback registry is asked for bases without a part.
        while world.try_configure("include = true", "include = false") {}
        Self { lab, open, world }
    }

    /// Runs the chain and returns what it asked for, with a line per phase.
    fn release(&self) -> (Counts, String) {
        let (mut all, mut lines) = (Counts::default(), String::new());
        for line in CHAIN {
            self.lab.arm([]);
            let output = self.world.command(line).env("FAKE_PUSH_HOST", self.open.host()).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            let counts = self.lab.counts();
            if std::env::var("SHOW").is_ok_and(|it| it == line) {
                println!("{}", self.lab.transcript());
            }
            all.requests += counts.requests;
            all.writes += counts.writes;
            all.manifest_gets += counts.manifest_gets;
            all.manifest_heads += counts.manifest_heads;
            writeln!(
                lines,
                "{line}: {} requests, {} GETs of manifests",
                counts.requests, counts.manifest_gets
            )
            .unwrap();
        }
        (all, lines)
    }

    fn bump(&self) {
        let file = self.world.root.join("images/Dockerfile.variant");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("1.18.18", "1.18.19")).unwrap();
    }
}

/// Every phase is a process of its own here, as in CI, and asks again what the one before knew.
#[test]
fn a_release_reads_few_manifests() {
    let site = Site::new();
    for (name, reads, requests) in
        [("first release", 90, usize::MAX), ("bump", 60, 420), ("no-op", 15, usize::MAX)]
    {
        if name == "bump" {
            site.bump();
        }
        let (counts, lines) = site.release();
        println!("{name}: {counts:?}\n{lines}");
        assert!(counts.manifest_gets <= reads, "{name}: {} manifests read", counts.manifest_gets);
        assert!(counts.requests <= requests, "{name}: {} requests", counts.requests);
    }
    assert_eq!(site.lab.counts().writes, 0, "a finished release writes nothing");
}
