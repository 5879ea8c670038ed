//! Which checks have to run, and on which image: each where least of what it does not test is there. Those of the base run
//! on the base itself, so that one which wrongly claims to test only the base fails.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::image::base::BuiltBase;
use crate::image::component_layer::ComponentLayer;
use crate::image::variant::StagedVariant;
use crate::image::verdict::{self, BASE, Examined, Needed, Tester};
use crate::model::oci::Digest;
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::suite::{Pins, Subject};
use crate::model::verdict::{CheckVerdict, Origin, Place, Verdict, counting, next_sequence};
use crate::tools::parallel::side_by_side;
use crate::tools::process;

/// Checks of one image that one start of the suite runs.
pub struct Run {
    pub reference: String,
    pub image: Digest,
    pub variant: String,
    pub place: Place,
    pub pins: Pins,
    /// Names, in the order of the suite.
    pub checks: Vec<String>,
    /// The same with their keys.
    pub keys: Vec<(String, String)>,
    /// One of them starts a container.
    pub starts: bool,
}

/// An image whose verdict is recorded.
pub struct Target<'p> {
    /// The variant's place among those that were asked for; nothing for the base.
    pub staged: Option<usize>,
    pub image: Digest,
    pub reference: String,
    pub variant: String,
    pub place: Place,
    pub needed: Vec<&'p Needed<'p>>,
    /// One more than the highest that its verdicts have; a run beside this one may take the same.
    pub sequence: u64,
    /// Tags that lead to the verdict.
    pub groups: BTreeSet<String>,
}

/// An image that is to be tested, with the verdicts on it.
pub struct Open {
    /// The variant's place among those that were asked for.
    pub at: usize,
    pub platform: Platform,
    pub found: Vec<Verdict>,
}

/// One image that was looked at.
struct Seen<'s> {
    staged: Option<usize>,
    variant: String,
    reference: String,
    examined: Examined,
    needed: Vec<Needed<'s>>,
    place: Place,
    /// The verdicts on a variant. Those on a base are found by what its checks exercise.
    found: Vec<Verdict>,
}

pub struct Plan<'s> {
    seen: Vec<Seen<'s>>,
    staging: Repository,
    tester: &'s Tester<'s>,
    pub runs: Vec<Run>,
    /// Results by key.
    pub known: HashMap<String, CheckVerdict>,
    /// Debian packages of the base, where a verdict on an image with the same base has them.
    pub packages: BTreeMap<Platform, String>,
    pub layer_problems: Vec<String>,
    /// Keys of the layers that were looked at in this run.
    proved: BTreeSet<String>,
}

