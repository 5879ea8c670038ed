//! What counts as an input of an image: exactly what git tracks, on every machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use camino::Utf8PathBuf;
use xtask::image::tree::Tree;
use xtask::tools::runner::Runner;

use crate::support::env::TestEnv;
use crate::support::server::{Answer, Expecting};

fn git(root: &Path, line: &str) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]);
    let output = command.args(line.split(' ')).current_dir(root).output().unwrap();
    assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A checkout of a tree of its own.
fn checkout() -> TestEnv {
    let world = TestEnv::new();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in [".gitattributes", ".gitignore"] {
        fs::copy(own.join(name), world.root.join(name)).unwrap();
    }
    git(&world.root, "init --quiet --initial-branch main");
    git(&world.root, "add --all");
    git(&world.root, "commit --quiet --message First");
    world
}

#[track_caller]
fn key_with(world: &TestEnv, env: &[(&str, &str)]) -> String {
    let output = world.run_with("base-decide --json", env);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["key"].as_str().unwrap().to_owned()
}

#[track_caller]
fn key(world: &TestEnv) -> String {
    key_with(world, &[])
}

/// The key stays, whatever a machine has around what git tracks.
#[track_caller]
fn stays(change: impl FnOnce(&TestEnv)) {
    let world = checkout();
    let before = key(&world);
    change(&world);
    assert_eq!(key(&world), before);
}

#[track_caller]
fn refused(change: impl FnOnce(&Path), parts: &[&str]) {
    let world = checkout();
    change(&world.root);
    let text = world.fails("base-decide", 1);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn write(root: &Path, path: &str, text: &str) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), text).unwrap();
}

#[test]
fn an_untracked_file_is_no_input() {
    stays(|world| write(&world.root, "rootfs/x", "x"));
    stays(|world| {
        write(&world.root, ".git/info/exclude", "x\n");
        write(&world.root, "rootfs/x", "x");
    });
    stays(|world| write(&world.root, "rootfs/x.swp", "x"));
    let world = checkout();
    write(&world.root, "rootfs/x", "x");
    let output = world.run("base-decide");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("rootfs/x: not tracked by git, so no input: run `git add rootfs/x`"), "{text}");
    let before = key(&world);
    git(&world.root, "add rootfs/x");
    assert_ne!(key(&world), before, "tracked, though not committed yet");
}

#[test]
fn ignore_rules_of_the_user_and_above_the_checkout_have_no_part() {
    let world = checkout();
    let before = key(&world);
    let settings = world.root.with_file_name("gitconfig");
    let rules = world.root.with_file_name("rules");
    fs::write(&rules, "*\n").unwrap();
    fs::write(&settings, format!("[core]\n\texcludesFile = {}\n", rules.display())).unwrap();
    fs::write(world.root.with_file_name(".gitignore"), "*\n").unwrap();
    write(&world.root, "rootfs/x", "x");
    assert_eq!(key_with(&world, &[("GIT_CONFIG_GLOBAL", settings.to_str().unwrap())]), before);
}

#[test]
fn a_tracked_file_that_is_ignored_is_an_input() {
    let world = checkout();
    write(&world.root, "rootfs/kept.swp", "1");
    git(&world.root, "add --force rootfs/kept.swp");
    let before = key(&world);
    write(&world.root, "rootfs/kept.swp", "2");
    assert_ne!(key(&world), before);
}

#[test]
fn a_clone_within_the_tree_is_no_input() {
    stays(|world| {
        git(&world.root, "init --quiet rootfs/clone");
        write(&world.root, "rootfs/clone/x", "x");
    });
}

#[test]
fn variables_that_git_sets_for_a_hook_have_no_part() {
    let world = checkout();
    let before = key(&world);
    let other = checkout();
    write(&other.root, "rootfs/x", "x");
    git(&other.root, "add --all");
    let path = |name: &str| other.root.join(name).to_str().unwrap().to_owned();
    let (dir, index, tree) = (path(".git"), path(".git/index"), path(""));
    let env = [("GIT_DIR", dir.as_str()), ("GIT_INDEX_FILE", &index), ("GIT_WORK_TREE", &tree)];
    assert_eq!(key_with(&world, &env), before);
    assert_eq!(key_with(&world, &[("GIT_DIR", "/nonexistent"), ("GIT_PREFIX", "rootfs/")]), before);
}

