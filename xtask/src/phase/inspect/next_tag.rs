//! Prints the release tag that comes next, by git and the registry. Refuses to name a tag where git or the registry
//! cannot be asked.

use anyhow::Result;
use serde_json::json;

use crate::context::Context;
use crate::output;
use crate::promotion::release_tag;

pub fn run(ctx: &Context) -> Result<()> {
    let tag = release_tag::next(ctx, ctx.opencode_version()?)?;
    ctx.ci.set("release_tag", tag)?;
    if ctx.json {
        output::json(&json!({ "release_tag": tag }));
    } else {
        output::line(tag);
    }
    Ok(())
}
