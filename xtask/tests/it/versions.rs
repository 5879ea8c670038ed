//! Locks, preflight, bumps, tags and notes against scripted registries.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

use serde_json::json;

use crate::recovery::release;
use crate::support::env::{PUBLIC_KEY, TestEnv, without_hashes, without_inputs};
use crate::support::published::INDEX;
use crate::support::server::{Answer, Server};

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// A gap that was met: a version that one platform does not have.
#[test]
fn an_incomplete_version_is_refused_and_a_complete_one_named() {
    let world = TestEnv::clone_of_tree();
    let text = world.fails("bump-opencode 1.18.33", 1);
    contains(
        &text,
        &[
            "opencode-linux-arm64@1.18.33 for linux/arm64 never existed: the package stops at 1.18.18",
            "nothing was changed",
            "the newest complete version is 1.18.18: run `cargo xtask bump opencode 1.18.18`",
        ],
    );
    let text = world.fails("bump-opencode 1.18.99", 1);
    contains(&text, &["opencode-linux-x64@1.18.99", "stops at 1.18.33", "stops at 1.18.18"]);
    contains(
        &world.fails("bump mempalace 3.0.1", 1),
        &["mempalace 3.0.1 for linux/amd64 never existed", "stops at 3.0.0"],
    );
    assert_eq!(world.git("log --oneline").lines().count(), 1);
}

#[test]
fn latest_is_the_newest_complete_version_and_makes_one_commit() {
    let world = TestEnv::clone_of_tree();
    let (diff, text) = world.both("bump-opencode latest --commit --tag");
    contains(
        &text,
        &[
            "opencode 1.18.18 is the newest complete version: 1 newer ones, up to 1.18.33",
            "opencode-linux-arm64",
        ],
    );
    contains(&diff, &["-ARG OPENCODE_VERSION=1.18.15", "+ARG OPENCODE_VERSION=1.18.18"]);
    let files = "CHANGELOG.md\nDOCKER_HUB.md\nimages/Dockerfile.variant\nimages/locks/opencode/package-lock.json\n\
                 images/locks/opencode/package.json";
    assert_eq!(world.git("show --format= --name-only HEAD"), files);
    assert_eq!(world.git("status --porcelain"), "");
    assert_eq!(world.git("tag --points-at HEAD"), "v1.18.18");
    assert_eq!(world.git("cat-file -t v1.18.18"), "tag", "annotated");
    let day = jiff::Timestamp::now().strftime("%F").to_string();
    let entry = format!(
        "## Unreleased\n\n## v1.18.18 - {day}\n\n- opencode 1.18.15 → 1.18.18 \
         ([notes](https://github.com/anomalyco/opencode/releases/tag/v1.18.18)), passing over 1.18.16 and 1.18.17.\n- A thing.\n"
    );
    contains(&world.read("CHANGELOG.md"), &[&entry]);
    contains(&world.read("DOCKER_HUB.md"), &["opencode 1.18.18"]);
    // The same again finds nothing to do, and what was made passes every check.
    let text = world.notes("bump-opencode 1.18.18");
    contains(&text, &["opencode is at 1.18.18 already"]);
    world.ok("lock --check");
    world.ok("docs --check");
    world.ok("preflight");
    world.ok("changelog check --release-tag v1.18.18");
    assert!(world.ok("changelog show v1.18.18").starts_with("- opencode 1.18.15 → 1.18.18"));
}

#[test]
fn a_dirty_tree_a_lower_version_and_a_dry_run_change_nothing() {
    let world = TestEnv::clone_of_tree();
    // A lock is for all platforms, whichever this run is about.
    let text = world.ok("bump-opencode latest --commit --dry-run --platform linux/amd64");
    contains(&text, &["+ARG OPENCODE_VERSION=1.18.18", "git commit --quiet --message"]);
    assert_eq!(world.git("status --porcelain"), "");
    world.ok("bump-opencode 1.18.18 --commit");
    contains(&world.fails("bump-opencode 1.18.15", 1), &["1.18.15 is lower; pass --allow-downgrade"]);
    fs::write(world.root.join("x"), "").unwrap();
    contains(&world.fails("bump-opencode 1.18.15 --downgrade", 1), &["not committed (?? x)"]);
    fs::remove_file(world.root.join("x")).unwrap();
    world.ok("bump-opencode 1.18.15 --allow-downgrade");
    let before = world.git("show HEAD~1:images/Dockerfile.variant");
    assert_eq!(world.read("images/Dockerfile.variant").trim_end(), before);
}

/// Nothing may be half done when a later file cannot be computed.
#[test]
fn a_bump_that_cannot_edit_one_file_edits_none() {
    let world = TestEnv::clone_of_tree();
    fs::write(world.root.join("CHANGELOG.md"), "# Changelog\n").unwrap();
    world.commit("Broken");
    contains(&world.fails("bump-opencode 1.18.18", 1), &["CHANGELOG.md does not begin with `## Unreleased`"]);
}

#[test]
fn a_lock_follows_its_pin_and_nothing_else() {
    let world = TestEnv::clone_of_tree();
    world.ok("lock --check");
    let file = world.root.join("images/Dockerfile.variant");
    fs::write(&file, world.read("images/Dockerfile.variant").replace("1.18.15", "1.18.18")).unwrap();
    let text = world.fails("lock --check", 1);
    contains(&text, &["run `cargo xtask lock`", "+    \"opencode-linux-arm64\": \"1.18.18\""]);
    contains(&world.fails("preflight opencode", 1), &["is not the lock of version 1.18.18"]);
    // The platform that is not there is dropped by npm without a word, and named here.
    fs::write(&file, world.read("images/Dockerfile.variant").replace("1.18.18", "1.18.33")).unwrap();
    contains(&world.fails("lock", 1), &["has no opencode-linux-arm64@1.18.33", "platforms are not equal"]);
    assert!(
        !world.read("images/locks/omos/package-lock.json").contains(&world.host),
        "a lock names a registry"
    );
}

/// A part whose host is not reached from everywhere: locked where it is, left as it is elsewhere.
#[test]
fn release_files_are_locked_where_their_host_answers() {
    let world = TestEnv::clone_of_tree();
    let lock = "images/locks/gitea-mcp/checksums.txt";
    let tarball = b"program".to_vec();
    let sum = xtask::model::key::digest(&tarball).replace("sha256:", "");
    let files = ["gitea-mcp_Linux_x86_64.tar.gz", "gitea-mcp_Linux_arm64.tar.gz"];
    let sums: String = files.iter().map(|file| format!("{sum}  {file}\n")).collect();
    let mut served = vec![("v0.1.0/checksums.txt".to_owned(), sums.clone().into_bytes())];
    served.extend(files.map(|file| (format!("v0.1.0/{file}"), tarball.clone())));
    world.published().wheels.insert("gitea-mcp".to_owned(), served);
    let base =
        world.read("images/Dockerfile.base").replace("127.0.0.1:9/x", &format!("{}/files", world.host));
    fs::write(world.root.join("images/Dockerfile.base"), base).unwrap();
    contains(&world.fails("lock --check", 1), &["+# gitea-mcp 0.1.0"]);
    world.ok("lock gitea-mcp");
    assert_eq!(world.read(lock), format!("# gitea-mcp 0.1.0\n{sums}"));
    contains(&world.notes("preflight gitea-mcp"), &["all 2 packages are there"]);
    world.published().wheels.remove("gitea-mcp");
    contains(
        &world.fails("preflight gitea-mcp", 1),
        &["gitea-mcp_Linux_arm64.tar.gz for linux/arm64 is gone"],
    );
}