#[test]
fn a_name_that_git_would_quote_and_a_link_are_inputs() {
    let world = checkout();
    let before = key(&world);
    for name in ["ä b", "tab\there", "\"quoted\"", "[x]*"] {
        write(&world.root, &format!("rootfs/{name}"), "x");
    }
    symlink("nowhere/at all", world.root.join("rootfs/link")).unwrap();
    git(&world.root, "add --all");
    let after = key(&world);
    assert_ne!(after, before);
    git(&world.root, "config core.quotePath true");
    assert_eq!(key(&world), after);
    world.ok("build-base");
    let contexts = fs::read_dir(world.root.join(".devbox/context")).unwrap();
    let [context] = contexts.map(|it| it.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    assert!(context.join("rootfs/ä b").exists() && context.join("rootfs/tab\there").exists());
    assert_eq!(fs::read_link(context.join("rootfs/link")).unwrap(), Path::new("nowhere/at all"));
}

/// A checkout on a file system without executable bits or links, as git records it.
#[test]
fn modes_come_from_the_index_where_the_disk_has_none() {
    let world = checkout();
    symlink("target", world.root.join("rootfs/link")).unwrap();
    git(&world.root, "add --all");
    git(&world.root, "commit --quiet --message Link");
    let before = key(&world);
    git(&world.root, "config core.fileMode false");
    git(&world.root, "config core.symlinks false");
    let set = |path: &str, mode| {
        fs::set_permissions(world.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("images/with-host-ca", 0o644);
    set("images/Dockerfile.base", 0o777);
    fs::remove_file(world.root.join("rootfs/link")).unwrap();
    write(&world.root, "rootfs/link", "target");
    assert_eq!(key(&world), before);
    git(&world.root, "update-index --chmod=-x images/with-host-ca");
    assert_ne!(key(&world), before);
}

/// The clone of a tree for which git converts line ends.
#[test]
fn line_ends_stay_as_they_are_committed() {
    let world = checkout();
    let before = key(&world);
    let again = |settings: &str| {
        for part in ["images", "rootfs"] {
            fs::remove_dir_all(world.root.join(part)).unwrap();
        }
        git(&world.root, &format!("{settings} checkout --quiet --force -- ."));
    };
    git(&world.root, "config core.autocrlf true");
    again("-c core.eol=crlf");
    assert!(!fs::read_to_string(world.root.join("images/with-host-ca")).unwrap().contains('\r'));
    assert_eq!(key(&world), before);
    // The attributes of a clone win over those of the tree.
    write(&world.root, ".git/info/attributes", "* text=auto\n");
    again("-c core.autocrlf=true");
    assert!(fs::read_to_string(world.root.join("images/with-host-ca")).unwrap().contains('\r'));
    let output = world.run("base-decide");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("converted") && text.contains("committed bytes are used"), "{text}");
    assert_eq!(key(&world), before);
}

/// A file that was changed since counts as git would commit it, too.
#[test]
fn line_ends_of_a_change_are_those_of_its_commit() {
    let world = checkout();
    let file = world.root.join("images/with-host-ca");
    let text = fs::read_to_string(&file).unwrap() + "# more\n";
    fs::write(&file, &text).unwrap();
    let before = key(&world);
    write(&world.root, ".git/info/attributes", "* text=auto\n");
    git(&world.root, "config core.autocrlf true");
    fs::write(&file, text.replace('\n', "\r\n")).unwrap();
    assert_eq!(key(&world), before);
    git(&world.root, "commit --quiet --all --message Change");
    assert_eq!(key(&world), before);
}

/// git answers path by path while it is still being told which.
#[test]
fn a_tree_of_many_files_is_read() {
    let world = checkout();
    let before = key(&world);
    for n in 0..6000 {
        write(&world.root, &format!("rootfs/many/a-file-of-a-rather-long-name-{n}"), "x");
    }
    git(&world.root, "add rootfs/many");
    assert_ne!(key(&world), before);
}

#[test]
fn what_has_no_certain_content_is_refused_with_its_remedy() {
    let file = "images/with-host-ca";
    let missing = "git tracks images/with-host-ca, and it is missing: run `git restore images/with-host-ca`";
    refused(|root| fs::remove_file(root.join(file)).unwrap(), &[missing]);
    refused(
        |root| {
            git(root, "update-index --assume-unchanged images/with-host-ca");
            write(root, file, "changed");
        },
        &["images/with-host-ca is changed, and git was told not to watch it", "--no-assume-unchanged"],
    );
    refused(
        |root| git(root, "sparse-checkout set images"),
        &["sparse checkout", "git sparse-checkout disable"],
    );
    refused(
        |root| {
            git(root, "init --quiet rootfs/sub");
            git(&root.join("rootfs/sub"), "commit --quiet --allow-empty --message Sub");
            git(root, "add rootfs/sub");
        },
        &["rootfs/sub is a submodule"],
    );
    refused(
        |root| {
            fs::rename(root.join("rootfs/etc"), root.join("etc")).unwrap();
            symlink("../etc", root.join("rootfs/etc")).unwrap();
        },
        &["rootfs/etc is a symbolic link", "run `git restore rootfs/etc`"],
    );
    refused(
        |root| git(root, "rm -r --quiet --cached images/locks/python"),
        &["images/locks/python is an input, and git tracks nothing of it: run `git add images/locks/python`"],
    );
    refused(
        |root| {
            git(root, "switch --quiet --create other");
            for (branch, text) in [("other", "1"), ("main", "2")] {
                git(root, &format!("switch --quiet {branch}"));
                write(root, file, text);
                git(root, "commit --quiet --all --message Change");
            }
            let merge =
                Command::new("git").args(["merge", "--quiet", "other"]).current_dir(root).output().unwrap();
            assert!(!merge.status.success());
        },
        &["images/with-host-ca is in a merge conflict"],
    );
    // Unchanged, so there is nothing to refuse.
    stays(|world| git(&world.root, "update-index --assume-unchanged images/with-host-ca"));
}

/// A CI job in a container works on files of another user, whom git does not trust by itself.
#[test]
fn a_checkout_of_another_owner_keeps_its_revision() {
    let world = checkout();
    let owner = ("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1");
    let status =
        Command::new("git").arg("status").env(owner.0, owner.1).current_dir(&world.root).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stderr).contains("dubious ownership"), "git itself refuses");
    let own = world.run("build-base --dry-run");
    let foreign = world.run_with("build-base --dry-run", &[owner, ("GIT_CONFIG_COUNT", "0")]);
    assert!(foreign.status.success(), "{}", String::from_utf8_lossy(&foreign.stderr));
    let text = String::from_utf8_lossy(&own.stdout);
    assert!(
        text.contains("org.opencontainers.image.revision") && !text.contains("SOURCE_DATE_EPOCH=1577836800")
    );
    assert_eq!(String::from_utf8_lossy(&foreign.stdout), text);
}

