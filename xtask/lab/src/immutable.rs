//! Tags that cannot be moved, and how registries refuse to.

use crate::http::Response;
use crate::pattern::Patterns;

/// The registry whose refusal is imitated. Harbor (`src/server/middleware/immutable`) and ECR also refuse to write a tag with
/// the digest that it already has; the others allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immutable {
    /// 403, as reported publicly; its code and text are not known.
    DockerHub,
    /// 412 `PRECONDITION`
    Harbor,
    /// 400 `TAG_INVALID`
    Ecr,
    /// 409 `TAG_ALREADY_EXISTS`
    Quay,
}

impl Immutable {
    /// Only the tags that match.
    pub fn tags(self, pattern: &str) -> ImmutableTags {
        let mut tags = Patterns::default();
        tags.add(pattern);
        ImmutableTags { style: self, tags }
    }
}

#[derive(Clone, Debug)]
pub struct ImmutableTags {
    style: Immutable,
    tags: Patterns,
}

/// All tags.
impl From<Immutable> for ImmutableTags {
    fn from(style: Immutable) -> Self {
        style.tags("*")
    }
}

impl ImmutableTags {
    /// The refusal of a write that moves a tag from one digest to another, or that writes it again.
    pub(crate) fn refuse(
        &self,
        repository: &str,
        tag: &str,
        from: Option<&str>,
        to: &str,
    ) -> Option<Response> {
        let refuses_all = matches!(self.style, Immutable::Harbor | Immutable::Ecr);
        let is_refused = from.is_some_and(|from| refuses_all || from != to);
        if !is_refused || !self.tags.match_any(tag) {
            return None;
        }
        Some(match self.style {
            Immutable::DockerHub => Response::error(403, "DENIED", "the tag is immutable"),
            Immutable::Harbor => {
                let text =
                    format!("Failed to process request due to '{repository}:{tag}' configured as immutable.");
                Response::error(412, "PRECONDITION", &text)
            }
            Immutable::Ecr => {
                let text = format!(
                    "The image tag '{tag}' already exists in the '{repository}' repository and cannot be \
                     overwritten because the repository is immutable."
                );
                Response::error(400, "TAG_INVALID", &text)
            }
            Immutable::Quay => Response::error(409, "TAG_ALREADY_EXISTS", "tag was already pushed"),
        })
    }
}