impl<'s> Plan<'s> {
    /// Everything that the open images (places of `staged`, with a platform) need, and nothing known of it.
    pub fn new(
        ctx: &Context,
        tester: &'s Tester<'s>,
        base: &BuiltBase,
        staged: &[StagedVariant<'_>],
        open: Vec<Open>,
        native: Platform,
    ) -> Result<Self> {
        let mut seen = Vec::new();
        let platforms: BTreeSet<Platform> = open.iter().map(|it| it.platform).collect();
        let mut bases = BTreeMap::new();
        for platform in platforms {
            let place = Place { platform, emulated: platform != native };
            let examined = tester.base(base, platform)?;
            let needed = tester.needed(&examined, &examined, place.emulated);
            bases.insert(platform, examined.clone());
            let reference = base.repository.digest(&examined.image);
            let variant = BASE.to_owned();
            let found = Vec::new();
            seen.push(Seen { staged: None, variant, reference, examined, needed, place, found });
        }
        for Open { at, platform, found } in open {
            let place = Place { platform, emulated: platform != native };
            let base = bases.get(&platform).context("a platform without its base")?;
            let examined = tester.variant(&staged[at], base)?;
            let needed = tester.needed(&examined, base, place.emulated);
            let reference = staged[at].staging.digest(&examined.image);
            let variant = staged[at].variant.name.clone();
            seen.push(Seen { staged: Some(at), variant, reference, examined, needed, place, found });
        }
        let staging = ctx.staging(&base.repository);
        let (known, packages) = (HashMap::new(), BTreeMap::new());
        let (runs, layer_problems, proved) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut plan = Self { seen, staging, tester, runs, known, packages, layer_problems, proved };
        plan.assign();
        Ok(plan)
    }

    /// Takes results from the verdicts on these images and from those that the tags of their subjects lead to, and plans
    /// again what is left.
    pub fn take_known(&mut self, ctx: &Context) -> Result<()> {
        let mut failed = BTreeSet::new();
        for seen in &self.seen {
            let keys: Vec<_> = seen.needed.iter().map(|it| (it.name.clone(), it.key.clone())).collect();
            let counting = counting(&seen.found, seen.place.emulated, &keys).map(|counting| counting.verdict);
            note_packages(&mut self.packages, counting.as_ref());
            let checks = counting.iter().flat_map(|it| &it.checks);
            failed.extend(checks.filter(|check| !check.passed).map(|check| check.key.clone()));
            self.known.extend(counting.iter().flat_map(verdict::passed));
        }
        let mut asked = BTreeSet::new();
        let Some(trusted) = ctx.trusted()? else { return Ok(()) };
        loop {
            // One tag of each variant at a time: the verdict that it leads to has all checks of its image. A variant needs
            // all that its base needs.
            let open = self.seen.iter().filter(|seen| seen.staged.is_some()).filter_map(|seen| {
                let is_missing = |it: &&Needed<'_>| {
                    it.subject.is_shared() && !self.known.contains_key(&it.key) && !failed.contains(&it.key)
                };
                let tag =
                    |it: &Needed<'_>| self.tester.group(&it.subject, &seen.examined, seen.place.emulated);
                let missing = seen.needed.iter().filter(is_missing).map(|it| (&it.subject, tag(it)));
                // A verdict about several components has the checks of each, and of the base, which is asked for last.
                let rank = |(subject, tag): &(&Subject, String)| match subject {
                    Subject::Components(names) => (usize::MAX - names.len(), tag.clone()),
                    _ => (usize::MAX, tag.clone()),
                };
                missing.filter(|(_, tag)| !asked.contains(tag)).min_by_key(rank).map(|(_, tag)| tag)
            });
            let tags: BTreeSet<String> = open.collect();
            if tags.is_empty() {
                break;
            }
            let tags: Vec<String> = tags.into_iter().collect();
            let (registry, runner, staging) = (&ctx.registry, &ctx.runner, &self.staging);
            let found =
                side_by_side(&tags, |tag| verdict::of_group(registry, runner, staging, &trusted, tag))?;
            asked.extend(tags);
            for verdict in found.iter().flatten() {
                note_packages(&mut self.packages, Some(verdict));
                // A failure on one of these images counts until the check has run again.
                for (key, check) in verdict::passed(verdict).filter(|(key, _)| !failed.contains(key)) {
                    self.known.entry(key).or_insert(check);
                }
            }
        }
        self.assign();
        Ok(())
    }

    /// Gives each check that has no result to the first image that needs it: the base, then the variants in their order.
    fn assign(&mut self) {
        self.runs.clear();
        let mut given = BTreeSet::new();
        for seen in &self.seen {
            let mut run = Run {
                reference: seen.reference.clone(),
                image: seen.examined.image.clone(),
                variant: seen.variant.clone(),
                place: seen.place,
                pins: seen.examined.pins.clone(),
                checks: Vec::new(),
                keys: Vec::new(),
                starts: false,
            };
            for it in &seen.needed {
                let Some(check) = it.check else { continue };
                if self.known.contains_key(&it.key) || !given.insert(it.key.clone()) {
                    continue;
                }
                run.starts |= check.starts;
                run.checks.push(it.name.clone());
                run.keys.push((it.name.clone(), it.key.clone()));
            }
            if !run.checks.is_empty() {
                self.runs.push(run);
            }
        }
    }

    /// Reports what is left to do on each image.
    pub fn report(&self, ctx: &Context) {
        for seen in &self.seen {
            let run =
                self.runs.iter().find(|run| run.image == seen.examined.image && run.place == seen.place);
            let (left, all) = (run.map_or(0, |run| run.checks.len()), seen.needed.len());
            ctx.say(format!("{} {}: {left} of {all} checks to run here", seen.variant, seen.place.platform));
        }
    }

