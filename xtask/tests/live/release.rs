//! The real thing: one variant through a real engine into a real registry. `cargo xtask test` prepares the machine and
//! asks for these tests; they fail, rather than skip, where the engine or the registry is missing.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

use crate::images::{debian, image_of};
use crate::support::server::{Answer, Server};

pub fn xtask(args: &[&str]) -> (bool, String) {
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    // The platform of this machine: the other one is the same code and a longer wait.
    let host = xtask::model::platform::Platform::host().to_string();
    command.args(args).args(["--repository", &repository, "--platform", &host]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Shown as it comes: a build takes minutes, and a program that is silent for too long is ended.
    let shown = |stream: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                println!("{line}");
                text.push_str(&line);
                text.push('\n');
            }
            text
        })
    };
    let errors = shown(Box::new(child.stderr.take().unwrap()));
    let results = shown(Box::new(child.stdout.take().unwrap()));
    let text = format!("{}{}", errors.join().unwrap(), results.join().unwrap());
    (child.wait().unwrap().success(), text)
}

#[test]
fn one_variant_is_released_and_a_second_run_finds_nothing_to_do() {
    let (ok, text) = xtask(&["release", "--only", "base"]);
    assert!(ok && text.contains("docker run --rm"), "{text}");
    let (ok, text) = xtask(&["release", "--only", "base"]);
    assert!(ok && text.contains("nothing to publish"), "{text}");
    assert!(!text.contains("$ "), "a second run ran something: {text}");
}

/// The recipes of all variants, and that the largest one has what its components are for.
#[test]
fn all_variants_are_built() {
    for phase in ["build-base", "build"] {
        let (ok, text) = xtask(&[phase]);
        assert!(ok, "{text}");
    }
    let (_, text) = xtask(&["smoke", "omos-with-pi", "--force", "--dry-run"]);
    // The base is tested by itself; the variant is the one that is staged.
    let images = text.split("--image ").skip(1).filter_map(|rest| rest.split(' ').next());
    let image = images.filter(|image| image.contains("-staging@")).last().expect("the suite's command line");
    let versions = "opencode --version && bun --version && pi --version && command -v oh-my-opencode-slim";
    let run = ["run", "--rm", "--network=none", image, "bash", "-lc", versions];
    let output = Command::new("docker").args(run).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4);
}

/// A machine without the registry's program has a container serve the local registry.
#[test]
fn a_container_serves_the_local_registry() {
    let config = "version: 0.1\\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\\nhttp: {addr: \":5000\"}\\n";
    let image = image_of(
        "registry",
        &format!(
            "RUN apt-get -qq update && apt-get -qq -y --no-install-recommends install docker-registry >/dev/null\n\
             RUN printf '{config}' > /config.yml\nCMD [\"docker-registry\", \"serve\", \"/config.yml\"]\n"
        ),
    );
    let world = crate::support::env::TestEnv::before("127.0.0.1:9", "none").on_this_machine();
    let local = |line: &str| {
        let mut command = world.command(line);
        command.env_remove("DEVBOX_REPOSITORY").env("DEVBOX_REGISTRY_IMAGE", &image);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (shown, told) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{line}: {shown}{told}");
        shown
    };
    let root = camino::Utf8PathBuf::from_path_buf(world.root.clone()).unwrap();
    let state = root.join(".devbox");
    let runner = xtask::tools::runner::Runner::new(root, std::time::Duration::from_secs(60));
    let start = || xtask::tools::local::repository(&runner, &state, Some(&image)).unwrap();
    let port = start().host().rsplit(':').next().unwrap().to_owned();
    let status: serde_json::Value = serde_json::from_str(&local("local status --json")).unwrap();
    let name = status["registry"]["container"].as_str().unwrap();
    assert!(local("local status").contains(&format!("registry: container {name}, localhost:{port}")));
    // What was pushed is there after a stop, and gone after a purge.
    let live = std::env::var("DEVBOX_LIVE_REPOSITORY").unwrap();
    let debian = format!("{}/debian:trixie-slim", live.split('/').next().unwrap());
    let copy = format!("localhost:{port}/kept:1");
    let crane = |args: &[&str]| Command::new("crane").args(args).output().unwrap().status.success();
    let host = xtask::model::platform::Platform::host().to_string();
    assert!(crane(&["copy", "--platform", &host, &debian, &copy]));
    local("local down");
    assert!(!crane(&["digest", &copy]));
    start();
    assert!(crane(&["digest", &copy]));
    local("local down --purge");
    let volume = Command::new("docker").args(["volume", "inspect", name]).output().unwrap();
    assert!(!volume.status.success(), "the volume is gone");
}

