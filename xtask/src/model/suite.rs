//! The checks of the smoke suite as its files declare them, and the part of the suite that each one depends on. Refuses
//! a line that it does not know, since the verdict on a check must change with everything that the check does.
//!
//! A check depends on a helper, a list or a program exactly where its name is written: in the check itself, or in
//! something that the check depends on.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use super::component::Component;
use super::key::digest;
use super::layers::IDENTITY;

/// Where a check finds what it tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The base without any component on top of it.
    Bare,
    /// The base, in every image.
    Base,
    /// These components, on top of the base.
    Components(BTreeSet<String>),
    /// A variant as a whole: its configuration, labels and size.
    Image,
}

impl Subject {
    /// Other images may have it too, so a verdict on it is worth looking for.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Bare | Self::Base => true,
            Self::Components(names) => !names.contains(IDENTITY),
            Self::Image => false,
        }
    }
}

/// One check of the suite.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub subject: Subject,
    /// It depends on the architecture, so it runs under emulation as well.
    pub anywhere: bool,
    /// Starts a container.
    pub starts: bool,
    /// Its own line.
    source: String,
    /// What it depends on beside its line: names with the digests of their texts.
    uses: Vec<Part>,
    /// Expectations that it refers to.
    givens: Vec<&'static str>,
    /// Runs in the container that all lines of the table share, and so sees other helpers.
    inside: bool,
}

/// A part of a key: a name and a text.
pub type Part = (String, String);

/// All checks, and what they are made of.
#[derive(Debug, Default)]
pub struct Suite {
    pub checks: Vec<Check>,
    /// Functions and lists on this side of the container, by name.
    outside: BTreeMap<String, String>,
    /// Functions inside the container.
    inside: BTreeMap<String, String>,
    /// Programs and tables, by file name.
    files: BTreeMap<String, String>,
    /// What every check depends on.
    runner: Vec<Part>,
}

/// Expected versions and size of an image, for the checks that exist once per component.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The version of each component that the image has.
    pub versions: BTreeMap<String, String>,
    /// The most compressed bytes that the image may have, in units of 10^6.
    pub max_mb: u64,
    pub variant: String,
}

const ENTRY: &str = "scripts/smoke-test.sh";
const FOLDER: &str = "scripts/smoke/";

impl Suite {
    /// Reads the files of the suite, by path. `components` are those of devbox.toml; `of_variants` names those that come
    /// in a layer of a variant.
    pub fn parse(
        files: &BTreeMap<String, String>,
        components: &[Component],
        of_variants: &BTreeSet<String>,
    ) -> Result<Self> {
        let mut suite = Self::default();
        for (path, text) in files {
            let name = path.strip_prefix(FOLDER).unwrap_or(path);
            match name {
                ENTRY | "runner.bash" => suite.runner.push((name.to_owned(), text.clone())),
                "inside.bash" => suite.inside = units(text).with_context(|| path.clone())?.0,
                "inside.tsv" => {
                    suite.read_table(text, components, of_variants).with_context(|| path.clone())?;
                }
                _ if name.starts_with("programs/") || name.ends_with(".tsv") => {
                    let name = name.rsplit('/').next().unwrap_or(name);
                    suite.files.insert(name.to_owned(), text.clone());
                }
                _ if name.ends_with(".bash") => suite.read_topic(text).with_context(|| path.clone())?,
                _ => bail!("{path} is no part of the smoke suite that its runner reads"),
            }
        }
        let mut names = BTreeSet::new();
        match suite.checks.iter().find(|check| !names.insert(&check.name)) {
            Some(twin) => bail!("the smoke suite has two checks {:?}", twin.name),
            None => {
                suite.resolve();
                Ok(suite)
            }
        }
    }

