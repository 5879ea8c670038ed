//! Nobody becomes root, and no server is open to everybody: real containers with whatever a user may have left in them.

use std::process::{Command, Output};

use crate::container::{Stage, says, text};

const AUDIT: &str = include_str!("../devbox/audit_root.py");

fn exec(name: &str, options: &[&str], command: &[&str]) -> Output {
    Command::new("docker").arg("exec").args(options).arg(name).args(command).output().unwrap()
}

/// Run by the user: a trap wherever root may look for a program, a module or a startup file.
const TRAPS: &str = r#"
trap='[ "$(/usr/bin/id -u)" != 0 ] || echo "$0 $*" >> /workspace/became-root'
for folder in ~/.local/bin ~/bin ~/.pi/npm-global/bin ~/go/bin /workspace; do
  mkdir -p $folder
  for name in devbox opencode pi bash sh env python3 node npm npx git git-lfs ssh getent id mktemp mempalace mempalace-mcp \
      curl aws uv tini gosu sudo ls cat ps sleep true xdg-open lesspipe dircolors not-in-the-image; do
    printf '#!/bin/sh\n%s\n' "$trap" > $folder/$name
    chmod 755 $folder/$name
  done
done
for file in ~/.bashrc ~/.profile ~/.bash_profile ~/.bash_login ~/.bash_logout ~/.bash_completion ~/.inputrc-none /workspace/.envrc; do
  echo "$trap" > $file
done
module='import os
if os.geteuid() == 0: open("/workspace/became-root", "a").write(__file__ + "\n")'
for folder in ~/.local/lib/python3.13/site-packages /workspace; do
  mkdir -p $folder
  for name in sitecustomize usercustomize devbox; do echo "$module" > $folder/$name.py; done
