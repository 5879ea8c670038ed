//! Agents at work: a model's server that always answers the same is in the container, and the real agents do the rest.
//! None of it has a network, and all of it runs hardened, as a user whom the image does not know.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::container::{Stage, says, text};
use crate::images::image_of;

const SERVER: &str = include_str!("../../../scripts/smoke/programs/model-server.py");
const CLIENT: &str = include_str!("../devbox/client.py");
const TERMINAL: &str = include_str!("../devbox/terminal.sh");
const BROWSER: &str = include_str!("../devbox/browser.mjs");
const OPENCODE: &str = r#"{"model": "stub/one", "small_model": "stub/one", "permission": {"bash": "allow"},
    "provider": {"stub": {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": "http://127.0.0.1:8000/v1", "apiKey": "none"},
    "models": {"one": {"name": "one", "tool_call": true, "limit": {"context": 100000, "output": 4000}}}}}}"#;
const PI: &str = r#"{"providers": {"stub": {"baseUrl": "http://127.0.0.1:8000/v1", "api": "openai-completions", "apiKey": "none",
    "models": [{"id": "one", "name": "one", "contextWindow": 100000, "maxTokens": 4000}]}}}"#;
const HARD: &str = "--user 4242:4242 --read-only --cap-drop ALL --security-opt no-new-privileges \
    --tmpfs /tmp:exec --tmpfs /home/developer:exec";

/// A work folder that any user can write, and the model's server.
struct Work {
    stage: Stage,
    options: Vec<String>,
}

impl Work {
    fn new(stage: Stage) -> Self {
        let volume = format!("{}:/workspace", stage.volume("work"));
        // With a file in it: an engine gives an empty volume the image's mode again.
        let open = "touch /workspace/keep && chmod 777 /workspace";
        let opened = stage.run(&["--entrypoint", "/bin/sh", "-v", &volume], &["-c", open]);
        assert!(opened.status.success(), "{}", text(&opened));
        let mut options = vec!["--network".to_owned(), "none".to_owned(), "-v".to_owned(), volume];
        let variables = [
            format!("SERVER={SERVER}"),
            format!("OPENCODE_CONFIG_CONTENT={OPENCODE}"),
            format!("PI_MODELS={PI}"),
            "DEVBOX_MCP_CONTEXT7=off".to_owned(),
        ];
        options.extend(variables.into_iter().flat_map(|variable| ["-e".to_owned(), variable]));
        Self { stage, options }
    }

    fn options<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.options.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    /// Runs the agent's words in the work folder, and prints what it has made.
    fn run(&self, options: &[&str], words: &str) -> Output {
        let script = format!(
            "cd /workspace && rm -f made.txt; python3 -c \"$SERVER\" 8000 & sleep 1; cd /workspace; {words}; echo \"exit $?\"; \
             cat made.txt; stat -c %u:%g made.txt; rm -f made.txt"
        );
        self.stage.run(&self.options(options), &["bash", "-c", &script])
    }

    #[track_caller]
    fn makes_the_file(&self, words: &str) {
        let output = self.run(&hard(), words);
        says(&output, "exit 0\nmade by the agent\n4242:4242\n");
    }
}

fn hard() -> Vec<&'static str> {
    HARD.split_ascii_whitespace().collect()
}

/// `docker exec` with a limit, since a container that hangs ends nothing.
fn inside(container: &str, words: &[&str]) -> Output {
    Command::new("timeout").args(["400", "docker", "exec", container]).args(words).output().unwrap()
}

#[test]
fn opencode_writes_a_file_with_the_right_owner() {
    let work = Work::new(Stage::new("agent"));
    let words = "timeout 400 opencode run 'make the file' 2>&1";
    work.makes_the_file(words);
    let output = work.run(&["-e", "PUID=1234567890", "-e", "PGID=77"], words);
    says(&output, "exit 0\nmade by the agent\n1234567890:77\n");
    assert!(!text(&work.run(&[], "true")).contains("made by the agent"));
}

