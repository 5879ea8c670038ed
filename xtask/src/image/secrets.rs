//! What builds get as BuildKit secrets: the host's certificates and the accounts of package registries. They are in no
//! argument, layer or cache key.

use crate::context::Context;
use crate::context::sources;
use crate::tools::command::Cmd;

/// Variables that hold the accounts for the program that starts a build.
const NETRC: &str = "DEVBOX_BUILD_NETRC";
const NPMRC: &str = "DEVBOX_BUILD_NPMRC";

/// Secrets of a build.
#[derive(Debug, Default)]
pub struct Secrets {
    /// As `--secret` and bake's `secret` take them.
    pub specs: Vec<String>,
    /// Values by variable.
    values: Vec<(&'static str, String)>,
}

impl Secrets {
    pub fn new(ctx: &Context) -> Self {
        let mut secrets = Self::default();
        secrets.specs.extend(ctx.settings.ca_bundle.iter().map(|path| format!("type=file,id=ca,src={path}")));
        let npm = sources::configured_npm(ctx);
        let pypi = sources::configured_pypi(ctx);
        if let Some((name, value)) = npm.and_then(|source| source.npm_setting()) {
            secrets.add("npmrc", NPMRC, format!("{name}={value}\n"));
        }
        if let Some(line) = pypi.and_then(|source| source.netrc()) {
            secrets.add("netrc", NETRC, line);
        }
        secrets
    }

    fn add(&mut self, id: &str, variable: &'static str, value: String) {
        self.specs.push(format!("type=env,id={id},env={variable}"));
        self.values.push((variable, value));
    }

    /// Gives the values to the command that starts the build.
    pub fn give(&self, cmd: Cmd) -> Cmd {
        self.values.iter().fold(cmd, |cmd, (name, value)| cmd.secret(name, value))
    }
}
