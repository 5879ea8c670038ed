//! Errors that a person can do something about, and the exit codes that they give.

use std::process::ExitCode;

/// A prerequisite is missing: a tool, a staged image, a verdict, an account. Its message ends with the command that
/// provides it; it makes the exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

/// Shorthand for a [`Missing`] error.
pub fn missing(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Missing(message.into()))
}

/// Exit codes: 0 done, 1 failed, 2 wrong usage (clap), 3 a prerequisite is missing; [`crate::tools::children`] has those of
/// signals.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Missing>() {
        Some(_) => ExitCode::from(3),
        None => ExitCode::from(1),
    }
}
