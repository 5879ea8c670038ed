//! Compares compressions of layers: the same image is compressed and pushed, pulled by an engine that has nothing, and
//! started, in each way.

use anyhow::{Context as _, Result, bail};

use crate::bench::lab::Lab;
use crate::bench::ways::RECIPE;
use crate::model::bench::{self, Compressed};
use crate::model::config::{Compression, Layers};
use crate::tools::command::cmd;
use crate::tools::crane;
use crate::tools::engine::Scratch;

/// What is compared: BuildKit's default for gzip and a quicker one, then one level for each of the four encoders that
/// its zstd has (0 to 2, 3 to 6, 7 and 8, 9 and more). Level 3 is its default.
const COMPRESSIONS: [Layers; 6] = [
    Layers { compression: Compression::Gzip, level: None },
    Layers { compression: Compression::Gzip, level: Some(1) },
    Layers { compression: Compression::Zstd, level: Some(1) },
    Layers { compression: Compression::Zstd, level: Some(3) },
    Layers { compression: Compression::Zstd, level: Some(7) },
    Layers { compression: Compression::Zstd, level: Some(9) },
];

/// Compresses, pushes, pulls and starts the same image in each way.
pub fn measure(lab: &Lab<'_>, runs: usize) -> Result<Vec<Compressed>> {
    let [platform] = lab.ctx.platforms.as_slice() else {
        bail!("compressions are compared on one platform: run again with `--platform linux/amd64`");
    };
    let variant = lab.ctx.config.variant.first().context("no variant")?;
    let maker = lab.engine("push")?;
    let repository = lab.repository("compression/opencode-devbox")?;
    for words in [vec!["build-base"], vec!["build", &variant.name]] {
        let cmd = lab.xtask(&lab.new_tree(), &words);
        let to = ["--repository".to_owned(), repository.to_string(), format!("--platform={platform}")];
        lab.ctx.runner.run(&maker.on(cmd.args(to)))?;
    }
    let staging = repository.staging();
    let listed = lab.ctx.runner.read(&crane::tags(&staging.to_string()))?;
    let tag = listed.lines().find(|tag| tag.starts_with(&variant.name)).context("nothing is staged")?;
    let mut rows = Vec::new();
    for layers in COMPRESSIONS {
        let mut all = Vec::new();
        for run in 0..runs {
            all.push(compressed(lab, &maker, &staging.tag(tag), &layers, run)?);
        }
        let middle = |figure: fn(&Compressed) -> f64| bench::median(all.iter().map(figure).collect());
        rows.push(Compressed {
            push: middle(|it| it.push),
            pull: middle(|it| it.pull),
            start: middle(|it| it.start),
            ..all[0].clone()
        });
    }
    Ok(rows)
}

fn compressed(
    lab: &Lab<'_>,
    maker: &Scratch<'_>,
    image: &str,
    layers: &Layers,
    run: usize,
) -> Result<Compressed> {
    let (kind, level) = (layers.compression.name(), layers.level);
    let name = level.map_or_else(|| format!("{kind}, default"), |level| format!("{kind}, level {level}"));
    let tag = level.map_or_else(|| format!("{kind}-{run}"), |level| format!("{kind}{level}-{run}"));
    let repository = lab.repository("compressed/opencode-devbox")?;
    let reference = repository.tag(&tag);
    // A mark of its own makes the layer new to the engine, which keeps what it has compressed.
    let progress = lab.ctx.runner.build_progress();
    let build = cmd!("docker buildx build {progress} --target=flat --provenance=false")
        .shown(format!("{name}, run {run}"), lab.form(&[]), None)
        .arg(format!("--file={}/{RECIPE}", lab.new_tree()))
        .args([format!("--build-arg=UPON={image}"), format!("--build-arg=MARK={tag}")]);
    let build = maker.on(build.arg(lab.new_tree().as_str()));
    let runner = &lab.ctx.runner;
    runner.run(&build.clone().arg("--output=type=cacheonly"))?;
    let output = format!("--output=type=image,name={reference},push=true,store=false,oci-mediatypes=true");
    let push = build.arg(format!("{output},{}", layers.exporter()));
    let push = lab.measure(maker, 0, || runner.run(&push))?.seconds;
    let user = lab.engine("pull")?;
    let pull = user.on(cmd!("docker pull --quiet {reference}"));
    let pull = lab.measure(&user, 0, || runner.run(&pull))?.seconds;
    let start = cmd!("docker run --rm --entrypoint=/opt/opencode/bin/opencode {reference} --version");
    let start = user.on(start);
    let start = lab.measure(&user, 0, || runner.run(&start))?.seconds;
    let images = lab.images(&repository, &[(name.clone(), tag)])?;
    let bytes = images.values().flatten().map(|(_, size)| size).sum();
    Ok(Compressed { name, bytes, push, pull, start })
}
