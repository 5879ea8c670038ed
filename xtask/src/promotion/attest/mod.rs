//! What travels with published images: signed statements about each index and about the image of each platform, attached in the
//! public repository where cosign looks for them. They say how it was built ([`provenance`]), which checks it passed
//! ([`test_result`]), what it contains ([`crate::image::sbom`]), and who signed it as which release. That last one names the others, so that none can be taken away or
//! replaced unnoticed. What is attached already is not attached again.

pub mod provenance;
pub mod test_result;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::Context;
use crate::image::base::BuiltBase;
use crate::image::sbom::Sources;
use crate::image::tree::Tree;
use crate::image::verdict::{BASE, TestedVariant};
use crate::model::dsse::{self, Attachment, Carried, SIGN};
use crate::model::oci::{CompleteIndex, Digest, Subject};
use crate::model::platform::Platform;
use crate::model::reference::Repository;
use crate::model::{sbom_cyclonedx, sbom_spdx};
use crate::output;
use crate::tools::cosign::{PublicKey, SigningKey};
use crate::tools::parallel::side_by_side;
use crate::tools::registry::Attached;

use super::record::Record;

/// The annotations of a signature.
pub const RELEASE: &str = "release";
pub const VARIANT: &str = "variant";
pub const REVISION: &str = "revision";
const PLATFORM: &str = "platform";

/// The member of a signature's predicate that names the other artifacts, by their predicates.
const ATTESTATIONS: &str = "attestations";

/// A signature as its statement says it.
#[derive(Clone, Debug)]
pub struct Signature {
    pub annotations: BTreeMap<String, String>,
    /// The artifacts that were attached with it, by predicate.
    pub attestations: BTreeMap<String, String>,
}

impl Signature {
    pub fn is(&self, annotation: &str, value: &str) -> bool {
        self.annotations.get(annotation).is_some_and(|it| it == value)
    }

    /// True if it names an artifact for each of these predicates, and all of them are attached.
    pub fn names_all(&self, wanted: &[&str], attached: &BTreeSet<String>) -> bool {
        wanted.iter().all(|kind| self.attestations.get(*kind).is_some_and(|it| attached.contains(it)))
    }
}

/// An image that has to be signed.
struct Image {
    subject: Subject,
    /// Nothing for an index.
    platform: Option<Platform>,
    annotations: BTreeMap<String, String>,
}

/// An index with its images, which share statements: a variant, or the base where there is none.
struct Family<'a> {
    tested: Option<&'a TestedVariant<'a>>,
    images: Vec<Image>,
}

impl Family<'_> {
    fn of<'a>(
        tested: Option<&'a TestedVariant<'a>>,
        index: &CompleteIndex,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Family<'a>> {
        // A single-platform image is its own index.
        let own = index.images().find(|(_, image)| **image == index.digest).map(|(platform, _)| platform);
        let mut images =
            vec![Image { subject: index.subject(), platform: own, annotations: annotations.clone() }];
        for (platform, _) in index.images().filter(|(_, image)| **image != index.digest) {
            let subject = index.subject_of(platform).context("an index without its image")?;
            let mut annotations = annotations.clone();
            annotations.insert(PLATFORM.to_owned(), platform.to_string());
            images.push(Image { subject, platform: Some(platform), annotations });
        }
        Ok(Family { tested, images })
    }
}

/// The predicates that are attached beside the signature: to an index, or to the image of a platform.
pub fn wanted(is_base: bool, is_index: bool) -> Vec<&'static str> {
    let mut wanted = vec![provenance::KIND];
    if !is_base {
        wanted.push(test_result::KIND);
    }
    if !is_index {
        wanted.extend([sbom_cyclonedx::PREDICATE, sbom_spdx::PREDICATE]);
    }
    wanted
}

