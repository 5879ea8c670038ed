//! Who signs and who is trusted. A release signs with `COSIGN_KEY`, whose public half is [`PUBLIC`] in the tree; a rehearsal
//! on this machine signs with that key or with one of its own, which it makes and keeps. Refuses a key that the tree does not
//! name.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::error::missing;
use crate::model::dsse;
use crate::tools::cosign::{PublicKey, SigningKey};
use crate::tools::registry::{self, Labels};

use super::Context;

/// The public half of the key that signs releases.
pub const PUBLIC: &str = "cosign.pub";

/// How the public half gets into the tree.
pub const PUBLISH_KEY: &str = "run `cosign public-key --key KEY > cosign.pub` and commit the file";

/// A rehearsal's own key, in the state folder, beside its public half.
const OWN: &str = "cosign.key";

/// Why nothing can be released or verified without the public half.
pub fn no_public_key() -> anyhow::Error {
    missing(format!("{PUBLIC} is missing, so nobody could verify what is signed: {PUBLISH_KEY}"))
}

impl Context {
    /// The key that signs. A rehearsal without one makes one.
    pub fn signer(&self) -> Result<&SigningKey> {
        if let Some(known) = self.signer.get() {
            return Ok(known);
        }
        let key = match self.named_key()? {
            Some(key) => key,
            None if self.is_rehearsal() => self.own_key()?,
            None => {
                return Err(missing(format!(
                    "no key to sign with: set COSIGN_KEY (or COSIGN_KEY_FILE) and COSIGN_PASSWORD to the key whose public half \
                     is {PUBLIC}; `cosign generate-key-pair` makes one"
                )));
            }
        };
        if !self.is_rehearsal() {
            self.refuse_other_key(&key)?;
        }
        Ok(self.signer.get_or_init(|| key))
    }

    /// The key that signatures are checked with; none where a rehearsal never signed anything.
    pub fn trusted(&self) -> Result<Option<PublicKey>> {
        if !self.is_rehearsal() {
            return self.published_key();
        }
        let has_key = self.signer.get().is_some()
            || self.settings.cosign_key.is_some()
            || self.state_dir().join(OWN).exists();
        has_key.then(|| Ok(self.signer()?.public())).transpose()
    }

    /// The key that the tree names as the one of its releases.
    pub fn published_key(&self) -> Result<Option<PublicKey>> {
        let text = self.read_if_there(PUBLIC);
        let parse = |text: &str| PublicKey::from_pem(text).with_context(|| PUBLIC.to_owned());
        (!text.trim().is_empty()).then(|| parse(&text)).transpose()
    }

    /// Why a release could not be signed, as far as that is known before it: the key itself reaches only the steps that sign.
    pub fn signing_problem(&self) -> Option<String> {
        if self.is_rehearsal() {
            return None;
        }
        let checked = match self.settings.cosign_key {
            Some(_) => self.signer().map(drop),
            None => self.published_key().and_then(|key| key.map(drop).ok_or_else(no_public_key)),
        };
        checked.err().map(|error| format!("{error:#}"))
    }

    /// The key of the environment.
    fn named_key(&self) -> Result<Option<SigningKey>> {
        let Some(named) = &self.settings.cosign_key else { return Ok(None) };
        let text = match named.contains("-----BEGIN") {
            true => named.clone(),
            false => fs::read_to_string(named)
                .map_err(|why| missing(format!("COSIGN_KEY: cannot read the key file: {why}")))?,
        };
        let key = SigningKey::from_pem(&text, self.settings.cosign_password.as_deref());
        key.context("COSIGN_KEY").map(Some)
    }

    fn refuse_other_key(&self, key: &SigningKey) -> Result<()> {
        match self.published_key()? {
            Some(published) if published == key.public() => Ok(()),
            Some(published) => Err(missing(format!(
                "COSIGN_KEY is not the key of {PUBLIC} ({}): use that key, or {PUBLISH_KEY}",
                published.fingerprint()
            ))),
            None => Err(no_public_key()),
        }
    }

    /// The key of rehearsals on this machine, made where there is none.
    fn own_key(&self) -> Result<SigningKey> {
        let folder = self.state_dir();
        let path = folder.join(OWN);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) => {
                let text = SigningKey::generate()?;
                fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder}"))?;
                // Never readable by others, and never half there; a run beside this one may have made one.
                let mut file = tempfile::NamedTempFile::new_in(&folder)?;
                file.write_all(text.as_bytes())?;
                file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
                let _ = file.persist_noclobber(&path);
                fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?
            }
        };
        let key = SigningKey::from_pem(&text, None).with_context(|| format!("{path}: remove the file"))?;
        fs::write(folder.join(PUBLIC), key.public().to_pem())
            .with_context(|| format!("cannot write below {folder}"))?;
        Ok(key)
    }

    /// Signs a document of this pipeline: the label that its artifact carries. A dry run stores nothing, so it signs nothing.
    pub fn sign(&self, kind: &str, document: &Value) -> Result<Labels> {
        if self.runner.dry_run {
            return Ok(Labels::new());
        }
        let signature = self.signer()?.sign(&dsse::pae(kind, document.to_string().as_bytes()))?;
        Ok(BTreeMap::from([registry::signature_label(&signature)]))
    }
}