#[test]
fn an_unreadable_checkout_is_refused_and_an_archive_named() {
    let world = checkout();
    let before = key(&world);
    fs::rename(world.root.join(".git"), world.root.with_file_name("git")).unwrap();
    write(&world.root, ".git", "gitdir: /nonexistent\n");
    assert!(world.fails("base-decide", 1).contains("cannot read what git tracks of this checkout"));
    fs::remove_file(world.root.join(".git")).unwrap();
    let output = world.run("base-decide");
    assert!(String::from_utf8_lossy(&output.stderr).contains("this tree is not a git checkout"));
    assert_eq!(key(&world), before, "an unpacked archive has the same files");
    // A repository around it is not its own.
    git(world.root.parent().unwrap(), "init --quiet");
    git(&world.root, "init --quiet rootfs/clone");
    fs::write(world.root.with_file_name(".gitignore"), "*\n").unwrap();
    assert_eq!(key(&world), before);
}

/// Key and build see one reading of the disk.
#[test]
fn the_bytes_that_were_hashed_are_the_bytes_that_are_built() {
    let world = checkout();
    let root = Utf8PathBuf::try_from(world.root.clone()).unwrap();
    let inputs = ["images/with-host-ca".to_owned(), "rootfs".to_owned()];
    let load = || Tree::read(&Runner::new(root.clone(), Duration::from_secs(60)), &inputs).unwrap();
    let (contexts, path) = (root.join(".devbox/context"), root.join("images/with-host-ca"));
    let (text, tree) = (fs::read_to_string(&path).unwrap(), load());
    fs::write(&path, "changed meanwhile").unwrap();
    let first = tree.context(&inputs, &contexts, "base").unwrap();
    assert_eq!(fs::read_to_string(first.join("images/with-host-ca")).unwrap(), text);
    // Another tree has another folder, so that builds side by side leave each other alone.
    let second = load().context(&inputs, &contexts, "base").unwrap();
    assert_ne!(first, second);
    assert_eq!(fs::read_to_string(first.join("images/with-host-ca")).unwrap(), text);
    // A folder that does not hold what its name says is made again.
    fs::write(second.join("rootfs/stray"), "").unwrap();
    assert_eq!(load().context(&inputs, &contexts, "base").unwrap(), second);
    assert!(!second.join("rootfs/stray").exists());
    std::thread::scope(|scope| {
        fs::remove_dir_all(&second).unwrap();
        let runs: Vec<_> =
            (0..4).map(|_| scope.spawn(|| load().context(&inputs, &contexts, "base").unwrap())).collect();
        runs.into_iter().for_each(|run| assert_eq!(run.join().unwrap(), second));
    });
    let left = fs::read_dir(&contexts).unwrap().count();
    assert_eq!(left, 2, "nothing half laid out is left");
}

