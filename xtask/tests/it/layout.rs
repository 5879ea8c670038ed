//! The layout of the code: which module may import which, and what only one of them may do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use syn::visit::{self, Visit};

/// The modules of the crate from left to right; those of one group do not import each other.
const ORDER: [&[&str]; 12] = [
    &["error"],
    &["model"],
    &["output"],
    &["tools"],
    &["settings"],
    &["context"],
    &["image"],
    &["promotion", "upstream", "project"],
    &["bench"],
    &["phase"],
    &["cli"],
    &["main"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The paths that a source file names, as lists of words.
type Named = Vec<Vec<String>>;

/// The paths that every source file names, by its module path, such as `tools::registry::auth`. Read once.
fn modules() -> &'static BTreeMap<String, Named> {
    static MODULES: OnceLock<BTreeMap<String, Named>> = OnceLock::new();
    MODULES.get_or_init(read_modules)
}

fn read_modules() -> BTreeMap<String, Named> {
    let mut found = BTreeMap::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name =
                path.strip_prefix(source()).unwrap().with_extension("").to_str().unwrap().replace('/', "::");
            let name = name.trim_end_matches("::mod").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            found.insert(name, Paths::of(&syn::parse_file(&text).unwrap()));
        }
    }
    found
}

/// The paths that a file names, `use` declarations included, as lists of words; tests do not count.
#[derive(Default)]
struct Paths(Named);

