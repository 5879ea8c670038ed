//! The definition that `docker buildx bake` gets: one target per image, all platforms at once.

use std::collections::BTreeMap;

use serde_json::{Value, json};

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
pub fn definition(targets: &[Target], platforms: &[Platform], ca: Option<&str>) -> Value {
    // An image of one platform is pushed without an index.
    let level = if platforms.len() == 1 { "manifest" } else { "index" };
    let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let secrets: Vec<String> = ca.iter().map(|path| format!("type=file,id=ca,src={path}")).collect();
    let mut map = serde_json::Map::new();
    for target in targets {
        let annotations: Vec<String> =
            target.annotations.iter().map(|(name, value)| format!("{level}:{name}={value}")).collect();
        map.insert(
            target.name.clone(),
            json!({
                "context": target.context,
                "dockerfile": target.dockerfile,
                "args": target.args,
                "labels": target.labels,
                "annotations": annotations,
                "tags": [target.tag],
                "platforms": platforms,
                "secret": secrets,
                "attest": ["type=provenance,disabled=true", "type=sbom,disabled=true"],
                "output": ["type=image,push=true,store=false,compression=zstd,oci-mediatypes=true"],
            }),
        );
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    json!({ "group": { "default": { "targets": names } }, "target": map })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defined(platforms: &[Platform], ca: Option<&str>) -> Value {
        let target = |name: &str| Target {
            name: name.to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            context: "context".to_owned(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            tag: format!("localhost/x:{name}"),
        };
        definition(&[target("base"), target("omos")], platforms, ca)
    }

    #[test]
    fn all_targets_are_built_and_each_is_annotated_on_what_is_pushed() {
        let both = defined(&[Platform::LinuxAmd64, Platform::LinuxArm64], Some("/ca.crt"));
        assert_eq!(both["group"]["default"]["targets"], json!(["base", "omos"]));
        let target = &both["target"]["omos"];
        assert_eq!(target["annotations"], json!(["index:a=b"]));
        assert_eq!(target["platforms"], json!(["linux/amd64", "linux/arm64"]));
        assert_eq!(target["secret"], json!(["type=file,id=ca,src=/ca.crt"]));
        assert_eq!(target["tags"], json!(["localhost/x:omos"]));
        let one = defined(&[Platform::LinuxArm64], None);
        assert_eq!(one["target"]["base"]["annotations"], json!(["manifest:a=b"]));
        assert_eq!(one["target"]["base"]["secret"], json!([]));
    }
}