done
echo 'require("fs").appendFileSync("/workspace/became-root", process.getuid() === 0 ? "node\n" : "")' > /workspace/trap.js
mkdir -p ~/.pi/npm-global/etc ~/.mempalace ~/.ssh ~/.aws
for file in ~/.npmrc ~/.pi/npm-global/etc/npmrc; do echo 'node-options=--require /workspace/trap.js' > $file; done
cd /workspace && /usr/bin/git init -q && /usr/bin/git config core.fsmonitor /workspace/sh && /usr/bin/git config core.pager /workspace/sh
printf '#!/bin/sh\n%s\n' "$trap" | tee .git/hooks/post-checkout > .git/hooks/post-index-change && chmod 755 .git/hooks/*
rm -rf ~/.local/state && ln -s /etc ~/.local/state
rm -rf ~/.cache && ln -s /root ~/.cache
rm -f ~/.mempalace/.devbox-owner && ln -s /etc/shadow ~/.mempalace/.devbox-owner
rm -rf ~/.ssh && ln -s /etc/ssh ~/.ssh
"#;

/// As root, with and without a shell, and by what the engine itself starts.
const AS_ROOT: [&[&str]; 18] = [
    &["devbox", "health"],
    &["devbox", "versions"],
    &["devbox", "config", "show"],
    &["opencode", "--version"],
    &["mempalace", "--help"],
    &["bash", "-c", "id"],
    &["bash", "-ic", "id"],
    &["bash", "-lic", "id"],
    &["sh", "-lc", "id"],
    &["python3", "-c", "import json, re"],
    &["node", "--version"],
    &["npm", "config", "list"],
    &["npx", "--version"],
    &["git", "-C", "/workspace", "status"],
    &["uv", "--version"],
    &["aws", "--version"],
    &["ssh", "-V"],
    &["not-in-the-image"],
];

#[test]
fn nothing_that_the_user_has_left_runs_as_root() {
    let stage = Stage::new("root");
    let home = format!("{}:/home/developer", stage.volume("home"));
    let work = format!("{}:/workspace", stage.volume("work"));
    let ssh = format!("{}:/mnt/ssh", stage.volume("ssh"));
    let options = [
        "--security-opt",
        "no-new-privileges",
        "-v",
        &home,
        "-v",
        &work,
        "-v",
        &ssh,
        "-e",
        "PUID=4242",
        "-e",
        "PGID=4343",
    ];
    let give = "chown 4242:4343 /workspace && echo key > /mnt/ssh/id && chmod 600 /mnt/ssh/id && chown 4242:4343 /mnt/ssh/id";
    let given = stage.run(&["--entrypoint", "/bin/bash", "-v", &work, "-v", &ssh], &["-c", give]);
    assert!(given.status.success(), "{}", text(&given));
    let name = stage.start("victim", &options, &["sleep", "3600"]);
    let trapped =
        exec(&name, &["--user", "4242:4343", "--env", "HOME=/home/developer"], &["/bin/bash", "-c", TRAPS]);
    assert!(trapped.status.success(), "{}", text(&trapped));
    let traps = exec(&name, &[], &["/usr/bin/ls", "/workspace", "/home/developer/.local/bin"]);
    assert_eq!(text(&traps).matches("not-in-the-image\n").count(), 2, "{}", text(&traps));
    let before =
        exec(&name, &[], &["/usr/bin/stat", "-c", "%n %u:%g %a", "/etc", "/etc/shadow", "/etc/ssh", "/root"]);
    let docker = |args: &[&str]| Command::new("docker").args(args).arg(&name).output().unwrap();
    assert!(docker(&["restart", "--time", "2"]).status.success());
    for command in AS_ROOT {
        let output = exec(&name, &["--workdir", "/workspace"], command);
        assert!(
            !output.status.success() || command != ["not-in-the-image"],
            "{command:?}: {}",
            text(&output)
        );
    }
    // The engine's own words for the health check.
    let check = text(&docker(&["inspect", "--format", "{{json .Config.Healthcheck.Test}}"]));
    let words: Vec<String> = serde_json::from_str(&check).unwrap();
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    says(&exec(&name, &[], &words), "running");
    let log = exec(&name, &[], &["/usr/bin/cat", "/workspace/became-root"]);
    assert!(!log.status.success(), "run as root: {}", text(&log));
    let after =
        exec(&name, &[], &["/usr/bin/stat", "-c", "%n %u:%g %a", "/etc", "/etc/shadow", "/etc/ssh", "/root"]);
    assert_eq!(
        text(&before),
        text(&after),
        "a link of the user's was followed: {}",
        text(&docker(&["logs"]))
    );
}

#[test]
fn root_resolves_no_path_that_the_user_can_write() {
    let stage = Stage::new("audit");
    let home = format!("{}:/home/developer", stage.volume("home"));
    let base = ["--entrypoint", "/usr/bin/python3", "-v", &home, "-e", "PUID=4242"];
    for program in [
        "/usr/local/bin/devbox-entrypoint true",
        "/usr/local/bin/devbox health",
        "/usr/local/bin/devbox versions",
        "/usr/local/bin/devbox doctor",
        "/usr/local/bin/devbox setup",
        "/usr/local/bin/devbox config show",
        "/usr/local/bin/opencode serve",
        "/usr/local/bin/mempalace-mcp",
    ] {
        let mut command = vec!["-ISc", AUDIT];
        command.extend(program.split(' '));
        let output = stage.run(&base, &command);
        assert!(output.status.success(), "{program}: {}", text(&output));
        says(&output, "paths as root");
    }
    let image = Command::new("docker")
        .args(["inspect", "--format", "{{json .Config}}", &stage.image])
        .output()
        .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&image.stdout).unwrap();
    for (what, words) in [
        ("entrypoint", &config["Entrypoint"][0]),
        ("command", &config["Cmd"][0]),
        ("health", &config["Healthcheck"]["Test"][1]),
    ] {
        assert!(words.as_str().unwrap().starts_with('/'), "{what}: {words}");
    }
    let named: Vec<_> = config["Env"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| pair.as_str().unwrap().contains("/home/"))
        .collect();
    assert!(named.is_empty(), "{named:?}");
    let sudo = stage
        .run(&["--entrypoint", "/bin/bash"], &["-c", "grep -h secure_path /etc/sudoers /etc/sudoers.d/*"]);
    says(&sudo, "secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"");
}

/// Each way to open a port, with the address that it then has.
const SERVERS: [&str; 9] = [
    "serve --port 4096",
    "--print-logs serve --port 4096",
    "--log-level DEBUG serve --port 4096",
    "--pure serve --port=4096",
    "--port 4096 serve",
    "web --port 4096 --hostname 0.0.0.0",
    "--port 4096",
    "--hostname=0.0.0.0 --port 4096",
    "acp --port 4096",
];

#[test]
fn every_open_port_asks_for_the_given_password() {
    let stage = Stage::new("password");
    // `script` is the terminal that its interface wants, and an open pipe the editor that talks to `acp`.
    let each = r#"echo smoke-password > /tmp/password
export OPENCODE_SERVER_PASSWORD_FILE=/tmp/password
ask() { curl -s -m 20 -o /dev/null -w '%{http_code}' "$@" http://127.0.0.1:4096/global/health; }
(sleep 600 | setsid script -qec "opencode $WORDS" /dev/null >/tmp/log 2>&1) &
for _ in $(seq 400); do [ "$(ask)" = 000 ] || break; sleep 0.3; done
echo "closed: $(ask) open: $(ask -u opencode:smoke-password) health: $(devbox health 2>&1)"
tail -c 300 /tmp/log"#;
    // A start takes seconds of waiting, and each has a network of its own.
    let ask = |words: &&str| {
        let words = format!("WORDS={words}");
        let output = stage.run(&["-e", &words], &["bash", "-c", each]);
        let answer = text(&output);
        assert!(answer.contains("closed: 401 open: 200 health: serving"), "{words}: {answer}");
        Ok(())
    };
    xtask::tools::parallel::side_by_side(&SERVERS, ask).unwrap();
}

#[test]
fn no_server_is_open_to_other_hosts_without_a_password() {
    let stage = Stage::new("open");
    for words in [
        "serve --hostname 0.0.0.0",
        "--print-logs web --hostname=::",
        "--hostname 0.0.0.0",
        "serve --mdns",
        "acp --hostname 0.0.0.0",
    ] {
        let mut command = vec!["opencode"];
        command.extend(words.split(' '));
        let output = stage.run(&[], &command);
        assert_eq!(output.status.code(), Some(64), "{words}: {}", text(&output));
        let lines = text(&output);
        let said = lines.lines().filter(|line| {
            line.contains("without a password") && line.contains("DEVBOX_ALLOW_OPEN_SERVER=on")
        });
        assert_eq!(said.count(), 1, "{lines}");
    }
    let file = r#"mkdir -p ~/.config/opencode && echo '{"server": {"hostname": "0.0.0.0"}}' > ~/.config/opencode/opencode.json && opencode serve"#;
    assert_eq!(stage.run(&[], &["bash", "-c", file]).status.code(), Some(64));
    let missing = ["-e", "OPENCODE_SERVER_PASSWORD_FILE=/none"];
    says(
        &stage.run(&missing, &["opencode", "serve"]),
        "devbox: OPENCODE_SERVER_PASSWORD_FILE=/none: no password can be read from it",
    );
    let name = stage.start(
        "allowed",
        &["-e", "DEVBOX_ALLOW_OPEN_SERVER=on"],
        &["opencode", "serve", "--hostname", "0.0.0.0"],
    );
    let serving = (0..60).any(|_| {
        std::thread::sleep(std::time::Duration::from_secs(1));
        text(&exec(&name, &[], &["devbox", "health"])).contains("serving")
    });
    assert!(serving, "{}", text(&exec(&name, &[], &["devbox", "health"])));
}
