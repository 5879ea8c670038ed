//! What registries delete, and how they refuse to.

use http::Method;
use serde_json::Value;

use crate::http::{Request, Response};
use crate::registry::Registry;

/// The registry whose way to delete is imitated. All of them delete a manifest by digest with all its tags, if at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletes {
    /// Manifests by digest, and no single tag: the distribution registry before version 3, and Harbor
    /// (`src/server/registry/manifest.go`), with 405 `UNSUPPORTED`.
    #[default]
    Digests,
    /// A single tag as well, which leaves its manifest: the distribution registry 3, GitLab, and Gitea
    /// (`routers/api/packages/container/container.go`).
    Tags,
    /// Manifests that no tag and no index names; others are refused with 403 (Docker's description of the registry's API,
    /// "Delete image manifest"). Tags have an API of their own, which a lab does not have.
    Untagged,
    /// Nothing, with 405 `UNSUPPORTED`: GitHub, and a distribution registry whose deletion is off.
    Nothing,
}

impl Deletes {
    /// The answer to a deletion; `None` if the registry itself is to answer.
    pub(crate) fn answer(
        self,
        registry: &Registry,
        request: &Request,
        repository: &str,
        reference: &str,
    ) -> Option<Response> {
        if request.method != Method::DELETE {
            return None;
        }
        let is_digest = reference.contains(':');
        let unsupported = || Response::error(405, "UNSUPPORTED", "The operation is unsupported.");
        match self {
            Self::Nothing => Some(unsupported()),
            Self::Digests | Self::Untagged if !is_digest => Some(unsupported()),
            Self::Tags if !is_digest => Some(match registry.tag(repository, reference) {
                Some(_) => {
                    registry.forget(repository, reference);
                    Response::new(202, "text/plain", "")
                }
                None => Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            }),
            Self::Untagged if is_named(registry, repository, reference) => {
                Some(Response::error(403, "DENIED", "the manifest is referenced"))
            }
            _ => None,
        }
    }
}

/// True if a tag or an index of the repository names the manifest.
fn is_named(registry: &Registry, repository: &str, digest: &str) -> bool {
    let names = |index: &String| {
        let index: Value =
            serde_json::from_slice(&registry.blob(index).unwrap_or_default()).unwrap_or_default();
        index["manifests"].as_array().into_iter().flatten().any(|entry| entry["digest"] == digest)
    };
    registry.tags(repository).values().any(|at| at == digest)
        || registry.manifests(repository).iter().any(names)
}