#[test]
fn every_file_is_read_once_and_only_asked_for_after_that() {
    let world = TestEnv::clone_of_tree();
    let text = world.notes("preflight");
    contains(&text, &["all 9 packages are there", "(11 files read"]);
    let reads = |log: &[String]| {
        log.iter()
            .filter(|line| line.starts_with("GET") && (line.contains("/-/") || line.contains("/files/")))
            .count()
    };
    assert_eq!(reads(&world.requests()), 11);
    let text = world.notes("preflight");
    contains(&text, &["(0 files read"]);
    let log = world.requests();
    assert_eq!(reads(&log), 0);
    assert_eq!(log.iter().filter(|line| line.starts_with("HEAD")).count(), 11, "{log:?}");
}

#[track_caller]
fn verdict(change: impl FnOnce(&mut crate::support::published::Published), expected: &str) {
    let world = TestEnv::clone_of_tree();
    change(&mut world.published());
    contains(
        &world.fails("preflight opencode", 1),
        &["opencode-linux-arm64@1.18.15 for linux/arm64", expected],
    );
}

#[test]
fn a_missing_file_gets_a_verdict() {
    let name = "opencode-linux-arm64";
    // Failure 1: metadata two minutes old whose tarball is a 404.
    verdict(
        |p| {
            p.add(name, "1.18.15", 1);
            p.package(name, "1.18.15").tarball = None
        },
        "is propagating: published",
    );
    verdict(|p| p.package(name, "1.18.15").tarball = None, "is gone: it was there");
    verdict(|p| p.package(name, "1.18.15").listed = false, "is gone: it was there");
    verdict(
        |p| p.package(name, "1.18.15").tarball = Some(b"other".to_vec()),
        "has other bytes than its lock",
    );
    verdict(|p| p.faults = vec![(format!("{name}/1.18.15"), 429, Some("7200"))], "before 20");
    verdict(|p| p.faults = vec![(format!("{name}/1.18.15"), 403, None)], "unknown: http");
}

#[test]
fn what_is_propagating_is_waited_for() {
    let world = TestEnv::clone_of_tree();
    {
        let mut published = world.published();
        published.add("opencode-linux-arm64", "1.18.15", 1);
        published.later = Some(("opencode-linux-arm64".to_owned(), 2));
    }
    let text = world.notes("preflight opencode --wait 30s");
    contains(&text, &["1 files are not available yet: asking again in 5 s", "match their locks"]);
}

#[test]
fn the_next_tag_is_free_in_git_and_in_the_registry() {
    let world = TestEnv::clone_of_tree();
    let next = || world.ok("next-tag").trim().to_owned();
    assert_eq!(next(), "v1.18.15");
    world.git("tag v1.18.15");
    assert_eq!(next(), "v1.18.15b");
    world.published().tags = vec!["v1.18.15b-omos".to_owned()];
    assert_eq!(next(), "v1.18.15c");
    let all = ('b'..='z').map(|letter| format!("v1.18.15{letter}"));
    world.published().tags = all.collect();
    contains(&world.fails("next-tag", 1), &["from v1.18.15 to v1.18.15z are taken", "bump-opencode latest"]);
}

const FORGE: [(&str, &str); 2] = [("GITEA_REPOSITORY", "you/devbox"), ("GITEA_TOKEN", "s3cret")];

#[test]
fn a_bump_is_proposed_once() {
    let world = TestEnv::clone_of_tree();
    let remote = world.root.with_file_name("remote.git");
    world.git(&format!("init --quiet --bare {}", remote.display()));
    world.git(&format!("remote add origin {}", remote.display()));
    let text = world.fails("bump opencode latest --pull-request", 3);
    contains(&text, &["GITEA_"]);
    let url = format!("http://{}", world.host);
    let env = [FORGE[0], FORGE[1], ("GITEA_URL", url.as_str())];
    let output = world.run_with("bump opencode latest --pull-request", &env);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("/pulls/1") && !text.contains("s3cret"), "{text}");
    let post = world.requests().into_iter().find(|line| line.starts_with("POST")).unwrap();
    contains(
        &post,
        &[
            "/api/v1/repos/you/devbox/pulls",
            "\"base\": \"main\"",
            "\"head\": \"bump-opencode\"",
            "Bump opencode 1.18.15 → 1.18.18",
        ],
    );
    assert_eq!(
        (world.git("branch --show-current").as_str(), world.git("status --porcelain").as_str()),
        ("main", "")
    );
    contains(&world.git("ls-remote origin"), &["refs/heads/bump-opencode"]);
    let output = world.run_with("bump opencode latest --pull-request", &env);
    contains(&String::from_utf8(output.stderr).unwrap(), &["is proposed already: http://", "/pulls/1"]);
    assert!(!world.requests().iter().any(|line| line.starts_with("POST")));
}

#[test]
fn a_release_gets_its_changelog_entry_as_notes_once() {
    let world = TestEnv::clone_of_tree();
    let url = format!("http://{}", world.host);
    let env = [FORGE[0], FORGE[1], ("GITEA_URL", url.as_str())];
    let attach = |expected: &str| {
        let output = world.run_with("changelog attach v1.18.15", &env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains(expected), "{text}");
        world.requests().into_iter().filter(|line| !line.starts_with("GET")).collect::<Vec<_>>()
    };
    let path = "/api/v1/repos/you/devbox/releases";
    let made = attach("the notes of v1.18.15 are at");
    contains(
        &made[0],
        &["POST /api/v1/repos/you/devbox/releases {", "\"tag_name\": \"v1.18.15\"", "\"body\": \"- First.\""],
    );
    let there = json!({ "id": 7, "tag_name": "v1.18.15", "body": "- First." });
    world.published().documents.insert(format!("{path}/tags/v1.18.15"), there);
    assert_eq!(attach("are up to date"), [""; 0]);
    assert_eq!(attach("no report of v1.18.15 is attached: `cargo xtask report v1.18.15`"), [""; 0]);
    contains(&world.fails("changelog show v1.18.16", 1), &["no entry for v1.18.16"]);
}

