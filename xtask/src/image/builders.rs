//! Which machine serves each platform of a build, asked before anything is built. An emulated build takes many times as
//! long, so it is refused unless it was allowed, and recorded where it was.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::missing;
use crate::model::config::Emulation;
use crate::model::platform::Platform;
use crate::tools::docker;

/// How an image came to be on one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    pub platform: Platform,
    /// buildx's names of the builder and of its node.
    pub builder: String,
    pub node: String,
    /// buildx's driver: docker, docker-container, kubernetes, remote.
    pub driver: String,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The node is of the image's platform.
    Native,
    /// The node is of another one, and no program of the image's runs.
    Cross,
    /// Programs of the image's platform run under emulation.
    Emulated,
}

/// Says which node serves each platform, or why it must not. `runs_target` is true for a build that runs programs of its
/// image.
pub fn require(ctx: &Context, runs_target: bool) -> Result<Vec<Built>> {
    let nodes = docker::nodes(&ctx.runner, builder(ctx)?, &ctx.platforms)?;
    let mut built = Vec::new();
    for node in nodes {
        let how = match (node.native == node.platform, runs_target) {
            (true, _) => How::Native,
            (false, false) => How::Cross,
            (false, true) => How::Emulated,
        };
        let (platform, name, driver) = (node.platform, &node.node, &node.driver);
        let word = match how {
            How::Native => "natively".to_owned(),
            How::Cross => format!("on {}, without running programs of it", node.native),
            How::Emulated => format!("on {}, emulated where programs of it run", node.native),
        };
        ctx.say(format!("{platform} is built {word}: node {name} of builder {} ({driver})", node.builder));
        if how == How::Emulated {
            allow_emulation(ctx, platform, "build")?;
        }
        built.push(Built {
            platform,
            builder: node.builder.clone(),
            node: name.clone(),
            driver: driver.clone(),
            how,
        });
    }
    Ok(built)
}

/// The builder of all builds: the one that was named; one in a container where the engine keeps its images in the classic
/// store, which holds one platform of an image; else the one that the user has chosen.
pub fn builder(ctx: &Context) -> Result<Option<&str>> {
    if let Some(known) = ctx.builder.get() {
        return Ok(known.as_deref());
    }
    let found = match &ctx.settings.builder {
        // It may need no engine here.
        Some(name) => Some(name.clone()),
        None => {
            let engine = docker::require_engine(&ctx.runner)?;
            if !engine.containerd_store {
                docker::ensure_own_builder(&ctx.runner, ctx.settings.buildkit_image.as_deref())?;
            }
            (!engine.containerd_store).then(|| docker::OWN_BUILDER.to_owned())
        }
    };
    Ok(ctx.builder.get_or_init(|| found).as_deref())
}

/// True if the option or `images/devbox.toml` allows emulation.
pub fn may_emulate(ctx: &Context) -> bool {
    let allowed = match ctx.config.build.emulation {
        Emulation::Never => false,
        Emulation::Local => ctx.is_rehearsal(),
        Emulation::Always => true,
    };
    allowed || ctx.allow_emulation
}

/// Fails where emulation is not allowed, and says what to do instead.
pub fn allow_emulation(ctx: &Context, platform: Platform, what: &str) -> Result<()> {
    if may_emulate(ctx) {
        return Ok(());
    }
    Err(missing(format!(
        "the {what} for {platform} would be emulated here: add a node of {platform} to the builder (`docker buildx create \
         --append`), use a machine of {platform}, or run again with --allow-emulation"
    )))
}
