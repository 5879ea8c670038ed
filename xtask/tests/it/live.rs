//! The real thing: one variant through a real engine into a real registry. `cargo xtask test` prepares the machine and
//! asks for these tests; they fail, rather than skip, where the engine or the registry is missing.

use std::process::Command;

pub fn xtask(args: &[&str]) -> (bool, String) {
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    // The platform of this machine: the other one is the same code and a longer wait.
    let host = xtask::model::platform::Platform::host().to_string();
    command.args(args).args(["--repository", &repository, "--platform", &host]);
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    println!("{text}");
    (output.status.success(), text)
}

#[test]
#[ignore = "needs a Docker engine and a registry; `cargo xtask test` runs it"]
fn one_variant_is_released_and_a_second_run_finds_nothing_to_do() {
    let (ok, text) = xtask(&["release", "--only", "base"]);
    assert!(ok && text.contains("docker run --rm"), "{text}");
    let (ok, text) = xtask(&["release", "--only", "base"]);
    assert!(ok && text.contains("nothing to publish"), "{text}");
    assert!(!text.contains("$ "), "a second run ran something: {text}");
}

/// Serves a release of gitea-mcp with these checksums, builds the stage that fetches it and returns what it left.
fn fetch_gitea_mcp(tarball: &[u8], checksums: String) -> Result<Vec<String>, String> {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr().to_ip().unwrap());
    let tarball = tarball.to_vec();
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            let sums = request.url().ends_with("checksums.txt");
            let body = if sums { checksums.clone().into_bytes() } else { tarball.clone() };
            request.respond(tiny_http::Response::from_data(body)).unwrap();
        }
    });
    let repository = std::env::var("DEVBOX_LIVE_REPOSITORY").expect("run through `cargo xtask test`");
    let host = repository.split('/').next().unwrap();
    let out = tempfile::TempDir::new().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new("docker");
    command.args(["buildx", "build", "--progress=plain", "--network=host", "--target=gitea-mcp"]);
    command.args([
        "--platform=linux/amd64",
        "--file=images/Dockerfile.base",
        "--build-arg=INSTALL_GITEA_MCP=true",
    ]);
    command.arg(format!("--build-arg=DEBIAN_IMAGE={host}/debian:trixie-slim"));
    command.arg(format!("--build-arg=GITEA_MCP_URL={url}"));
    command.arg("--secret=id=ca,src=/etc/ssl/certs/ca-certificates.crt");
    command.arg(format!("--output=type=local,dest={}", out.path().display()));
    let output = command.arg(".").current_dir(root).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let folder = std::fs::read_dir(out.path().join("out/usr/local/bin")).unwrap();
    Ok(folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
}

/// The release host is not reached from everywhere, so a stand-in proves that only verified bytes get in.
#[test]
#[ignore = "needs a Docker engine and a registry; `cargo xtask test` runs it"]
fn gitea_mcp_gets_in_only_with_the_published_checksum() {
    // Deciding on the base brings the Debian image into the registry.
    let (ok, text) = xtask(&["base-decide"]);
    assert!(ok, "{text}");
    let dir = tempfile::TempDir::new().unwrap();
    std::fs::write(dir.path().join("gitea-mcp"), "#!/bin/sh\n").unwrap();
    let tar = Command::new("tar").args(["-czf", "-", "gitea-mcp"]).current_dir(dir.path()).output().unwrap();
    let name = "gitea-mcp_Linux_x86_64.tar.gz";
    let sum = crate::fakes::digest(&tar.stdout).replace("sha256:", "");
    assert_eq!(fetch_gitea_mcp(&tar.stdout, format!("{sum}  {name}\n")).unwrap(), ["gitea-mcp"]);
    let wrong = fetch_gitea_mcp(&tar.stdout, format!("{}  {name}\n", "0".repeat(64))).unwrap_err();
    assert!(wrong.contains("did NOT match"), "{wrong}");
    let unlisted = fetch_gitea_mcp(&tar.stdout, "0  other.tar.gz\n".to_owned()).unwrap_err();
    assert!(unlisted.contains("no properly formatted"), "{unlisted}");
}
