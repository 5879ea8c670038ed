//! Deletes manifests (distribution-spec, "Content Management"). Registries differ: most delete a manifest with all its tags when
//! they are asked by digest, some delete a single tag as well, and some refuse both.

use anyhow::Result;
use ureq::http::Response;

use crate::error::missing;
use crate::model::oci::Digest;
use crate::model::reference::Repository;
use crate::tools::runner::Runner;

use super::{Registry, authorized};

/// What a client that deletes asks for.
const DELETE: &str = "delete";

impl Registry {
    /// Deletes a tag, or a manifest by digest. False if the registry does not have it.
    pub fn delete(&self, runner: &Runner, repository: &Repository, reference: &str) -> Result<bool> {
        let response = self.ask_to_delete(runner, repository, reference)?;
        match response.status().as_u16() {
            200 | 202 | 204 => Ok(true),
            404 | 410 => Ok(false),
            405 => Err(unsupported(repository)),
            _ => {
                let what = format!("cannot delete {reference}");
                Err(self.refusal(runner, repository, &what, &response, DELETE))
            }
        }
    }

    /// Fails unless the registry deletes and the account may: asks for a manifest that does not exist.
    pub fn prove_delete(&self, runner: &Runner, repository: &Repository) -> Result<()> {
        let nothing = Digest::of(repository.to_string().as_bytes());
        self.delete(runner, repository, &nothing).map(drop)
    }

    fn ask_to_delete(
        &self,
        runner: &Runner,
        repository: &Repository,
        reference: &str,
    ) -> Result<Response<Vec<u8>>> {
        let url = self.manifest_url(repository, reference);
        self.send(runner, repository, DELETE, |agent, auth| authorized(agent.delete(&url), auth).call())
    }

    /// Digests of everything that refers to an image, of any kind: signatures, lists of packages, verdicts.
    pub fn referring(&self, runner: &Runner, repository: &Repository, image: &Digest) -> Result<Vec<Digest>> {
        let listed = self.listed(runner, repository, image)?;
        let digests = listed.iter().filter_map(|entry| entry["digest"].as_str()?.parse().ok());
        Ok(digests.collect())
    }
}

fn unsupported(repository: &Repository) -> anyhow::Error {
    let host = repository.host();
    missing(match host {
        "ghcr.io" => "ghcr.io deletes no manifest over this API (HTTP 405): delete the versions that `cargo xtask prune` lists \
                      on the package's page"
            .to_owned(),
        _ => format!(
            "{host} does not delete (HTTP 405): turn deletion on there (REGISTRY_STORAGE_DELETE_ENABLED=true for the \
             distribution registry) and run the same command again"
        ),
    })
}
