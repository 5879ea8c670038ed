//! Builds on real engines, of images so small that each test takes seconds: cache, nodes, and building twice.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use camino::Utf8Path;
use registry_lab::{Address, Fault, Lab, Registry, Rule};
use xtask::model::environment::splice;
use xtask::model::platform::Platform;
use xtask::tools::engine::Scratch;
use xtask::tools::runner::Runner;

use crate::emulation::foreign;
use crate::support::env::TestEnv;

/// A base of Debian and two files, one of which a test can make different each time.
const BASE: &str = r#"
FROM ${DEBIAN_IMAGE} AS files
ARG CHANCE=
RUN mkdir -p /out/usr/share/devbox && touch /out/usr/share/devbox/debian-packages.tsv
RUN if [ -e /proc/sys/kernel/random/uuid ] && [ -n "${CHANCE}" ]; then cat /proc/sys/kernel/random/uuid > /out/chance; fi
COPY rootfs/etc/profile.d/devbox.sh /out/etc/
RUN find /out -exec touch -hd @1577836800 {} +
FROM ${DEBIAN_IMAGE} AS base
COPY --link --from=files /out/ /
"#;

const VARIANT: &str = r#"
ARG DEBIAN_IMAGE
ARG BASE_IMAGE
FROM --platform=$BUILDPLATFORM ${DEBIAN_IMAGE} AS opencode
ARG OPENCODE_VERSION
RUN mkdir -p /out/opt/opencode/bin /out/usr/share/devbox/components && echo content > /out/opt/opencode/file \
 && echo "${OPENCODE_VERSION}" > /out/opt/opencode/version && echo {} > /out/usr/share/devbox/components/opencode.json \
 && ln -s /usr/bin/true /out/opt/opencode/bin/opencode && find /out -exec touch -hd @1577836800 {} +
FROM --platform=$BUILDPLATFORM ${DEBIAN_IMAGE} AS identity
ARG IDENTITY={}
RUN mkdir -p /out/usr/share/devbox && printf '%s\n' "$IDENTITY" > /out/usr/share/devbox/image.json \
 && find /out -exec touch -hd @1577836800 {} +
FROM ${BASE_IMAGE} AS variant
COPY --link --from=opencode /out/ /
COPY --link --from=identity /out/ /
"#;

/// The plain ways of a benchmark, before its own stages for compressions.
const PLAIN: &str = r#"
ARG DEBIAN_IMAGE=debian
ARG UPON=base
FROM ${DEBIAN_IMAGE} AS base
RUN echo "base" > /base
FROM base AS shared
COPY rootfs/etc/profile.d/devbox.sh /etc/
FROM ${UPON} AS npm
ARG OPENCODE_VERSION
RUN echo "${OPENCODE_VERSION}" > /version
FROM npm AS original
COPY rootfs/etc/profile.d/devbox.sh /etc/
"#;

fn port() -> u16 {
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let host = repository.split('/').next().unwrap();
    host.rsplit(':').next().unwrap().parse().expect("a registry on this machine")
}

/// A small tree before a registry, with the machine's own docker.
pub fn small(host: &str, path: &str) -> TestEnv {
    let world = TestEnv::before(host, path).on_this_machine();
    for (file, more) in [("base", BASE), ("variant", VARIANT)] {
        let path = world.root.join(format!("images/Dockerfile.{file}"));
        fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    }
    world
}

fn platform() -> String {
    format!("--platform {}", Platform::host())
}

/// Standard error of a run that has to end well.
#[track_caller]
fn run(world: &TestEnv, line: &str, env: &[(&str, &str)]) -> String {
    let output = world.run_with(&format!("{line} {}", platform()), env);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{text}");
    assert!(output.status.success(), "{line}: {text}");
    text
}

fn scratch<'a>(runner: &'a Runner, folder: &Utf8Path, name: &str) -> Scratch<'a> {
    Scratch::start(runner, folder, name).unwrap()
}

/// Failure 26: the registry takes images and refuses the cache. And where it takes it, an empty engine builds from it.
#[test]
fn a_refused_cache_fails_nothing_and_a_kept_one_helps() {
    let lab = Lab::before(&Registry::at_port(port()));
    let world = small(lab.host(), &format!("engines-test/cache-{}", std::process::id()));
    world.configure("cache = \"never\"", "cache = \"always\"");
    lab.arm([Rule::on("PUT */manifests/cache-*", Fault::Status(400))]);
    let text = run(&world, "build-base", &[]);
    assert!(text.contains("the build cache is not kept") && text.contains("400"), "{text}");
    lab.arm([]);
    let change = |text: &str| fs::write(world.root.join("rootfs/etc/profile.d/devbox.sh"), text).unwrap();
    change("# 1\n");
    let text = run(&world, "build-base", &[]);
    assert!(!text.contains("the build cache is not kept"), "{text}");
    change("# 2\n");
    let state = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(state.path()).unwrap();
    let runner = Runner::new(folder.to_owned(), Duration::from_secs(60));
    let engine = scratch(&runner, folder, "cache");
    let text = run(&world, "build-base", &[("DOCKER_HOST", &engine.host()), ("BUILDX_BUILDER", "default")]);
    let step = text.lines().find(|line| line.contains("RUN mkdir -p /out/usr/share/devbox")).unwrap();
    let number = step.split(' ').next().unwrap();
    assert!(text.contains(&format!("{number} CACHED")), "{text}");
}