    /// Finds out what each check depends on.
    fn resolve(&mut self) {
        for mut check in std::mem::take(&mut self.checks) {
            let helpers = if check.inside { &self.inside } else { &self.outside };
            let (mut uses, mut names) = (BTreeMap::new(), BTreeSet::new());
            let mut open = vec![(check.source.as_str(), true)];
            while let Some((text, is_shell)) = open.pop() {
                for word in words(text) {
                    // A program runs elsewhere: it can name other files, and no helper.
                    let helper = helpers.get(word).filter(|_| is_shell);
                    names.extend(GIVENS.into_iter().filter(|given| is_shell && *given == word));
                    let Some(unit) = helper.or_else(|| self.files.get(word)) else { continue };
                    if uses.insert(word.to_owned(), digest(unit.as_bytes())).is_none() {
                        open.push((unit, helper.is_some()));
                    }
                }
            }
            let runner = self.runner.iter().map(|(name, text)| (name.clone(), digest(text.as_bytes())));
            (check.uses, check.givens) = (runner.chain(uses).collect(), names.into_iter().collect());
            self.checks.push(check);
        }
    }

    fn read_topic(&mut self, text: &str) -> Result<()> {
        let (units, lines) = units(text)?;
        for (name, unit) in units {
            if self.outside.insert(name.clone(), unit).is_some() {
                bail!("{name} is defined twice");
            }
        }
        for line in lines {
            self.checks.push(Check::of_line(&line)?);
        }
        Ok(())
    }

    /// The rows of the table: subject, where, name and line, separated by tabs.
    fn read_table(
        &mut self,
        text: &str,
        components: &[Component],
        of_variants: &BTreeSet<String>,
    ) -> Result<()> {
        for row in text.lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
            let columns: Vec<&str> = row.split('\t').collect();
            let [subject, place, name, line] = columns[..] else {
                bail!("expected subject, where, name and line with tabs between them: {row}");
            };
            let check = |name: String, subject, source| Check {
                name,
                subject,
                anywhere: place == "any",
                starts: true,
                source,
                uses: Vec::new(),
                givens: Vec::new(),
                inside: true,
            };
            if subject != "each" {
                let free = free_paths(components, of_variants);
                let source = line.replace("{free}", &free);
                self.checks.push(check(name.to_owned(), Subject::parse(subject)?, source));
                continue;
            }
            for component in components {
                let Some(command) = &component.version_command else { continue };
                if line.contains("{paths}") && component.paths.is_empty() {
                    continue;
                }
                let of = match of_variants.contains(&component.name) {
                    true => Subject::Components(BTreeSet::from([component.name.clone()])),
                    false => Subject::Base,
                };
                let fill = |text: &str| text.replace("{component}", &component.name);
                let source = fill(line).replace("{command}", command);
                let source = source.replace("{paths}", &component.paths.join(" "));
                // The version is filled in where the image is known.
                let source = source.replace("{version}", &format!("{{version of {}}}", component.name));
                let mut check = check(fill(name), of, source);
                check.anywhere &= !(component.version_in_health && line.contains("{command}"));
                self.checks.push(check);
            }
        }
        Ok(())
    }

    /// The checks that an image with these components has to pass, natively or under emulation.
    pub fn of_image<'a>(&'a self, pins: &Pins, emulated: bool) -> impl Iterator<Item = &'a Check> {
        self.checks.iter().filter(move |check| {
            let runs = check.anywhere || !emulated;
            runs && match &check.subject {
                Subject::Bare | Subject::Base => {
                    check.version().is_none_or(|of| pins.versions.contains_key(of))
                }
                Subject::Components(names) => names.iter().all(|name| pins.versions.contains_key(name)),
                Subject::Image => !pins.variant.is_empty(),
            }
        })
    }

    /// Everything of the suite and of the expectations that the verdict on a check depends on.
    pub fn parts(&self, check: &Check, pins: &Pins) -> Vec<Part> {
        let mut parts = vec![("check".to_owned(), check.source.clone())];
        parts.extend(check.uses.iter().cloned());
        if let Some(of) = check.version() {
            parts.push(("version".to_owned(), pins.versions.get(of).cloned().unwrap_or_default()));
        }
        for given in &check.givens {
            let value = match *given {
                "pins" => pins.versions.iter().map(|(name, version)| format!("{name}={version}\n")).collect(),
                "max_mb" => pins.max_mb.to_string(),
                _ => pins.variant.clone(),
            };
            parts.push((format!("given {given}"), value));
        }
        parts
    }
}

