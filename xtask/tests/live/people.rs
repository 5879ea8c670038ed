//! Every kind of user: ids without names, workspaces anywhere, certificates and proxies of a company, terminals.

use std::process::{Command, Output};

use crate::container::{Stage, says, text};

#[test]
fn every_id_works_and_has_a_name() {
    let stage = Stage::new("ids");
    let names = r#"node -e 'console.log("node", require("os").userInfo().username)'; python3 -c 'import getpass, os, pwd; print("python", pwd.getpwuid(os.getuid()).pw_name)'
        opencode --version >/dev/null && echo agent; touch ~/.config/opencode/t && echo writes; ssh-keygen -q -t ed25519 -N "" -f /tmp/k && echo ssh; id -u"#;
    let data = format!("{}:/home/developer", stage.volume("home"));
    for (options, id) in [
        (&["-e", "PUID=1234567890", "-e", "PGID=1234567890"][..], "1234567890"),
        (&["-e", "PUID=4294967294", "-e", "PGID=4294967294"], "4294967294"),
        (&["--user", "12345"], "12345"),
        (&["--user", "2147483000:4242"], "2147483000"),
        (&["-e", "PUID=4242", "--read-only", "--tmpfs", "/tmp:exec", "-v", &data], "4242"),
        (
            &[
                "--user",
                "4242:4242",
                "--read-only",
                "--cap-drop",
                "ALL",
                "--tmpfs",
                "/tmp:exec",
                "--tmpfs",
                "/home/developer:exec",
            ],
            "4242",
        ),
    ] {
        let output = stage.run(options, &["bash", "-c", names]);
        let expected = format!("node developer\npython developer\nagent\nwrites\nssh\n{id}\n");
        assert!(text(&output).ends_with(&expected), "{options:?}: {}", text(&output));
    }
}

#[test]
fn docker_exec_is_the_users_shell_in_a_read_only_container() {
    let stage = Stage::new("exec");
    let options = [
        "--read-only",
        "-e",
        "PUID=4242",
        "-e",
        "PGID=4242",
        "--tmpfs",
        "/tmp:exec",
        "--tmpfs",
        "/home/developer:exec",
    ];
    let name = stage.start("shell", &options, &["sleep", "600"]);
    let exec =
        |command: &[&str]| Command::new("docker").args(["exec", &name]).args(command).output().unwrap();
    let script = "touch ~/.config/t && id -un && id -u && echo $PATH";
    let output = exec(&["devbox", "shell", "-c", script]);
    says(&output, "developer\n4242\n");
    says(&output, "/home/developer/.local/bin:/home/developer/.pi/npm-global/bin:/home/developer/go/bin");
}

#[test]
fn a_workspace_may_lie_anywhere() {
    let stage = Stage::new("anywhere");
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    assert!(Command::new("git").args(["init", "-q", &path]).status().unwrap().success());
    for target in
        [path.as_str(), "/home/me/code", "/var/www", "/opt/work", "/usr/src/app", "/root/code", "/workspace"]
    {
        let mount = format!("{path}:{target}");
        let output = stage.run(
            &["-v", &mount, "-w", target, "-e", "PUID=4242", "-e", "DEVBOX_MCP_MEMPALACE=off"],
            &["bash", "-c", "git status >/dev/null && echo usable; devbox doctor --wait 1 | grep workspace"],
        );
        says(&output, "usable\n");
        says(&output, &format!("{target}, owner"));
    }
}

#[test]
fn new_files_have_the_mask_that_was_asked_for() {
    let stage = Stage::new("umask");
    let name = stage.start("shell", &["-e", "UMASK=002"], &["sleep", "600"]);
    let made = stage.run(&["-e", "UMASK=077"], &["bash", "-c", "touch /tmp/a && stat -c %a /tmp/a"]);
    says(&made, "600\n");
    let script = ["bash", "-lc", "touch /tmp/b && stat -c %a /tmp/b"];
    let shell =
        Command::new("docker").args(["exec", "--user", "developer", &name]).args(script).output().unwrap();
    says(&shell, "664\n");
}