/// Serves these files by the end of their address, builds the stage of the base that fetches them, and returns the
/// files that the stage left, or the build's output if it failed.
fn fetch(
    stage: &str,
    files: &[(&str, Vec<u8>)],
    locks: &[(&str, String)],
    args: &dyn Fn(&str) -> Vec<String>,
) -> Result<Vec<String>, String> {
    let files: Vec<(String, Vec<u8>)> =
        files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
    let server = Server::start(move |request| {
        let file = files.iter().find(|(name, _)| request.path.ends_with(name));
        file.map_or(Answer::status(404), |(_, bytes)| Answer::ok(bytes.clone()))
    });
    let url = server.url();
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let host = repository.split('/').next().unwrap();
    let out = tempfile::TempDir::new().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // A copy of the context, whose locks may differ.
    let context = tempfile::TempDir::new().unwrap();
    let copy =
        Command::new("cp").args(["-r", "images", "rootfs"]).arg(context.path()).current_dir(root).status();
    assert!(copy.unwrap().success());
    for (path, text) in locks {
        std::fs::write(context.path().join("images/locks").join(path), text).unwrap();
    }
    let mut command = Command::new("docker");
    command.args(["buildx", "build", "--progress=plain", "--network=host", "--platform=linux/amd64"]);
    command.args([&format!("--target={stage}"), "--file=images/Dockerfile.base"]);
    command.args(args(&url).iter().map(|arg| format!("--build-arg={arg}")));
    command.arg(format!("--build-arg=DEBIAN_IMAGE={host}/debian:trixie-slim"));
    command.arg("--secret=id=ca,src=/etc/ssl/certs/ca-certificates.crt");
    command.arg(format!("--output=type=local,dest={}", out.path().display()));
    let output = command.arg(".").current_dir(context.path()).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let found =
        Command::new("find").args([".", "-type", "f"]).current_dir(out.path().join("out")).output().unwrap();
    Ok(String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect())
}

/// A gzipped tar of one file.
fn tarball(path: &str) -> Vec<u8> {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "content\n").unwrap();
    Command::new("tar").args(["-czf", "-", path]).current_dir(dir.path()).output().unwrap().stdout
}

/// The release host is not reached from everywhere, so a stand-in proves that only verified bytes get in.
#[test]
fn gitea_mcp_gets_in_only_with_the_locked_checksum() {
    debian();
    let tar = tarball("gitea-mcp");
    let name = "gitea-mcp_Linux_x86_64.tar.gz";
    let sum = registry_lab::digest(&tar).replace("sha256:", "");
    let fetch = |lock: String| {
        let locks = [("gitea-mcp/checksums.txt", lock)];
        fetch("gitea-mcp", &[(name, tar.clone())], &locks, &|url| {
            vec![
                "INSTALL_GITEA_MCP=true".into(),
                "GITEA_MCP_VERSION=0.4.0".into(),
                format!("GITEA_MCP_URL={url}"),
            ]
        })
    };
    let locked = |sum: &str, name: &str| format!("# gitea-mcp 0.4.0\n{sum}  {name}\n");
    assert_eq!(fetch(locked(&sum, name)).unwrap(), ["./usr/local/bin/gitea-mcp"]);
    let wrong = fetch(locked(&"0".repeat(64), name)).unwrap_err();
    assert!(wrong.contains("did NOT match"), "{wrong}");
    let unlisted = fetch(locked("0", "other.tar.gz")).unwrap_err();
    assert!(unlisted.contains("no properly formatted"), "{unlisted}");
    let older = fetch(format!("# gitea-mcp 0.3.0\n{sum}  {name}\n")).unwrap_err();
    assert!(older.contains("does not lock gitea-mcp 0.4.0: run cargo xtask lock gitea-mcp"), "{older}");
}

