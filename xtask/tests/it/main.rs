//! Black-box tests of the pipeline: the real binary, fakes on PATH, scripted servers, and live releases.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod container;
mod fakes;
mod hub;
mod live;
mod pipeline;
mod tidy;
mod workflows;
