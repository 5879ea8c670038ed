//! `opencode-devbox`, the launcher on the host: the commands that it prints for each kind of host, and what it refuses.
//! The engines are scripts that give recorded answers; `tests/live/launcher.rs` starts real containers.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::launcher;
use crate::support::pages::all_commands;

/// Everything that the launcher calls on a host besides an engine; a program that is not here is not needed.
const PROGRAMS: &[&str] = &[
    "awk", "cat", "chmod", "cksum", "cmp", "cut", "df", "dirname", "env", "git", "grep", "head", "id", "ls",
    "mkdir", "mv", "od", "paste", "readlink", "rm", "sed", "sh", "sleep", "sort", "tr", "uname",
];

/// Docker 28.5.2 on Debian, as `docker info --format …` answers.
const DOCKER: &str = r#"Debian GNU/Linux forky/sid|["name=seccomp,profile=builtin"]|28.5.2+dfsg4"#;
const ROOTLESS: &str =
    r#"Debian GNU/Linux 12|["name=seccomp,profile=builtin","name=rootless","name=cgroupns"]|28.5.2"#;
const REMAPPED: &str = r#"Debian GNU/Linux 12|["name=seccomp,profile=builtin","name=userns"]|28.5.2"#;
const SELINUX: &str =
    r#"Fedora Linux 42|["name=seccomp,profile=builtin","name=selinux","name=cgroupns"]|28.5.2"#;
const DESKTOP: &str = r#"Docker Desktop|["name=seccomp,profile=unconfined","name=cgroupns"]|28.5.1"#;
/// Podman 5.8.6: rootless, SELinux, version.
const PODMAN: &str = "true|false|5.8.6";

/// A host with a home, a project and recorded engines.
pub struct Host {
    pub root: TempDir,
    shell: Vec<&'static str>,
    variables: Vec<(String, String)>,
    pub project: PathBuf,
}

