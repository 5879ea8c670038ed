//! Docker's configuration with a login, in each form that `docker login` leaves.
//!
//! `recordings/` holds what the real programs write and print for each form; a test compares.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Keeps the credentials of a server in a file, with the answers of `docker-credential-pass`.
const HELPER: &str = r#"#!/bin/sh
set -eu
secrets=${0%/*}/../secrets
echo "$1" >> "$secrets/../helper.log"
member() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
file() { printf '%s/%s' "$secrets" "$(printf %s "$1" | tr / _)"; }
case $1 in
  get)
    read -r server || true
    [ -e "$(file "$server")" ] || { echo "credentials not found in native keychain"; exit 1; }
    cat "$(file "$server")"
    ;;
  store)
    credentials=$(cat)
    server=$(echo "$credentials" | member ServerURL)
    printf '%s\n' "$credentials" > "$(file "$server")"
    ;;
  erase)
    read -r server || true
    rm -f "$(file "$server")"
    ;;
  list)
    list=
    for kept in "$secrets"/*; do
      [ ! -e "$kept" ] || list="$list,\"$(member ServerURL < "$kept")\":\"$(member Username < "$kept")\""
    done
    echo "{${list#,}}"
    ;;
esac
"#;

/// `docker-credential-pass` without the key of its store.
const BROKEN_HELPER: &str = r#"#!/bin/sh
printf 'exit status 2: gpg: decryption failed: No secret key\n\n'
exit 1
"#;

/// Who is logged in, and where docker keeps it.
#[derive(Clone, Debug)]
pub enum Login {
    Nobody,
    /// Name and password, in `auth`.
    Password(String, String),
    /// A token of the token server, in `identitytoken`.
    Identity(String),
    /// A bearer token, in `registrytoken`.
    RegistryToken(String),
    /// Name and secret, in a helper for this registry (`credHelpers`). The name `<token>` marks an identity token.
    Helper(String, String),
    /// Name and secret, in the helper for all registries (`credsStore`).
    Store(String, String),
    /// `credsStore` names a helper that knows no credentials yet.
    EmptyStore,
    /// `credsStore` names a helper that fails.
    BrokenStore,
    /// `credsStore` names a helper that is not installed.
    MissingStore,
}

impl Login {
    pub fn password(name: &str, password: &str) -> Self {
        Self::Password(name.to_owned(), password.to_owned())
    }

    pub fn helper(name: &str, secret: &str) -> Self {
        Self::Helper(name.to_owned(), secret.to_owned())
    }

    pub fn store(name: &str, secret: &str) -> Self {
        Self::Store(name.to_owned(), secret.to_owned())
    }
}

/// A folder for `DOCKER_CONFIG`, and its helper programs.
pub struct DockerConfig {
    dir: TempDir,
}

impl DockerConfig {
    /// A login at a registry; [`crate::Lab::docker_config`] makes one at a lab.
    pub fn new(host: &str, login: &Login) -> Self {
        let config = Self { dir: TempDir::new().unwrap() };
        fs::create_dir(config.dir.path().join("bin")).unwrap();
        fs::create_dir(config.dir.path().join("secrets")).unwrap();
        config.set_login(host, login);
        config
    }

    /// Replaces the login.
    pub fn set_login(&self, host: &str, login: &Login) {
        let auth = |value: Value| json!({ "auths": { host: value } });
        let config = match login {
            Login::Nobody => json!({}),
            Login::Password(name, password) => {
                auth(json!({ "auth": BASE64.encode(format!("{name}:{password}")) }))
            }
            // docker keeps the name beside the token, without a password.
            Login::Identity(token) => auth(json!({ "auth": BASE64.encode("ci:"), "identitytoken": token })),
            Login::RegistryToken(token) => auth(json!({ "registrytoken": token })),
            Login::Helper(name, secret) => {
                self.keep(host, name, secret);
                json!({ "auths": { host: {} }, "credHelpers": { host: "lab" } })
            }
            Login::Store(name, secret) => {
                self.keep(host, name, secret);
                json!({ "auths": { host: {} }, "credsStore": "lab" })
            }
            Login::EmptyStore => json!({ "credsStore": "lab" }),
            Login::BrokenStore => json!({ "auths": { host: {} }, "credsStore": "broken" }),
            Login::MissingStore => json!({ "auths": { host: {} }, "credsStore": "missing" }),
        };
        self.install("docker-credential-lab", HELPER);
        self.install("docker-credential-broken", BROKEN_HELPER);
        fs::write(self.file(), serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    }

    fn install(&self, name: &str, text: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn keep(&self, host: &str, name: &str, secret: &str) {
        // In docker's order, and quoted as Go does.
        let quoted =
            |text: &str| Value::from(text).to_string().replace('<', "\\u003c").replace('>', "\\u003e");
        let (server, name, secret) = (quoted(host), quoted(name), quoted(secret));
        let text = format!("{{\"ServerURL\":{server},\"Username\":{name},\"Secret\":{secret}}}\n");
        fs::write(self.dir.path().join("secrets").join(host), text).unwrap();
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `config.json`
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    /// The text of `config.json`.
    pub fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// What a helper has been asked so far, a subcommand per line.
    pub fn helper_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("helper.log")).unwrap_or_default()
    }

    /// Gives a command this login, with the helpers before all other programs of its `PATH`.
    pub fn log_in<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let own = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
        let path = own.map(OsStr::to_owned).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        let mut paths = vec![self.path().join("bin")];
        paths.extend(std::env::split_paths(&path));
        let path = std::env::join_paths(paths).unwrap();
        command.env("PATH", path).env("DOCKER_CONFIG", self.path())
    }

    /// The environment of a client that has this login, if nothing else changes its `PATH`.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let (dir, path) = (self.dir.path().display(), std::env::var("PATH").unwrap());
        [("DOCKER_CONFIG", dir.to_string()), ("PATH", format!("{dir}/bin:{path}"))]
    }
}
