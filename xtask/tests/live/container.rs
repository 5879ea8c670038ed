//! What takes a real container, a real volume or a real peer: start times, owners, agents, proxies. The image is this
//! tree's, which is built if it is not there.

use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::release::xtask;
use crate::support::pages::all_commands;

/// Containers and volumes of one test, removed when it ends however it ends.
pub struct Stage {
    pub image: String,
    pub name: String,
}

impl Stage {
    pub fn new(test: &str) -> Self {
        static IMAGE: OnceLock<String> = OnceLock::new();
        let image = IMAGE.get_or_init(|| image("base")).clone();
        Self { image, name: format!("devbox-test-{test}-{}", std::process::id()) }
    }

    /// With an image that has every component.
    pub fn with_all(test: &str) -> Self {
        static IMAGE: OnceLock<String> = OnceLock::new();
        let image = IMAGE.get_or_init(|| image("omos-with-pi")).clone();
        Self { image, name: format!("devbox-test-{test}-{}", std::process::id()) }
    }

    pub fn volume(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// `docker run --rm`, then the options, the image, and the command.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Output {
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm", "--label", &self.name]).args(options).arg(&self.image).args(command);
        docker.output().unwrap()
    }

    /// The same in the background; returns the container's name.
    pub fn start(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        let name = self.volume(name);
        let mut docker = Command::new("docker");
        docker.args(["run", "--detach", "--name", &name, "--label", &self.name]).args(options);
        let output = docker.arg(&self.image).args(command).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        name
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let script = format!(
            "docker ps -aq --filter label={0} | xargs -r docker rm -f; docker volume ls -q --filter name={0} | xargs -r docker volume rm; \
             docker network ls -q --filter name={0} | xargs -r docker network rm",
            self.name
        );
        // What cannot be removed is left: the test's own result matters more.
        let _ = Command::new("sh").args(["-c", &script]).output();
    }
}