#[test]
fn a_release_gets_its_report_and_a_new_one_replaces_it() {
    let world = TestEnv::clone_of_tree();
    let url = format!("http://{}", world.host);
    let env = [FORGE[0], FORGE[1], ("GITEA_URL", url.as_str())];
    world.published().releases = Some(Vec::new());
    let file = world.root.join(".devbox/reports/v1.18.15.html");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let attach = |report: &str, expected: &str| {
        fs::write(&file, report).unwrap();
        let output = world.run_with("changelog attach v1.18.15", &env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains(expected), "{text}");
        let of_assets = |line: &String| !line.starts_with("GET") && line.contains("/assets");
        world.requests().into_iter().filter(of_assets).collect::<Vec<_>>()
    };
    let files = "/api/v1/repos/you/devbox/releases/1/assets";
    let made = attach("<p>one</p>", "the report of v1.18.15 is attached to its release");
    contains(&made.join("\n"), &[&format!("POST {files}?name=report-v1.18.15.html"), "<p>one</p>"]);
    assert_eq!(attach("<p>one</p>", "the report of v1.18.15 is attached already"), [""; 0]);
    let made = attach("<p>another</p>", "is attached to its release");
    contains(&made[0], &[&format!("DELETE {files}/")]);
    contains(&made[1], &["<p>another</p>"]);
    assert_eq!(made.len(), 2);
}

#[test]
fn what_is_behind_is_told_to_people_and_machines() {
    let world = TestEnv::clone_of_tree();
    let text = world.ok("outdated");
    contains(
        &text,
        &[
            "opencode   1.18.15  1.18.18   1.18.33",
            "<- behind",
            "gitea-mcp  0.1.0    ?",
            "Debian packages of 20260101",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&world.ok("outdated --json")).unwrap();
    assert_eq!(json["components"][0]["newest_complete"], "1.18.18");
    assert_eq!(json["components"][1]["behind"], false);
    contains(&world.fails("outdated --exit-code", 1), &["behind: opencode"]);
}

/// An unavailable version does not stop the others, and is reported.
#[test]
fn all_components_go_to_their_latest() {
    let world = TestEnv::clone_of_tree();
    world.published().add("oh-my-opencode-slim", "2.1.0", 1);
    let output = world.run_with("bump all latest --commit", &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    contains(&text, &["error: http://127.0.0.1:9 does not answer"]);
    let subjects = "Bump omos 2.0.0 → 2.1.0\nBump opencode 1.18.15 → 1.18.18\nFirst";
    assert_eq!(world.git("log --format=%s"), subjects);
    contains(&world.read("CHANGELOG.md"), &["## Unreleased\n\n- omos 2.0.0 → 2.1.0"]);
    contains(&world.fails("bump all 1.0.0", 1), &["can only go to latest"]);
}

/// A key that signs as Debian's do, and the keyring that holds it.
struct Signer {
    home: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        let home = tempfile::TempDir::new().unwrap();
        let signer = Self { home };
        signer.gpg(&["--quick-generate-key", "archive@example.org", "ed25519", "sign", "never"], "");
        let keyring = signer.gpg(&["--export"], "");
        fs::write(signer.home.path().join("keyring"), keyring).unwrap();
        signer
    }

    fn gpg(&self, args: &[&str], input: &str) -> Vec<u8> {
        use std::io::Write;
        use std::process::Stdio;
        let mut command = std::process::Command::new("gpg");
        command
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--batch", "--quiet", "--passphrase", ""])
            .args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn keyring(&self) -> String {
        self.home.path().join("keyring").to_str().unwrap().to_owned()
    }
}

/// A package of Debian's openssl, with its changelog as Debian writes it.
fn openssl() -> Vec<u8> {
    let changelog = "openssl (3.5.1-1+deb13u2) trixie-security; urgency=medium\n\n  * CVE-2025-9230 (\"Out-of-bounds read\")\n  * \
        CVE-2025-9231\n\n -- A <a@example.org>  Tue, 30 Sep 2025 22:10:28 +0200\n\nopenssl (3.5.1-1+deb13u1) trixie-security; \
        urgency=medium\n\n  * CVE-2025-4575\n\n -- A <a@example.org>  Mon, 01 Sep 2025 22:10:28 +0200\n";
    let gzip = |bytes: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    };
    let changelog = gzip(changelog.as_bytes());
    let mut header = tar::Header::new_ustar();
    header.set_size(changelog.len() as u64);
    let mut files = tar::Builder::new(Vec::new());
    // A builder would take the dot away, which Debian's packages have.
    header.as_mut_bytes()[..46].copy_from_slice(b"./usr/share/doc/openssl/changelog.Debian.gz\0\0\0");
    header.set_cksum();
    files.append(&header, changelog.as_slice()).unwrap();
    let mut package = ar::Builder::new(Vec::new());
    for (name, bytes) in
        [("debian-binary", b"2.0\n".to_vec()), ("data.tar.gz", gzip(&files.into_inner().unwrap()))]
    {
        package
            .append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), bytes.as_slice())
            .unwrap();
    }
    package.into_inner().unwrap()
}

/// Debian's security archive, with one package newer. `change` may spoil its files before they are served.
fn serve_archive(world: &TestEnv, signer: &Signer, until: &str, change: impl Fn(&mut String, &mut Vec<u8>)) {
    world.published().wheels.insert("debian".to_owned(), archive(signer, until, change));
}

/// The files of that archive.
fn archive(
    signer: &Signer,
    until: &str,
    change: impl Fn(&mut String, &mut Vec<u8>),
) -> Vec<(String, Vec<u8>)> {
    let sum = |bytes: &[u8]| xtask::model::key::digest(bytes).replace("sha256:", "");
    let package = openssl();
    let list = format!(
        "Package: openssl\nVersion: 3.5.1-1+deb13u2\nFilename: pool/openssl.deb\nSize: {}\nSHA256: {}\n",
        package.len(),
        sum(&package)
    );
    let list = list.as_bytes();
    let script = "import lzma, sys; sys.stdout.buffer.write(lzma.compress(sys.argv[1].encode()))";
    let text = std::str::from_utf8(list).unwrap();
    let mut xz = std::process::Command::new("python3").args(["-c", script, text]).output().unwrap().stdout;
    let mut index = format!("Codename: trixie-security\nValid-Until: {until}\nSHA256:\n");
    for arch in ["amd64", "arm64"] {
        index += &format!(" {} {} main/binary-{arch}/Packages\n", sum(list), list.len());
        index += &format!(" {} {} main/binary-{arch}/Packages.xz\n", sum(&xz), xz.len());
    }
    change(&mut index, &mut xz);
    let signed = signer.gpg(&["--clearsign"], &index);
    let file = |name: &str, bytes: &[u8]| (format!("dists/trixie-security/{name}"), bytes.to_vec());
    vec![
        file("InRelease", &signed),
        file("main/binary-amd64/Packages.xz", &xz),
        file("main/binary-arm64/Packages.xz", &xz),
        ("pool/openssl.deb".to_owned(), package),
    ]
}

const LATER: &str = "Sun, 06 Dec 2099 00:53:14 UTC";

