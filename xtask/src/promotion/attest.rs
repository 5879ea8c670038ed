//! The signatures that travel with published images: one for each index and for the image of each platform, attached in the
//! public repository where cosign looks for it. A signature names release, variant and commit. What is signed already is not
//! signed again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::context::Context;
use crate::image::base::BuiltBase;
use crate::image::tree::Tree;
use crate::image::verdict::{BASE, TestedVariant};
use crate::model::dsse::{self, Carried, SIGN};
use crate::model::oci::{CompleteIndex, Digest, Subject};
use crate::model::version::ReleaseTag;
use crate::output;
use crate::tools::cosign::PublicKey;
use crate::tools::parallel::side_by_side;

/// The annotations of a signature.
pub const RELEASE: &str = "release";
pub const VARIANT: &str = "variant";
pub const REVISION: &str = "revision";
const PLATFORM: &str = "platform";

/// An image that has to be signed.
struct Wanted {
    subject: Subject,
    annotations: BTreeMap<String, String>,
}

/// Signs what is unsigned of a release. A rerun writes nothing.
pub fn ensure(
    ctx: &Context,
    tree: &Tree,
    base: &BuiltBase,
    tested: &[TestedVariant<'_>],
    release: ReleaseTag,
) -> Result<()> {
    let repository = &base.repository;
    if ctx.runner.dry_run {
        output::line(format!("# sign the images of {release} in {repository}"));
        return Ok(());
    }
    let signer = ctx.signer()?;
    let (trusted, hint) = (signer.public(), signer.public().hint()?);
    let wanted = wanted(tree, base, tested, release)?;
    let (registry, runner) = (&ctx.registry, &ctx.runner);
    let is_signed = side_by_side(&wanted, |it| {
        let found = registry.attached(runner, repository, &it.subject.digest)?;
        let mut signed = signatures(&found, &it.subject.digest, &trusted);
        Ok(signed
            .any(|found| [RELEASE, VARIANT].iter().all(|name| found.get(*name) == it.annotations.get(*name))))
    })?;
    let open: Vec<(&Wanted, String)> = wanted
        .iter()
        .zip(is_signed)
        .filter(|(_, is_signed)| !is_signed)
        .map(|(it, _)| (it, dsse::statement(&it.subject.digest, &it.annotations, SIGN, &json!({}))))
        .collect();
    let mut bundles = Vec::new();
    for (it, statement) in &open {
        let signature = signer.sign(&dsse::signed_bytes(statement))?;
        bundles.push((*it, dsse::bundle(statement, &signature, &hint)));
    }
    // The first one alone: it stores what all artifacts share.
    let (first, others) = bundles.split_at(bundles.len().min(1));
    for part in [first, others] {
        side_by_side(part, |(it, bundle)| registry.attach(runner, repository, &it.subject, SIGN, bundle))?;
    }
    if !open.is_empty() {
        ctx.say(format!("signed {} images of {release}", open.len()));
    }
    Ok(())
}

fn wanted(
    tree: &Tree,
    base: &BuiltBase,
    tested: &[TestedVariant<'_>],
    release: ReleaseTag,
) -> Result<Vec<Wanted>> {
    let revision = tree.commit.as_ref().map(|commit| commit.revision.clone());
    // Releases share a base, which is signed once and for none of them.
    let of_base = BTreeMap::from([(VARIANT.to_owned(), BASE.to_owned())]);
    let mut wanted = images(&base.index, &of_base)?;
    for it in tested {
        let mut annotations = BTreeMap::from([
            (RELEASE.to_owned(), release.to_string()),
            (VARIANT.to_owned(), it.variant.name.clone()),
        ]);
        annotations.extend(revision.clone().map(|revision| (REVISION.to_owned(), revision)));
        wanted.extend(images(&it.index, &annotations)?);
    }
    Ok(wanted)
}

/// An index and the image of each of its platforms.
fn images(index: &CompleteIndex, annotations: &BTreeMap<String, String>) -> Result<Vec<Wanted>> {
    let mut wanted = vec![Wanted { subject: index.subject(), annotations: annotations.clone() }];
    // A single-platform image is its own index.
    for (platform, _) in index.images().filter(|(_, image)| **image != index.digest) {
        let subject = index.subject_of(platform).context("an index without its image")?;
        let mut annotations = annotations.clone();
        annotations.insert(PLATFORM.to_owned(), platform.to_string());
        wanted.push(Wanted { subject, annotations });
    }
    Ok(wanted)
}

/// The annotations of each signature of an image by this key.
pub fn signatures<'a>(
    found: &'a [Carried],
    image: &'a Digest,
    trusted: &'a PublicKey,
) -> impl Iterator<Item = BTreeMap<String, String>> + 'a {
    let by_key =
        |it: &&Carried| it.signatures.iter().any(|signature| trusted.verifies(&it.signed, signature));
    found.iter().filter(by_key).filter_map(|it| it.about(image, SIGN))
}
