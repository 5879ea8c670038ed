//! One file per subcommand. A phase never calls another; only [`release`] chains them.

pub mod base_decide;
pub mod build;
pub mod build_base;
pub mod bump;
pub mod changelog;
pub mod completions;
pub mod docs;
pub mod doctor;
pub mod explain;
pub mod local;
pub mod lock;
pub mod next_tag;
pub mod outdated;
pub mod plan;
pub mod preflight;
pub mod promote_base_latest;
pub mod publish;
pub mod refresh_base;
pub mod release;
pub mod repair;
pub mod rollback;
pub mod smoke;
pub mod status;
pub mod test;
pub mod update_description;
pub mod validate;