/// Attaches what is missing of a release. A rerun writes nothing.
pub fn ensure(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    tested: &[TestedVariant<'_>],
    record: &Record,
) -> Result<()> {
    let (repository, release) = (&base.repository, record.release);
    if ctx.runner.dry_run {
        output::line(format!("# sign the images of {release} in {repository}"));
        return Ok(());
    }
    let signer = ctx.signer()?;
    let families = families(base, tested, record)?;
    let open = unsigned(ctx, repository, &families, &signer.public())?;
    if open.is_empty() {
        return Ok(());
    }
    let sources = Sources::read(ctx, tree, base)?;
    let mut made = Vec::new();
    for (family, images) in &open {
        let shared = statements(ctx, tree, base, family, record, signer)?;
        let of_image = |image: &&Image| -> Result<(Subject, Vec<Attachment>)> {
            let mut bundles = shared.clone();
            if let Some(platform) = image.platform {
                for (kind, document) in sources.documents(family.tested.map(|it| &**it), platform)? {
                    let statement =
                        dsse::statement([&image.subject.digest], &BTreeMap::new(), kind, &document);
                    bundles.push((kind, sealed(&statement, signer)?));
                }
            }
            Ok((image.subject.clone(), attachments(image, &bundles, signer)?))
        };
        made.push(images.iter().map(of_image).collect::<Result<Vec<_>>>()?);
    }
    // The first family alone: it stores what all artifacts share. The images of one share statements, and docker-registry
    // cannot read a blob that is stored twice at the same time.
    let (registry, runner) = (&ctx.registry, &ctx.runner);
    let (first, others) = made.split_at(1);
    for part in [first, others] {
        side_by_side(part, |family| {
            family.iter().try_for_each(|(subject, attachments)| {
                registry.attach(runner, repository, subject, attachments)
            })
        })?;
    }
    let count = made.iter().map(Vec::len).sum::<usize>();
    ctx.say(format!("signed {count} images of {release}"));
    Ok(())
}

/// The images without a signature, or without something that it names, by their family.
fn unsigned<'f>(
    ctx: &Context,
    repository: &Repository,
    families: &'f [Family<'f>],
    trusted: &PublicKey,
) -> Result<Vec<(&'f Family<'f>, Vec<&'f Image>)>> {
    let all: Vec<(&Family<'_>, &Image)> =
        families.iter().flat_map(|family| family.images.iter().map(move |image| (family, image))).collect();
    let (registry, runner) = (&ctx.registry, &ctx.runner);
    let is_signed = |(family, image): &(&Family<'_>, &Image)| {
        let attached = registry.attached(runner, repository, &image.subject.digest, Some(SIGN))?;
        let wanted = wanted(family.tested.is_none(), image.platform.is_none());
        Ok(is_complete(&attached, image, &wanted, trusted))
    };
    // The first one alone: it finds out whether the registry has the referrers API.
    let (first, others) = all.split_at(1);
    let mut is_signed =
        [side_by_side(first, is_signed)?, side_by_side(others, is_signed)?].concat().into_iter();
    let open = families.iter().map(|family| {
        let images = family.images.iter().filter(|_| is_signed.next() == Some(false));
        (family, images.collect::<Vec<_>>())
    });
    Ok(open.filter(|(_, images)| !images.is_empty()).collect())
}

/// True if the image has its signature, and everything that the signature names.
fn is_complete(attached: &Attached, image: &Image, wanted: &[&str], trusted: &PublicKey) -> bool {
    signatures(&attached.statements, &image.subject.digest, trusted).any(|signature| {
        let fits = [RELEASE, VARIANT]
            .iter()
            .all(|name| signature.annotations.get(*name) == image.annotations.get(*name));
        fits && signature.names_all(wanted, &attached.all)
    })
}

fn families<'a>(
    base: &BuiltBase,
    tested: &'a [TestedVariant<'a>],
    record: &Record,
) -> Result<Vec<Family<'a>>> {
    // Releases share a base, which is signed once and for none of them.
    let of_base = BTreeMap::from([(VARIANT.to_owned(), BASE.to_owned())]);
    let mut families = vec![Family::of(None, &base.index, &of_base)?];
    for it in tested {
        let mut annotations = BTreeMap::from([
            (RELEASE.to_owned(), record.release.to_string()),
            (VARIANT.to_owned(), it.variant.name.clone()),
        ]);
        annotations.extend(record.revision.clone().map(|revision| (REVISION.to_owned(), revision)));
        families.push(Family::of(Some(it), &it.index, &annotations)?);
    }
    Ok(families)
}

/// The bundles that all images of an index share, by predicate.
fn statements(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    family: &Family<'_>,
    record: &Record,
    signer: &SigningKey,
) -> Result<Vec<(&'static str, Value)>> {
    let mut predicates = Vec::new();
    match family.tested {
        None => predicates.push((provenance::KIND, provenance::of_base(ctx, base, record)?)),
        Some(it) => {
            predicates.push((provenance::KIND, provenance::of_variant(ctx, base, it, record)?));
            predicates.push((test_result::KIND, test_result::of(tree, it)));
        }
    }
    let images: Vec<&Digest> = family.images.iter().map(|image| &image.subject.digest).collect();
    let none = BTreeMap::new();
    let bundle = |(kind, predicate): (&'static str, Value)| {
        let statement = dsse::statement(images.iter().copied(), &none, kind, &predicate);
        Ok((kind, sealed(&statement, signer)?))
    };
    predicates.into_iter().map(bundle).collect()
}

/// A statement as a signed bundle.
fn sealed(statement: &str, signer: &SigningKey) -> Result<Value> {
    let signature = signer.sign(&dsse::signed_bytes(statement))?;
    Ok(dsse::bundle(statement, &signature, &signer.public().hint()?))
}

/// Everything that is attached to an image. The signature comes last: an image that has it has the rest.
fn attachments(image: &Image, bundles: &[(&str, Value)], signer: &SigningKey) -> Result<Vec<Attachment>> {
    let attachment = |kind: &str, bundle: &Value| {
        Attachment::new(&image.subject, kind, bundle)
            .map_err(|why| anyhow::anyhow!("a manifest of this pipeline {why}"))
    };
    let (mut all, mut named) = (Vec::new(), BTreeMap::new());
    for (kind, bundle) in bundles {
        let made = attachment(kind, bundle)?;
        named.insert(*kind, made.artifact.digest.to_string());
        all.push(made);
    }
    // cosign checks the annotations of the first subject only, so there is one subject.
    let predicate = json!({ ATTESTATIONS: named });
    let statement = dsse::statement([&image.subject.digest], &image.annotations, SIGN, &predicate);
    all.push(attachment(SIGN, &sealed(&statement, signer)?)?);
    Ok(all)
}

/// The signatures of an image by this key.
pub fn signatures<'a>(
    found: &'a [Carried],
    image: &'a Digest,
    trusted: &'a PublicKey,
) -> impl Iterator<Item = Signature> + 'a {
    signed_by(found, trusted).filter_map(|it| {
        let annotations = it.about(image, SIGN)?;
        let named = it.predicate()[ATTESTATIONS].clone();
        Some(Signature { annotations, attestations: serde_json::from_value(named).unwrap_or_default() })
    })
}

/// The statements that this key has signed.
pub fn signed_by<'a>(found: &'a [Carried], trusted: &'a PublicKey) -> impl Iterator<Item = &'a Carried> {
    let by_key =
        |it: &&Carried| it.signatures.iter().any(|signature| trusted.verifies(&it.signed, signature));
    found.iter().filter(by_key)
}
