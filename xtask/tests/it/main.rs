//! Black-box tests of the pipeline without an engine: the real binary, fakes on PATH, scripted servers.
#![allow(clippy::disallowed_methods, reason = "tests run the program and read their own settings")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "each target uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod cli;
mod documents;
mod dry_runs;
mod hub;
mod inputs;
mod launcher;
mod layout;
mod leftovers;
mod machine;
mod pipeline;
mod processes;
mod progress;
mod promotion;
mod prune;
mod recovery;
mod refusals;
mod registry;
mod report;
mod requests;
mod sbom;
mod signatures;
mod suite;
mod verdicts;
mod versions;
mod workflows;
