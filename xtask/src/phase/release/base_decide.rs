//! Says which base this tree implies and whether it has to be built. Writes nothing but CI outputs. Refuses to decide
//! where the registry does not say whether the base is there.

use anyhow::Result;
use serde_json::json;

use crate::context::Context;
use crate::image::base;
use crate::image::tree::Tree;
use crate::output;

/// Returns `need_build`.
pub fn run(ctx: &Context) -> Result<bool> {
    let base = base::find(ctx, &Tree::load(ctx)?, &ctx.platforms)?;
    let need_build = base.as_built().is_none();
    ctx.ci.set("base_tag", &base.tag)?;
    ctx.ci.set("need_build", need_build)?;
    let reference = base.reference();
    if ctx.json {
        output::json(
            &json!({ "base": reference, "key": base.key, "need_build": need_build, "debian": base.debian }),
        );
    } else {
        let state = if need_build { "has to be built" } else { "is there" };
        ctx.tell(format!("{reference}: {state}"));
    }
    Ok(need_build)
}
