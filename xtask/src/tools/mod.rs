//! Effects: one file per outside system, no decisions.

pub mod ci_output;
pub mod crane;
pub mod docker;
pub mod git;
pub mod http;
pub mod hub;
pub mod local;
pub mod process;
pub mod registry;
pub mod runner;
pub mod source;
pub mod tree;
