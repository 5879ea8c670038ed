//! The generated page of this tree, for those who write it and those who change what it says.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::ctx::Ctx;
use crate::model::hub_page::{self, PAGE, Sizes, TEMPLATE};
use crate::tools::files::Edit;

/// What the images of the last release weigh: recorded, so that the page can be made without a registry.
pub const SIZES: &str = "docs/sizes.json";

/// The page for these versions.
pub fn edit(ctx: &Ctx, versions: &BTreeMap<String, String>, sizes: &Sizes) -> Result<Edit> {
    let before = fs::read_to_string(ctx.root.join(PAGE)).unwrap_or_default();
    let after = hub_page::render(&ctx.config, &ctx.read(TEMPLATE)?, versions, sizes)?;
    Ok(Edit { path: PAGE.to_owned(), before, after })
}

/// The recorded sizes; none before the first release.
pub fn sizes(ctx: &Ctx) -> Result<Sizes> {
    match ctx.root.join(SIZES).exists() {
        true => serde_json::from_str(&ctx.read(SIZES)?).context(SIZES),
        false => Ok(Sizes::default()),
    }
}
