//! The CI workflows as text, from the definition. They chain `cargo xtask` lines and decide nothing: no expression
//! does more than name an input, a secret or a value of the matrix, since forges evaluate expressions differently.
//! Refuses nothing; what a run has to leave out, the phases decide and say.

use std::fmt;

use super::config::Config;
use super::platform::Platform;
use super::reference::Repository;

pub const FOLDER: &str = ".gitea/workflows";

/// Actions by commit: a tag of somebody else's repository may move.
const CHECKOUT: &str = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2";
const TOOLCHAIN: &str = "dtolnay/rust-toolchain@b3b07ba8b418998c39fb20f53e8b695cdcc8de1b # stable";
const CACHE: &str = "Swatinem/rust-cache@9d47c6ad4b02e050fd481d890b2ea34778fd09d6 # v2.7.8";
const LOGIN: &str = "docker/login-action@74a5d142397b4f367a81961eba4e8cd7edddf772 # v3.4.0";

/// Compiles the program before a step that has a secret: build scripts of other crates run here.
const COMPILE: &str = "--version";

const HUB: [(&str, &str); 2] = [
    ("DOCKERHUB_USERNAME", "${{ secrets.DOCKERHUB_USERNAME }}"),
    ("DOCKERHUB_TOKEN", "${{ secrets.DOCKERHUB_TOKEN }}"),
];
/// The account at any other registry.
const REGISTRY: [(&str, &str); 2] = [
    ("REGISTRY_USERNAME", "${{ secrets.REGISTRY_USERNAME }}"),
    ("REGISTRY_TOKEN", "${{ secrets.REGISTRY_TOKEN }}"),
];
// `inputs` exists on manual runs only, and an engine may keep an expression it cannot evaluate as text; a field of
// the event is empty everywhere else.
const TAG: (&str, &str) = ("INPUT_RELEASE_TAG", "${{ github.event.inputs.release_tag }}");
const LATEST: (&str, &str) = ("INPUT_PROMOTE_LATEST", "${{ github.event.inputs.promote_latest }}");
const FORGE: (&str, &str) = ("GITEA_TOKEN", "${{ secrets.GITEA_TOKEN }}");

/// One job. What it does is in `lines`, each an argument list of `cargo xtask`.
#[derive(Default)]
struct Job {
    id: String,
    needs: Vec<String>,
    runner: String,
    minutes: u32,
    /// Literal values of `matrix.variant`.
    variants: Vec<String>,
    permissions: Vec<&'static str>,
    env: Vec<(&'static str, &'static str)>,
    /// Options of the checkout.
    checkout: Vec<&'static str>,
    /// The registry to log in to, to push and to read without the limits of strangers.
    login: Option<Repository>,
    /// The toolchain's own lints are run.
    lints: bool,
    lines: Vec<String>,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}:", self.id)?;
        if !self.needs.is_empty() {
            writeln!(f, "    needs: [{}]", self.needs.join(", "))?;
        }
        writeln!(f, "    runs-on: {}\n    timeout-minutes: {}", self.runner, self.minutes)?;
        if !self.permissions.is_empty() {
            writeln!(f, "    permissions:\n      {}", self.permissions.join("\n      "))?;
        }
        if !self.variants.is_empty() {
            // One bad variant must not cost the others their verdict.
            let variants = self.variants.join(", ");
            writeln!(
                f,
                "    strategy:\n      fail-fast: false\n      matrix:\n        variant: [{variants}]"
            )?;
        }
        if !self.env.is_empty() {
            writeln!(f, "    env:")?;
            self.env.iter().try_for_each(|(name, value)| writeln!(f, "      {name}: {value}"))?;
        }
        // No later step finds the token of the checkout.
        writeln!(f, "    steps:\n      - uses: {CHECKOUT}")?;
        writeln!(f, "        with:\n          persist-credentials: false")?;
        self.checkout.iter().try_for_each(|option| writeln!(f, "          {option}"))?;
        writeln!(f, "      - uses: {TOOLCHAIN}")?;
        writeln!(f, "        with:\n          toolchain: stable")?;
        if self.lints {
            writeln!(f, "          components: clippy, rustfmt")?;
        }
        if self.has_secrets() {
            // No cache: on some forges a pull request can write one.
            writeln!(f, "      - run: cargo xtask {COMPILE}")?;
        } else {
            writeln!(f, "      - uses: {CACHE}")?;
        }
        if let Some(repository) = &self.login {
            let [(_, username), (_, password)] = if repository.is_docker_hub() { HUB } else { REGISTRY };
            writeln!(f, "      - uses: {LOGIN}\n        with:\n          registry: {}", repository.host())?;
            writeln!(f, "          username: {username}\n          password: {password}")?;
        }
        for line in &self.lines {
            writeln!(f, "      - run: cargo xtask {line}")?;
            let secrets = self.secrets(line);
            if !secrets.is_empty() {
                writeln!(f, "        env:")?;
                secrets.iter().try_for_each(|(name, value)| writeln!(f, "          {name}: {value}"))?;
            }
        }
        Ok(())
    }
}