/// A published base whose packages were recorded.
fn publish_base(world: &TestEnv, has: &str) {
    let list = format!("bash\t5.2-1\tamd64\nopenssl\t{has}\tamd64\nopenssl-doc\t1\tall\n");
    let lists = json!({ "linux/amd64": list, "linux/arm64": list }).to_string();
    let kind = "application/vnd.opencode-devbox.debian-packages.v1+json";
    let base = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": INDEX.len(),
        "digest": xtask::model::key::digest(INDEX.as_bytes()) });
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": xtask::model::key::digest(b"{}") });
    let record = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
        "config": empty, "layers": [empty], "subject": base, "annotations": { "opencode-devbox.document": lists } });
    let digest = xtask::model::key::digest(record.to_string().as_bytes());
    let entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind, "digest": digest,
        "size": record.to_string().len() });
    let referrers = format!("/v2/devbox-staging/referrers/{}", xtask::model::key::digest(INDEX.as_bytes()));
    let mut published = world.published();
    published.tags = vec!["base-latest".to_owned()];
    published.documents.insert(referrers, json!({ "schemaVersion": 2, "manifests": [entry] }));
    published.documents.insert(format!("/v2/devbox-staging/manifests/{digest}"), record);
}

/// Failure 11: base tools froze between edits of the base.
#[test]
fn security_updates_that_the_published_base_lacks_are_told() {
    let (world, signer) = (TestEnv::clone_of_tree(), Signer::new());
    let (archive, keyring) = (format!("http://{}/files", world.host), signer.keyring());
    let env = [("DEBIAN_SECURITY_URL", archive.as_str()), ("DEBIAN_KEYRING", &keyring)];
    let run = |line: &str| world.run_with(line, &env);
    serve_archive(&world, &signer, LATER, |_, _| ());
    publish_base(&world, "3.5.1-1+deb13u1");
    let output = run("outdated");
    contains(
        &String::from_utf8(output.stdout).unwrap(),
        &["base: security update openssl 3.5.1-1+deb13u1 → 3.5.1-1+deb13u2 (CVE-2025-9230, CVE-2025-9231)"],
    );
    let output = run("outdated --exit-code");
    contains(&String::from_utf8(output.stderr).unwrap(), &["behind: opencode, the base"]);
    assert!(run("refresh-base --if-behind --commit").status.success());
    contains(
        &world.git("log -1 --format=%B"),
        &[
            "Take the Debian packages of",
            "- openssl 3.5.1-1+deb13u1 → 3.5.1-1+deb13u2 (CVE-2025-9230, CVE-2025-9231)",
        ],
    );
    // A package with other bytes than its list says names nothing, and the update is reported.
    world.published().wheels.get_mut("debian").unwrap()[3].1[100] ^= 1;
    let output = run("outdated");
    contains(
        &String::from_utf8(output.stdout).unwrap(),
        &["base: security update openssl 3.5.1-1+deb13u1 → 3.5.1-1+deb13u2\n"],
    );
    contains(
        &String::from_utf8(output.stderr).unwrap(),
        &["cannot tell what the update of openssl fixes", "has other bytes than the signed list says"],
    );
    world.git("reset --quiet --hard HEAD~1");
    publish_base(&world, "3.5.1-1+deb13u2");
    contains(
        &String::from_utf8(run("refresh-base --if-behind").stderr).unwrap(),
        &["has all security updates"],
    );
    assert_eq!(world.git("status --porcelain"), "");
}

/// From the day of the fix to the release that has it: found, proposed, built on a new base, published under the next letter.
#[test]
fn a_security_update_becomes_the_next_letter() {
    let (mut world, signer) = (TestEnv::new(), Signer::new());
    let files: BTreeMap<String, Vec<u8>> = archive(&signer, LATER, |_, _| ()).into_iter().collect();
    let server = Server::start(move |request| {
        let found = files.get(request.path.trim_start_matches("/"));
        found.map_or(Answer::status(404), |bytes| Answer::ok(bytes.clone()))
    });
    world.set("DEBIAN_SECURITY_URL", &format!("http://{}", server.host));
    world.set("DEBIAN_KEYRING", &signer.keyring());
    world.set("FAKE_PACKAGES", "openssl\\t3.5.1-1+deb13u1\\tamd64\\n");
    release(&world);
    let old = world.registry().tag("devbox", "base-latest").unwrap();
    contains(&world.ok("refresh-base --if-behind --allow-dirty"), &["+ARG DEBIAN_DATE="]);
    world.set("FAKE_PACKAGES", "openssl\\t3.5.1-1+deb13u2\\tamd64\\n");
    release(&world);
    let tag = |name: &str| world.registry().tag("devbox", name).unwrap();
    assert_ne!(tag("base-latest"), old);
    for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
        assert_eq!(tag(&format!("latest{suffix}")), tag(&format!("v1.18.18b{suffix}")));
        assert_ne!(tag(&format!("latest{suffix}")), tag(&format!("v1.18.18{suffix}")));
    }
}

/// Nothing is concluded from a list that Debian did not sign, or that is not the signed one.
#[test]
fn a_list_of_updates_that_debian_did_not_sign_is_refused() {
    let (world, signer, other) = (TestEnv::clone_of_tree(), Signer::new(), Signer::new());
    publish_base(&world, "3.5.1-1+deb13u1");
    let (archive, keyring) = (format!("http://{}/files", world.host), signer.keyring());
    let env = [("DEBIAN_SECURITY_URL", archive.as_str()), ("DEBIAN_KEYRING", &keyring)];
    let refused = |why: &str| {
        let output = world.run_with("refresh-base --if-behind", &env);
        contains(&String::from_utf8(output.stderr).unwrap(), &[why]);
        assert!(!output.status.success());
        assert_eq!(world.git("status --porcelain"), "");
    };
    serve_archive(&world, &other, LATER, |_, _| ());
    refused("is not signed by Debian");
    serve_archive(&world, &signer, LATER, |_, _| ());
    world.published().wheels.get_mut("debian").unwrap()[0].1 = b"Codename: trixie-security\n".to_vec();
    refused("is not signed by Debian");
    serve_archive(&world, &signer, "Sun, 06 Dec 2020 00:53:14 UTC", |_, _| ());
    refused("was valid until Sun, 06 Dec 2020");
    serve_archive(&world, &signer, LATER, |index, _| *index = index.replace("trixie", "bookworm"));
    refused("is of the suite \"bookworm-security\"");
    serve_archive(&world, &signer, LATER, |_, xz| xz[20] ^= 1);
    refused("has other bytes than the signed index says");
    // More than the index says, though it has the right sum: a small file that unpacks to a large one.
    serve_archive(&world, &signer, LATER, |index, _| {
        *index = index
            .lines()
            .map(|line| match line.strip_suffix("/Packages") {
                Some(start) => {
                    format!(" {} 12 {}/Packages\n", &start[1..65], start.rsplit(' ').next().unwrap())
                }
                None => format!("{line}\n"),
            })
            .collect();
    });
    refused("unpacks to more than the 12 bytes");
}

#[test]
fn a_refresh_of_the_base_is_one_line_and_one_note() {
    let world = TestEnv::clone_of_tree();
    world.ok("refresh-base --commit");
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    contains(&world.read("images/Dockerfile.base"), &[&format!("ARG DEBIAN_DATE={stamp}\n")]);
    assert_eq!(world.git("show --format= --name-only HEAD"), "CHANGELOG.md\nimages/Dockerfile.base");
    contains(&world.notes("refresh-base"), &["already"]);
}