const SUMS: &str = "HEAD /v0.1.0/checksums.txt";
const MODEL: &str = "HEAD /model";

/// Gives the tree both parts, locked, from a host of their own.
fn with_parts(world: &TestEnv) -> Expecting {
    let host = Expecting::start([SUMS, MODEL].map(|line| (line, Answer::status(404))));
    let url = host.url();
    let file = world.root.join("images/Dockerfile.base");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("GITEA_MCP_URL=http://127.0.0.1:9\n", &format!("GITEA_MCP_URL={url}\n"));
    let model = format!("EMBEDDING_MODEL_URL={url}/model\nARG EMBEDDING_MODEL_SHA256={}\n", "0".repeat(64));
    fs::write(&file, text.replace("EMBEDDING_MODEL_URL=http://127.0.0.1:9\n", &model)).unwrap();
    let files =
        ["x86_64", "arm64"].map(|machine| format!("{}  gitea-mcp_Linux_{machine}.tar.gz\n", "0".repeat(64)));
    let lock = format!("# gitea-mcp 0.1.0\n{}", files.concat());
    fs::write(world.root.join("images/locks/gitea-mcp/checksums.txt"), lock).unwrap();
    host
}

/// What a base on this machine is without depends on when it was built, not on who answers the next job.
#[test]
fn a_host_that_comes_and_goes_between_jobs_changes_no_base() {
    let world = TestEnv::new();
    let host = with_parts(&world);
    for status in [503, 429, 403] {
        host.expect(SUMS, Answer::status(status));
        host.expect(MODEL, Answer::status(200));
        let output = world.run("build-base --dry-run");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let why = "gitea-mcp is left out of base-".to_owned();
        assert!(
            text.contains(&why) && text.contains(&format!("its host cannot be asked: HTTP {status}")),
            "{text}"
        );
    }
    let output = world.run("build-base");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let without = key(&world);
    // The host answers: the jobs that follow use the base that was built.
    host.expect(SUMS, Answer::status(200));
    assert_eq!(key(&world), without);
    world.ok("build");
    assert!(world.ok("base-decide").contains("is there"));
    // Only a build of the base adds the part, and from then on it is used, whichever host answers.
    world.ok("build-base");
    let whole = key(&world);
    assert_ne!(whole, without);
    host.expect(SUMS, Answer::status(503));
    assert_eq!(key(&world), whole);
    let output = world.run("build-base");
    assert!(String::from_utf8_lossy(&output.stderr).contains(": built before from the same inputs"));
    assert_eq!(key(&world), whole);
}

