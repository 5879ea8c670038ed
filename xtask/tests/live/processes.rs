//! Programs as this pipeline runs them, whose end takes a real engine.

use std::time::Duration;

use tempfile::TempDir;
use xtask::tools::command::Cmd;
use xtask::tools::runner::Runner;

/// An image with one program, made of this machine's files.
fn image_of_sleep(runner: &Runner, name: &str) {
    let script = "files=$(ldd \"$(command -v sleep)\" | grep -o '/[^ ]*')
tar --create --dereference $files \"$(command -v sleep)\" 2>/dev/null | docker import --change 'ENTRYPOINT [\"sleep\"]' - \"$NAME\"";
    runner.run(&Cmd::new("sh", ["-c", script]).env("NAME", name)).unwrap();
}

/// The suite waits for a container that prints nothing. Its trap needs the engine, as does the client that it waits for.
#[test]
fn the_containers_of_a_stalled_suite_are_gone() {
    let name = format!("devbox-stalled-{}", std::process::id());
    let folder = TempDir::new().unwrap();
    let mut runner = Runner::new(folder.path().to_str().unwrap().into(), Duration::from_secs(3));
    runner.quiet = true;
    image_of_sleep(&runner, &name);
    let script = "trap 'docker rm --force \"$NAME-1\" \"$NAME-2\"' EXIT
docker run --detach --name \"$NAME-1\" \"$NAME\" 1000
docker run --rm --name \"$NAME-2\" \"$NAME\" 1000";
    let suite = Cmd::new("bash", ["-c", script]).env("NAME", name.clone());
    let error = format!("{:#}", runner.run(&suite).unwrap_err());
    assert!(error.ends_with("was ended: it printed nothing for 3 s"), "{error}");
    let listing = ["ps", "--all", "--quiet", "--filter", &format!("name={name}")];
    let left = runner.read(&Cmd::new("docker", listing)).unwrap();
    runner.run(&Cmd::new("docker", ["rmi", &name])).unwrap();
    assert_eq!(left, "");
}
