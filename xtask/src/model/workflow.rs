//! The CI workflows as text: templates in `xtask/templates`, filled from the definition. They chain `cargo xtask` lines and
//! decide nothing: no expression does more than name an input, a secret, an output or a value of the matrix, since forges evaluate
//! expressions differently. Refuses nothing; what a run has to leave out, the phases decide and report.

use std::collections::BTreeMap;

use super::config::{Config, Emulation};
use super::platform::Platform;
use super::reference::Repository;

pub const FOLDER: &str = ".gitea/workflows";

const PUBLISH: &str = include_str!("../../templates/publish.yml");
const REFRESH: &str = include_str!("../../templates/refresh.yml");
const VALIDATE: &str = include_str!("../../templates/validate.yml");
const NATIVE: &str = include_str!("../../templates/native.yml");

/// Steps that several jobs share. Actions are pinned there, by commit: a tag of another project's repository may move.
const STEPS: [(&str, &str); 10] = [
    ("source", include_str!("../../templates/steps/source.yml")),
    ("cache", include_str!("../../templates/steps/cache.yml")),
    ("compile", include_str!("../../templates/steps/compile.yml")),
    ("share", include_str!("../../templates/steps/share.yml")),
    ("take", include_str!("../../templates/steps/take.yml")),
    ("emulation", include_str!("../../templates/steps/emulation.yml")),
    ("builder", include_str!("../../templates/steps/builder.yml")),
    ("login", include_str!("../../templates/steps/login.yml")),
    ("hub-account", include_str!("../../templates/steps/hub-account.yml")),
    ("signing-key", include_str!("../../templates/steps/signing-key.yml")),
];

/// The texts that replace `{{name}}` in a template.
type Parts = BTreeMap<&'static str, String>;

/// A shared step without its comments, which would be repeated in every job.
fn step(template: &str, parts: &Parts) -> String {
    let text = fill(template, parts);
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Fills a template. A name alone on its line is replaced by whole lines, which get its indentation, or for none.
fn fill(template: &str, parts: &Parts) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let alone =
            rest.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).and_then(|it| parts.get(it));
        match alone {
            Some(part) => part.lines().for_each(|line| text.push_str(&format!("{indent}{line}\n"))),
            None => {
                let filled = parts.iter().fold(line.to_owned(), |line, (name, part)| {
                    line.replace(&format!("{{{{{name}}}}}"), part.trim_end())
                });
                text.push_str(&filled);
                text.push('\n');
            }
        }
    }
    text
}

/// The values that the definition gives to the workflows.
fn parts(config: &Config, repository: &Repository) -> Parts {
    let variants: Vec<&str> = config.variant.iter().map(|variant| variant.name.as_str()).collect();
    let account = if repository.is_docker_hub() { "DOCKERHUB" } else { "REGISTRY" };
    // Platforms with a runner of their own are tested there, the others where the variant is built.
    let native = &config.ci.native;
    let here = config.platforms.iter().filter(|platform| !native.contains_key(platform));
    let here: String = here.map(|platform| format!(" --platform {platform}")).collect();
    let tested = native.keys().map(|platform| native_id(*platform));
    let emulated = config.platforms.iter().filter(|platform| **platform != Platform::LinuxAmd64);
    let emulated: Vec<&str> = emulated.map(|platform| platform.arch()).collect();
    let mut parts = Parts::from([
        ("repository", repository.to_string()),
        ("host", repository.host().to_owned()),
        ("account", account.to_owned()),
        ("runner", config.ci.runner.clone()),
        ("refresh", config.ci.refresh.clone()),
        ("variants", variants.join(", ")),
        ("tested-here", if native.is_empty() { String::new() } else { here }),
        ("tested", ["variant".to_owned()].into_iter().chain(tested).collect::<Vec<_>>().join(", ")),
        ("platforms", emulated.join(",")),
        ("checkout", String::new()),
        ("components", String::new()),
    ]);
    for (name, template) in STEPS {
        let wanted = match name {
            "hub-account" => repository.is_docker_hub(),
            "emulation" => config.build.emulation != Emulation::Never && !emulated.is_empty(),
            _ => true,
        };
        let text = if wanted { step(template, &parts) } else { String::new() };
        parts.insert(name, text);
    }
    let account = parts["hub-account"].lines().skip(1).map(|line| format!("{line}\n")).collect::<String>();
    parts.insert("publishing", format!("{}{account}", parts["signing-key"]));
    let lints = BTreeMap::from([
        ("components", "components: clippy, rustfmt".to_owned()),
        ("checkout", String::new()),
    ]);
    parts.insert("source-with-lints", step(STEPS[0].1, &lints));
    parts
}

