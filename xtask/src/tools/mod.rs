//! Effects: one file per outside system, no decisions.

pub mod children;
pub mod ci_output;
pub mod command;
pub mod cosign;
pub mod crane;
pub mod debian;
pub mod docker;
pub mod engine;
pub mod files;
pub mod git;
pub mod gitea;
pub mod http;
pub mod hub;
pub mod local;
pub mod meter;
pub mod npm;
pub mod parallel;
pub mod process;
pub mod pypi;
pub mod registry;
pub mod root;
pub mod runner;
pub mod source;
pub mod toolbox;
pub mod tree;
pub mod web;
