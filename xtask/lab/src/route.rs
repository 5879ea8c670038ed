//! What a request is about, from its path (distribution-spec, "Endpoints").

use http::Method;

use crate::http::Request;

/// The path of the token server, on the registry's own host: newer cranes refuse a realm on another loopback port.
pub(crate) const TOKEN_PATH: &str = "/token";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Token,
    /// `/v2/`, where clients look for the kind of authentication.
    Ping,
    Manifest {
        repository: String,
        reference: String,
    },
    Tags {
        repository: String,
    },
    Referrers {
        repository: String,
        digest: String,
    },
    /// Blobs, uploads, and whatever else belongs to a repository.
    Other {
        repository: String,
    },
    Unknown,
}

impl Route {
    pub fn of(request: &Request) -> Self {
        let path = request.path();
        if path == TOKEN_PATH {
            return Self::Token;
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Self::Unknown };
        if rest.is_empty() {
            return Self::Ping;
        }
        let owned = |part: &str| part.to_owned();
        if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
            return Self::Manifest { repository: owned(repository), reference: owned(reference) };
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Self::Tags { repository: owned(repository) };
        }
        if let Some((repository, digest)) = rest.rsplit_once("/referrers/") {
            return Self::Referrers { repository: owned(repository), digest: owned(digest) };
        }
        match rest.rsplit_once("/blobs/") {
            Some((repository, _)) => Self::Other { repository: owned(repository) },
            None => Self::Unknown,
        }
    }

    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Other { repository } => Some(repository),
            Self::Token | Self::Ping | Self::Unknown => None,
        }
    }

    /// Repository and tag, if the request reads or writes a tag.
    pub fn tag(&self) -> Option<(&str, &str)> {
        match self {
            Self::Manifest { repository, reference } if !reference.contains(':') => {
                Some((repository, reference))
            }
            _ => None,
        }
    }

    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::Manifest { .. })
    }

    /// Repositories and actions that a token has to allow.
    pub fn scopes(&self, request: &Request) -> Vec<(String, Vec<&'static str>)> {
        let Some(repository) = self.repository() else { return Vec::new() };
        let actions = match request.method {
            Method::GET | Method::HEAD => vec!["pull"],
            Method::DELETE => vec!["delete"],
            _ => vec!["pull", "push"],
        };
        let mut scopes = vec![(repository.to_owned(), actions)];
        // A mount reads the blob's present repository.
        if request.method == Method::POST {
            let from = request.query().into_iter().filter(|(name, _)| name == "from");
            scopes.extend(from.map(|(_, repository)| (repository, vec!["pull"])));
        }
        scopes
    }
}