/// The same parts with options of the checkout.
fn with_checkout(parts: &Parts, option: &str) -> Parts {
    let options = BTreeMap::from([("checkout", option.to_owned()), ("components", String::new())]);
    let mut parts = parts.clone();
    parts.insert("source", step(STEPS[0].1, &options));
    parts
}

fn native_id(platform: Platform) -> String {
    format!("smoke-{}", platform.to_string().replace('/', "-"))
}

/// The workflow of a release: base, then each variant, then the promotions.
fn publish(config: &Config, repository: &Repository) -> String {
    // The tag is empty on its push, which then is what is checked out.
    let mut parts = with_checkout(&parts(config, repository), "ref: ${{ github.event.inputs.release_tag }}");
    let native = config.ci.native.iter().map(|(platform, runner)| {
        let mut parts = parts.clone();
        parts.insert("platform", platform.to_string());
        parts.insert("id", native_id(*platform));
        parts.insert("runner", runner.clone());
        fill(NATIVE, &parts)
    });
    let native = native.collect();
    parts.insert("native", native);
    fill(PUBLISH, &parts)
}

/// Path and text of each workflow.
pub fn pages(config: &Config) -> anyhow::Result<Vec<(String, String)>> {
    let repository = config.repository()?;
    let parts = parts(config, &repository);
    let page = |name: &str, text: String| {
        let head = "# Generated by `cargo xtask workflows` from images/devbox.toml and xtask/templates.\n";
        (format!("{FOLDER}/{name}.yml"), format!("{head}{text}"))
    };
    Ok(vec![
        page("publish", publish(config, &repository)),
        page("refresh", fill(REFRESH, &with_checkout(&parts, "fetch-depth: 0"))),
        page("validate", fill(VALIDATE, &parts)),
    ])
}

/// The page that shows the jobs of a release, and the name of that passage.
pub const PAGE: &str = ".gitea/README.md";
pub const PASSAGE: &str = "jobs";

/// A job of a workflow, as its text has it.
#[derive(Default)]
struct Job<'a> {
    id: &'a str,
    needs: Vec<&'a str>,
    variants: Vec<&'a str>,
    /// Argument lists of `cargo xtask`, without the one that only compiles.
    lines: Vec<&'a str>,
}

/// The values of a YAML list in one line, without its opening bracket.
fn list(text: &str) -> Vec<&str> {
    text.trim_end_matches(']').split(", ").collect()
}

/// The jobs of a workflow that was made here.
fn jobs(text: &str) -> Vec<Job<'_>> {
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for line in text.lines().skip_while(|line| *line != "jobs:").skip(1) {
        let is_id = line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  #");
        if let Some(id) = line.trim().strip_suffix(':').filter(|_| is_id) {
            jobs.push(Job { id, ..Job::default() });
        }
        let Some(job) = jobs.last_mut() else { continue };
        if let Some(needs) = line.strip_prefix("    needs: [") {
            job.needs = list(needs);
        } else if let Some(variants) = line.strip_prefix("        variant: [") {
            job.variants = list(variants);
        } else if let Some(words) = line.strip_prefix("      - run: cargo xtask ") {
            job.lines.extend(Some(words).filter(|words| *words != "--version"));
        }
    }
    jobs
}