/// A rootless engine's own: root of the container is an ordinary user of the host.
#[test]
fn root_of_a_rootless_engine_is_the_user_and_has_no_privilege() {
    let stage = Stage::new("rootless");
    // What such an engine gives, made in a container that may: a namespace whose root is user 4242 outside, and others.
    let inside = "mount -t proc proc /proc; exec /usr/local/bin/devbox-entrypoint bash -c 'id -u; echo $HOME; grep CapEff /proc/self/status; \
                  touch ~/.config/opencode/t && echo writes; stat -c %u /workspace; opencode --version && echo agent'";
    let script = format!(
        "chown -R 4242:4242 /home/developer /workspace; chown 4242 /etc/passwd; \
         unshare --user --mount --pid --fork --map-users 0:4242:1 --map-users 1:100000:60000 --map-groups 0:4242:1 --map-groups 1:100000:60000 \
         --setuid 0 --setgid 0 bash -c \"{}\"",
        inside.replace('$', "\\$")
    );
    let options = ["--privileged", "--entrypoint", "/bin/bash", "-e", "PUID=0", "-e", "PGID=0"];
    let output = stage.run(&options, &["-c", &script]);
    for part in ["0\n/home/developer\n", "CapEff:\t0000000000000000\n", "writes\n0\n", "agent\n"] {
        says(&output, part);
    }
}

#[test]
fn logins_of_the_home_last_with_the_state_volume() {
    let stage = Stage::new("kept");
    let state = format!("{}:/home/developer/.local/state", stage.volume("state"));
    let write = "git config --global user.name Ann && echo docker > ~/.docker/config.json && echo cargo > ~/.cargo/credentials.toml && \
                 printf 'protocol=https\nhost=h\nusername=u\npassword=p\n\n' | git credential-store store && mkdir -p ~/.config/gh && echo login > ~/.config/gh/hosts.yml && npm config set //x/:_authToken=t";
    let first = stage.run(&["-v", &state], &["bash", "-c", write]);
    assert!(first.status.success(), "{}", text(&first));
    let read = "git config user.name; cat ~/.config/gh/hosts.yml ~/.npmrc ~/.docker/config.json ~/.cargo/credentials.toml ~/.git-credentials";
    let kept = "Ann\nlogin\n//x/:_authToken=t\ndocker\ncargo\nhttps://u:p@h\n";
    says(&stage.run(&["-v", &state], &["bash", "-c", read]), kept);
    says(
        &stage.run(
            &["-v", &state, "--read-only", "--tmpfs", "/home/developer", "--tmpfs", "/tmp"],
            &["bash", "-c", read],
        ),
        "Ann\nlogin",
    );
}

#[test]
fn git_lfs_stores_pointers_and_npm_caches_lie_in_their_volume() {
    let stage = Stage::new("tools");
    let script = r#"cd /tmp && git init -q r && cd r && git lfs track '*.bin' >/dev/null && head -c 100000 /dev/zero > a.bin && git add . && git cat-file -p :a.bin
        npm config get prefix; npm config get cache; go env GOMODCACHE; env | grep -i ^npm_config || echo no npm variable"#;
    let output = stage.run(&[], &["bash", "-c", script]);
    says(&output, "version https://git-lfs.github.com/spec/v1\n");
    says(
        &output,
        "/home/developer/.pi/npm-global\n/home/developer/.cache/npm\n/home/developer/.cache/go/mod\nno npm variable\n",
    );
}

#[test]
fn zones_and_terminals_of_all_kinds_are_known() {
    let stage = Stage::new("zones");
    let output = stage.run(&["-e", "TZ=US/Eastern"], &["date", "+%Z"]);
    assert!(["EST\n", "EDT\n"].contains(&text(&output).as_str()), "{}", text(&output));
    let terminal = |name: &str| {
        let term = format!("TERM={name}");
        text(&stage.run(
            &["--tty", "-e", &term, "-e", "DEVBOX_GREETING=off"],
            &["bash", "-c", "echo $TERM $COLORTERM; tput colors"],
        ))
    };
    assert_eq!(terminal("alacritty").trim().replace('\r', ""), "alacritty truecolor\n256");
    assert_eq!(terminal("xterm-ghostty").trim().replace('\r', ""), "xterm-256color truecolor\n256");
    // As a host hands them over, and in a shell beside the first.
    let both = ["--tty", "-e", "TERM=xterm-ghostty", "-e", "COLORTERM=24bit"];
    says(&stage.run(&both, &["bash", "-c", "echo $TERM $COLORTERM"]), "xterm-256color 24bit");
    let name = stage.start("terminal", &[], &["sleep", "600"]);
    let exec = ["exec", "--tty", "-e", "TERM=xterm-rio", &name, "bash", "-lc", "echo $TERM; tput colors"];
    says(&docker(&exec), "xterm-256color\r\n256");
    let wrong = stage.run(&["-e", "TZ=Mars/Base"], &["date", "+%Z"]);
    assert_eq!(String::from_utf8_lossy(&wrong.stdout), "UTC\n");
}

