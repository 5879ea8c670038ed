//! Stands in for docker: a bake pushes an index of two platforms for each target. All images begin with one layer; a
//! variant has one more of its own, and one for each of its components. What is pushed depends on nothing but the
//! target's tag and inputs.

use std::fs;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::push::{Image, Push};
use crate::{log, variable};

/// BuildKit's progress as buildx 0.29.1 printed it, of a build that succeeds and of one whose third step fails.
const BUILT: &str = include_str!("../tests/it/golden/rawjson/built.jsonl");
const FAILED: &str = include_str!("../tests/it/golden/rawjson/failed.jsonl");

const PLATFORMS: [&str; 2] = ["amd64", "arm64"];

pub fn run(args: &[String]) -> ExitCode {
    log("", &format!("docker {}", args.join(" ")));
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("DEVBOX_BUILD_")) {
        log(".secrets", &format!("{name}={value}"));
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["info", "--format", ..] => print(
            r#"{"ServerVersion":"28.5.2+dfsg1","DockerRootDir":"/","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#,
        ),
        ["run", "--rm", ..] => {
            print!("{}", packages());
            Ok(())
        }
        ["buildx", "version", ..] => print("github.com/docker/buildx 0.29.1+ds1 0.29.1+ds1-4"),
        ["buildx", "bake", ..] => bake(words.contains(&"--progress=rawjson")),
        ["buildx", "build", ref rest @ ..] => node(rest),
        ["buildx", "ls", ..] => print(&json!({ "Name": builder(), "Driver": "docker" }).to_string()),
        _ => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn print(line: &str) -> Result<(), String> {
    println!("{line}");
    Ok(())
}

fn builder() -> String {
    variable("BUILDX_BUILDER").unwrap_or_else(|| "default".to_owned())
}

fn bake(rawjson: bool) -> Result<(), String> {
    let text = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?;
    let definition: Value = serde_json::from_str(&text).map_err(|error| format!("ERROR: {error}"))?;
    let file = |ending| format!("{}{ending}", variable("FAKE_LOG").unwrap_or_default());
    let keep = |ending| fs::write(file(ending), format!("{}\n", text.trim_end())).map_err(|e| e.to_string());
    let targets: Vec<&Value> =
        definition["target"].as_object().into_iter().flat_map(|all| all.values()).collect();
    if targets.iter().any(|target| list(&target["output"]).any(|output| output == "type=cacheonly")) {
        keep(".cache")?;
        return match variable("FAKE_NO_CACHE") {
            Some(_) => Err("ERROR: failed to push cache: 400 Bad Request".to_owned()),
            None => Ok(()),
        };
    }
    keep(".bake")?;
    let mut push = Push::default();
    for target in targets {
        let inputs = list(&target["annotations"]).find_map(|it| it.split_once("opencode-devbox.inputs="));
        let inputs = inputs.map_or("", |(_, inputs)| inputs);
        for tag in list(&target["tags"]) {
            let (repository, name) = tag.rsplit_once(':').ok_or("ERROR: a tag without a colon")?;
            if let Some(variant) = variable("FAKE_UNBUILDABLE")
                && is_key_of(name, &variant)
            {
                return Err(match rawjson {
                    true => FAILED.trim_end().to_owned(),
                    false => format!("target {variant}: failed to solve: exit code: 1"),
                });
            }
            let (host, path) = repository.split_once('/').ok_or("ERROR: a tag without a host")?;
            let images = PLATFORMS.map(|arch| image(arch, path, name, inputs));
            push.add(host, path, name, images, inputs);
        }
    }
    if rawjson {
        for line in BUILT.lines() {
            eprintln!("{line}");
            // As slow as a builder, so that a terminal shows each.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    push.send()
}

fn list(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// True for `<variant>-<key>`.
fn is_key_of(tag: &str, variant: &str) -> bool {
    let key = tag.strip_prefix(variant).and_then(|rest| rest.strip_prefix('-'));
    key.is_some_and(|key| key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The platform's image under a tag.
fn image(arch: &'static str, path: &str, name: &str, inputs: &str) -> Image {
    let mut layers = vec![base_layer()];
    if path.ends_with("-staging") {
        let inputs: Value = serde_json::from_str(inputs).unwrap_or_default();
        let mut component = |name: &str| {
            layers.push(layer(name, inputs["versions"][name].as_str().unwrap_or_default(), arch))
        };
        component("opencode");
        if name.starts_with("omos-") {
            component("bun");
            component("omos");
        }
        if name.starts_with("with-pi-") || name.starts_with("omos-with-pi-") {
            component("pi");
        }
        layers.push(layer("identity", name, "any"));
    }
    Image { arch, layers, name: name.to_owned() }
}

/// The list of packages in the base.
fn packages() -> String {
    let packages = variable("FAKE_PACKAGES").unwrap_or_else(|| "git\\t1:2.47\\tamd64\\n".to_owned());
    packages.replace("\\t", "\t").replace("\\n", "\n")
}

/// The archive of the base's layer.
fn base_layer() -> String {
    let other = variable("FAKE_FIRST_LAYER").unwrap_or_default();
    archive(&[("usr/share/devbox/debian-packages.tsv", &packages()), ("other", &other)])
}

/// The archive of a component's layer: the facts file that `images/fetch-component` writes.
fn layer(component: &str, version: &str, arch: &str) -> String {
    let facts = format!("{{\"name\": \"{component}\", \"version\": \"{version}\", \"arch\": \"{arch}\"}}\n");
    let path = match component {
        "identity" => "usr/share/devbox/image.json".to_owned(),
        _ => variable("FAKE_FOREIGN_FILE")
            .unwrap_or_else(|| format!("usr/share/devbox/components/{component}.json")),
    };
    archive(&[(&path, &facts)])
}

/// An archive of files: ASCII and zeros.
fn archive(files: &[(&str, &str)]) -> String {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        // Into memory.
        let _ = archive.append_data(&mut header, path, text.as_bytes());
    }
    String::from_utf8(archive.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// Answers which node serves a platform: one of amd64 serves all, unless `FAKE_ARM_NODE` names another for arm64.
fn node(args: &[&str]) -> Result<(), String> {
    let option =
        |name: &str| args.iter().skip_while(|word| **word != name).nth(1).copied().unwrap_or_default();
    let arm = variable("FAKE_ARM_NODE").filter(|_| option("--platform") == "linux/arm64");
    let (node, native) = match arm {
        Some(node) => (node, "linux/arm64"),
        None => ("fake0".to_owned(), "linux/amd64"),
    };
    let folder = option("--output").rsplit_once("dest=").map_or("", |(_, folder)| folder);
    let metadata = json!({ "buildx.build.ref": format!("{}/{node}/x1", builder()) });
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(format!("{folder}/native"), format!("{native}\n")))
        .and_then(|()| fs::write(option("--metadata-file"), metadata.to_string()))
        .map_err(|error| format!("ERROR: {folder}: {error}"))
}