#[test]
fn the_orchestrator_has_a_sub_agent_write_the_file() {
    let work = Work::new(Stage::with_all("orchestrator"));
    let words = "timeout 400 opencode run 'delegate: make the file' > /tmp/out 2>&1; code=$?; \
        grep -q '> orchestrator' /tmp/out && grep -q 'Fixer Agent' /tmp/out || cat /tmp/out; (exit $code)";
    work.makes_the_file(words);
}

#[test]
fn pi_writes_a_file() {
    let work = Work::new(Stage::with_all("pi-agent"));
    let words = "mkdir -p ~/.pi/agent && echo \"$PI_MODELS\" > ~/.pi/agent/models.json && \
        timeout 400 pi --provider stub --model one -p 'make the file' 2>&1";
    work.makes_the_file(words);
}

#[test]
fn the_terminal_interface_takes_a_prompt_and_shows_the_answer() {
    let work = Work::new(Stage::new("terminal"));
    let terminal = format!("TERMINAL={TERMINAL}");
    let options = [&hard()[..], &["-e", &terminal]].concat();
    let output = work.run(&options, "bash -c \"$TERMINAL\"");
    says(&output, "the answer is on the screen\nexit 0\nmade by the agent\n4242:4242\n");
}

/// A server with a password: one client speaks to it as an SDK does, and a browser shows its pages. The browser is in a
/// container of its own, which shares nothing but the loopback interface.
#[test]
fn a_server_works_with_clients_and_browsers() {
    let work = Work::new(Stage::new("web"));
    let options = work.options(&[&hard()[..], &["-e", "OPENCODE_SERVER_PASSWORD=pw"]].concat());
    let start = "python3 -c \"$SERVER\" 8000 & cd /workspace; exec opencode web --port 4096";
    let server = work.stage.start("server", &options, &["bash", "-c", start]);
    let output = inside(&server, &["python3", "-c", CLIENT, "pw"]);
    says(&output, "without the password 401\nanswer: The file is made.\nsessions: ['made by a client']\n");
    says(&inside(&server, &["cat", "/workspace/made.txt"]), "made by the agent");
    inside(&server, &["rm", "/workspace/made.txt"]);

    let recipe = "RUN apt-get -qq update && apt-get -qq -y --no-install-recommends install chromium-headless-shell >/dev/null\n";
    let chromium = image_of("browser", recipe);
    let network = format!("container:{server}");
    let mut docker = Command::new("docker");
    docker.args(["run", "--detach", "--label", &work.stage.name, "--network", &network]);
    docker.args(["--user", "4242:4242", "-e", "HOME=/tmp", &chromium, "chromium-headless-shell"]);
    // The engine's own sandbox is around it.
    docker.args(["--no-sandbox", "--disable-dev-shm-usage", "--remote-debugging-port=9222", "about:blank"]);
    let started = docker.output().unwrap();
    assert!(started.status.success(), "{}", text(&started));
    let page = "http://127.0.0.1:4096/L3dvcmtzcGFjZQ/session";
    let words = ["node", "--input-type=module", "-e", BROWSER, "browser", page, "pw", "/workspace"];
    let output = inside(&server, &[&words[..], &["The file is made."]].concat());
    says(&output, "the page shows the answer at ");
    says(&output, "no error on the console, and every request answered\n");
    // The title of the session has the same words, and may come before the answer.
    let end = Instant::now() + Duration::from_secs(120);
    while !inside(&server, &["cat", "/workspace/made.txt"]).status.success() {
        assert!(Instant::now() < end, "the agent has made no file: {}", text(&output));
        std::thread::sleep(Duration::from_millis(500));
    }
    // It has a gigabyte, and the builder's cache has it as well.
    drop(work);
    Command::new("docker").args(["rmi", &chromium]).output().unwrap();
}