/// A tag that moves: it is resolved once, and a release is built on that digest or not at all.
#[test]
fn the_debian_image_is_locked_to_a_digest() {
    let world = TestEnv::clone_of_tree();
    let dockerfile =
        world.read("images/Dockerfile.base").replace("127.0.0.1:9/debian", &format!("{}/debian", world.host));
    fs::write(world.root.join("images/Dockerfile.base"), dockerfile).unwrap();
    let index = |digest: &str, architectures: &[&str]| {
        let entry = |arch: &&str| {
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
            "digest": format!("sha256:{}", digest.repeat(32)), "platform": { "os": "linux", "architecture": arch } })
        };
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": architectures.iter().map(entry).collect::<Vec<_>>() })
    };
    let serve = |name: &str, document: &serde_json::Value| {
        let mut published = world.published();
        published.documents.insert(format!("/v2/debian/manifests/{name}"), document.clone());
    };
    let definition = world.read("images/devbox.toml").replace("include = true", "include = false");
    fs::write(world.root.join("images/devbox.toml"), definition).unwrap();
    let remote = "--repository registry.example/you/devbox";
    let unlocked = format!(
        "images/locks/debian.txt does not lock {}/debian:trixie-slim: run `cargo xtask lock debian`",
        world.host
    );
    contains(&world.fails(&format!("preflight {remote}"), 1), &[&unlocked]);
    world.ok("preflight");
    contains(&world.fails("lock debian", 1), &["there is no ", "debian:trixie-slim"]);
    serve("trixie-slim", &index("d1", &["amd64"]));
    contains(&world.fails("lock debian", 1), &["has no image for linux/arm64"]);
    let first = index("d1", &["amd64", "arm64"]);
    serve("trixie-slim", &first);
    contains(&world.fails("lock --check", 1), &["run `cargo xtask lock`", "+sha256:"]);
    world.ok("lock debian");
    let lock = |index: &serde_json::Value| {
        let digest = xtask::model::key::digest(index.to_string().as_bytes());
        (format!("# {}/debian:trixie-slim\n{digest}\n", world.host), digest)
    };
    let (text, digest) = lock(&first);
    assert_eq!(world.read("images/locks/debian.txt"), text);
    // The tag moves: the lock stays, and what it names has to be there.
    let second = index("d2", &["amd64", "arm64"]);
    serve("trixie-slim", &second);
    world.ok("lock --check");
    let gone = format!("debian has no complete {digest}: run `cargo xtask refresh-base`");
    contains(&world.fails(&format!("preflight {remote}"), 1), &[&gone]);
    serve(&digest, &first);
    // Only a rehearsal does without the key that others verify with.
    let unsigned = ["cosign.pub is missing", "cosign public-key --key KEY"];
    contains(&world.fails(&format!("preflight {remote}"), 1), &unsigned);
    world.ok("preflight");
    fs::write(world.root.join("cosign.pub"), PUBLIC_KEY).unwrap();
    world.ok(&format!("preflight {remote}"));
    world.ok("refresh-base --allow-dirty");
    assert_eq!(world.read("images/locks/debian.txt"), lock(&second).0);
}

/// The page says what a release weighs, as the registry has it.
#[test]
fn a_published_release_is_weighed() {
    let world = TestEnv::clone_of_tree();
    contains(&world.fails("docs --sizes v1.18.15", 1), &["v1.18.15 is not published"]);
    {
        let mut published = world.published();
        let layer = |digit: &str, size: u64| {
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "digest": format!("sha256:{}", digit.repeat(64)), "size": size })
        };
        let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
            "digest": registry_lab::digest(b"{}") });
        let layers = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer("a", 600_000_000), layer("b", 57_400_000)] });
        let digest = xtask::model::key::digest(layers.to_string().as_bytes());
        let entry = |arch| {
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
            "digest": digest, "platform": { "os": "linux", "architecture": arch } })
        };
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry("amd64"), entry("arm64")] });
        for suffix in ["", "-omos", "-with-pi", "-omos-with-pi"] {
            published.documents.insert(format!("/v2/devbox/manifests/v1.18.15{suffix}"), index.clone());
        }
        published.documents.insert(format!("/v2/devbox/manifests/{digest}"), layers);
    }
    world.ok("docs --sizes v1.18.15");
    let sizes: serde_json::Value = serde_json::from_str(&world.read("docs/sizes.json")).unwrap();
    assert_eq!(sizes["release"], "v1.18.15");
    assert_eq!(sizes["bytes"]["omos-with-pi"]["linux/arm64"], 657_400_000);
    contains(&world.read("DOCKER_HUB.md"), &["657 MB"]);
    world.ok("docs --check");
}

/// Failure 48: three bytes left under the limit of Docker Hub, which counts bytes.
#[test]
fn a_page_that_docker_hub_would_cut_off_is_refused() {
    let world = TestEnv::clone_of_tree();
    let template = world.read("docs/DOCKER_HUB.template.md");
    fs::write(world.root.join("docs/DOCKER_HUB.template.md"), template.clone() + &"é".repeat(12_500))
        .unwrap();
    contains(&world.fails("docs", 1), &["Docker Hub takes 25000: shorten docs/DOCKER_HUB.template.md"]);
    fs::write(world.root.join("docs/DOCKER_HUB.template.md"), template.clone() + "{{nothing}}").unwrap();
    contains(&world.fails("docs", 1), &["no value is known for {{nothing}}"]);
    fs::write(world.root.join("docs/DOCKER_HUB.template.md"), template + "More.\n").unwrap();
    contains(&world.fails("docs --check", 1), &["run `cargo xtask docs`", "+More."]);
}

/// Stand-ins for the programs that a check or a test starts; the log gets their command lines.
fn programs(world: &TestEnv) -> impl Fn() -> Vec<String> {
    let log = world.root.with_file_name("log");
    for name in ["shellcheck", "docker", "cargo", "crane"] {
        let info = r#"{"ServerVersion":"1","DriverStatus":[["","io.containerd.snapshotter.v1"]]}"#;
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in\n  'info '*) echo '{info}'; exit ;;\n  *version* | auth* | 'buildx inspect '*) exit ;;\nesac\n\
             echo \"{name} $1 $2 $3\" >> {}\n[ ! -e {}.fails.{name} ]\n",
            log.display(),
            log.display()
        );
        world.program(name, &text);
    }
    move || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        text.lines().map(str::to_owned).collect()
    }
}

/// The tree as a person left it: each kind of mistake is found, and all of them in one run.
#[test]
fn validate_tells_every_problem_at_once() {
    let world = TestEnv::clone_of_tree();
    let log = programs(&world);
    world.ok("validate");
    let ran = log();
    contains(&ran[0], &["shellcheck .ci/run images/"]);
    // One for each Dockerfile.
    assert!(
        ran[1..].len() > 1 && ran[1..].iter().all(|line| line == "docker buildx build --check"),
        "{ran:?}"
    );

    for name in ["shellcheck", "docker"] {
        fs::write(world.root.with_file_name(format!("log.fails.{name}")), "").unwrap();
    }
    let append = |path: &str, text: &str| fs::write(world.root.join(path), world.read(path) + text).unwrap();
    append("README.md", "wrongword\n");
    append(".gitea/workflows/publish.yml", "# wrong\n");
    append("DOCKER_HUB.md", "More.\n");
    append("CHANGELOG.md", "\n## v1.18.15 - 2026-08-09\n\n- Twice.\n");
    append("images/locks/opencode/package.json", " ");
    let text = world.fails("validate", 1);
    for part in [
        "`shellcheck ",
        "docker buildx build --check",
        "run `cargo xtask docs`",
        "run `cargo xtask workflows`",
        "line 1 is wrong",
        "wrongword ==> right word",
        "CHANGELOG.md: ",
        "run `cargo xtask lock`",
    ] {
        contains(&text, &[part]);
    }
}

