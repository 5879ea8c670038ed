//! The definition that `docker buildx bake` gets: one target per image, all platforms at once.

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
    pub tag: String,
}

/// Bake's JSON for a group of targets. `ca` is the host's certificate bundle, passed as a secret: it is in no layer
/// and no cache key. The engine keeps no copy of what it pushes: that would be unpacked, and fill its disk release by
/// release. Attestations are off, since they would put times into the index and so change its digest.
pub fn definition(targets: &[Target], platforms: &[Platform], layers: &Layers, ca: Option<&str>) -> Value {
    // An image of one platform is pushed without an index.
    let level = if platforms.len() == 1 { "manifest" } else { "index" };
    let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let secrets: Vec<String> = ca.iter().map(|path| format!("type=file,id=ca,src={path}")).collect();
    let output = format!("type=image,push=true,store=false,{},oci-mediatypes=true", layers.exporter());
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
                "tags": [target.tag],
                "platforms": platforms,
                "secret": secrets,
                "attest": ["type=provenance,disabled=true", "type=sbom,disabled=true"],
                "output": [output],
            }),
        );
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    json!({ "group": { "default": { "targets": names } }, "target": map })
}
