//! Moving public tags, all or none of them: who may ([`permissions`], [`lease`]), from what to what ([`record`],
//! [`release_tag`]), and what any machine can complete or undo after an interruption ([`ledger`]).

pub mod attest;
mod begin;
pub mod lease;
pub mod ledger;
pub mod permissions;
pub mod prune;
pub mod record;
pub mod release_tag;
