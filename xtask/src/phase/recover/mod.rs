//! After an interruption or a bad release.

pub mod repair;
pub mod rollback;