/// The staged image of a variant.
fn image(variant: &str) -> String {
    // For work on one image: no build, no registry.
    if let Ok(image) = std::env::var("DEVBOX_LIVE_IMAGE") {
        return image;
    }
    for phase in [&["build-base"][..], &["build", variant]] {
        let (ok, text) = xtask(phase);
        assert!(ok, "{text}");
    }
    // Now it only says where the image is.
    let (_, text) = xtask(&["build", variant]);
    let line = text.lines().find_map(|line| line.strip_suffix(": built before from the same inputs"));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
pub fn says(output: &Output, part: &str) {
    assert!(text(output).contains(part), "no {part:?} in:\n{}", text(output));
}

/// A walk through a volume with 100,000 files takes a second, so there is one, when the owner changes.
/// `scripts/measure-start.sh` measures the start.
#[test]
fn a_volume_is_walked_once_for_each_owner() {
    let stage = Stage::new("walk");
    let data = "/home/developer/.local/share/opencode";
    let volume = format!("{}:{data}", stage.volume("data"));
    let touch = |name: &str| {
        let make = format!("mkdir -p {data}/deep/er && touch {data}/deep/er/{name}");
        assert!(stage.run(&["--entrypoint", "bash", "-v", &volume], &["-c", &make]).status.success());
    };
    let of_others =
        "find ~/.local/share/opencode ! -user developer -type f | xargs -r basename -a | xargs echo left:";
    let starts = |id: &str| {
        let user = format!("PUID={id}");
        stage.run(&["-e", &user, "-v", &volume], &["bash", "-c", of_others])
    };
    touch("early");
    says(&starts("4242"), "left:\n");
    touch("late");
    says(&starts("4242"), "left: late\n");
    says(&starts("4343"), "left:\n");
}

#[test]
fn folders_of_the_host_are_not_changed_and_their_owner_is_said() {
    let stage = Stage::new("owner");
    let host = tempfile::TempDir::new().unwrap();
    std::fs::write(host.path().join("opencode.json"), "{}").unwrap();
    let mount = format!("{}:/home/developer/.config/opencode", host.path().display());
    let owner = || {
        let output = Command::new("stat")
            .args(["-c", "%u:%g"])
            .arg(host.path().join("opencode.json"))
            .output()
            .unwrap();
        text(&output)
    };
    let before = owner();
    let output = stage.run(&["-e", "PUID=4242", "-v", &mount], &["true"]);
    assert!(output.status.success());
    says(&output, "is a folder of the host and belongs to");
    assert_eq!(owner(), before);
    let read_only = format!("{}:/home/developer/.pi:ro", stage.volume("pi"));
    says(&stage.run(&["-v", &read_only], &["true"]), "/home/developer/.pi is mounted read-only");
}

#[test]
fn an_ssh_agent_of_the_host_signs_commits_in_the_container() {
    let stage = Stage::new("agent");
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("agent");
    // An agent answers its own user only; without root this is the user that runs the test.
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let key = folder.path().join("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let added = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
    assert!(added.success());
    let uid = text(&Command::new("id").arg("-u").output().unwrap()).trim().to_owned();
    let mount = format!("{}:/run/ssh-agent", socket.display());
    let public =
        format!("GIT_SIGNING_KEY={}", std::fs::read_to_string(key.with_extension("pub")).unwrap().trim());
    let user = format!("{uid}:{uid}");
    let mut options = vec!["-v", &mount, "-e", "SSH_AUTH_SOCK=/run/ssh-agent", "-e", &public];
    options.extend(["-e", "GIT_USER_NAME=Ann", "-e", "GIT_USER_EMAIL=ann@example.org"]);
    // Root's agent answers root: a root in name only, as --cap-drop ALL makes it.
    options.extend(if uid == "0" { ["--cap-drop", "ALL"] } else { ["--user", &user] });
    let script = "devbox doctor | grep 'ssh agent'; cd /tmp && git init -q r && cd r && git commit -q --allow-empty -m m &&
        git cat-file commit HEAD";
    let output = stage.run(&options, &["bash", "-c", script]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    says(&output, "1 keys");
    says(&output, "BEGIN SSH SIGNATURE");
}

#[test]
fn the_egress_example_lets_named_hosts_through_and_no_others() {
    let stage = Stage::new("egress");
    let debian = format!("DEBIAN_IMAGE={}", crate::images::debian());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/egress");
    let docker = |args: &[&str]| {
        let output = Command::new("docker").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    };
    let (proxy, inside) = (stage.volume("proxy"), stage.volume("inside"));
    docker(&["build", "-q", "-t", &proxy, "--build-arg", &debian, folder.to_str().unwrap()]);
    docker(&["network", "create", "--internal", &inside]);
    // Of two hosts that this machine reaches, the list is made to name one.
    let host = |name: &str| {
        let address = std::env::var(name).expect("run through `cargo xtask test`");
        address.split('/').nth(2).unwrap().to_owned()
    };
    let (allowed, other) = (host("DEVBOX_LIVE_NPM"), host("DEVBOX_LIVE_PYPI"));
    let names = std::fs::read_to_string(folder.join("allowed-hosts")).unwrap();
    let scratch = tempfile::TempDir::new().unwrap();
    let file = scratch.path().join("allowed-hosts");
    std::fs::write(&file, format!("{names}^{}$\n", allowed.replace('.', "\\."))).unwrap();
    let list = format!("{}:/etc/tinyproxy/allowed-hosts:ro", file.display());
    docker(&[
        "run",
        "-d",
        "--name",
        &proxy,
        "--label",
        &stage.name,
        "-v",
        &list,
        "--read-only",
        "--tmpfs",
        "/tmp",
        &proxy,
    ]);
    docker(&["network", "connect", &inside, &proxy]);
    let url = format!("HTTPS_PROXY=http://{proxy}:8888");
    // The answer to CONNECT tells the two apart; whether the certificate is trusted is the host's affair.
    let ask = |host: &str| {
        let curl = format!("curl -sk -o /dev/null -w '%{{http_connect}}\\n' -m 20 https://{host}/");
        text(&stage.run(&["--network", &inside, "-e", &url], &["bash", "-c", &curl]))
    };
    assert_eq!(ask(&allowed).trim(), "200");
    assert_eq!(ask(&other).trim(), "403");
    let direct = format!("curl -sk --noproxy '*' -m 5 https://{allowed}/ || echo no way out");
    says(&stage.run(&["--network", &inside], &["bash", "-c", &direct]), "no way out");
    docker(&["rm", "-f", &proxy]);
    docker(&["rmi", "-f", &proxy]);
}

/// Every `docker run` of a page starts this image, and every recipe's options do: only what would clash with other
/// containers or wants a terminal is replaced, and a command that ends at once takes the place of the last words.
#[test]
fn every_docker_command_in_a_page_works() {
    let stage = Stage::new("pages");
    let home = tempfile::TempDir::new().unwrap();
    let shell = |line: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", line]).current_dir(home.path()).env("HOME", home.path());
        bash.env("SSH_AUTH_SOCK", home.path().join("agent"));
        bash.output().unwrap()
    };
    let start = |page: &str, options: &str| {
        let volumes = format!("-v {}-", stage.name);
        let options = options.replace("-it ", "").replace("-v devbox-", &volumes);
        // Root, who may run this test, is nobody whose ids a container takes on.
        let options = options.replace("$(id -u)", "1000").replace("$(id -g)", "1000");
        let options = options.replace("127.0.0.1:4096:", "127.0.0.1::");
        let output = shell(&format!("docker run --rm {options} {} true", stage.image));
        // That is for a rootless engine, whose start `people.rs` tests; root of this machine is refused.
        if options.contains("PUID=0") {
            assert_eq!(output.status.code(), Some(64), "{page}: {options}: {}", text(&output));
            return;
        }
        assert!(output.status.success(), "{page}: {options}: {}", text(&output));
    };
    let mut started = 0;
    let whole = all_commands("docker run ").into_iter().filter(|(_, command)| !command.contains("{{"));
    for (page, command) in whole {
        let (options, _) = command.split_once(" joakimp/").unwrap_or_else(|| panic!("{page}: {command}"));
        start(&page, options.strip_prefix("docker run").unwrap());
        started += 1;
    }
    for option in ["-v ", "-e ", "-p ", "--network "] {
        for (page, options) in all_commands(option) {
            start(&page, &options);
            started += 1;
        }
    }
    assert!(started > 10, "{started}");
    // docker itself reads the others; without an engine it stops where it would do something.
    for (page, command) in all_commands("docker ") {
        let words = command.split(' ').count();
        if command.starts_with("docker run ") || command.starts_with("docker compose") {
            continue;
        }
        // A sentence may name a subcommand alone.
        let line = if words == 2 { format!("{command} --help") } else { command.replace("-it ", "-i ") };
        let output = shell(&format!("DOCKER_HOST=unix:///nowhere {line} </dev/null"));
        let read = output.status.success() || text(&output).contains("Cannot connect to the Docker daemon");
        assert!(read, "{page}: {command}: {}", text(&output));
    }
}

#[test]
fn compose_starts_a_hardened_shell_and_a_healthy_server() {
    if !Command::new("docker").args(["compose", "version"]).output().unwrap().status.success() {
        println!("SKIPPED: this machine has no docker compose, so compose.yaml was not started");
        return;
    }
    let stage = Stage::new("compose");
    let folder = tempfile::TempDir::new().unwrap();
    let here = |service: &str| format!("  {service}:\n    image: {}\n    ports: !reset []\n", stage.image);
    let file = folder.path().join("override.yaml");
    std::fs::write(&file, format!("services:\n{}{}{}", here("devbox"), here("serve"), here("web"))).unwrap();
    // Root's own, and not in the workspace.
    let outside = tempfile::TempDir::new().unwrap();
    let secret = outside.path().join("password");
    std::fs::write(&secret, "smoke-password\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let compose = |args: &[&str]| {
        let mut docker = Command::new("docker");
        let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        docker.args(["compose", "-p", &stage.name, "--project-directory"]).arg(folder.path());
        docker.arg("-f").arg(tree.join("compose.yaml")).arg("-f").arg(&file).args(args);
        docker.env("PUID", "4242").env("PGID", "4242").env("OPENCODE_SERVER_PASSWORD_FILE", &secret);
        docker.output().unwrap()
    };
    let script = "id -u; touch ~/.config/opencode/t ~/.pi/t && echo volumes; touch /usr/t || echo read-only; opencode --version && echo agent
        cat $OPENCODE_SERVER_PASSWORD_FILE; echo \"other ${GH_TOKEN_FILE:-none}\"; ls -A /workspace";
    let shell = compose(&["run", "--rm", "-T", "devbox", "bash", "-c", script]);
    for part in
        ["4242\n", "volumes\n", "read-only\n", "agent\n", "smoke-password\n", "other none\noverride.yaml\n"]
    {
        says(&shell, part);
    }
    assert!(!text(&shell).contains("devbox: GH_TOKEN"), "{}", text(&shell));
    assert!(!folder.path().join("secrets").exists(), "a folder was made in the workspace");
    // One after the other: two that create opencode's database at the same time can fail.
    let up = |service| compose(&["--profile", service, "up", "--detach", "--wait", service]);
    let ups = [up("serve"), up("web")];
    let down = compose(&["--profile", "serve", "--profile", "web", "down", "--volumes", "--timeout", "5"]);
    for up in ups {
        assert!(up.status.success(), "{}", text(&up));
    }
    assert!(down.status.success(), "{}", text(&down));
}
