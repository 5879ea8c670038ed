//! The definition that `docker buildx bake` gets: one target per image, all platforms at once. Refuses nothing: its
//! input was checked where it was made.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::config::{COMPRESSION, Layers};
use super::platform::Platform;

/// One image to build and push.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub dockerfile: String,
    pub context: String,
    pub args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub output: Output,
    /// A tag that BuildKit's cache of this target is kept under, if it is kept.
    pub cache: Option<String>,
}

impl Target {
    fn cache_from(&self) -> Vec<String> {
        self.cache.iter().map(|tag| format!("type=registry,ref={tag}")).collect()
    }

    /// All stages, those that fetch included, since they are what takes time.
    fn cache_to(&self, layers: &Layers) -> Vec<String> {
        let tags = self.cache.iter().filter(|_| matches!(self.output, Output::Cache));
        let how = format!("mode=max,{},oci-mediatypes=true", layers.exporter());
        tags.map(|tag| format!("type=registry,ref={tag},{how}")).collect()
    }
}

/// Where an image goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// Into a registry, under a tag.
    Tag(String),
    /// Nowhere: another target is built on top of it.
    Nowhere,
    /// Nowhere, but BuildKit's cache of it goes into the registry.
    Cache,
}

impl Output {
    fn tags(&self) -> Vec<&str> {
        match self {
            Self::Tag(tag) => vec![tag],
            _ => Vec::new(),
        }
    }

    fn exporters(&self, layers: &Layers) -> Vec<String> {
        match self {
            Self::Tag(_) => {
                vec![format!("type=image,push=true,store=false,{},oci-mediatypes=true", layers.exporter())]
            }
            Self::Nowhere => Vec::new(),
            Self::Cache => vec!["type=cacheonly".to_owned()],
        }
    }
}