#[test]
fn what_is_built_again_is_the_same_or_is_named() {
    let world =
        small(&format!("localhost:{}", port()), &format!("engines-test/again-{}", std::process::id()));
    run(&world, "build-base", &[]);
    run(&world, "build base", &[]);
    let text = run(&world, "verify-reproducible base", &[]);
    for image in ["base", "base-image"] {
        assert!(text.contains(&format!("{image}: the same digest, sha256:")), "{text}");
    }
    let file = world.root.join("images/Dockerfile.base");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("CHANCE=", "CHANCE=yes")).unwrap();
    let file = world.root.join("images/Dockerfile.variant");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("echo content", "date +%N")).unwrap();
    run(&world, "build-base", &[]);
    run(&world, "build base", &[]);
    let output = world.run(&format!("verify-reproducible base {}", platform()));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["/chance has other bytes", "base: sha256:", "base-image: sha256:", "was built", "layer "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Passes the connections of a socket on to an engine's BuildKit, as a machine of its own would serve them.
fn serve_buildkit(socket: &Utf8Path, engine: &str) {
    let (listener, engine) = (UnixListener::bind(socket).unwrap(), engine.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut command = Command::new("docker");
            command
                .args(["buildx", "dial-stdio"])
                .env("DOCKER_HOST", &engine)
                .env("BUILDX_BUILDER", "default");
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut reader = client.try_clone().unwrap();
            thread::spawn(move || pass(&mut reader, &mut to));
            let mut writer = client;
            thread::spawn(move || {
                pass(&mut from, &mut writer);
                let _ = writer.shutdown(Shutdown::Both);
                child.wait()
            });
        }
    });
}