impl Job {
    /// The secrets that a line needs as variables. The registry's account is in docker's configuration.
    fn secrets(&self, line: &str) -> Vec<(&'static str, &'static str)> {
        let is_hub = self.login.as_ref().is_some_and(Repository::is_docker_hub);
        match line.split(' ').next() {
            Some("doctor" | "publish" | "update-description") if is_hub => HUB.to_vec(),
            _ if line == "changelog attach" || line.ends_with(" --pull-request") => vec![FORGE],
            _ => Vec::new(),
        }
    }

    fn has_secrets(&self) -> bool {
        self.login.is_some() || self.lines.iter().any(|line| !self.secrets(line).is_empty())
    }
}

/// Path and text of each workflow.
pub fn pages(config: &Config) -> anyhow::Result<Vec<(String, String)>> {
    let repository = config.repository()?;
    let (releases, name) = (publish(config, &repository), repository.to_string());
    let page = |name: &str, head: &str, jobs: Vec<Job>| {
        let mut text =
            format!("# Generated by `cargo xtask workflows` from images/devbox.toml.\n{head}jobs:\n");
        jobs.iter().for_each(|job| text.push_str(&job.to_string()));
        (format!("{FOLDER}/{name}.yml"), text)
    };
    let refresh = REFRESH.replace("CRON", &config.ci.refresh);
    Ok(vec![
        page("publish", &PUBLISH.replace("{{repository}}", &name), releases),
        page("refresh", &refresh, vec![propose(config)]),
        page("validate", VALIDATE, validate(config, &name)),
    ])
}

/// The page that shows the jobs of a release, and the name of that passage.
pub const PAGE: &str = ".gitea/README.md";
pub const PASSAGE: &str = "jobs";

/// The jobs of a release and what each runs, as a Mermaid flow chart; the matrix is drawn out.
pub fn diagram(config: &Config) -> anyhow::Result<String> {
    let jobs = publish(config, &config.repository()?);
    let nodes = |job: &Job| match job.variants.as_slice() {
        [] => vec![(job.id.clone(), String::new())],
        names => names.iter().map(|name| (format!("{}-{name}", job.id), name.clone())).collect(),
    };
    let mut text = "```mermaid\nflowchart TD\n".to_owned();
    for job in &jobs {
        for (node, variant) in nodes(job) {
            let lines = job.lines.join("<br>").replace("${{ matrix.variant }}", &variant);
            text.push_str(&format!("  {node}[\"<b>{node}</b><br>{lines}\"]\n"));
        }
    }
    for job in &jobs {
        for needed in jobs.iter().filter(|other| job.needs.contains(&other.id)) {
            let all = |job| nodes(job).into_iter().map(|(node, _)| node).collect::<Vec<_>>().join(" & ");
            text.push_str(&format!("  {} --> {}\n", all(needed), all(job)));
        }
    }
    Ok(text + "```\n")
}

const PUBLISH: &str = "\
# Releases a pushed tag.
# The registry is all that the jobs share, so that a rerun of any of them does only what is missing.
name: Publish
on:
  push:
    tags: ['v*']
  workflow_dispatch:
    inputs:
      release_tag:
        description: Release tag, such as v1.18.18 or v1.18.18b
        required: true
        type: string
      promote_latest:
        description: Also move latest*, base-latest and the description
        required: false
        type: boolean
        default: true