/// The jobs of a release and what each runs, as a Mermaid flow chart; the matrix is drawn out.
pub fn diagram(config: &Config) -> anyhow::Result<String> {
    let text = publish(config, &config.repository()?);
    let jobs = jobs(&text);
    let nodes = |job: &Job<'_>| match job.variants.as_slice() {
        [] => vec![(job.id.to_owned(), String::new())],
        names => names.iter().map(|name| (format!("{}-{name}", job.id), (*name).to_owned())).collect(),
    };
    let mut text = "```mermaid\nflowchart TD\n".to_owned();
    for job in &jobs {
        for (node, variant) in nodes(job) {
            let lines = job.lines.join("<br>").replace("${{ matrix.variant }}", &variant);
            text.push_str(&format!("  {node}[\"<b>{node}</b><br>{lines}\"]\n"));
        }
    }
    for job in &jobs {
        // A job that is waited for through another one has no arrow of its own.
        let by_way =
            |id: &str| jobs.iter().any(|other| job.needs.contains(&other.id) && other.needs.contains(&id));
        for needed in jobs.iter().filter(|other| job.needs.contains(&other.id) && !by_way(other.id)) {
            let all = |job| nodes(job).into_iter().map(|(node, _)| node).collect::<Vec<_>>().join(" & ");
            text.push_str(&format!("  {} --> {}\n", all(needed), all(job)));
        }
    }
    Ok(text + "```\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish_of(edit: impl Fn(String) -> String) -> String {
        let text = include_str!("../../../images/devbox.toml");
        let config = Config::parse(&edit(text.to_owned())).expect("a definition");
        pages(&config).expect("pages").swap_remove(0).1
    }

    #[test]
    fn the_workflows_of_this_tree_are_those_of_its_definition() {
        let config = Config::parse(include_str!("../../../images/devbox.toml")).expect("a definition");
        for (path, text) in pages(&config).expect("pages") {
            let there = std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR")));
            assert!(there.is_ok_and(|there| there == text), "{path}: run `cargo xtask workflows`");
        }
        let page = include_str!("../../../.gitea/README.md");
        let diagram = diagram(&config).expect("a repository");
        assert!(
            diagram.starts_with("```mermaid\n") && page.contains(&diagram),
            "run `cargo xtask workflows`"
        );
    }

    #[test]
    fn a_job_with_a_secret_compiles_first_and_restores_no_cache() {
        let config = Config::parse(include_str!("../../../images/devbox.toml")).expect("a definition");
        let mut with_secrets = 0;
        for (path, text) in pages(&config).expect("pages") {
            for job in text.split("    runs-on: ").skip(1) {
                let secret = job.find("secrets.");
                assert_eq!(job.contains("Swatinem/rust-cache@"), secret.is_none(), "{path}: {job}");
                let (head, _) = job.split_once("    steps:\n").expect("steps");
                assert!(!head.contains("secrets."), "{path}: a secret of the whole job: {head}");
                assert!(job.contains("persist-credentials: false\n"), "{path}: {job}");
                if let Some(at) = secret {
                    with_secrets += 1;
                    let compiled = job.find("cargo xtask --version\n");
                    assert!(compiled.is_some_and(|compiled| compiled < at), "{path}: {job}");
                    assert!(!job[at..].contains("uses:"), "{path}: an action after a secret: {job}");
                }
                let logs_in = job.contains("docker/login-action@");
                assert_eq!(logs_in, path.ends_with("publish.yml"), "{path}: {job}");
                assert!(!logs_in || job.contains("doctor --install"), "{path}: {job}");
            }
        }
        assert_eq!(with_secrets, 7, "the jobs of a release, and the one that proposes");
    }

    #[test]
    fn the_login_is_at_the_registry_that_the_definition_names() {
        let hub = publish_of(|text| text);
        assert!(hub.contains("          registry: docker.io\n") && hub.contains("secrets.DOCKERHUB_TOKEN"));
        let other = publish_of(|text| text.replace("docker.io/joakimp", "registry.example:5000/team"));
        assert!(other.contains("          registry: registry.example:5000\n"), "{other}");
        assert!(other.contains("secrets.REGISTRY_TOKEN") && !other.contains("DOCKERHUB"), "{other}");
    }

    #[test]
    fn an_action_is_named_by_a_full_commit_and_its_version() {
        let config = Config::parse(include_str!("../../../images/devbox.toml")).expect("a definition");
        let pages = pages(&config).expect("pages");
        let uses = pages
            .iter()
            .flat_map(|(_, text)| text.lines())
            .filter_map(|line| line.trim().strip_prefix("- uses: "));
        let mut names = std::collections::BTreeSet::new();
        for action in uses {
            let (name, rest) = action.split_once('@').expect(action);
            let (commit, version) = rest.split_once(" # ").expect(action);
            names.insert(name);
            assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{action}");
            let number = version.strip_prefix('v').map(|number| number.split('.').count());
            // Without tags of versions: branches, which Renovate follows as such.
            let branches = ["dtolnay/rust-toolchain", "ChristopherHX/"];
            let is_branch =
                branches.iter().any(|start| name.starts_with(start)) && ["stable", "v4"].contains(&version);
            assert!(is_branch || number == Some(3), "{action}");
        }
        for name in ["docker/setup-qemu-action", "docker/setup-buildx-action", "docker/login-action"] {
            assert!(names.contains(name), "{names:?}");
        }
        // New versions are proposed where the pins are, and each pin is read by one manager.
        let renovate: serde_json::Value =
            serde_json::from_str(include_str!("../../../renovate.json")).expect("JSON");
        let managers = renovate["customManagers"].as_array().expect("managers");
        let mut patterns = Vec::new();
        for manager in managers {
            assert_eq!(manager["managerFilePatterns"][0], r"/^xtask/templates/steps/.+\.yml$/");
            // Renovate's regular expressions name groups as JavaScript does.
            let pattern = manager["matchStrings"][0].as_str().expect("a pattern").replace("(?<", "(?P<");
            patterns.push(regex::Regex::new(&pattern).expect("a regular expression"));
        }
        let mut pins = 0;
        for (_, step) in STEPS {
            let lines: Vec<&str> = step.lines().filter_map(|line| line.strip_prefix("- uses: ")).collect();
            pins += lines.len();
            let found = patterns.iter().flat_map(|pattern| pattern.captures_iter(step));
            let read: Vec<String> = found
                .map(|it| format!("{}@{} # {}", &it["depName"], &it["currentDigest"], &it["currentValue"]))
                .collect();
            assert!(
                lines.iter().all(|line| read.iter().filter(|it| it == line).count() == 1),
                "{read:?} {lines:?}"
            );
            assert_eq!(read.len(), lines.len());
        }
        // No workflow names an action elsewhere.
        assert_eq!(pins, names.len());
    }

    #[test]
    fn nothing_of_a_template_is_left_open() {
        let config = Config::parse(include_str!("../../../images/devbox.toml")).expect("a definition");
        for (path, text) in pages(&config).expect("pages") {
            let open = text.match_indices("{{").find(|(at, _)| !text[..*at].ends_with('$'));
            assert_eq!(open, None, "{path}: {text}");
            assert!(!text.lines().any(|line| line.ends_with(' ')), "{path}");
        }
    }

    /// The emulator is set up by the forge's action where a job runs programs of a foreign platform, and nowhere else.
    #[test]
    fn emulation_is_set_up_where_a_platform_is_emulated() {
        let text = publish_of(|text| text);
        assert_eq!(text.matches("docker/setup-qemu-action@").count(), 2, "{text}");
        assert!(text.contains("          platforms: arm64\n          cache-image: false\n"), "{text}");
        let never = publish_of(|text| text.replace("emulation = \"always\"", "emulation = \"never\""));
        assert!(!never.contains("setup-qemu"), "{never}");
    }

    #[test]
    fn a_variant_is_a_word_of_the_matrix() {
        let stanza = "[[variant]]\nname = \"fifth\"\nsuffix = \"-fifth\"\ncomponents = [\"opencode\"]\nbudget_mb = 9\n";
        let text = publish_of(|text| text + stanza);
        assert!(text.contains("omos-with-pi, fifth]"), "{text}");
    }

    #[test]
    fn a_runner_of_the_other_architecture_tests_that_platform() {
        let native = "[ci]\nnative = { \"linux/arm64\" = \"arm-runner\" }\n";
        let text = publish_of(|text| text.replace("[ci]\n", native));
        for part in [
            "smoke ${{ matrix.variant }} --platform linux/amd64\n",
            "  smoke-linux-arm64:\n    needs: [base-decide, variant]\n    runs-on: arm-runner\n",
            "cargo xtask doctor --install --platform linux/arm64\n",
            "needs: [base-decide, variant, smoke-linux-arm64]\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let matrices = text.matches("variant: [base, omos, with-pi, omos-with-pi]").count();
        assert_eq!(matrices, 2, "each variant is built, and tested there: {text}");
        assert!(!publish_of(|text| text).contains("smoke-linux"));
    }
}
