//! The referrers API (distribution-spec, "Listing Referrers"), in the forms that registries have it.
//!
//! What refers to an image is read from the manifests that the registry stores, so a copied repository has it too.

use serde_json::{Value, json};

use crate::http::{Request, Response};
use crate::registry::Registry;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Referrers {
    /// 404 in plain text, as the registry itself answers before version 3.
    #[default]
    Absent,
    /// Lists what was pushed with a `subject`, in the order of the pushes, and confirms each push by `OCI-Subject`.
    Present,
    /// The same in no useful order, which the specification allows.
    Unordered,
    /// The same, so many entries per page, with `Link` to the next one.
    Paged(usize),
    /// An empty index for every image, and no `OCI-Subject`: a registry that knows the API and ignores subjects.
    Ignored,
    /// A page in HTML with status 200.
    Html,
    /// An error.
    Status(u16),
}

impl Referrers {
    /// True if a push with a subject is confirmed.
    pub(crate) fn confirms(self) -> bool {
        matches!(self, Self::Present | Self::Unordered | Self::Paged(_))
    }

    /// The answer for an image; `None` if the registry itself is to answer.
    pub(crate) fn answer(
        self,
        registry: &Registry,
        request: &Request,
        repository: &str,
        image: &str,
        is_visible: impl Fn(&str) -> bool,
    ) -> Option<Response> {
        let list = || -> Vec<Value> {
            let manifests = registry.manifests(repository).into_iter().filter(|digest| is_visible(digest));
            manifests.filter_map(|digest| descriptor(&digest, &registry.blob(&digest)?, image)).collect()
        };
        match self {
            Self::Absent => None,
            Self::Html => Some(Response::html(200)),
            Self::Status(status) => Some(Response::failure(status)),
            Self::Ignored => Some(index(&[])),
            Self::Present => Some(page(request, &list(), usize::MAX)),
            Self::Paged(size) => Some(page(request, &list(), size)),
            Self::Unordered => {
                let mut entries = list();
                entries.sort_by_key(|entry| entry["digest"].to_string());
                Some(page(request, &entries, usize::MAX))
            }
        }
    }
}

/// The digest in a manifest's `subject`.
pub(crate) fn subject(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest["subject"]["digest"].as_str()?.to_owned())
}

/// The entry of a manifest in the list of an image, if that is its subject.
fn descriptor(digest: &str, bytes: &[u8], image: &str) -> Option<Value> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    if manifest["subject"]["digest"] != image {
        return None;
    }
    let kind = [&manifest["artifactType"], &manifest["config"]["mediaType"]];
    let mut entry = json!({ "mediaType": manifest["mediaType"], "digest": digest, "size": bytes.len() });
    if let Some(kind) = kind.into_iter().find(|kind| kind.is_string()) {
        entry["artifactType"] = kind.clone();
    }
    if manifest["annotations"].is_object() {
        entry["annotations"] = manifest["annotations"].clone();
    }
    Some(entry)
}

fn index(entries: &[Value]) -> Response {
    let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    Response::new(200, INDEX, body.to_string())
}

/// One page: entries of the kind that the query asks for, after the last one of the page before.
fn page(request: &Request, entries: &[Value], size: usize) -> Response {
    let query = request.query();
    let field = |name: &str| query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let is_asked = |entry: &&Value| field("artifactType").is_none_or(|kind| entry["artifactType"] == kind);
    let entries: Vec<Value> = entries.iter().filter(is_asked).cloned().collect();
    let start = field("last").and_then(|last| entries.iter().position(|entry| entry["digest"] == last));
    let rest = &entries[start.map_or(0, |place| place + 1)..];
    let shown = &rest[..rest.len().min(size)];
    let mut answer = index(shown);
    if field("artifactType").is_some() {
        answer.set("oci-filters-applied", "artifactType");
    }
    if let Some(last) = shown.last().filter(|_| rest.len() > shown.len()) {
        let mut next = form_urlencoded::Serializer::new(String::new());
        next.append_pair("last", last["digest"].as_str().unwrap_or_default());
        next.extend_pairs(field("artifactType").map(|kind| ("artifactType", kind)));
        answer.set("link", format!("<{}?{}>; rel=\"next\"", request.path(), next.finish()));
    }
    answer
}