# One queue for each release: a forge keeps one waiting run of a group and drops the others. A lease in the registry keeps
# the order of different releases.
concurrency:
  group: publish-${{ github.event.inputs.release_tag || github.ref_name }}
  cancel-in-progress: false
permissions:
  contents: read
env:
  DEVBOX_REPOSITORY: {{repository}}
";

const REFRESH: &str = "\
# Proposes new versions and the base's security updates as pull requests, one for each component.
name: Refresh
on:
  schedule:
    - cron: 'CRON'
  workflow_dispatch:
concurrency:
  group: refresh
  cancel-in-progress: false
permissions:
  contents: read
";

const VALIDATE: &str = "\
# Tests a push to main and each pull request: what it changes, all tests, and a whole release into a registry of the
# job's own, upon the base that the tree's own key names.
name: Validate
on:
  push:
    branches: [main]
  pull_request:
concurrency:
  group: validate-${{ github.ref }}
  cancel-in-progress: true
permissions:
  contents: read
";

/// The jobs of a release: base, then each variant, then the promotions.
fn publish(config: &Config, repository: &Repository) -> Vec<Job> {
    let job = |id: &str, needs: &[&str], minutes: u32, lines: &[&str]| Job {
        id: id.to_owned(),
        needs: needs.iter().map(ToString::to_string).collect(),
        runner: config.ci.runner.clone(),
        minutes,
        env: vec![TAG],
        // Empty on the push of a tag, which is then what is checked out.
        checkout: vec!["ref: ${{ github.event.inputs.release_tag }}"],
        login: Some(repository.clone()),
        lines: lines.iter().map(ToString::to_string).collect(),
        ..Job::default()
    };
    let latest = |job: Job| Job { env: [job.env, vec![LATEST]].concat(), ..job };
    let names: Vec<String> = config.variant.iter().map(|variant| variant.name.clone()).collect();
    // Every job with a login sets its machine up: without crane a login has no effect.
    let decide = ["changelog check", "doctor --install", "preflight --wait 30m", "plan", "base-decide"];
    let mut jobs = vec![
        job("base-decide", &[], 60, &decide),
        job("build-base", &["base-decide"], 150, &["reclaim", "doctor --install", "build-base"]),
    ];

    // Platforms with a runner of their own are tested there, the others where the variant is built.
    let here: String = config
        .platforms
        .iter()
        .filter(|platform| !config.ci.native.contains_key(platform))
        .map(|platform| format!(" --platform {platform}"))
        .collect();
    let here = if config.ci.native.is_empty() { String::new() } else { here };
    let smoke = format!("smoke ${{{{ matrix.variant }}}}{here}");
    let lines = ["reclaim", "doctor --install", "build ${{ matrix.variant }}", &smoke];
    jobs.push(Job { variants: names.clone(), ..job("variant", &["build-base"], 90, &lines) });
    let mut tested = vec!["variant".to_owned()];
    for (platform, runner) in &config.ci.native {
        let (id, lines) = native(*platform);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let runner = runner.clone();
        jobs.push(Job { variants: names.clone(), runner, ..job(&id, &["variant"], 60, &lines) });
        tested.push(id);
    }

    let tested: Vec<&str> = tested.iter().map(String::as_str).collect();
    let publish = ["doctor --install", "publish --promote-latest"];
    jobs.push(latest(job("publish", &tested, 30, &publish)));
    let promote = ["doctor --install", "promote-base-latest"];
    jobs.push(latest(job("promote-base-latest", &["publish"], 30, &promote)));
    let describe = ["doctor --install", "update-description", "changelog attach"];
    let describe = job("update-description", &["promote-base-latest"], 30, &describe);
    jobs.push(Job { permissions: vec!["contents: write"], ..latest(describe) });
    jobs
}

/// The job that tests one platform on a runner of its own.
fn native(platform: Platform) -> (String, [String; 3]) {
    let id = format!("smoke-{}", platform.to_string().replace('/', "-"));
    let lines = ["reclaim", "doctor --install", "smoke ${{ matrix.variant }}"];
    (
        id,
        lines.map(
            |line| if line == "reclaim" { line.to_owned() } else { format!("{line} --platform {platform}") },
        ),
    )
}