impl Paths {
    fn of(file: &syn::File) -> Named {
        let mut paths = Self::default();
        paths.visit_file(file);
        paths.0
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.0.push(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.0.push(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.0.push(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// The modules of this crate that a module names, itself and those inside it left out.
fn imports(module: &str, paths: &Named, all: &BTreeSet<String>) -> BTreeSet<String> {
    let inside: Vec<String> = module.split("::").map(str::to_owned).collect();
    let mut found = BTreeSet::new();
    for path in paths {
        let full = match path.first().map(String::as_str) {
            Some("crate" | "xtask") => path[1..].to_vec(),
            Some("super") => {
                let ups = path.iter().take_while(|word| *word == "super").count();
                [&inside[..inside.len().saturating_sub(ups)], &path[ups..]].concat()
            }
            _ => continue,
        };
        // The longest beginning that is a module.
        let module_of =
            (1..=full.len()).rev().map(|end| full[..end].join("::")).find(|name| all.contains(name));
        found.extend(module_of);
    }
    found.remove(module);
    found
}

fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let all: BTreeSet<String> = modules.keys().cloned().collect();
    let named = |(name, paths): (&String, &Named)| (name.clone(), imports(name, paths, &all));
    modules.iter().filter(|(name, _)| *name != "lib").map(named).collect()
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap()
}

fn rank(module: &str) -> usize {
    let group = ORDER.iter().position(|group| group.contains(&top(module)));
    group.unwrap_or_else(|| panic!("{module} has no place in the order of modules"))
}

#[test]
fn modules_import_only_from_their_left() {
    let mut wrong = Vec::new();
    for (module, imported) in graph() {
        let is_right = |other: &&String| top(other) != top(&module) && rank(other) >= rank(&module);
        wrong.extend(imported.iter().filter(is_right).map(|other| format!("{module} imports {other}")));
    }
    assert_eq!(wrong, [""; 0]);
}

/// A module and its own parts count as one: a part may use what its parent defines.
#[test]
fn no_modules_import_each_other_in_a_cycle() {
    let graph = graph();
    let mut left: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, imported) in &graph {
        let family = |other: &&str| {
            other.starts_with(&format!("{module}::")) || module.starts_with(&format!("{other}::"))
        };
        let others = imported.iter().map(String::as_str).filter(|other| !family(other));
        left.insert(module, others.collect());
    }
    // What imports nothing that is left cannot be in a cycle.
    loop {
        let free: Vec<&str> =
            left.iter().filter(|(_, others)| others.is_empty()).map(|(name, _)| *name).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name, _| !free.contains(name));
        left.values_mut().for_each(|others| others.retain(|other| !free.contains(other)));
    }
    assert!(left.is_empty(), "in a cycle, or importing one: {left:#?}");
}

/// What a module reaches outside the process by.
fn uses(words: &[&str]) -> BTreeSet<String> {
    let is_used = |paths: &Named| paths.iter().any(|path| path.join("::").starts_with(&words.join("::")));
    modules().iter().filter(|(_, paths)| is_used(paths)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn the_model_reaches_nothing_outside() {
    for effect in [
        &["std", "fs"][..],
        &["std", "process"],
        &["std", "net"],
        &["std", "env"],
        &["ureq"],
        &["std", "time", "Instant"],
        &["std", "time", "SystemTime"],
    ] {
        let reached: Vec<String> = uses(effect).into_iter().filter(|name| top(name) == "model").collect();
        let allowed = |name: &&String| effect != ["std", "net"] || *name != "model::reference";
        assert_eq!(reached.iter().filter(allowed).collect::<Vec<_>>(), [""; 0], "{effect:?}");
    }
}

/// One file per outside system speaks HTTP; everything else asks one of them.
#[test]
fn http_is_spoken_by_tools_only() {
    let others: Vec<String> = uses(&["ureq"]).into_iter().filter(|name| top(name) != "tools").collect();
    assert_eq!(others, [""; 0]);
}

#[test]
fn a_phase_calls_no_other_unless_it_chains() {
    let chains = ["phase", "phase::release", "phase::develop::test", "phase::develop::validate"];
    let is_group = |name: &str| name.split("::").count() < 3;
    let mut wrong = Vec::new();
    for (module, imported) in graph() {
        if top(&module) != "phase" || chains.contains(&module.as_str()) || is_group(&module) {
            continue;
        }
        let is_phase = |other: &&String| !is_group(other) && !other.starts_with(&format!("{module}::"));
        let phases = imported.iter().filter(|other| top(other) == "phase").filter(is_phase);
        wrong.extend(phases.map(|other| format!("{module} calls {other}")));
    }
    assert_eq!(wrong, [""; 0]);
}

/// Debian is pinned in the base's Dockerfile; the variants' repeats it for builds by hand, where nobody passes a digest.
#[test]
fn both_dockerfiles_name_one_debian() {
    let default = |file: &str, name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images").join(file);
        let text = fs::read_to_string(path).unwrap();
        xtask::model::dockerfile::arg_default(&text, name).unwrap().to_owned()
    };
    let suite = default("Dockerfile.base", "DEBIAN_SUITE");
    let image = default("Dockerfile.base", "DEBIAN_IMAGE").replace("${DEBIAN_SUITE}", &suite);
    assert_eq!(default("Dockerfile.variant", "DEBIAN_IMAGE"), image);
}

/// An engine that builds both Dockerfiles runs a step once where all before it is identical.
#[test]
fn both_dockerfiles_fetch_with_the_same_first_steps() {
    let steps = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images").join(file);
        let text = fs::read_to_string(path).unwrap();
        let (_, stage) = text.split_once(" AS fetch\n").unwrap();
        let (steps, _) = stage.split_once("-r /locks/python/tools.txt\n").unwrap();
        steps.to_owned()
    };
    assert_eq!(steps("Dockerfile.base"), steps("Dockerfile.variant"));
}

/// A step that takes packages from a registry gets this host's certificates and accounts as secrets.
#[test]
fn steps_that_fetch_packages_mount_the_accounts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut steps = 0;
    for file in ["images/Dockerfile.base", "images/Dockerfile.variant", "bench/Dockerfile"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for step in text.split("\nRUN ").skip(1) {
            let step = match step.split_once("<<'SH'\n") {
                Some((mounts, rest)) => format!("{mounts}{}", rest.split("\nSH\n").next().unwrap()),
                None => {
                    let end = step.lines().take_while(|line| line.ends_with('\\')).count();
                    step.lines().take(end + 1).collect::<Vec<_>>().join("\n")
                }
            };
            let step = step.as_str();
            let (line, needs) = match step {
                _ if !step.contains("with-host-ca ") || step.contains("with-host-ca curl") => continue,
                _ if step.contains("npm ") && !step.contains("pip ") => (step, "id=npmrc"),
                _ => (step, "id=netrc"),
            };
            assert!(line.contains("id=ca") && line.contains(needs), "{file}: RUN {line}");
            steps += 1;
        }
    }
    assert!(steps > 6, "{steps}");
}

/// A name says in one line of a test run what holds.
#[test]
fn test_names_have_at_most_60_letters() {
    let mut folders = vec![source(), source().with_file_name("tests"), source().with_file_name("lab")];
    let mut long = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|it| it.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("rs") => {
                    let text = fs::read_to_string(&path).unwrap();
                    let names =
                        text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split_once('('));
                    long.extend(names.map(|(name, _)| name.to_owned()).filter(|name| name.len() > 60));
                }
                _ => {}
            }
        }
    }
    assert_eq!(long, [""; 0]);
}