/// Expectations that a check or a helper may refer to, by the names of the variables that the runner sets.
const GIVENS: [&str; 3] = ["pins", "max_mb", "variant"];

/// The paths of all components of variants, which the base has to leave free.
fn free_paths(components: &[Component], of_variants: &BTreeSet<String>) -> String {
    let ours = components.iter().filter(|it| of_variants.contains(&it.name) && it.version_command.is_some());
    ours.map(|it| it.paths.join(" ") + " ").collect()
}

impl Subject {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "bare" => Self::Bare,
            "base" => Self::Base,
            "image" => Self::Image,
            _ => {
                let names: BTreeSet<String> = word.split('+').map(str::to_owned).collect();
                if names.iter().any(String::is_empty) {
                    bail!("{word:?} is no subject of a check");
                }
                Self::Components(names)
            }
        })
    }
}

impl Check {
    /// `check NAME SUBJECT WHERE COMMAND…` or the same with `static`; the name in single quotes.
    fn of_line(line: &str) -> Result<Self> {
        let parsed = || {
            let (verb, rest) = line.split_once(" '")?;
            let (name, rest) = rest.split_once("' ")?;
            let mut columns = rest.splitn(3, ' ');
            let (subject, place) = (columns.next()?, columns.next()?);
            columns.next()?;
            let known = matches!(verb, "check" | "static") && matches!(place, "any" | "native");
            known.then_some((verb, name, subject, place))
        };
        let (verb, name, subject, place) =
            parsed().with_context(|| format!("no check, helper or list of the smoke suite: {line}"))?;
        Ok(Self {
            name: name.to_owned(),
            subject: Subject::parse(subject)?,
            anywhere: place == "any",
            starts: verb == "check",
            source: line.to_owned(),
            uses: Vec::new(),
            givens: Vec::new(),
            inside: false,
        })
    }

    /// The component whose version the check expects: as `{version}` in the table, as `"$(pinned NAME)"` elsewhere.
    fn version(&self) -> Option<&str> {
        let within = |open, close| Some(self.source.split_once(open)?.1.split_once(close)?.0);
        within("{version of ", "}").or_else(|| within("\"$(pinned ", ")\""))
    }
}

/// The definitions of a file by name, and its other lines. Comments count for nothing.
fn units(text: &str) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let (mut units, mut others) = (BTreeMap::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut whole = line.to_owned();
        let function = line.split_once("() {").filter(|(name, _)| is_name(name));
        if let Some((name, _)) = function {
            while !(whole.ends_with("\n}") || whole.lines().count() == 1 && whole.ends_with('}')) {
                let next = lines.next().with_context(|| format!("the function {name} has no end"))?;
                whole = format!("{whole}\n{next}");
            }
            if units.insert(name.to_owned(), whole).is_some() {
                bail!("{name} is defined twice");
            }
            continue;
        }
        while is_open(&whole) {
            let next = lines.next().with_context(|| format!("the line has no end: {line}"))?;
            whole = format!("{whole}\n{next}");
        }
        match whole.split_once('=').filter(|(name, _)| is_name(name)) {
            Some((name, _)) => drop(units.insert(name.to_owned(), whole)),
            None if whole == "table \"$suite/inside.tsv\"" => {}
            None => others.push(whole),
        }
    }
    Ok((units, others))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// True if a line of shell goes on: a quotation is open, or it ends with a backslash.
fn is_open(line: &str) -> bool {
    let (mut quote, mut escaped) = (None, false);
    for letter in line.chars() {
        match (quote, letter) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    quote.is_some() || escaped
}

/// The names in a text: identifiers, and words that may be names of files.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let files = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)));
    let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    files.chain(names).filter(|word| !word.is_empty())
}