impl Host {
    pub fn new(shell: &[&'static str]) -> Self {
        let root = TempDir::new().unwrap();
        let project = root.path().join("code/my project");
        for folder in ["bin", "home", "code/my project"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for program in PROGRAMS {
            let path = which(program).unwrap_or_else(|| panic!("{program} is not installed"));
            symlink(path, root.path().join("bin").join(program)).unwrap();
        }
        let host = Self { root, shell: shell.to_vec(), variables: Vec::new(), project };
        host.program("id", "case $1 in -u) echo 1234 ;; -g) echo 4321 ;; esac");
        host.program("uname", "echo Linux");
        host.program("readlink", "echo /usr/share/zoneinfo/Europe/Stockholm");
        host
    }

    pub fn program(&self, name: &str, script: &str) {
        let path = self.root.path().join("bin").join(name);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An engine that gives this answer to `info`, has no container, and notes what else it is asked.
    pub fn engine(self, name: &str, info: &str) -> Self {
        let version = if name == "podman" { "podman version 5.8.6" } else { "Docker version 28.5.2+dfsg4" };
        let log = self.root.path().join("asked");
        self.program(
            name,
            &format!(
                "echo \"{name} $*\" >> '{}'\ncase $1 in --version) echo '{version}' ;; info) echo '{info}' ;;\n\
                 container) echo \"Error response from daemon: No such container\" >&2; exit 1 ;; ps) ;;\n\
                 *) printf '%s\\n' \"$@\" ;; esac",
                log.display()
            ),
        );
        self
    }

    /// The project's container runs, from this image.
    pub fn running(self, image: &str) -> Self {
        self.program(
            "docker",
            &format!(
                "case $1 in --version) echo 'Docker version 28.5.2' ;; info) echo '{DOCKER}' ;;\n\
                 container) echo 'true {image} network allowlist keys' ;; port) echo 127.0.0.1:4096 ;; *) printf '%s\\n' \"$@\" ;; esac"
            ),
        );
        self
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn settings(self, text: &str) -> Self {
        self.file("home/.config/opencode-devbox/config", text)
    }

    pub fn of_project(self, text: &str) -> Self {
        self.file("code/my project/.opencode-devbox", text)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(which(self.shell[0]).unwrap());
        command.args(&self.shell[1..]).arg(launcher()).args(args).env_clear().current_dir(&self.project);
        command.env("HOME", self.root.path().join("home")).env("PATH", self.root.path().join("bin"));
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a run shows, with the host's own path and number replaced.
    pub fn shown(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let text = text.replace(self.root.path().to_str().unwrap(), "/host");
        let id = regex::Regex::new(r"(my-project|feature)-[0-9]+").unwrap();
        let text = id.replace_all(&text, "$1-ID").into_owned();
        match output.status.code() {
            Some(0) => text,
            code => format!("{text}exit code {}\n", code.unwrap()),
        }
    }
}

pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// dash and bash are on every machine of this project; busybox where somebody installed it, and in the last test.
fn shells() -> Vec<Vec<&'static str>> {
    let all: [&[&str]; 4] = [&["dash"], &["bash"], &["bash", "--posix"], &["busybox", "sh"]];
    all.iter().filter(|shell| which(shell[0]).is_some()).map(|shell| shell.to_vec()).collect()
}

fn git(folder: &Path, line: &str) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(line.split(' ')).current_dir(folder);
    for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"] {
        git.env_remove(name);
    }
    assert!(git.output().unwrap().status.success(), "git {line}");
}

/// A host whose project is a worktree of another folder's repository.
fn worktree(host: Host) -> Host {
    let main = host.root.path().join("code/main");
    fs::create_dir_all(&main).unwrap();
    git(&main, "init --quiet");
    git(&main, "commit --quiet --allow-empty -m x");
    git(&main, "worktree add --quiet ../feature");
    Host { project: host.root.path().join("code/feature"), ..host }
}

fn agent(host: Host) -> Host {
    let socket = host.root.path().join("agent");
    // The socket's file stays when its listener is gone.
    drop(UnixListener::bind(&socket).unwrap());
    let path = socket.to_str().unwrap().to_owned();
    host.set("SSH_AUTH_SOCK", &path)
}

fn macos(host: Host) -> Host {
    host.program("uname", "echo Darwin");
    host.program("readlink", "echo /var/db/timezone/zoneinfo/Europe/Stockholm");
    host.program("id", "case $1 in -u) echo 501 ;; -g) echo 20 ;; esac");
    host
}

const EXPOSING: &str = "# of the team\nvariant = omos\nvolume = ~/secrets:/secrets\nnetwork = off\n";

/// Every kind of host, and the arguments of its start.
#[rustfmt::skip]
fn scenarios(shell: &[&'static str]) -> Vec<(&'static str, Host, Vec<&'static str>)> {
    let host = || Host::new(shell);
    let linux = || host().engine("docker", DOCKER);
    let identity = "[user]\n\tname = Jane O'Hara\n\temail = jane@example.org\n";
    let signing = "[user]\n\tname = Jane\n\tsigningkey = ssh-ed25519 AAAA jane\n[gpg]\n\tformat = ssh\n[commit]\n\tgpgsign = true\n";
    vec![
        ("Linux", linux().set("LANG", "sv_SE.UTF-8").set("TERM", "xterm-256color"), vec!["--print"]),
        ("Linux, as root", { let host = linux(); host.program("id", "echo 0"); host.program("ls", "echo 'drwxr-xr-x 2 1000 1000 40 Nov 30 17:54 .'"); host }, vec!["--print"]),
        ("git identity", linux().file("home/.gitconfig", identity), vec!["--print"]),
        ("keys by name, a key file, proxy, time zone", linux().set("OPENAI_API_KEY", "sk-secret").set("GITEA_URL", "https://gitea.example.org")
            .file("key", "x").set("TZ", "UTC").set("HTTPS_PROXY", "http://user:secret@proxy:3128").set("no_proxy", "localhost")
            .set("ANTHROPIC_API_KEY_FILE", "../../key"), vec!["--print", "run", "say 'hi'"]),
        ("certificate of a company", linux().file("company.crt", "x").set("DEVBOX_CA_FILE", "../../company.crt"), vec!["--print"]),
        ("AWS folder", linux().file("home/.aws/config", "x").set("AWS_PROFILE", "work"), vec!["--print"]),
        ("SSH agent and signing key", agent(linux()).file("home/.gitconfig", signing), vec!["--print"]),
        ("worktree", worktree(linux()), vec!["--print"]),
        ("rootless Docker", host().engine("docker", ROOTLESS), vec!["--print"]),
        ("remapped user namespace", host().engine("docker", REMAPPED), vec!["--print"]),
        ("SELinux", host().engine("docker", SELINUX), vec!["--print"]),
        ("rootless Podman", agent(host().engine("podman", PODMAN)), vec!["--print"]),
        ("macOS, Docker Desktop", macos(agent(host().engine("docker", DESKTOP))).set("HTTPS_PROXY", "http://localhost:3128"), vec!["--print"]),
        ("macOS, another engine", macos(agent(host().engine("docker", DOCKER))), vec!["--print"]),
        ("pi, in the variant that has it", linux(), vec!["--print", "pi", "--help"]),
        ("a release of a variant", linux(), vec!["--variant=omos", "--tag", "v1.18.18", "--print", "bash"]),
        ("no network, own path, not hardened", linux(), vec!["--no-network", "--own-path", "--not-hardened", "--print"]),
        ("server", linux(), vec!["--port=5000", "--print", "serve"]),
        ("mounts, ports, variables, shared data", linux().set("MY_TOKEN", "secret").set("DEVBOX_CALLBACK_PORTS", "1455"),
            vec!["--volume", "/data:/data:ro", "--env=MY_TOKEN", "--publish", "127.0.0.1:8080:8080", "--data=shared", "--print", "exec", "make", "a b"]),
        ("settings", linux().settings("variant = with-pi\naws=off\n\n# limits\nmemory = 8g\ncpus = 2\r\n"), vec!["--print"]),
        ("narrowing settings of a project", linux().of_project("network = off\nvariant = omos\nssh-agent = off\n"), vec!["--print"]),
        ("exposing settings of a project", linux().of_project(EXPOSING), vec!["--print"]),
        ("egress to named hosts only", linux(), vec!["--egress=allowlist", "--allow-host", "registry.npmjs.org", "--print"]),
        ("a second start with less joins no container with more", linux().running("docker.io/joakimp/opencode-devbox:latest"), vec!["--egress", "allowlist", "--print"]),
        ("a second start joins", linux().running("docker.io/joakimp/opencode-devbox:latest"), vec!["--print", "--", "--continue"]),
        ("a shell joins", linux().running("docker.io/joakimp/opencode-devbox:latest"), vec!["--print", "bash"]),
        ("a command joins another image", linux().running("docker.io/joakimp/opencode-devbox:v1.18.15"), vec!["--variant=omos", "--print", "exec", "git", "log"]),
    ]
}

#[test]
fn commands_are_the_golden_ones_in_every_shell() {
    let golden = expect_test::expect_file!["golden/launcher.txt"];
    for shell in shells() {
        let all: String = std::thread::scope(|scope| {
            let show = |(title, host, args): (&'static str, Host, Vec<&'static str>)| {
                scope.spawn(move || format!("## {title}\n{}\n", host.shown(&args)))
            };
            let runs: Vec<_> = scenarios(&shell).into_iter().map(show).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert!(!all.contains("secret@") && !all.contains("sk-secret"), "a value is in a command: {all}");
        golden.assert_eq(&all);
    }
}

fn linux() -> Host {
    Host::new(&["dash"]).engine("docker", DOCKER)
}

#[track_caller]
fn refused(host: &Host, args: &[&str], code: i32, line: &str) {
    let output = host.run(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
    assert!(told.contains(line), "{args:?}: {told}");
    assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
}

#[test]
fn wrong_words_get_one_line_each() {
    let host = linux();
    for (args, line) in [
        (
            &["--variant", "omoss"][..],
            "--variant: variant = omoss: expected one of: base omos with-pi omos-with-pi",
        ),
        (&["--variant"], "--variant: a value is missing"),
        (&["--tag", "a b"], "--tag: tag = a b: not a tag"),
        (&["--tag="], "--tag: tag = : not a tag"),
        (&["--image", "a/b:1"], "has a tag; put it into tag = 1"),
        (&["--image", "A"], "expected a repository in lower case"),
        (&["--engine", "lxc"], "engine = lxc: expected docker or podman"),
        (&["--egress", "some"], "egress = some: expected open or allowlist"),
        (&["--data", "none"], "data = none: expected project or shared"),
        (&["--port", "0"], "port = 0: expected a number from 1 to 65535"),
        (&["--port", "65536"], "expected a number from 1 to 65535"),
        (&["--port", "http"], "expected a number from 1 to 65535"),
        (&["--volume", "/a"], "volume = /a: expected HOST:CONTAINER[:ro]"),
        (&["--volume", "/a:b"], "expected HOST:CONTAINER[:ro], the second with a leading slash"),
        (&["--env", "TOKEN=secret"], "env = TOKEN=…: only the name"),
        (&["--env", "A-B"], "not the name of a variable"),
        (&["--publish", "all of them"], "expected a port such as 127.0.0.1:8080:8080"),
        (&["--allow-host", "https://x"], "expected the name of a host"),
        (&["--colour"], "--colour: no such option"),
        (&["--continue"], "opencode-devbox -- --continue passes it to opencode"),
        (
            &["auth"],
            "auth: no such command; opencode-devbox --help lists them, and opencode-devbox opencode auth passes it",
        ),
        (&["exec"], "exec: a command is missing"),
        (&["stop", "now"], "stop now: expected nothing or --all"),
        (&["uninstall", "all"], "expected nothing or --volumes"),
        (&["completions", "csh"], "completions: expected bash, zsh or fish"),
        (&["config", "get"], "config get: expected show, set KEY VALUE, path or trust"),
        (&["config", "set", "colour", "red"], "colour: no such setting; the settings are: variant tag"),
        (&["config", "set", "aws", "yes"], "aws = yes: expected on or off"),
        (&["config", "set", "memory", "much"], "memory = much: expected an amount such as 8g"),
        (&["config", "set", "cpus", "two"], "cpus = two: expected a number such as 2"),
        (&["config", "set", "ca", "/none"], "ca = /none: no such file or folder"),
        (&["config", "set", "workspace", "/src"], "expected auto, same or /workspace"),
        (&["config", "set", "variant"], "expected: opencode-devbox config set KEY VALUE"),
        (&["config", "trust"], ".opencode-devbox: no such file"),
        (&["--no-network", "serve"], "serve needs a network"),
        (&["--egress", "allowlist", "serve"], "a container without a way out cannot publish ports"),
        (
            &["--egress", "allowlist", "--publish", "8080"],
            "a container without a way out cannot publish ports",
        ),
        (
            &["--egress", "allowlist", "--no-network"],
            "--egress allowlist and --no-network exclude each other",
        ),
    ] {
        refused(&host, args, 64, line);
    }
    let host = linux().settings("variant = base\ncolour = red\n");
    refused(&host, &["--print"], 64, "/.config/opencode-devbox/config:2: colour: no such setting");
    refused(
        &linux().of_project("variant\n"),
        &["--print"],
        64,
        ".opencode-devbox:1: expected KEY = VALUE, found: variant",
    );
    // A wrong line of a project is refused before anybody is asked for trust.
    refused(&linux().of_project("volume = x\n"), &["--print"], 64, ".opencode-devbox:1: volume = x");
}

#[test]
fn a_folder_that_is_no_project_is_refused() {
    let host = linux();
    let in_folder = |folder: &Path| {
        let output = host.command(&["--print"]).current_dir(folder).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = in_folder(Path::new("/"));
    assert!(code == Some(64) && told.contains("/ is no project"), "{told}");
    let (code, told) = in_folder(&host.root.path().join("home"));
    assert!(code == Some(64) && told.contains("is your home folder, with all keys in it"), "{told}");
}

#[test]
fn an_engine_that_is_missing_or_silent_is_named() {
    let host = Host::new(&["dash"]);
    refused(&host, &[], 69, "neither docker nor podman is installed");
    refused(&host, &["--engine", "podman"], 69, "podman: not installed");
    let silent = "[ \"$1\" = info ] && { echo '|null'; echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1; }";
    host.program("docker", silent);
    refused(&host, &[], 69, "docker does not answer: Cannot connect to the Docker daemon");
    let host = host.engine("podman", PODMAN);
    let output = host.run(&["--print"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("podman run --rm"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("using podman, since docker does not answer"));
    let denied = "[ \"$1\" = info ] && { echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1; }";
    let host = Host::new(&["dash"]);
    host.program("docker", denied);
    refused(&host, &[], 69, "add yourself to the group docker");
}

#[test]
fn egress_needs_an_engine_that_hides_the_host() {
    let allowlist = ["--egress", "allowlist", "--print"];
    let older = DOCKER.replace("28.5.2+dfsg4", "27.5.1");
    let host = Host::new(&["dash"]).engine("docker", &older);
    refused(&host, &allowlist, 64, "--egress allowlist needs Docker 28 or newer");
    let host = Host::new(&["dash"]).engine("podman", PODMAN);
    refused(&host, &allowlist, 64, "podman 5.8.6 is in use");
    let host = linux().set("https_proxy", "http://proxy:3128");
    refused(&host, &allowlist, 64, "cannot pass through another proxy");
    // The network and its proxy go with the container, whose exit code stays.
    let host = linux();
    let script = fs::read_to_string(host.root.path().join("bin/docker")).unwrap();
    host.program(
        "docker",
        &script.replace("ps) ;;", "ps) ;; network | rm) ;; run) case $* in *' -i '*) exit 9 ;; esac ;;"),
    );
    assert_eq!(host.run(&allowlist[..2]).status.code(), Some(9));
    let asked = fs::read_to_string(host.root.path().join("asked")).unwrap();
    let asked: Vec<_> =
        asked.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    let end = asked.iter().rposition(|line| line.starts_with("docker run")).unwrap();
    assert_eq!(asked[end + 1..], ["docker rm --force", "docker network rm"]);
    assert!(asked.contains(&"docker network create".to_owned()), "{asked:?}");
}

#[test]
fn settings_of_a_project_count_while_they_are_trusted() {
    let host = linux().of_project(EXPOSING);
    let print = |host: &Host| String::from_utf8(host.run(&["--print"]).stdout).unwrap();
    assert_eq!(host.run(&["--print"]).status.code(), Some(64));
    // Without a terminal nobody is asked, and nothing starts.
    assert_eq!(host.run(&[]).status.code(), Some(64));
    let output = host.run(&["config", "trust"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("  volume = {}/secrets:/secrets\n", host.root.path().join("home").display())
    );
    assert!(print(&host).contains("/secrets:/secrets") && print(&host).contains("latest-omos"));
    let host = host.of_project(&format!("{EXPOSING}aws = on\n"));
    assert_eq!(print(&host), "");
    // What was refused stays out, and what only narrows counts.
    let folder = host.root.path().join("home/.config/opencode-devbox/trust");
    let entry = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    host.run(&["config", "trust"]);
    let refused = fs::read_to_string(&entry).unwrap().replacen("trusted", "refused", 1);
    fs::write(&entry, refused).unwrap();
    let output = host.run(&["--print"]);
    let (command, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        !command.contains("/secrets")
            && command.contains("--network none")
            && command.contains("latest-omos"),
        "{command}"
    );
    assert!(told.contains("refused before, so not used") && told.lines().count() == 1, "{told}");
    // Another project's trust is its own.
    let other = host.root.path().join("code/other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join(".opencode-devbox"), EXPOSING).unwrap();
    assert_eq!(host.command(&["--print"]).current_dir(other).output().unwrap().status.code(), Some(64));
}

#[test]
fn only_the_repository_that_knows_the_worktree_is_mounted() {
    let host = worktree(linux());
    let common = host.root.path().join("code/main/.git");
    let mounted = |host: &Host| host.shown(&["--print"]).contains("/host/code/main/.git:");
    assert!(mounted(&host));
    // The .git file of a folder that was copied, or made up to get at another repository.
    let fake = host.root.path().join("code/feature-fake");
    fs::create_dir_all(&fake).unwrap();
    fs::copy(host.project.join(".git"), fake.join(".git")).unwrap();
    let host = Host { project: fake.clone(), ..host };
    assert!(!mounted(&host) && host.shown(&["--print"]).contains("does not know this worktree"));
    let other = host.root.path().join("home/.ssh");
    fs::create_dir_all(&other).unwrap();
    for gitdir in [other.clone(), common.clone(), PathBuf::from("/nowhere")] {
        fs::write(fake.join(".git"), format!("gitdir: {}\n", gitdir.display())).unwrap();
        let shown = host.shown(&["--print"]);
        assert!(!shown.contains(".ssh") && !shown.contains("main/.git"), "{shown}");
    }
    // A link that stands for the repository's own folder leads to the same check.
    symlink(common.join("worktrees"), fake.join("worktrees")).unwrap();
    fs::write(fake.join(".git"), "gitdir: worktrees/feature\n").unwrap();
    assert!(!mounted(&host));
}

#[test]
fn words_with_colons_commas_and_quotes_arrive_as_they_are() {
    let host = linux();
    let project = host.root.path().join("code/a:b,\"c\" 'd'");
    fs::create_dir_all(&project).unwrap();
    let host = Host { project, ..host };
    let output = host.run(&["exec", "it's", "a\nb", "$HOME"]);
    let words = String::from_utf8(output.stdout).unwrap();
    let source = format!(
        "type=bind,\"source={}/code/a:b,\"\"c\"\" 'd'\",target=/workspace",
        host.root.path().display()
    );
    assert!(words.contains(&format!("--mount\n{source}\n")), "{words}");
    assert!(words.ends_with("it's\na\nb\n$HOME\n"), "{words}");
    // What is printed is what runs.
    let printed = host.run(&["--print", "exec", "it's", "a\nb", "$HOME"]).stdout;
    let mut shell = Command::new("/bin/sh");
    shell
        .env_clear()
        .env("PATH", host.root.path().join("bin"))
        .arg("-c")
        .arg(String::from_utf8(printed).unwrap());
    assert_eq!(String::from_utf8(shell.output().unwrap().stdout).unwrap(), words);
}

#[test]
fn settings_are_shown_with_their_origin_and_kept() {
    let host = linux().settings("aws = off\nvolume = /a:/a\n").of_project("variant = omos\n");
    for (key, value) in [("aws", "on"), ("volume", "/b:/b:ro"), ("memory", "4g"), ("memory", "8g")] {
        assert!(host.run(&["config", "set", key, value]).status.success());
    }
    let shown = String::from_utf8(host.run(&["--tag", "v1.18.18", "config"]).stdout).unwrap();
    let has = |line: &str| {
        assert!(
            shown.lines().any(|shown| shown
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .starts_with(line)),
            "no {line} in:\n{shown}"
        )
    };
    has("# image: docker.io/joakimp/opencode-devbox:v1.18.18-omos");
    has("variant = omos # .opencode-devbox:1");
    has("tag = v1.18.18 # command line");
    has("aws = on # /");
    has("memory = 8g # /");
    has("volume = /a:/a # /");
    has("volume = /b:/b:ro # /");
    has("network = on # default");
    let text = fs::read_to_string(host.root.path().join("home/.config/opencode-devbox/config")).unwrap();
    assert_eq!(text, "volume = /a:/a\naws = on\nvolume = /b:/b:ro\nmemory = 8g\n");
    let path = String::from_utf8(host.run(&["config", "path"]).stdout).unwrap();
    assert!(path.trim().ends_with("/home/.config/opencode-devbox/config"), "{path}");
}

#[test]
fn a_server_joins_none_and_takes_a_free_port() {
    let running = linux().running("docker.io/joakimp/opencode-devbox:latest");
    let output = running.run(&["serve"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("already serving on http://127.0.0.1:4096"));
    let host = linux();
    let script = fs::read_to_string(host.root.path().join("bin/docker")).unwrap();
    host.program(
        "docker",
        &script.replace("ps) ;;", "ps) echo '127.0.0.1:4096->4096/tcp, 0.0.0.0:4097->80/tcp' ;;"),
    );
    let output = host.run(&["serve"]);
    let (words, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(
        words.contains("-p\n127.0.0.1:4098:4096\n") && words.contains("-e\nOPENCODE_SERVER_PASSWORD\n"),
        "{words}"
    );
    let password = told.split("password ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(
        password.len() == 32 && !words.contains(password) && told.matches(password).count() == 1,
        "{told}"
    );
    let host = host.set("OPENCODE_SERVER_PASSWORD", "mine");
    let told = String::from_utf8(host.run(&["web"]).stderr).unwrap();
    assert!(told.contains("password the one in OPENCODE_SERVER_PASSWORD"), "{told}");
}

#[test]
fn uninstall_removes_what_it_names_and_only_after_a_yes() {
    let host = linux().settings("aws = off\n");
    let copy = host.root.path().join("home/opencode-devbox");
    fs::copy(launcher(), &copy).unwrap();
    host.program(
        "docker",
        "case \"$1 $2\" in '--version ') ;; 'info --format') echo 'x|[]|28' ;; 'image ls') printf 'joakimp/opencode-devbox latest\\nother/joakimp/opencode-devbox latest\\njoakimp/opencode-devbox <none>\\n' ;;\n\
         'volume ls') printf 'devbox-data\\ndevbox-data-x-123\\ndevbox-data-backup\\ndevbox-pi\\nmy-devbox-pi\\n' ;; 'ps -q') ;; *) echo \"$@\" >> \"$HOME/did\" ;; esac",
    );
    let run = |args: &[&str]| {
        let mut command = Command::new(which("dash").unwrap());
        command.arg(&copy).args(args).env_clear().current_dir(&host.project).stdin(Stdio::null());
        command.env("HOME", host.root.path().join("home")).env("PATH", host.root.path().join("bin"));
        command.output().unwrap()
    };
    let output = run(&["uninstall", "--volumes"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    let named: Vec<_> =
        told.lines().filter(|line| line.starts_with("  image") || line.starts_with("  volume")).collect();
    assert_eq!(named.len(), 4, "{told}");
    assert!(copy.exists() && !host.root.path().join("home/did").exists());
    assert!(run(&["--yes", "uninstall", "--volumes"]).status.success());
    let did = fs::read_to_string(host.root.path().join("home/did")).unwrap();
    assert_eq!(
        did,
        "volume rm devbox-data devbox-data-x-123 devbox-pi\nimage rm joakimp/opencode-devbox:latest\n"
    );
    assert!(!copy.exists() && !host.root.path().join("home/.config/opencode-devbox").exists());
}

/// The engine's image before the pull has other versions than after it, and its launcher is newer.
#[test]
fn update_shows_what_changed_and_brings_the_launcher() {
    let host = linux().file("home/new", "#!/bin/sh\nlabel=opencode-devbox\necho new\n");
    let copy = host.root.path().join("home/opencode-devbox");
    let text = fs::read_to_string(launcher()).unwrap();
    fs::write(&copy, text.replacen("origin_versions=''", "origin_versions='opencode 1.18.15'", 1)).unwrap();
    host.program(
        "docker",
        "case \"$1 $2 $*\" in --version*) ;; info*) echo 'x|[]|28' ;; pull*) : > \"$HOME/pulled\" ;; ps*) ;;\n\
         'image inspect'*) [ -e \"$HOME/pulled\" ] && echo 2500000000 || echo 2400000000 ;;\n\
         run*' launcher '*) cat \"$HOME/new\" ;;\n\
         run*) if [ -e \"$HOME/pulled\" ]; then printf 'opencode 1.18.18 MIT\\nnode 24 MIT\\nuv 1 MIT\\n'; else printf 'opencode 1.18.15 MIT\\nnode 24 MIT\\npi 1 MIT\\n'; fi ;; esac",
    );
    let mut command = Command::new(which("dash").unwrap());
    command.arg(&copy).arg("update").env_clear().current_dir(&host.project).stdin(Stdio::null());
    command.env("HOME", host.root.path().join("home")).env("PATH", host.root.path().join("bin"));
    let output = command.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown, "opencode 1.18.15 → 1.18.18\npi removed: 1\nuv new: 1\nsize 2500 MB, before 2400 MB\n");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("pulling docker.io/joakimp/opencode-devbox:latest") && told.contains("updated "),
        "{told}"
    );
    assert!(fs::read_to_string(&copy).unwrap().contains("echo new"));
    // What is no launcher leaves the old one in place.
    fs::write(host.root.path().join("home/new"), "an error\n").unwrap();
    fs::write(&copy, text.replacen("origin_versions=''", "origin_versions='opencode 1.18.15'", 1)).unwrap();
    assert!(command.output().unwrap().status.success());
    assert!(fs::read_to_string(&copy).unwrap().contains("origin_versions='opencode 1.18.15'"));
    assert!(!copy.with_extension("new").exists());
}

#[test]
fn help_and_completions_know_every_command_and_option() {
    let host = linux();
    let text = fs::read_to_string(launcher()).unwrap();
    let list = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}='"))).unwrap();
        line.split('\'').nth(1).unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let help = String::from_utf8(host.run(&["--help"]).stdout).unwrap();
    let (_, parser) = text.split_once("while [ $# -gt 0 ]; do").unwrap();
    for option in list("options") {
        assert!(help.contains(&option) && parser.contains(&option), "{option}");
    }
    for command in list("commands") {
        assert!(
            help.contains(&format!("  {command}")) || help.contains(&format!(", {command}")),
            "{command}"
        );
    }
    let script = host.run(&["completions", "bash"]).stdout;
    let complete = |words: &str| {
        let count = words.split(' ').count() - 1;
        let script = format!(
            "{}\nCOMP_WORDS=({words}) COMP_CWORD={count}; _opencode_devbox; echo \"${{COMPREPLY[@]}}\"",
            String::from_utf8_lossy(&script)
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("opencode-devbox --variant om"), "omos omos-with-pi");
    assert_eq!(complete("opencode-devbox uni"), "uninstall");
    assert_eq!(complete("opencode-devbox --no-s"), "--no-ssh-agent");
    for shell in ["zsh", "fish"] {
        let output = String::from_utf8(host.run(&["completions", shell]).stdout).unwrap();
        assert!(
            output.contains("omos-with-pi") && output.contains("uninstall") && !output.contains('@'),
            "{output}"
        );
    }
}

#[test]
fn the_launcher_is_plain_shell_and_every_shell_reads_it() {
    let shellcheck = Command::new("shellcheck").arg(launcher()).output().unwrap();
    assert!(shellcheck.status.success(), "{}", String::from_utf8_lossy(&shellcheck.stdout));
    for shell in shells() {
        let read = Command::new(shell[0]).args(&shell[1..]).arg("-n").arg(launcher()).output().unwrap();
        assert!(read.status.success(), "{shell:?}");
    }
}

/// The launcher's commands in the pages, as far as they start something.
#[test]
fn every_launcher_command_in_a_page_is_one() {
    let host = linux().of_project("variant = omos\n");
    let found = all_commands("opencode-devbox ");
    symlink(launcher(), host.root.path().join("bin/opencode-devbox")).unwrap();
    for (page, command) in &found {
        let others = ["uninstall", "update", "stop", "doctor", "config"];
        if others.iter().any(|other| command.split(' ').any(|word| word == *other)) {
            continue;
        }
        let line = command.replacen("opencode-devbox ", "opencode-devbox --print ", 1);
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().current_dir(&host.project).env("HOME", host.root.path().join("home"));
        let output = shell.env("PATH", host.root.path().join("bin")).args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{page}: {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(found.len() > 10, "{found:?}");
}