#[test]
fn all_tests_are_named_before_any_runs_in_a_dry_run() {
    let world = TestEnv::clone_of_tree();
    let log = programs(&world);
    let output = world.run_with("test --dry-run", &[("CI", "true")]);
    let (plan, text) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{text}");
    let parts = [
        "cargo fmt",
        "cargo clippy",
        "cargo test",
        "unittest",
        "shellcheck",
        "docker buildx build --check",
        "--test live -- --nocapture --test-threads=1",
    ];
    let at = |part: &&str| plan.find(part).unwrap_or_else(|| panic!("no {part} in: {plan}"));
    assert!(parts.is_sorted_by_key(at), "{plan}");
    contains(
        &plan,
        &["DEVBOX_LIVE_REPOSITORY=localhost:", &format!("DEVBOX_LIVE_NPM=http://{}/npm", world.host)],
    );
    assert_eq!(log(), [""; 0]);
    assert_eq!(world.git("status --porcelain"), "");
}

#[test]
fn a_dry_run_of_a_first_release_prints_all_of_its_phases() {
    let world = TestEnv::clone_of_tree();
    let log = programs(&world);
    // This one also answers which node builds a platform.
    world.stand_in("docker");
    let seen = world.root.with_file_name("docker.log");
    let output =
        world.run_with("release --dry-run --allow-emulation", &[("FAKE_LOG", seen.to_str().unwrap())]);
    let (plan, text) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{text}");
    assert!(!fs::read_to_string(seen).unwrap().contains("bake"), "{plan}");
    contains(&text, &["match their locks"]);
    let plan = plan.replace(&world.host, "REGISTRY").replace(world.root.to_str().unwrap(), "ROOT");
    let plan = plan.replace(&world.git("log -1 --format=%ct"), "COMMIT_TIME");
    let plan = without_hashes(&without_inputs(&plan));
    expect_test::expect_file!["golden/dry-run/first-release.txt"].assert_eq(&plan);
    assert_eq!(log(), [""; 0]);
    // A release that is named has to be in the changelog before anything is built.
    let text = world.fails("release --dry-run --release-tag v1.18.15b", 1);
    contains(&text, &["CHANGELOG.md: ", "v1.18.15b"]);
}

#[test]
fn what_is_unreleased_becomes_the_entry_of_a_release() {
    let world = TestEnv::clone_of_tree();
    let diff = world.ok("changelog promote v1.18.15b --dry-run");
    contains(&diff, &["+## v1.18.15b - "]);
    assert_eq!(world.git("status --porcelain"), "");
    contains(&world.fails("changelog check --release-tag v1.18.15b", 1), &["CHANGELOG.md: ", "v1.18.15b"]);
    world.git("tag v1.18.15");
    world.ok("changelog promote v1.18.15b");
    world.ok("changelog check --release-tag v1.18.15b");
    assert_eq!(world.ok("changelog show v1.18.15b"), "- A thing.\n");
}

#[test]
fn machines_get_their_answers_as_json() {
    let world = TestEnv::clone_of_tree();
    let json = |line: &str| -> serde_json::Value { serde_json::from_str(&world.ok(line)).unwrap() };
    assert_eq!(json("next-tag --json")["release_tag"], "v1.18.15");
    let preflight = json("preflight --json");
    assert_eq!((&preflight["items"], &preflight["problems"]), (&json!(9), &json!([])));
    let bump = json("bump-opencode 1.18.18 --dry-run --json");
    assert_eq!(
        (&bump["from"], &bump["to"], &bump["entry"]),
        (&json!("1.18.15"), &json!("1.18.18"), &json!("v1.18.18"))
    );
    assert_eq!(bump["files"].as_array().unwrap().len(), 5);
}

#[test]
fn what_cannot_be_had_is_passed_over_or_said() {
    let world = TestEnv::clone_of_tree();
    // The newest is there, but its bytes are not those that its registry promises.
    {
        let mut published = world.published();
        published.add("oh-my-opencode-slim", "2.1.0", 1);
        published.package("oh-my-opencode-slim", "2.1.0").tarball = Some(b"other".to_vec());
    }
    let text = world.notes("bump omos latest");
    contains(&text, &["passing over omos 2.1.0", "omos stays at 2.0.0: no newer version is complete"]);
    assert_eq!(world.git("status --porcelain"), "");
    // What is pinned has vanished, and an older version is complete.
    {
        let mut published = world.published();
        published.npm.retain(|(name, _), _| name != "opencode-linux-arm64");
        for name in ["opencode-ai", "opencode-linux-x64", "opencode-linux-arm64"] {
            published.add(name, "1.18.14", 3000);
        }
    }
    contains(&world.fails("bump-opencode 1.18.16", 1), &["the newest complete version is 1.18.14"]);
    {
        let mut published = world.published();
        published.npm.retain(|(name, _), _| name != "opencode-linux-arm64");
        published.add("opencode-linux-arm64", "0.0.1", 4000);
    }
    contains(&world.fails("bump-opencode 1.18.16", 1), &["no version is complete"]);
    contains(
        &world.fails("bump-opencode latest", 1),
        &["no version of opencode that latest may select is complete on every platform"],
    );
}

/// A component is released under the next letter of the opencode that is pinned.
#[test]
fn a_bump_of_a_component_can_be_tagged() {
    let world = TestEnv::clone_of_tree();
    world.git("tag v1.18.15");
    world.published().add("oh-my-opencode-slim", "2.1.0", 1);
    world.ok("bump omos 2.1.0 --commit --tag");
    assert_eq!(world.git("tag --points-at HEAD"), "v1.18.15b");
    contains(&world.read("CHANGELOG.md"), &["## v1.18.15b - "]);
}

#[test]
fn a_refresh_of_the_base_is_proposed_where_there_is_a_server() {
    let world = TestEnv::clone_of_tree();
    fs::write(world.root.join("x"), "").unwrap();
    contains(&world.fails("refresh-base --commit", 1), &["changes that are not committed"]);
    fs::remove_file(world.root.join("x")).unwrap();
    // On a forge that gives no token of Gitea's, what only Gitea does is left out.
    for line in ["refresh-base --pull-request", "bump omos latest --pull-request"] {
        let output = world.run_with(line, &[("GITHUB_ACTIONS", "true")]);
        assert!(output.status.success());
        contains(&String::from_utf8(output.stderr).unwrap(), &["no GITEA_TOKEN", "are left out"]);
    }
    assert_eq!(world.requests(), [""; 0]);
    let remote = world.root.with_file_name("remote.git");
    world.git(&format!("init --quiet --bare {}", remote.display()));
    world.git(&format!("remote add origin {}", remote.display()));
    let url = format!("http://{}", world.host);
    let env = [FORGE[0], FORGE[1], ("GITEA_URL", url.as_str())];
    assert!(world.run_with("refresh-base --pull-request", &env).status.success());
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    contains(&world.git("ls-remote origin"), &["refs/heads/refresh-base"]);
    let post = world.requests().into_iter().find(|line| line.starts_with("POST")).unwrap();
    contains(&post, &["/pulls", "\"head\": \"refresh-base\"", "Take the Debian packages of"]);
    assert!(world.git("show origin/refresh-base:images/Dockerfile.base").contains(&stamp));
}