/// Bake's JSON for a group of targets. `secrets` are BuildKit's: they are in no layer and no cache key. The engine keeps no copy of what it pushes: that would be unpacked, and fill its disk release by
/// release. Attestations are off, since they would put times into the index and so change its digest.
pub fn definition(targets: &[Target], platforms: &[Platform], layers: &Layers, secrets: &[String]) -> Value {
    // An image of one platform is pushed without an index.
    let level = if platforms.len() == 1 { "manifest" } else { "index" };
    let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let mut map = serde_json::Map::new();
    for target in targets {
        let annotations: Vec<String> =
            target.annotations.iter().map(|(name, value)| format!("{level}:{name}={value}")).collect();
        // Recorded with the arguments, but none of the build's.
        let args: BTreeMap<_, _> = target.args.iter().filter(|(name, _)| *name != COMPRESSION).collect();
        map.insert(
            target.name.clone(),
            json!({
                "context": target.context,
                "dockerfile": target.dockerfile,
                "args": args,
                "labels": target.labels,
                "annotations": annotations,
                "tags": target.output.tags(),
                "platforms": platforms,
                "secret": secrets,
                "cache-from": target.cache_from(),
                "cache-to": target.cache_to(layers),
                "attest": ["type=provenance,disabled=true", "type=sbom,disabled=true"],
                "output": target.output.exporters(layers),
            }),
        );
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    json!({ "group": { "default": { "targets": names } }, "target": map })
}

/// Lists the files of two images of one platform, for [`super::listing`]. Everything runs natively.
pub const LISTS: &str = r#"ARG DEBIAN_IMAGE
FROM first AS first-image
FROM second AS second-image
FROM --platform=$BUILDPLATFORM ${DEBIAN_IMAGE} AS lists
ARG TARGETARCH
RUN --mount=type=bind,from=first-image,target=/first --mount=type=bind,from=second-image,target=/second <<'SH'
set -eu
mkdir /out
for side in first second; do
  cd /$side
  find . -mindepth 1 -printf '%T@\t%y %#m %U:%G %l\t%P\0' > /out/$TARGETARCH.$side.files
  find . -type f -print0 | xargs -0 sha256sum --zero > /out/$TARGETARCH.$side.sums
done
SH
FROM scratch
COPY --from=lists /out/ /
"#;

/// Bake's JSON that builds `target` and compares it with an image that is there. `folder` has [`LISTS`] as its Dockerfile
/// and gets the folder `lists`: for each architecture `<arch>.first.files` and `.first.sums` of the image, and the same of
/// the target under `second`.
pub fn comparison(
    target: &Target,
    image: &str,
    debian: &str,
    folder: &str,
    platforms: &[Platform],
    secrets: &[String],
) -> Value {
    let target = Target { output: Output::Nowhere, ..target.clone() };
    let mut all = definition(std::slice::from_ref(&target), platforms, &Layers::default(), secrets);
    let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    // Steps of the target's may run in the comparison's own build, which then has to have its secrets.
    let secrets = all["target"][&target.name]["secret"].clone();
    all["target"]["comparison"] = json!({
        "context": folder,
        "args": { "DEBIAN_IMAGE": debian },
        "contexts": { "first": format!("docker-image://{image}"), "second": format!("target:{}", target.name) },
        "platforms": platforms,
        "secret": secrets,
        "output": [format!("type=local,dest={folder}/lists,platform-split=false")],
    });
    all["group"]["default"]["targets"] = json!(["comparison"]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> [String; 1] {
        ["type=file,id=ca,src=/ca.crt".to_owned()]
    }

    fn defined(platforms: &[Platform], secrets: &[String]) -> Value {
        let target = |name: &str| Target {
            name: name.to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            context: "context".to_owned(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            output: Output::Tag(format!("localhost/x:{name}")),
            cache: None,
        };
        definition(&[target("base"), target("omos")], platforms, &Layers::default(), secrets)
    }

    #[test]
    fn all_targets_are_built_and_annotated() {
        let both = defined(&[Platform::LinuxAmd64, Platform::LinuxArm64], &secrets());
        assert_eq!(both["group"]["default"]["targets"], json!(["base", "omos"]));
        let target = &both["target"]["omos"];
        assert_eq!(target["annotations"], json!(["index:a=b"]));
        assert_eq!(target["platforms"], json!(["linux/amd64", "linux/arm64"]));
        assert_eq!(target["secret"], json!(["type=file,id=ca,src=/ca.crt"]));
        assert_eq!(target["tags"], json!(["localhost/x:omos"]));
        let one = defined(&[Platform::LinuxArm64], &[]);
        assert_eq!(one["target"]["base"]["annotations"], json!(["manifest:a=b"]));
        assert_eq!(one["target"]["base"]["secret"], json!([]));
    }

    fn target(output: Output) -> Target {
        Target {
            name: "omos".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            context: "context".to_owned(),
            args: BTreeMap::from(
                [(COMPRESSION, "gzip"), ("INSTALL_OMOS", "true")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            output,
            cache: Some("localhost/x:cache-omos".to_owned()),
        }
    }

    #[test]
    fn a_target_goes_where_it_is_sent_and_reads_the_cache() {
        let of = |output| {
            let all = definition(&[target(output)], &[Platform::LinuxAmd64], &Layers::default(), &[]);
            all["target"]["omos"].clone()
        };
        let pushed = of(Output::Tag("localhost/x:omos".to_owned()));
        assert_eq!(
            pushed["output"],
            json!(["type=image,push=true,store=false,compression=zstd,oci-mediatypes=true"])
        );
        assert_eq!(pushed["cache-from"], json!(["type=registry,ref=localhost/x:cache-omos"]));
        assert_eq!(pushed["cache-to"], json!([]));
        assert_eq!(pushed["args"], json!({ "INSTALL_OMOS": "true" }), "the compression is no argument");
        let cached = of(Output::Cache);
        assert_eq!((&cached["output"], &cached["tags"]), (&json!(["type=cacheonly"]), &json!([])));
        let to = "type=registry,ref=localhost/x:cache-omos,mode=max,compression=zstd,oci-mediatypes=true";
        assert_eq!(cached["cache-to"], json!([to]));
    }

    #[test]
    fn a_comparison_builds_the_target_and_pushes_nothing() {
        let target = target(Output::Tag("localhost/x:omos".to_owned()));
        let all =
            comparison(&target, "localhost/x@sha256:a", "debian", "/f", &[Platform::LinuxArm64], &secrets());
        assert_eq!(all["group"]["default"]["targets"], json!(["comparison"]));
        assert_eq!(all["target"]["omos"]["output"], json!([]));
        let lists = &all["target"]["comparison"];
        assert_eq!(
            lists["contexts"],
            json!({ "first": "docker-image://localhost/x@sha256:a", "second": "target:omos" })
        );
        assert_eq!(
            lists["secret"],
            json!(["type=file,id=ca,src=/ca.crt"]),
            "steps of the target may run in it"
        );
        assert_eq!(lists["output"], json!(["type=local,dest=/f/lists,platform-split=false"]));
    }
}