    /// Proves of each layer that has no verdict yet that it holds the files of its component only. Everything that is
    /// known of one image and used for another depends on this.
    pub fn prove_layers(&mut self, ctx: &Context) -> Result<()> {
        let mut open: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (at, seen) in self.seen.iter().enumerate() {
            let rules =
                seen.needed.iter().filter(|it| it.check.is_none() && !self.known.contains_key(&it.key));
            for rule in rules {
                let Subject::Components(names) = &rule.subject else { continue };
                for name in names {
                    open.entry(rule.key.clone()).or_insert((at, name.clone()));
                }
            }
        }
        let open: Vec<(String, (usize, String))> = open.into_iter().collect();
        if ctx.runner.dry_run {
            return Ok(());
        }
        // Both platforms may have the same layer, as that with the identity.
        let mut layers: BTreeMap<&str, ComponentLayer<'_>> = BTreeMap::new();
        for (_, (at, component)) in &open {
            let seen = &self.seen[*at].examined;
            let image = ctx.registry.manifest(&ctx.runner, &self.staging, &seen.image)?;
            let digest = layer_of(seen, component)?;
            let image = image.context("an index without its image")?;
            let layer = ComponentLayer { component, image, digest, paths: self.tester.paths(component) };
            layers.insert(digest, layer);
        }
        let layers: Vec<_> = layers.into_values().collect();
        let (registry, runner, staging) = (&ctx.registry, &ctx.runner, &self.staging);
        let problems = side_by_side(&layers, |layer| layer.problem(registry, runner, staging))?;
        let problems: BTreeMap<String, Option<String>> =
            layers.iter().map(|layer| layer.digest.to_owned()).zip(problems).collect();
        for (key, (at, component)) in open {
            let problem = problems[layer_of(&self.seen[at].examined, &component)?].clone();
            let seen = &self.seen[at];
            let (image, variant) = (seen.examined.image.clone(), seen.variant.clone());
            let from = Some(Origin { image, variant, at: process::now() });
            let name = format!("the layer of {component} holds its own files only");
            let passed = problem.is_none();
            if let Some(why) = problem {
                let (variant, platform) = (&seen.variant, seen.place.platform);
                self.layer_problems
                    .push(format!("the layer of {component} in {variant} on {platform} {why}"));
            }
            self.proved.insert(key.clone());
            self.known.insert(key.clone(), CheckVerdict { name, key, passed, from });
        }
        Ok(())
    }

    /// The images whose verdict is to be recorded: every variant, and a base on which something ran.
    pub fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        self.seen.iter().filter_map(|seen| {
            let run =
                self.runs.iter().find(|run| run.image == seen.examined.image && run.place == seen.place);
            if seen.staged.is_none() && run.is_none() {
                return None;
            }
            let ran = |it: &&Needed<'_>| {
                let here = run.is_some_and(|run| run.keys.iter().any(|(_, key)| *key == it.key));
                (here || self.proved.contains(&it.key)) && it.subject.is_shared()
            };
            let group = |it: &Needed<'_>| self.tester.group(&it.subject, &seen.examined, seen.place.emulated);
            Some(Target {
                staged: seen.staged,
                image: seen.examined.image.clone(),
                reference: seen.reference.clone(),
                variant: seen.variant.clone(),
                place: seen.place,
                needed: seen.needed.iter().collect(),
                sequence: next_sequence(&seen.found),
                groups: seen.needed.iter().filter(ran).map(group).collect(),
            })
        })
    }
}

/// The digest of a component's layer.
fn layer_of<'e>(image: &'e Examined, component: &str) -> Result<&'e str> {
    let (digest, _) = image.anatomy.components.get(component).context("an image without a layer")?;
    Ok(digest)
}

/// A base with the same layers has the same packages.
fn note_packages(packages: &mut BTreeMap<Platform, String>, verdict: Option<&Verdict>) {
    if let Some(verdict) = verdict.filter(|it| !it.packages.is_empty()) {
        packages.entry(verdict.platform).or_insert_with(|| verdict.packages.clone());
    }
}
