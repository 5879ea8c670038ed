//! Agents at work: a model's server that always answers the same stands in the container, and the real agents do the rest.

use std::process::Output;

use crate::container::{Stage, says, text};

const SERVER: &str = include_str!("../devbox/model_server.py");
const OPENCODE: &str = r#"{"model": "stub/one", "small_model": "stub/one", "permission": {"bash": "allow"},
    "provider": {"stub": {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": "http://127.0.0.1:8000/v1", "apiKey": "none"},
    "models": {"one": {"name": "one", "tool_call": true, "limit": {"context": 100000, "output": 4000}}}}}}"#;
const PI: &str = r#"{"providers": {"stub": {"baseUrl": "http://127.0.0.1:8000/v1", "api": "openai-completions", "apiKey": "none",
    "models": [{"id": "one", "name": "one", "contextWindow": 100000, "maxTokens": 4000}]}}}"#;

/// Runs the agent's words in a work folder, without any network, and prints what it has made.
fn work(stage: &Stage, options: &[&str], words: &str) -> Output {
    let (server, opencode, pi) = (
        format!("SERVER={SERVER}"),
        format!("OPENCODE_CONFIG_CONTENT={OPENCODE}"),
        format!("PI_MODELS={PI}"),
    );
    let volume = format!("{}:/workspace", stage.volume("work"));
    let fixed = [
        "--network",
        "none",
        "-v",
        &volume,
        "-e",
        &server,
        "-e",
        &opencode,
        "-e",
        &pi,
        "-e",
        "DEVBOX_MCP_CONTEXT7=off",
    ];
    let script = format!(
        "cd /workspace && rm -f made.txt; python3 -c \"$SERVER\" 8000 & sleep 1; cd /workspace; {words}; echo \"exit $?\"; cat made.txt; stat -c %u:%g made.txt"
    );
    stage.run(&[&fixed[..], options].concat(), &["bash", "-c", &script])
}

#[test]
fn opencode_writes_a_file_with_the_right_owner() {
    let stage = Stage::new("agent");
    let hard = [
        "--user",
        "4242:4242",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--tmpfs",
        "/tmp:exec",
        "--tmpfs",
        "/home/developer:exec",
    ];
    let open = format!("{}:/workspace", stage.volume("work"));
    // With a file in it: an engine gives an empty volume the image's mode again.
    stage.run(
        &["--entrypoint", "/bin/sh", "-v", &open],
        &["-c", "touch /workspace/keep && chmod 777 /workspace"],
    );
    for (options, owner) in
        [(&hard[..], "4242:4242"), (&["-e", "PUID=1234567890", "-e", "PGID=77"], "1234567890:77")]
    {
        let output = work(&stage, options, "timeout 400 opencode run 'make the file' 2>&1");
        says(&output, "exit 0\n");
        says(&output, &format!("made by the agent\n{owner}\n"));
        stage.run(&["--entrypoint", "/bin/rm", "-v", &open], &["-f", "/workspace/made.txt"]);
    }
    assert!(!text(&work(&stage, &[], "true")).contains("made by the agent"));
}

#[test]
fn pi_writes_a_file_where_the_image_has_it() {
    let stage = Stage::new("pi-agent");
    if !stage.run(&[], &["pi", "--version"]).status.success() {
        println!("SKIPPED: this image has no pi");
        return;
    }
    let words = "mkdir -p ~/.pi/agent && echo \"$PI_MODELS\" > ~/.pi/agent/models.json && timeout 400 pi --provider stub --model one -p 'make the file' 2>&1";
    let output = work(&stage, &["-e", "PUID=4242", "-e", "PGID=4242"], words);
    says(&output, "exit 0\nmade by the agent\n4242:4242\n");
}
