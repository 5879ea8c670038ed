//! `opencode-devbox`, the launcher on the host, with real containers.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::container::{Stage, says, text};
use crate::images::image_of;
use crate::support::launcher;

/// The launcher that an image has printed, for real containers with volumes of this test's own.
struct Installed {
    stage: Stage,
    home: TempDir,
}

impl Installed {
    /// Runs the page's own command, with the image under test in place of the published one.
    fn new(test: &str) -> Self {
        let stage = Stage::new(test);
        let home = TempDir::new().unwrap();
        let tagged = ["tag", &stage.image, &format!("{}:latest", stage.name)].map(str::to_owned);
        assert!(Command::new("docker").args(tagged).status().unwrap().success());
        let page = fs::read_to_string(launcher().with_file_name("../../../../README.md")).unwrap();
        let line = page.lines().find(|line| line.contains(" launcher > ")).unwrap();
        let from = format!("{0} launcher --image {0}", stage.name);
        let line = line.replace("joakimp/opencode-devbox launcher", &from);
        let installed =
            Command::new("/bin/sh").args(["-c", &line]).env("HOME", home.path()).output().unwrap();
        assert!(installed.status.success(), "{line}: {}", text(&installed));
        let this = Self { stage, home };
        let script = fs::read_to_string(this.script()).unwrap();
        assert!(script.contains("\norigin_variant='base'\n"), "the variant is not known");
        // Volumes of the person who runs this test are left alone.
        let own = regex::Regex::new("(?m)(^volumes='|^|[ =])devbox-(config|data|state|cache|pi|palace)\\b")
            .unwrap();
        let script = own.replace_all(&script, |found: &regex::Captures| {
            format!("{}{}-{}", &found[1], this.stage.name, &found[2])
        });
        fs::write(this.script(), script.as_ref()).unwrap();
        this
    }

    fn script(&self) -> PathBuf {
        self.home.path().join(".local/bin/opencode-devbox")
    }

