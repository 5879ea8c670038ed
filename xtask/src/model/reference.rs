//! Image repositories and references (distribution reference grammar, without tags inside a repository). Refuses a
//! repository with a tag or digest, and names that the grammar does not allow.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Registry host and path, such as `docker.io/joakimp/opencode-devbox` or `localhost:5000/opencode-devbox`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    path: String,
}

impl Repository {
    /// Registry host with its port, `docker.io` for Docker Hub.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path below the host.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where variants wait for their verdict, so that users of the repository never see half a release.
    pub fn staging(&self) -> Self {
        Self { host: self.host.clone(), path: format!("{}-staging", self.path) }
    }

    pub fn is_docker_hub(&self) -> bool {
        self.host == "docker.io"
    }

    /// Loopback registries speak plain HTTP and are trusted by Docker.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Base address of the registry's HTTP API.
    pub fn api(&self) -> String {
        match self.host.as_str() {
            "docker.io" => "https://registry-1.docker.io".to_owned(),
            host if self.is_loopback() => format!("http://{host}"),
            host => format!("https://{host}"),
        }
    }

    pub fn tag(&self, tag: &str) -> String {
        format!("{self}:{tag}")
    }

    pub fn digest(&self, digest: &str) -> String {
        format!("{self}@{digest}")
    }
}

/// True for `localhost` and the loopback addresses of IPv4 and IPv6, with or without a port: the hosts that docker trusts
/// without TLS.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, path) = match text.split_once('/') {
            Some((host, path)) if host == "localhost" || host.contains(['.', ':', '[']) => {
                (host, path.to_owned())
            }
            Some(_) => ("docker.io", text.to_owned()),
            None => ("docker.io", format!("library/{text}")),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let valid = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if text.is_empty() || !path.split('/').all(valid) {
            return Err("expected a repository without tag, such as docker.io/you/opencode-devbox".to_owned());
        }
        Ok(Self { host: host.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn repository(text: &str, full: &str, api: &str) {
        let repository: Repository = text.parse().expect("a repository");
        assert_eq!((repository.to_string().as_str(), repository.api().as_str()), (full, api));
    }

    #[test]
    fn references_are_put_together() {
        let it: Repository = "localhost:5000/a/b".parse().expect("a repository");
        assert_eq!((it.host(), it.path(), it.is_docker_hub()), ("localhost:5000", "a/b", false));
        assert_eq!(
            (it.tag("x"), it.digest("sha256:x")),
            ("localhost:5000/a/b:x".into(), "localhost:5000/a/b@sha256:x".into())
        );
        assert!("you/devbox".parse::<Repository>().is_ok_and(|it| it.is_docker_hub()));
    }

    #[test]
    fn short_names_mean_docker_hub_and_loopback_speaks_http() {
        repository("you/devbox", "docker.io/you/devbox", "https://registry-1.docker.io");
        repository("debian", "docker.io/library/debian", "https://registry-1.docker.io");
        repository("localhost:5000/devbox", "localhost:5000/devbox", "http://localhost:5000");
        repository("[::1]:5000/devbox", "[::1]:5000/devbox", "http://[::1]:5000");
        repository("127.0.0.9:5000/devbox", "127.0.0.9:5000/devbox", "http://127.0.0.9:5000");
        repository(
            "127.0.0.1.example.org/devbox",
            "127.0.0.1.example.org/devbox",
            "https://127.0.0.1.example.org",
        );
        repository("git.example.org/a/b", "git.example.org/a/b", "https://git.example.org");
        for text in ["", "you/devbox:latest", "You/devbox", "localhost:5000/", "a b"] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }
}