/// The rows of `docs/image.md` for the engine that every machine of the tests has, found again by the script that printed them.
#[test]
fn the_table_of_engines_holds_what_its_script_finds() {
    let stage = Stage::new("row");
    let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(tree.join("docs/image.md")).unwrap();
    let row = |name: &str, image: &str, options: &str| {
        let mut script = Command::new(tree.join("scripts/engine-row.sh"));
        script.args([name, image, "docker"]).args(options.split_ascii_whitespace());
        script.env("WORK_OWNER", "1234:1234").output().unwrap()
    };
    for name in ["Docker, rootful", "Docker, any user, hardened"] {
        let line = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
        let (options, cells) = line.split('`').skip(1).step_by(2).next().zip(line.rsplit_once('`')).unwrap();
        assert_eq!(cells.1, " | ✓ | ✓ | ✓ | ✓ | ✓ |");
        let output = row(name, &stage.image, options);
        let expected = format!("| {name} | works | works | works | works | works |\n");
        assert_eq!(text(&output), expected);
        assert!(output.status.success());
    }
    // A user who may not write the folder: that cell and the agent's fail, and so does the script.
    let output = row("Other user", &stage.image, "--user 4242:4242");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(found, "| Other user | works | fails | works | fails | works |\n", "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    says(&output, "Other user: workspace writes: ");
    // An image without the program.
    let output = row("No image", "localhost:9/none:none", "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "| No image | fails | fails | fails | fails | fails |\n"
    );
    let usage = Command::new(tree.join("scripts/engine-row.sh")).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// Apple's ssh knows an option that no other does: here the folder is mounted as it is, and may not be changed.
#[test]
fn settings_of_a_mac_do_not_end_ssh() {
    let stage = Stage::new("mac");
    let folder = tempfile::TempDir::new().unwrap();
    let mount = format!("{}:/home/developer/.ssh:ro", folder.path().display());
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = folder.path().join("config");
    let found = |text: &str| {
        std::fs::write(&config, text).unwrap();
        stage.run(&["-v", &mount], &["bash", "-c", "ssh -G work | grep -E '^(hostname|ignoreunknown) '"])
    };
    says(&found("Host work\n  usekeychain yes\n  HostName h.example\n"), "hostname h.example\n");
    // Whoever has an answer of their own keeps it.
    says(&found("IgnoreUnknown UseKeychain,Foo\nHost work\n  UseKeychain yes\n  Foo 1\n"), "hostname work\n");
}

fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().unwrap()
}

const AUTHORITY: &str = "cd /ca && openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=Authority -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null &&
        openssl req -newkey rsa:2048 -nodes -keyout host.key -out host.csr -subj /CN=inspected 2>/dev/null &&
        printf 'subjectAltName=DNS:inspected' > ext && openssl x509 -req -in host.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out host.crt 2>/dev/null &&
        mkdir -p only && cp ca.crt only/ && chmod -R a+rX .";

const INSPECTED: &str = "import http.server, ssl
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_PUT(self): self.do_GET()
    def do_POST(self): self.do_GET()
    def do_GET(self):
        self.send_response(404); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'{}')