fn propose(config: &Config) -> Job {
    let identity = [
        ("GIT_AUTHOR_NAME", "opencode-devbox"),
        ("GIT_AUTHOR_EMAIL", "opencode-devbox@noreply.localhost"),
        ("GIT_COMMITTER_NAME", "opencode-devbox"),
        ("GIT_COMMITTER_EMAIL", "opencode-devbox@noreply.localhost"),
    ];
    let lines = ["outdated", "bump all latest --pull-request", "refresh-base --if-behind --pull-request"];
    Job {
        id: "propose".to_owned(),
        runner: config.ci.runner.clone(),
        minutes: 60,
        permissions: vec!["contents: write", "pull-requests: write"],
        env: identity.to_vec(),
        checkout: vec!["fetch-depth: 0"],
        lines: lines.map(str::to_owned).to_vec(),
        ..Job::default()
    }
}

fn validate(config: &Config, repository: &str) -> Vec<Job> {
    let job = |id: &str, minutes: u32, lines: &[&str]| Job {
        id: id.to_owned(),
        runner: config.ci.runner.clone(),
        minutes,
        lines: lines.iter().map(ToString::to_string).collect(),
        ..Job::default()
    };
    vec![
        // Against what is published: which images the change makes new, why, and how long that takes.
        job("plan", 30, &[&format!("plan --repository {repository}")]),
        Job { lints: true, ..job("test", 120, &["test"]) },
        job("rehearse", 180, &["reclaim", "release --local"]),
    ]
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
    fn a_job_with_a_secret_restores_no_cache_and_compiles_before_it_sees_the_secret() {
        let config = Config::parse(include_str!("../../../images/devbox.toml")).expect("a definition");
        let mut with_secrets = 0;
        for (path, text) in pages(&config).expect("pages") {
            for job in text.split("    runs-on: ").skip(1) {
                let secret = job.find("secrets.");
                assert_eq!(job.contains(CACHE), secret.is_none(), "{path}: {job}");
                let (head, _) = job.split_once("    steps:\n").expect("steps");
                assert!(!head.contains("secrets."), "{path}: a secret of the whole job: {head}");
                assert!(job.contains("persist-credentials: false\n"), "{path}: {job}");
                if let Some(at) = secret {
                    with_secrets += 1;
                    let compiled = job.find("cargo xtask --version\n");
                    assert!(compiled.is_some_and(|compiled| compiled < at), "{path}: {job}");
                    let other = [TOOLCHAIN, CACHE].iter().any(|action| job[at..].contains(action));
                    assert!(!other, "{path}: an action after a secret: {job}");
                }
                assert_eq!(job.contains(LOGIN), path.ends_with("publish.yml"), "{path}: {job}");
                assert!(!job.contains(LOGIN) || job.contains("doctor --install"), "{path}: {job}");
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
        for action in [CHECKOUT, TOOLCHAIN, CACHE, LOGIN] {
            let (commit, version) =
                action.split_once('@').and_then(|(_, it)| it.split_once(" # ")).expect(action);
            assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{action}");
            let number = version.strip_prefix('v').map(|number| number.split('.').count());
            assert!(version == "stable" || number == Some(3), "{action}");
        }
        // New versions are proposed where the pins are.
        let renovate: serde_json::Value =
            serde_json::from_str(include_str!("../../../renovate.json")).expect("JSON");
        for manager in renovate["customManagers"].as_array().expect("managers") {
            assert_eq!(manager["managerFilePatterns"][0], r"/^xtask/src/model/workflow\.rs$/");
        }
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
            "  smoke-linux-arm64:\n    needs: [variant]\n    runs-on: arm-runner\n",
            "cargo xtask doctor --install --platform linux/arm64\n",
            "needs: [variant, smoke-linux-arm64]\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let matrices = text.matches("variant: [base, omos, with-pi, omos-with-pi]").count();
        assert_eq!(matrices, 2, "each variant is built, and tested there: {text}");
        assert!(!publish_of(|text| text).contains("smoke-linux"));
    }
}
