//! One file per subcommand. A phase never calls another; only [`release`] chains them.

pub mod base_decide;
pub mod build;
pub mod build_base;
pub mod bump_opencode;
pub mod completions;
pub mod docs;
pub mod doctor;
pub mod explain;
pub mod local;
pub mod plan;
pub mod promote_base_latest;
pub mod publish;
pub mod release;
pub mod repair;
pub mod rollback;
pub mod smoke;
pub mod status;
pub mod test;
pub mod update_description;
pub mod validate;
