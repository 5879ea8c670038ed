//! Which release comes next: neither git nor the registry may know its tag.

use anyhow::{Result, bail};

use crate::ctx::Ctx;
use crate::model::version::{ReleaseTag, Version};
use crate::state;
use crate::tools::git;

/// The first free release tag of an opencode version. A registry that cannot tell is an error, as is a full alphabet.
pub fn next(ctx: &Ctx, version: Version) -> Result<ReleaseTag> {
    let repository = state::repository(ctx)?;
    let mut candidate = Some(ReleaseTag::first(version));
    while let Some(tag) = candidate {
        let mut taken = git::has_tag(&ctx.runner, &tag.to_string())?;
        for variant in &ctx.config.variant {
            taken = taken
                || ctx.registry.manifest(&ctx.runner, &repository, &variant.version_tag(tag))?.is_some();
        }
        if !taken {
            return Ok(tag);
        }
        candidate = tag.next();
    }
    bail!(
        "all releases of {version} from v{version} to v{version}z are taken: run `cargo xtask bump-opencode latest`"
    )
}