/// Everything that a run may show: what it printed, and what the programs that it started had on their command lines.
fn shown(world: &TestEnv, line: &str, env: &[(&str, &str)]) -> (bool, String) {
    let argv = world.root.with_file_name("argv");
    let mut all = env.to_vec();
    all.push(("FAKE_ARGV", argv.to_str().unwrap()));
    let output = world.run_with(line, &all);
    let text = [output.stdout, output.stderr, fs::read(&argv).unwrap_or_default()].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// A mirror with an account: it is used for everything, and shown nowhere.
#[test]
fn an_account_in_a_registrys_address_is_used_and_not_shown() {
    let world = TestEnv::clone_of_tree();
    world.published().basic = Some("Basic bWU6Y2FuYXJ5QDE=".to_owned());
    let npm = format!("http://me:canary%401@{}/npm", world.host);
    let pypi = format!("http://me:canary%401@{}/simple/", world.host);
    let env = [("npm_config_registry", npm.as_str()), ("PIP_INDEX_URL", &pypi)];
    let hidden = |text: &str| {
        for form in ["canary", "bWU6Y2FuYXJ5QDE="] {
            assert!(!text.contains(form), "{text}");
        }
    };
    for line in
        ["-v bump-opencode latest --commit", "-v lock --check", "-v preflight", "outdated", "bump omos 9.9.9"]
    {
        let (ok, text) = shown(&world, line, &env);
        hidden(&text);
        assert!(ok || line.contains("9.9.9"), "{line}: {text}");
    }
    assert_eq!(world.git("log -1 --format=%s"), "Bump opencode 1.18.15 → 1.18.18");
    hidden(&world.git("show HEAD"));
    // A wrong password is refused by name, without showing it.
    let wrong = format!("http://me:canary2@{}/npm", world.host);
    let (ok, text) = shown(
        &world,
        "bump omos 9.9.9",
        &[("npm_config_registry", wrong.as_str()), ("PIP_INDEX_URL", &pypi)],
    );
    assert!(!ok && text.contains("HTTP 401"), "{text}");
    hidden(&text);
}

/// The accounts reach a build as secrets, and are in no argument, definition or key.
#[test]
fn a_build_gets_accounts_as_secrets() {
    let world = TestEnv::new();
    let env = [
        ("npm_config_registry", "http://me:canary@mirror.example/npm/"),
        ("PIP_INDEX_URL", "http://me:canary@mirror.example:81/simple"),
    ];
    let plain = world.ok("base-decide --json");
    let run = |line: &str| {
        let output = world.run_with(line, &env);
        let text = [output.stdout.clone(), output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(output.status.success() && !text.contains("canary"), "{line}: {text}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("base-decide --json"), plain, "in no key");
    let text = run("build-base --dry-run");
    for part in [
        "\"PIP_INDEX_URL\": \"http://mirror.example:81/simple\"",
        "\"type=env,id=netrc,env=DEVBOX_BUILD_NETRC\"",
        "\"type=env,id=npmrc,env=DEVBOX_BUILD_NPMRC\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    run("build-base");
    run("build");
    for log in ["log", "log.bake"] {
        assert!(!fs::read_to_string(world.root.with_file_name(log)).unwrap().contains("canary"), "{log}");
    }
    let secrets = fs::read_to_string(world.root.with_file_name("log.secrets")).unwrap();
    contains(
        &secrets,
        &[
            "DEVBOX_BUILD_NETRC=machine mirror.example login me password canary",
            "DEVBOX_BUILD_NPMRC=//mirror.example/npm/:_auth=bWU6Y2FuYXJ5",
        ],
    );
}

/// A clone as CI makes it knows no tags: the entry of a published release must not become that of another.
#[test]
fn the_entry_of_a_published_release_is_never_renamed() {
    let world = TestEnv::clone_of_tree();
    world.published().tags = vec!["v1.18.15-omos".to_owned()];
    let before = world.read("CHANGELOG.md");
    world.ok("bump-opencode 1.18.18");
    let entries = |text: &str| {
        text.lines().filter(|line| line.starts_with("## v")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(entries(&world.read("CHANGELOG.md"))[1..], entries(&before), "no tag in this clone");
    world.git("reset --quiet --hard");
    let diff = world.ok("changelog promote v1.18.15b --dry-run");
    assert!(!diff.contains("-## v1.18.15"), "{diff}");
    // Nothing is known to be published, so the entry may still change.
    world.published().tags.clear();
    assert!(world.ok("changelog promote v1.18.15b --dry-run").contains("-## v1.18.15 - 2026-08-09"));
    // A registry that gives no answer: the entry stays.
    let away = [("DEVBOX_REPOSITORY", "127.0.0.1:9/devbox")];
    let output = world.run_with("changelog promote v1.18.15b --dry-run", &away);
    let text = String::from_utf8(output.stderr).unwrap();
    contains(&text, &["whether v1.18.15 is published is unknown, so its entry stays as it is"]);
    assert!(!String::from_utf8(output.stdout).unwrap().contains("-## v1.18.15"));
    // A shallow clone is refused, unless it has the tag.
    world.git("commit --quiet --allow-empty --message Second");
    let shallow = world.root.with_file_name("shallow");
    world.git(&format!("clone --quiet --depth 1 file://{} {}", world.root.display(), shallow.display()));
    let root = [("DEVBOX_ROOT", shallow.to_str().unwrap())];
    for line in ["changelog promote v1.18.15b", "bump-opencode 1.18.18"] {
        let output = world.run_with(line, &root);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        contains(
            &text,
            &[
                "this clone is shallow and may be without the tag v1.18.15: run `git fetch --unshallow --tags`",
            ],
        );
    }
}

#[test]
fn latest_is_upstreams_latest_and_a_major_is_taken_by_name() {
    let world = TestEnv::clone_of_tree();
    {
        let mut published = world.published();
        for version in ["2.0.1", "2.0.2", "3.0.0", "3.0.1", "3.0.2", "3.0.3", "3.0.4", "3.0.5", "4.0.0"] {
            published.add("oh-my-opencode-slim", version, 1);
        }
        published.package("oh-my-opencode-slim", "2.0.2").deprecated = Some("breaks everything");
        published.latest.insert("oh-my-opencode-slim".to_owned(), "3.0.5".to_owned());
    }
    let json: serde_json::Value = serde_json::from_str(&world.ok("outdated --json")).unwrap();
    let row = json["components"].as_array().unwrap().iter().find(|row| row["component"] == "omos").unwrap();
    assert_eq!((&row["newest_complete"], &row["new_major"]), (&json!("2.0.1"), &json!("3.0.5")));
    let text = world.notes("bump omos latest --commit");
    contains(&text, &["omos 3.0.5 is a new major version: `cargo xtask bump omos 3.0.5` takes it"]);
    assert_eq!(world.git("log -1 --format=%s"), "Bump omos 2.0.0 → 2.0.1");
    let text = world.notes("bump omos 2.0.2 --commit");
    contains(&text, &["upstream says not to use omos 2.0.2: breaks everything"]);
    contains(&world.ok("outdated"), &["omos: upstream says not to use 2.0.2: breaks everything"]);
    world.ok("bump omos 3.0.1 --commit");
    world.ok("bump omos latest --commit");
    assert_eq!(world.git("log -1 --format=%s"), "Bump omos 3.0.1 → 3.0.5", "nothing beyond the latest");
    // The old name of the flag still works.
    world.ok("bump omos 3.0.4 --downgrade");
}

/// One open request for each component, and one that was closed stays closed.
#[test]
fn proposals_are_updated_and_refused_ones_stay_away() {
    let world = TestEnv::clone_of_tree();
    let remote = world.root.with_file_name("remote.git");
    world.git(&format!("init --quiet --bare {}", remote.display()));
    world.git(&format!("remote add origin {}", remote.display()));
    let url = format!("http://{}", world.host);
    let env = [FORGE[0], FORGE[1], ("GITEA_URL", url.as_str())];
    let propose = || {
        let output = world.run_with("bump omos latest --pull-request", &env);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text
    };
    let publish = |version: &str| world.published().add("oh-my-opencode-slim", version, 1);
    let pulls = || world.published().pulls.clone();
    // Others' requests fill a page of their own, and one comes from a fork with the same name of its branch.
    {
        let mut published = world.published();
        published.page_limit = 2;
        for number in 1..=3 {
            let head = json!({ "label": "bump-omos", "ref": "bump-omos", "repo_id": 7 + number });
            let base = json!({ "label": "main", "ref": "main", "repo_id": 1 });
            published.pulls.push(json!({ "number": number, "state": "open", "merged": false, "mergeable": true, "title": "Other",
                "body": "", "html_url": "http://x", "head": head, "base": base }));
        }
    }
    publish("2.0.1");
    contains(&propose(), &["Bump omos 2.0.0 → 2.0.1: http://"]);
    contains(&propose(), &["is proposed already"]);
    publish("2.0.2");
    propose();
    let all = pulls();
    assert_eq!(all.len(), 4, "the same request");
    assert_eq!(all[3]["title"], "Bump omos 2.0.0 → 2.0.2");
    contains(&world.git("show origin/bump-omos:images/Dockerfile.variant"), &["OMOS_VERSION=2.0.2"]);
    // One with conflicts is made again on top of what is there now.
    world.published().pulls[3]["mergeable"] = false.into();
    world.git("commit --quiet --allow-empty --message Meanwhile");
    propose();
    assert_eq!(world.git("merge-base origin/bump-omos main"), world.git("rev-parse main"));
    // Closed, and its branch deleted, so that `ref` no longer names it.
    {
        let mut published = world.published();
        published.pulls[3]["state"] = "closed".into();
        published.pulls[3]["head"]["ref"] = "refs/pull/4/head".into();
    }
    contains(&propose(), &["Bump omos 2.0.0 → 2.0.2 was proposed and closed, so it is left out"]);
    assert_eq!(pulls().len(), 4);
    publish("2.0.3");
    propose();
    assert_eq!(pulls().len(), 5, "a version that nobody refused");
}

#[test]
fn a_body_that_breaks_off_is_read_again() {
    for part in ["opencode-linux-x64/1.18.15", "opencode-linux-x64/-/", "simple/mempalace"] {
        let world = TestEnv::clone_of_tree();
        world.published().broken = Some((part.to_owned(), 2));
        let text = world.notes("preflight opencode mempalace");
        contains(&text, &["trying again in", "match their locks"]);
    }
}

/// A job container may have neither pip nor npm: their configuration files are read without them.
#[test]
fn preflight_needs_no_pip_and_no_npm() {
    let world = TestEnv::clone_of_tree();
    let home = world.root.with_file_name("home");
    fs::create_dir_all(home.join(".config/pip")).unwrap();
    fs::write(
        home.join(".config/pip/pip.conf"),
        format!("[global]\nindex-url = http://{}/simple/\n", world.host),
    )
    .unwrap();
    fs::write(home.join(".npmrc"), format!("fund=false\nregistry=http://{}/npm/\n", world.host)).unwrap();
    for name in ["python3", "pip", "npm", "uv"] {
        world.program(name, "#!/bin/sh\nexit 127\n");
    }
    let home = home.to_str().unwrap();
    let env = [
        ("HOME", home),
        ("PIP_INDEX_URL", ""),
        ("npm_config_registry", ""),
        ("PIP_CONFIG_FILE", ""),
        ("NPM_CONFIG_USERCONFIG", ""),
        ("XDG_CONFIG_HOME", ""),
    ];
    let output = world.run_with("preflight", &env);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("match their locks"), "{text}");
    // Without an index anywhere, the message names the variable.
    fs::remove_file(format!("{home}/.config/pip/pip.conf")).unwrap();
    let output = world.run_with("preflight", &env);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    contains(&text, &["set PIP_INDEX_URL, or run `cargo xtask doctor --install`"]);
}

/// One unclear answer must not end the wait for what is propagating.
#[test]
fn waiting_goes_on_after_an_answer_that_says_nothing() {
    let world = TestEnv::clone_of_tree();
    {
        let mut published = world.published();
        published.add("opencode-linux-arm64", "1.18.15", 1);
        published.later = Some(("opencode-linux-arm64".to_owned(), 2));
        published.faults = vec![("opencode-linux-x64/1.18.15".to_owned(), 403, None)];
    }
    contains(
        &world.notes("preflight opencode --wait 30s"),
        &["2 files are not available yet", "match their locks"],
    );
}

#[test]
fn a_withdrawn_wheel_is_a_problem() {
    let world = TestEnv::clone_of_tree();
    world.published().yanked.insert("mempalace-3.0.0-py3-none-any.whl".to_owned(), "broken metadata");
    let text = world.fails("preflight mempalace", 1);
    contains(&text, &["mempalace-3.0.0-py3-none-any.whl", "was withdrawn by its authors (broken metadata)"]);
}

/// A release for others needs every part of the base, locked.
#[test]
fn a_public_release_refuses_a_part_that_is_not_locked() {
    let world = TestEnv::clone_of_tree();
    let text = world.fails("preflight --repository registry.example/you/devbox", 1);
    contains(
        &text,
        &[
            "images/locks/gitea-mcp/checksums.txt does not lock gitea-mcp 0.1.0: run `cargo xtask lock gitea-mcp` where its host \
             is reached and commit it, or set include = false",
            "images/Dockerfile.base has no SHA-256 of embedding-model",
        ],
    );
}