/// Serves what a socket serves on a port of this machine, whose address it returns.
fn serve_over_tcp(socket: &Utf8Path) -> String {
    let (listener, socket) = (TcpListener::bind("127.0.0.1:0").unwrap(), socket.to_owned());
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut server = UnixStream::connect(&socket).unwrap();
            let (mut asks, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass(&mut asks, &mut asked));
            thread::spawn(move || {
                pass(&mut server, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

fn pass(from: &mut impl Read, to: &mut impl Write) {
    let mut bytes = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// A registry whose Debian is of both platforms, though all its programs are of this machine's: nothing is emulated.
fn both_platforms() -> Lab {
    let lab = Lab::at(Address::Name);
    let (from, to) = (crate::images::debian(), format!("{}/debian", lab.host()));
    let (host, other) = (Platform::host().to_string(), format!("linux/{}", foreign()));
    for line in [
        format!("copy --platform {host} {from} {to}:own"),
        format!("mutate {to}:own --set-platform {other} --tag {to}:other"),
        format!("index append --manifest {to}:own --manifest {to}:other --tag {to}:trixie-slim"),
    ] {
        let output = Command::new("crane").args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    lab
}

/// Two engines as the nodes of one builder. The second is said to be of the other platform, which it is not: that is
/// found out before the build, whatever the builder's definition says.
#[test]
fn two_engines_are_nodes_of_one_builder() {
    let state = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(state.path()).unwrap();
    let runner = Runner::new(folder.to_owned(), Duration::from_secs(60));
    let engines = ["one", "two"].map(|name| scratch(&runner, folder, name));
    let config = folder.join("buildx");
    let buildx = |args: &[&str]| {
        let output =
            Command::new("docker").arg("buildx").args(args).env("BUILDX_CONFIG", &config).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for (number, (engine, platform)) in engines.iter().zip(["linux/amd64", "linux/arm64"]).enumerate() {
        let socket = folder.join(format!("{number}.sock"));
        serve_buildkit(&socket, &engine.host());
        // One is reached as on this machine, the other as over a network.
        let address = if number == 0 { format!("unix://{socket}") } else { serve_over_tcp(&socket) };
        let node = format!("node{number}");
        let mut args =
            vec!["create", "--name", "farm", "--driver", "remote", "--node", &node, "--platform", platform];
        args.extend(if number == 0 { vec![] } else { vec!["--append"] });
        args.push(&address);
        buildx(&args);
    }
    let lab = both_platforms();
    let world = small(lab.host(), "engines-test/nodes");
    let env = [("BUILDX_BUILDER", "farm"), ("BUILDX_CONFIG", config.as_str())];
    world.configure("emulation = \"always\"", "emulation = \"never\"");
    let output = world.run_with("build-base", &env);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("node node1 of builder farm (remote)") && text.contains("would be emulated"),
        "{text}"
    );
    world.configure("emulation = \"never\"", "emulation = \"always\"");
    for line in ["build-base", "build base"] {
        let output = world.run_with(line, &env);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {text}");
        for node in ["node node0 of builder farm (remote)", "node node1 of builder farm (remote)"] {
            assert!(text.contains(node), "{text}");
        }
    }
}

/// The classic image store holds one platform of an image. A stand-in of BuildKit's image passes everything on to the BuildKit
/// of this machine's engine.
#[test]
fn an_engine_with_the_classic_store_builds_in_a_container() {
    let state = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(state.path()).unwrap();
    let socket = folder.join("buildkit.sock");
    serve_buildkit(&socket, "unix:///var/run/docker.sock");
    let address = serve_over_tcp(&socket).replace("tcp://", "TCP:");
    let image = crate::images::image_of(
        "buildkit",
        &format!(
            "RUN apt-get -qq update && apt-get -qq -y --no-install-recommends install socat >/dev/null\n\
             RUN printf '#!/bin/sh\\nexec sleep infinity\\n' > /usr/bin/buildkitd \\\n\
             && printf '#!/bin/sh\\n[ \"$1\" != dial-stdio ] || exec socat STDIO {address}\\n' > /usr/bin/buildctl \\\n\
             && chmod +x /usr/bin/buildkitd /usr/bin/buildctl\nENTRYPOINT [\"buildkitd\"]\n"
        ),
    );
    let lab = Lab::before(&Registry::at_port(port()));
    let world = small(lab.host(), &format!("engines-test/classic-{}", std::process::id()));
    let classic = "#!/usr/bin/env bash\nset -o pipefail\nPATH=${PATH#*:}\n[ \"$1\" != info ] || { docker \"$@\" | \
                   sed s/io.containerd.snapshotter/overlay2/; exit; }\nexec docker \"$@\"\n";
    world.program("docker", classic);
    let config = folder.join("buildx");
    let env = [("DEVBOX_BUILDKIT_IMAGE", image.as_str()), ("BUILDX_CONFIG", config.as_str())];
    let text = run(&world, "build-base", &env);
    assert!(text.contains("of builder opencode-devbox (docker-container)"), "{text}");
    let text = run(&world, "build base", &env);
    assert!(!text.contains("buildx create"), "{text}");
    let mut remove = Command::new("docker");
    remove.args(["buildx", "rm", "opencode-devbox"]).env("BUILDX_CONFIG", &config);
    assert!(remove.status().unwrap().success());
}

/// All ways, the floor and the compressions, on images so small that what is measured is mostly the measuring.
#[test]
fn a_benchmark_fills_its_page_and_leaves_nothing_behind() {
    let world =
        small(&format!("localhost:{}", port()), &format!("engines-test/bench-{}", std::process::id()));
    let tree = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let real = |path: &str| fs::read_to_string(tree.join(path)).unwrap();
    // The pins that a lock needs, and the list of packages that the plain ways get.
    let pins = "ARG UV_VERSION=0.1.0\nARG MEMPALACE_VERSION=3.0.0\n";
    let packages = "RUN <<'SH'\napt install -y --no-install-recommends \\\n  tree\nSH\n";
    let base = world.root.join("images/Dockerfile.base");
    let text = fs::read_to_string(&base).unwrap();
    fs::write(&base, format!("{pins}{text}\nFROM scratch AS never\n{packages}FROM base\n")).unwrap();
    let plain = real("bench/Dockerfile");
    let (_, flat) = plain.split_once("# One image in one layer").unwrap();
    for folder in ["bench", "docs"] {
        fs::create_dir(world.root.join(folder)).unwrap();
    }
    fs::write(world.root.join("bench/Dockerfile"), format!("{PLAIN}#{flat}")).unwrap();
    let page = world.root.join("docs/benchmarks.md");
    let empty = |text: String, name| splice(&text, name, "\n").unwrap().unwrap();
    fs::write(&page, ["full", "quick", "compression"].into_iter().fold(real("docs/benchmarks.md"), empty))
        .unwrap();
    let env = [("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")];
    let text = run(&world, "bench --quick --runs 1", &env);
    assert!(!text.contains("not measured"), "{text}");
    run(&world, "bench --compression --runs 1", &env);
    let page = fs::read_to_string(page).unwrap();
    for step in ["cold", "bump of opencode", "nothing new"] {
        for way in ["original", "plain", "ours"] {
            assert!(page.contains(&format!("| {step} | {way} | 1 |")), "{step} {way}: {page}");
        }
    }
    for part in ["Floor of the bump (download", "| gzip, default |", "| zstd, level 3 |"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!world.root.join(".devbox/bench").exists());
}
