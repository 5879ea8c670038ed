//! The progress of builds, as the real builder reports it.

use std::time::Duration;

use tempfile::TempDir;
use xtask::model::progress::{Form, Reader, Work};
use xtask::tools::command::Cmd;
use xtask::tools::runner::Runner;

/// Other tests read a recording of what buildx printed once.
#[test]
fn a_builder_reports_in_the_form_of_the_recording() {
    let folder = TempDir::new().unwrap();
    let runner = Runner::new(folder.path().to_str().unwrap().into(), Duration::from_secs(60));
    let platforms = ["linux/amd64", "linux/arm64"].map(str::to_owned).to_vec();
    let definition = format!(
        r#"{{"group": {{"default": {{"targets": ["one", "two"]}}}}, "target": {{
        "one": {{"dockerfile-inline": "FROM scratch AS stage\nCOPY <<EOF /file\n{0}\nEOF\n", "platforms": ["linux/amd64", "linux/arm64"], "output": ["type=cacheonly"]}},
        "two": {{"dockerfile-inline": "FROM scratch\nCOPY missing-{0} /file\n", "platforms": ["linux/amd64", "linux/arm64"], "output": ["type=cacheonly"]}}}}}}"#,
        std::process::id()
    );
    let bake = ["buildx", "bake", "--progress=rawjson", "--file=-"];
    let asked = runner.ask(&Cmd::new("docker", bake).stdin(definition)).unwrap();
    assert!(!asked.success, "{}", asked.stderr);
    let form = Form::Build { targets: ["one", "two"].map(str::to_owned).to_vec(), platforms };
    let mut reader = Reader::new(Work { name: "build one, two".to_owned(), form, last: None });
    let (mut seen, mut log) = (Vec::new(), Vec::new());
    for line in asked.stderr.lines() {
        let read = reader.take(line);
        assert!(!line.starts_with('{') || !read.iter().any(|it| it == line), "not understood: {line}");
        log.extend(read);
        seen.extend(reader.lines().into_iter().map(|line| line.name));
    }
    assert!(seen.iter().any(|name| name == "build two linux/amd64"), "{seen:?}\n{}", asked.stderr);
    assert!(log.iter().any(|line| line.contains("[two linux/")), "{log:#?}");
    let failure = reader.failure().join("\n");
    assert!(failure.contains("COPY missing-") && failure.contains("ERROR: "), "{failure}\n{}", asked.stderr);
}