/// A clear 404 is no reason to leave a part out, and the tree may say that it is not wanted.
#[test]
fn the_tree_decides_what_the_base_contains() {
    let world = TestEnv::new();
    let host = with_parts(&world);
    host.expect(SUMS, Answer::status(404));
    host.expect(MODEL, Answer::status(404));
    let missing = key(&world);
    host.expect(SUMS, Answer::status(200));
    host.expect(MODEL, Answer::status(200));
    assert_eq!(key(&world), missing);
    world.configure("name = \"gitea-mcp\"\ninclude = true", "name = \"gitea-mcp\"\ninclude = false");
    assert_ne!(key(&world), missing);
    let text = world.ok("build-base --dry-run");
    assert!(
        text.contains("\"INSTALL_GITEA_MCP\": \"false\"")
            && text.contains("\"INSTALL_EMBEDDING_MODEL\": \"true\"")
    );
    // Without a lock a part is in no base at all.
    let world = TestEnv::new();
    let host = with_parts(&world);
    host.expect(SUMS, Answer::status(200));
    host.expect(MODEL, Answer::status(200));
    fs::write(world.root.join("images/locks/gitea-mcp/checksums.txt"), "# gitea-mcp 0.0.9\n").unwrap();
    let output = world.run("build-base --dry-run");
    let text = String::from_utf8_lossy(&output.stderr);
    let why = "does not lock gitea-mcp 0.1.0: run `cargo xtask lock gitea-mcp`";
    assert!(text.contains(why), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"INSTALL_GITEA_MCP\": \"false\""));
}

/// A run that ended between the push of a base and the record of its packages.
#[test]
fn a_base_that_was_not_recorded_is_recorded_by_the_next_run() {
    let world = TestEnv::new();
    world.ok("build-base");
    let registry = world.registry();
    for (tag, _) in registry.tags("devbox-staging").into_iter().filter(|(tag, _)| tag.starts_with("sha256-"))
    {
        registry.forget("devbox-staging", &tag);
    }
    let writes = world.writes();
    let text = world.ok("build-base --dry-run");
    assert!(text.contains("# record the Debian packages of"), "{text}");
    assert_eq!(world.writes(), writes);
    world.ok("build-base");
    assert!(world.writes() > writes);
    let writes = world.writes();
    world.ok("build-base");
    assert_eq!(world.writes(), writes, "recorded once");
}

/// A dry run on a fresh machine plans the start of the registry, too.
#[test]
fn a_dry_run_on_a_fresh_machine_writes_nothing() {
    let world = checkout();
    world.ok("build-base --dry-run");
    assert!(!world.root.join(".devbox").exists());
    let mut command = world.command("build-base --dry-run");
    let output = command.env_remove("DEVBOX_REPOSITORY").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let plan = String::from_utf8_lossy(&output.stdout);
    // A registry that would be started holds nothing.
    for part in
        ["setsid docker-registry serve", "scripts/bootstrap-debian.sh", "docker buildx bake", ":base-<key>\""]
    {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    assert!(!world.root.join(".devbox").exists());
}

/// A bump is one cause, in every variant whose inputs it changes.
#[test]
fn a_bump_is_one_cause() {
    let world = TestEnv::new();
    world.ok("build-base");
    world.ok("build");
    for smoke in ["base", "omos", "with-pi", "omos-with-pi"] {
        world.ok(&format!("smoke {smoke}"));
    }
    world.ok("publish --promote-latest");
    world.ok("promote-base-latest");
    let edit = |path: &str, from: &str, to: &str| {
        let file = world.root.join(path);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{path}: {from}");
        fs::write(&file, text.replace(from, to)).unwrap();
    };
    edit("images/Dockerfile.variant", "OMOS_VERSION=2.0.0", "OMOS_VERSION=2.1.0");
    edit("images/locks/omos/package.json", "{", "{ ");
    edit("images/locks/omos/package-lock.json", "{", "{ ");
    let plan: serde_json::Value = serde_json::from_str(&world.ok("plan --json")).unwrap();
    for row in plan["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| !row["image"].as_str().unwrap().starts_with("base-"))
    {
        assert_eq!(row["causes"], serde_json::json!(["omos 2.0.0 → 2.1.0"]), "{row}");
    }
    // An edit beside it is a cause of its own.
    edit("images/Dockerfile.variant", "ARG PI_VERSION", "# A remark.\nARG PI_VERSION");
    let plan: serde_json::Value = serde_json::from_str(&world.ok("plan --json")).unwrap();
    let causes = plan["rows"].as_array().unwrap().last().unwrap()["causes"].to_string();
    assert!(causes.contains("omos 2.0.0") && causes.contains("Dockerfile.variant changed"), "{causes}");
}
