//! Builds the variants that the staging repository lacks, all of them and all platforms in one bake.

use anyhow::Result;

use crate::ctx::Ctx;
use crate::model::bake::Target;
use crate::state;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Variants to build [default: all]
    pub variants: Vec<String>,
    /// Print the bake definition instead of building
    #[arg(long)]
    pub print: bool,
}

pub fn run(ctx: &Ctx, args: &Args) -> Result<()> {
    state::chosen(ctx, &args.variants)?;
    let (base, index) = state::existing_base(ctx)?;
    let stages = state::stages(ctx, &args.variants, &base, &index)?;
    let context = state::context(ctx, &ctx.config.variants, "variants")?;
    let mut targets = Vec::new();
    for stage in &stages {
        let reference = stage.staging.tag(&stage.tag);
        if stage.present.is_some() && !args.print {
            ctx.say(format!("{reference} is there: nothing to build"));
            continue;
        }
        let mut labels = state::labels(ctx, "opencode-devbox", &stage.variant.components)?;
        labels.insert("org.opencontainers.image.base.name".to_owned(), base.repository.tag(&base.tag));
        labels.insert("org.opencontainers.image.base.digest".to_owned(), index.digest.clone());
        labels.insert("opencode-devbox.variant".to_owned(), stage.variant.name.clone());
        targets.push(Target {
            name: stage.variant.name.clone(),
            dockerfile: ctx.config.variants.dockerfile.clone(),
            context: context.to_string(),
            args: stage.args.clone(),
            labels,
            tag: reference,
        });
    }
    if targets.is_empty() { Ok(()) } else { state::bake(ctx, &targets, args.print) }
}