    fn project(&self, name: &str) -> PathBuf {
        let project = self.home.path().join(format!("{}-{name}", self.stage.name));
        fs::create_dir_all(&project).unwrap();
        // Root has no ids that a container takes on.
        if fs::metadata(&project).unwrap().uid() == 0 {
            std::os::unix::fs::chown(&project, Some(4242), Some(4242)).unwrap();
            fs::set_permissions(self.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        project
    }

    fn command(&self, project: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(self.script());
        command.args(args).current_dir(project).env("HOME", self.home.path()).stdin(Stdio::null());
        for name in ["DEVBOX_CA_FILE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSH_AUTH_SOCK"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, project: &Path, args: &[&str]) -> Output {
        self.command(project, args).output().unwrap()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let script = format!(
            "docker ps -aq --filter name={0} | xargs -r docker rm -f; docker image rm {0}:latest",
            self.stage.name
        );
        // The stage removes the volumes; what cannot be removed is left.
        let _ = Command::new("sh").args(["-c", &script]).output();
    }
}

/// Waits for a line of a program that goes on.
fn awaited(child: &mut std::process::Child, part: &str) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    while !seen.contains(part) {
        let line = lines.next().unwrap_or_else(|| panic!("no {part:?} in:\n{seen}")).unwrap();
        seen.push_str(&line);
        seen.push('\n');
    }
    std::thread::spawn(move || lines.for_each(drop));
    seen
}

#[test]
fn the_installed_launcher_starts_joins_and_stops() {
    let installed = Installed::new("launcher");
    let project = installed.project("one");
    let owner = fs::metadata(&project).unwrap().uid();
    // Input, output and exit code pass through; the container is hardened, and the files are the owner's.
    let probe = "cat; id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status | tr '\\n\\t' '  '; touch file; \
                 touch /etc/x 2>/dev/null || echo read-only; echo \"$OPENAI_API_KEY $HOME\"; exit 7";
    let mut command = installed.command(&project, &["exec", "sh", "-c", probe]);
    command.env("OPENAI_API_KEY", "sk-test").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let expected = format!(
        "input\n{owner}\nCapEff: 0000000000000000 NoNewPrivs: 1 read-only\nsk-test /home/developer\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(fs::metadata(project.join("file")).unwrap().uid(), owner);
    // A second start joins the first, which stays until the second has ended.
    let mut first = installed.command(&project, &["exec", "sh", "-c", "echo started; cat"]);
    let mut first = first.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    awaited(&mut first, "started");
    let mut second = installed.command(&project, &["exec", "sh", "-c", "hostname; cat; id -u; exit 5"]);
    let mut second = second.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let host = awaited(&mut second, "\n");
    let containers = format!("docker ps -q --filter name={}-one", installed.stage.name);
    let count =
        || String::from_utf8(Command::new("sh").args(["-c", &containers]).output().unwrap().stdout).unwrap();
    assert!(count().trim().len() == 12 && host.trim().starts_with(count().trim()), "{host}");
    says(&installed.run(&project, &["ls"]), &format!("{}-one", installed.stage.name));
    drop(first.stdin.take());
    assert_eq!(first.try_wait().unwrap(), None, "the container ends under the second session");
    drop(second.stdin.take());
    assert_eq!(second.wait().unwrap().code(), Some(5));
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(count(), "");
    says(&installed.run(&project, &["stop"]), "no container is running");
}

#[test]
fn a_server_has_its_password_and_a_project_its_own_sessions() {
    let installed = Installed::new("launcher-serve");
    let (one, two) = (installed.project("one"), installed.project("two"));
    let mut serve = installed.command(&one, &["serve"]);
    let mut serve = serve.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(serve.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = told.next().unwrap();
    std::thread::spawn(move || told.for_each(drop));
    let words: Vec<&str> = first.split([' ', ',']).collect();
    let (url, password) = (words[1], *words.last().unwrap());
    awaited(&mut serve, "listening on");
    let ask = |header: Option<String>, path: &str, login: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--noproxy", "*", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"]);
        curl.args(header.iter().flat_map(|user| ["-u", user.as_str()]));
        curl.args(
            login.iter().flat_map(|json| ["-X", "PUT", "-H", "content-type: application/json", "-d", json]),
        );
        String::from_utf8(curl.arg(format!("{url}{path}")).output().unwrap().stdout).unwrap()
    };
    let user = || Some(format!("opencode:{password}"));
    assert_eq!(ask(None, "/global/health", None), "401");
    assert_eq!(ask(user(), "/global/health", None), "200");
    says(&installed.run(&one, &["serve"]), &format!("already serving on {url}"));
    // A login of one project is known in the other, whose sessions are its own.
    assert_eq!(ask(user(), "/auth/openai", Some(r#"{"type":"api","key":"k"}"#)), "200");
    let look = "cat ~/.local/share/opencode/auth.json; ls ~/.local/share/opencode";
    let output = installed.run(&two, &["exec", "sh", "-c", look]);
    says(&output, r#""key": "k""#);
    assert!(!text(&output).contains("opencode.db"), "{}", text(&output));
    says(&installed.run(&one, &["stop"]), "stopped");
    assert_eq!(serve.wait().unwrap().code(), Some(143));
}

#[test]
fn a_confined_container_reaches_listed_hosts_only() {
    let installed = Installed::new("launcher-egress");
    let project = installed.project("one");
    // A server of this host, which an open container does reach.
    let server = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let ask = "curl -s -o /dev/null -m 20 -w '%{http_connect} ' https://$0/; ip -4 -o addr show eth0 | grep -o '[0-9.]*/' | head -1";
    let addresses = Command::new("hostname").arg("-I").output().unwrap().stdout;
    let host = String::from_utf8(addresses).unwrap();
    let direct = host.split_whitespace().filter(|address| address.contains('.')).map(|address| {
        format!(
            "timeout 5 bash -c 'echo > /dev/tcp/{address}/{port}' 2>/dev/null && echo reached {address}; "
        )
    });
    let script = format!("{}{ask}; getent hosts example.org; exit 6", direct.collect::<String>());
    let args = ["--egress", "allowlist", "exec", "bash", "-c", &script, "example.org"];
    let mut command = installed.command(&project, &args);
    for name in ["HTTPS_PROXY", "https_proxy"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", text(&output));
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(seen.starts_with("403 ") && seen.lines().count() == 1, "{}", text(&output));
    let left = format!(
        "docker ps -aq --filter name=egress-{0}; docker network ls -q --filter name=egress-{0}",
        installed.stage.name
    );
    assert!(Command::new("sh").args(["-c", &left]).output().unwrap().stdout.is_empty(), "something is left");
}

/// Shells that are not on every machine: the launcher runs in them, and its completions do.
#[test]
fn busybox_zsh_and_fish_read_what_they_get() {
    let recipe = "RUN apt-get -qq update && apt-get -qq -y --no-install-recommends install busybox zsh fish git >/dev/null\n";
    let image = image_of("shells", recipe);
    let script = format!(
        "cat > /launcher && mkdir /project && cd /project && HOME=/home\n\
         printf '#!/bin/sh\\ncase $1 in --version) echo Docker;; info) echo \"x|[]|28\";; container) exit 1;; esac\\n' > /usr/bin/docker\n\
         chmod +x /usr/bin/docker\n{}",
        "dash /launcher --no-network --print run \"it's\" > /expected\n\
         grep -q 'opencode run' /expected || exit 1\n\
         busybox sh /launcher --no-network --print run \"it's\" | cmp - /expected || exit 2\n\
         zsh --emulate sh /launcher --no-network --print run \"it's\" | cmp - /expected || exit 3\n\
         dash /launcher completions zsh > /zsh\n\
         zsh -fc 'autoload -Uz compinit && compinit -u && source /zsh && [[ $_comps[opencode-devbox] == _opencode_devbox ]]' || exit 4\n\
         dash /launcher completions fish > /fish\n\
         fish -c 'source /fish; complete -C \"opencode-devbox --variant om\"' | grep -qx omos || exit 5\n\
         fish -c 'source /fish; complete -C \"opencode-devbox uni\"' | grep -q '^uninstall' || exit 6\n"
    );
    let mut docker = Command::new("docker");
    docker.args(["run", "--rm", "--interactive", "--network=none", &image, "sh", "-c", &script]);
    let output = docker.stdin(fs::File::open(launcher()).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, text(&output));
}