server = http.server.ThreadingHTTPServer(('', 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain('/ca/host.crt', '/ca/host.key')
server.socket = context.wrap_socket(server.socket, server_side=True); server.serve_forever()";

/// A host whose certificate an own authority has signed, as a proxy that inspects TLS shows it.
#[test]
fn one_variable_makes_every_tool_trust_an_own_authority() {
    let stage = Stage::new("trust");
    let (network, certificates) = (stage.volume("net"), format!("{}:/ca", stage.volume("ca")));
    assert!(docker(&["network", "create", &network]).status.success());
    let made = stage.run(&["--entrypoint", "/bin/bash", "-v", &certificates], &["-c", AUTHORITY]);
    assert!(made.status.success(), "{}", text(&made));
    let host = stage.volume("host");
    let started = docker(&[
        "run",
        "-d",
        "--name",
        &host,
        "--label",
        &stage.name,
        "--network",
        &network,
        "--network-alias",
        "inspected",
        "-v",
        &certificates,
        "--entrypoint",
        "/usr/bin/python3",
        &stage.image,
        "-c",
        INSPECTED,
    ]);
    assert!(started.status.success(), "{}", text(&started));
    let ask = "for _ in $(seq 50); do curl -skm 2 -o /dev/null https://inspected/ && break; sleep 0.2; done
        npm config set registry https://inspected/ 2>/dev/null; devbox doctor --wait 1 | grep -E '^[A-Za-z]+ +tls'
        sudo curl -sS -o /dev/null https://inspected/ 2>&1 && echo 'sudo trusts'";
    let run = |options: &[&str]| {
        let options = [
            &[
                "--network",
                &network,
                "-v",
                &certificates,
                "-e",
                "DEVBOX_MCP_MEMPALACE=off",
                "-e",
                "DEVBOX_MCP_CONTEXT7=off",
            ],
            options,
        ]
        .concat();
        text(&stage.run(&options, &["bash", "-c", ask]))
    };
    let without = run(&[]);
    for tool in ["curl", "wget", "git", "node", "python", "aws", "uv", "npm"] {
        assert!(without.contains(&format!("tls of {tool}")), "{tool}: {without}");
    }
    for given in ["DEVBOX_CA_FILE=/ca/ca.crt", "DEVBOX_CA_FILE=/ca/only", "SSL_CERT_FILE=/ca/ca.crt"] {
        let with = run(&["-e", given]);
        assert!(
            with.contains("ok   tls of tools     curl, wget, git, node, python, aws, uv, npm"),
            "{given}: {with}"
        );
        assert!(with.contains("sudo trusts"), "{given}: {with}");
        assert!(!with.contains("BAD"), "{given}: {with}");
    }
}

#[test]
fn an_agent_that_only_root_reaches_serves_the_user() {
    let stage = Stage::new("desktop");
    // Docker Desktop's socket: root's, with the mode 0660, in front of an agent of somebody else's.
    let script = r#"mkdir /run/host && ssh-agent -a /run/host/real >/dev/null && ssh-keygen -q -t ed25519 -N '' -f /run/host/key &&
        SSH_AUTH_SOCK=/run/host/real ssh-add -q /run/host/key
        socat UNIX-LISTEN:/run/host/ssh-auth.sock,fork,mode=0660 UNIX-CONNECT:/run/host/real &
        while [ ! -S /run/host/ssh-auth.sock ]; do sleep 0.1; done; chmod 755 /run/host
        export SSH_AUTH_SOCK=/run/host/ssh-auth.sock
        exec devbox-entrypoint bash -c 'for _ in $(seq 50); do ssh-add -l && break; sleep 0.1; done; id -u; ps -eo user:20,args | grep "[U]NIX-CONNECT:/run/host/ssh"'"#;
    let output = stage.run(&["--entrypoint", "/bin/bash"], &["-c", script]);
    says(&output, "ED25519");
    says(&output, "\n1000\n");
    assert!(
        text(&output).lines().any(|line| line.starts_with("developer") && line.contains("mode=0600")),
        "{}",
        text(&output)
    );
}

#[test]
fn a_login_that_calls_back_is_reached_from_outside() {
    let stage = Stage::new("callback");
    let script = "python3 -m http.server --bind 127.0.0.1 1455 >/dev/null 2>&1 & curl -s --retry 20 --retry-connrefused --retry-delay 1 \
                  -o /dev/null -w '%{http_code}\\n' http://$(hostname -i):1455/";
    says(&stage.run(&["-e", "DEVBOX_CALLBACK_PORTS=1455,19876"], &["bash", "-c", script]), "200\n");
    // Where localhost means its address of IPv6, as Node takes it.
    let script = script.replace("--bind 127.0.0.1", "--bind ::1");
    says(&stage.run(&["-e", "DEVBOX_CALLBACK_PORTS=1455"], &["bash", "-c", &script]), "200\n");
    let wrong = stage.run(&[], &["devbox", "forward", "http"]);
    assert_eq!(wrong.status.code(), Some(64));
    says(&wrong, "devbox: forward http: expected ports");
    says(&stage.run(&["--network", "none"], &["devbox", "forward", "1455"]), "this container has no network");
}
