//! Black-box tests of the pipeline: the real binary, fakes on PATH, scripted servers, and live releases.
#![allow(clippy::disallowed_methods, reason = "tests run the program and read their own settings")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod act;
mod agents;
mod cli;
mod container;
mod crash;
mod documents;
mod dry_runs;
mod emulation;
mod engines;
mod fakes;
mod hub;
mod inputs;
mod launcher;
mod layout;
mod leftovers;
mod live;
mod machine;
mod people;
mod pipeline;
mod privilege;
mod processes;
mod promotion;
mod published;
mod races;
mod recovery;
mod refusals;
mod registry;
mod requests;
mod sealed;
mod suite;
mod update;
mod verdicts;
mod versions;
mod workflows;
