//! Builds the base for every platform and pushes it under its key, unless the registry has it.

use anyhow::Result;

use crate::ctx::Ctx;
use crate::model::bake::Target;
use crate::state;

pub fn run(ctx: &Ctx) -> Result<()> {
    let base = state::base(ctx)?;
    let reference = base.repository.tag(&base.tag);
    if base.present.is_some() {
        ctx.say(format!("{reference} is there: nothing to build"));
        return Ok(());
    }
    ctx.say(format!("building {reference} upon {}", base.debian));
    let mut components = ["node", "uv", "mempalace"].map(String::from).to_vec();
    if base.args["INSTALL_GITEA_MCP"] == "true" {
        components.push("gitea-mcp".to_owned());
    } else {
        ctx.say("gitea-mcp is left out: its release host does not answer");
    }
    let mut args = base.args.clone();
    args.insert("DEBIAN_IMAGE".to_owned(), base.debian.clone());
    // The key goes into the folder's name, so that two trees never share a context.
    let context = state::context(ctx, &ctx.config.base, &base.tag)?;
    let target = Target {
        name: "base-image".to_owned(),
        dockerfile: ctx.config.base.dockerfile.clone(),
        context: context.into_string(),
        args,
        labels: state::labels(ctx, "opencode-devbox base", &components)?,
        tag: reference,
    };
    state::bake(ctx, &[target], false)
}