#[test]
fn the_embedding_model_gets_in_only_with_the_pinned_checksum() {
    debian();
    let tar = tarball("onnx/model.onnx");
    let sum = registry_lab::digest(&tar).replace("sha256:", "");
    let fetch = |sum: &str| {
        fetch("embedding-model", &[("onnx.tar.gz", tar.clone())], &[], &|url| {
            vec![
                "INSTALL_EMBEDDING_MODEL=true".into(),
                format!("EMBEDDING_MODEL_URL={url}/onnx.tar.gz"),
                format!("EMBEDDING_MODEL_SHA256={sum}"),
            ]
        })
    };
    let file = "./opt/mempalace-models/all-MiniLM-L6-v2/onnx/model.onnx";
    assert_eq!(fetch(&sum).unwrap(), [file]);
    let wrong = fetch(&"0".repeat(64)).unwrap_err();
    assert!(wrong.contains("did NOT match"), "{wrong}");
}

#[test]
fn a_scratch_engine_is_empty_builds_and_leaves_nothing_behind() {
    use xtask::tools::command::Cmd;
    use xtask::tools::{engine::Scratch, runner::Runner};

    let debian = debian();
    let state = tempfile::tempdir().unwrap();
    let folder = camino::Utf8Path::from_path(state.path()).unwrap();
    let runner = Runner::new(folder.to_owned(), std::time::Duration::from_secs(600));
    let engine = Scratch::start(&runner, folder, "test").unwrap();
    let images = engine.on(Cmd::new("docker", ["image", "ls", "--quiet"]));
    assert_eq!(runner.read(&images).unwrap(), "");
    // A step that reaches the network as any build does.
    let recipe = format!("FROM {debian}\nRUN apt-get update -qq && apt-get install -qq --print-uris tini\n");
    let build = Cmd::new("docker", ["buildx", "build", "--progress=plain", "-"]).stdin(recipe);
    runner.run(&engine.on(build)).unwrap();
    assert!(Scratch::start(&runner, folder, "test").is_err(), "two engines share a folder");
    let (host, bridge) = (engine.host(), engine.bridge());
    let mentions = |cmd: &str, args: &[&str]| {
        runner.read(&Cmd::new(cmd, args.iter().copied())).unwrap().contains(&format!(" {bridge} "))
    };
    assert!(mentions("iptables-save", &[]) && mentions("ip", &["-4", "route", "show"]));
    drop(engine);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "something is left in its folder");
    assert!(!std::path::Path::new(host.trim_start_matches("unix://")).exists());
    assert!(!mentions("iptables-save", &[]), "a rule is left");
    assert!(runner.probe(&Cmd::new("ip", ["link", "show", "dev", &bridge])).is_none(), "the bridge is left");
}

/// BuildKit tells files apart by size and time, as rsync does; a bump from 1.18.15 to 1.18.18 changes no size.
#[test]
fn new_bytes_of_the_old_size_reach_the_build() {
    let (context, out) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let build = |version: &str| {
        let file = |path: &str, text: &str| {
            let bytes = text.as_bytes().to_vec();
            xtask::model::key::Entry {
                path: path.to_owned(),
                kind: xtask::model::key::Kind::File { executable: false, bytes },
            }
        };
        let entries = [file("Dockerfile", "FROM scratch\nCOPY version /\n"), file("version", version)];
        // The folder's name is all that BuildKit knows of a context.
        let folder = camino::Utf8Path::from_path(context.path()).unwrap().join("same-size-context");
        xtask::tools::tree::lay_out(&entries, &folder).unwrap();
        let output = format!("--output=type=local,dest={}", out.path().display());
        let built = Command::new("docker").args(["buildx", "build", "-q", &output, folder.as_str()]).output();
        let built = built.unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::read_to_string(out.path().join("version")).unwrap()
    };
    assert_eq!(build("1.18.15"), "1.18.15");
    assert_eq!(build("1.18.18"), "1.18.18");
}
