//! How an image was built, as SLSA's provenance (SLSA v1.1, "Provenance", predicate v1): from which commit and inputs, on
//! top of what, by which nodes. Refuses nothing: what an older record does not know is left out.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::image::base::BuiltBase;
use crate::image::builders::Built;
use crate::image::definition::REVISION;
use crate::image::verdict::{BASE, TestedVariant};
use crate::model::key::Inputs;
use crate::model::oci::Digest;
use crate::model::reference::Repository;

use super::Record;

pub const KIND: &str = "https://slsa.dev/provenance/v1";

/// The page of the repository that describes the members.
const DESCRIPTION: &str = "src/branch/main/docs/verify.md#provenance";

/// One build, as the release record has it.
struct Build<'a> {
    variant: &'a str,
    key: String,
    inputs: &'a Inputs,
    /// The commit, with `-dirty` at its end where a file differed from it.
    revision: Option<&'a str>,
    /// Images that it is made from.
    parents: Vec<Value>,
    nodes: Vec<&'a Built>,
    /// Seconds since 1970.
    finished: Option<u64>,
    seconds: Option<u64>,
}

pub fn of_base(ctx: &Context, base: &BuiltBase, record: &Record) -> Result<Value> {
    let build = Build {
        variant: BASE,
        key: base.tag.clone(),
        inputs: &base.inputs,
        revision: base.index.annotation(REVISION),
        parents: Vec::new(),
        nodes: record.base.built.iter().collect(),
        finished: record.base.built_at,
        seconds: record.base.build_seconds,
    };
    predicate(ctx, &build)
}

pub fn of_variant(
    ctx: &Context,
    base: &BuiltBase,
    tested: &TestedVariant<'_>,
    record: &Record,
) -> Result<Value> {
    let known = record.variants.iter().find(|it| it.name == tested.variant.name);
    let build = Build {
        variant: &tested.variant.name,
        key: tested.inputs.key().to_string(),
        inputs: &tested.inputs,
        revision: tested.index.annotation(REVISION),
        parents: vec![image(&base.repository, &base.tag, &base.index.digest)],
        nodes: known
            .into_iter()
            .flat_map(|it| it.platforms.iter().filter_map(|it| it.built.as_ref()))
            .collect(),
        finished: known.and_then(|it| it.built_at),
        seconds: known.and_then(|it| it.build_seconds),
    };
    predicate(ctx, &build)
}

fn predicate(ctx: &Context, build: &Build<'_>) -> Result<Value> {
    let project = &ctx.config.source;
    let (revision, dirty) = match build.revision.map(|it| (it, it.strip_suffix("-dirty"))) {
        Some((_, Some(clean))) => (Some(clean), true),
        Some((revision, None)) => (Some(revision), false),
        None => (None, false),
    };
    let mut source = json!({ "uri": format!("git+{project}") });
    if let Some(revision) = revision {
        source["digest"] = json!({ "gitCommit": revision });
    }
    let mut materials = vec![source.clone()];
    materials.extend(build.parents.iter().cloned());
    for (name, digest) in &build.inputs.parents {
        if let Ok(digest) = digest.parse::<Digest>() {
            materials.push(json!({ "name": name, "digest": { "sha256": digest.hex() } }));
        }
    }
    for (path, file) in &build.inputs.files {
        materials.push(json!({ "name": path, "digest": { "sha256": file.sha256 } }));
    }
    Ok(json!({
        "buildDefinition": {
            "buildType": format!("{project}/{DESCRIPTION}"),
            "externalParameters": { "source": source, "variant": build.variant, "platforms": ctx.platforms },
            "internalParameters": { "key": build.key, "args": build.inputs.args, "versions": build.inputs.versions,
                "nodes": build.nodes, "uncommittedChanges": dirty, "rehearsal": ctx.is_rehearsal() },
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": { "id": format!("{project}/src/branch/main/xtask"), "version": { "xtask": env!("CARGO_PKG_VERSION") } },
            "metadata": metadata(build)?,
        },
    }))
}

fn metadata(build: &Build<'_>) -> Result<Value> {
    let mut metadata = json!({ "invocationId": build.key });
    if let Some(finished) = build.finished {
        metadata["finishedOn"] = time(finished)?.into();
        if let Some(seconds) = build.seconds {
            metadata["startedOn"] = time(finished.saturating_sub(seconds))?.into();
        }
    }
    Ok(metadata)
}

/// A time as RFC 3339 has it.
fn time(seconds: u64) -> Result<String> {
    Ok(Timestamp::from_second(seconds.try_into()?)?.to_string())
}

fn image(repository: &Repository, name: &str, digest: &Digest) -> Value {
    json!({ "name": name, "uri": format!("oci://{repository}@{digest}"), "digest": { "sha256": digest.hex() } })
}
