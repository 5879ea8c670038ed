//! The bill of an image as CycloneDX 1.6 in JSON. Written with structs of its own: `cyclonedx-bom` 0.8 ends at CycloneDX 1.5,
//! and `serde-cyclonedx` 0.10 generates its types from the schema at build time, licences and hashes untyped.

use serde::Serialize;

use super::checksum::Checksum;
use super::sbom::{Bill, Kind, Licence, Part, uuid};

/// The predicate of a statement that carries such a document.
pub const PREDICATE: &str = "https://cyclonedx.org/bom";

/// The property that names a layer.
const LAYER: &str = "opencode-devbox:layer";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component<'a>>,
    compositions: Vec<Composition<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: String,
    tools: Tools<'a>,
    component: Component<'a>,
}

#[derive(Serialize)]
struct Tools<'a> {
    components: Vec<Component<'a>>,
}

/// Programs hold libraries that were compiled into them, which nobody lists.
#[derive(Serialize)]
struct Composition<'a> {
    aggregate: &'static str,
    assemblies: Vec<&'a str>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Component<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    bom_ref: String,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    purl: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property<'a>>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum License<'a> {
    License {
        name: &'a str,
    },
    #[serde(untagged)]
    Expression {
        expression: &'a str,
    },
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'static str,
    value: &'a str,
}

/// The document.
pub fn document(bill: &Bill) -> serde_json::Result<serde_json::Value> {
    let image = &bill.image;
    let locator = image.locator();
    let itself = Component {
        r#type: "container",
        bom_ref: locator.clone(),
        name: &image.name,
        version: &image.digest,
        purl: locator.clone(),
        hashes: vec![Hash { alg: "SHA-256", content: image.digest.hex().to_owned() }],
        ..Component::default()
    };
    let tool = Component { r#type: "application", name: "opencode-devbox xtask", ..Component::default() };
    serde_json::to_value(Document {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: format!("urn:uuid:{}", uuid(&image.digest)),
        version: 1,
        metadata: Metadata {
            timestamp: image.timestamp(),
            tools: Tools { components: vec![tool] },
            component: itself,
        },
        components: bill.parts().map(component).collect(),
        compositions: vec![Composition { aggregate: "incomplete", assemblies: vec![&locator] }],
    })
}

fn component(part: &Part) -> Component<'_> {
    let licenses = match &part.licence {
        None => Vec::new(),
        Some(Licence::Expression(expression)) => vec![License::Expression { expression }],
        Some(Licence::Words(names)) => names.iter().map(|name| License::License { name }).collect(),
    };
    let (alg, content) = match &part.checksum {
        Some(Checksum::Sha256(bytes)) => ("SHA-256", hex::encode(bytes)),
        Some(Checksum::Sha512(bytes)) => ("SHA-512", hex::encode(bytes)),
        None => ("", String::new()),
    };
    let hashes = part.checksum.iter().map(|_| Hash { alg, content: content.clone() }).collect();
    Component {
        r#type: match part.kind {
            Kind::Library => "library",
            Kind::Program => "application",
            Kind::Model => "machine-learning-model",
        },
        bom_ref: part.locator(),
        name: &part.name,
        version: &part.version,
        purl: part.locator(),
        hashes,
        licenses,
        properties: part.layers.iter().map(|layer| Property { name: LAYER, value: layer }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sbom::tests::bill;
    use super::*;

    #[test]
    fn a_document_has_all_that_is_known() {
        let mut document = document(&bill()).expect("a document");
        let parts = document["components"].take();
        let lines = parts.as_array().into_iter().flatten().chain([&document]).map(ToString::to_string);
        expect_test::expect![[r#"
            {"bom-ref":"pkg:deb/debian/git@1:2.47%2Bb1?arch=arm64","hashes":[{"alg":"SHA-256","content":"9cfa1468c93fc18652e34a000f0c6614b0fa18f6f4887477ad9b0d36ca6a7eaa"}],"licenses":[{"license":{"name":"GPL-2+"}},{"license":{"name":"Expat"}}],"name":"git","properties":[{"name":"opencode-devbox:layer","value":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"}],"purl":"pkg:deb/debian/git@1:2.47%2Bb1?arch=arm64","type":"library","version":"1.0"}
            {"bom-ref":"pkg:generic/embedding-model@mini","name":"embedding-model","properties":[{"name":"opencode-devbox:layer","value":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"}],"purl":"pkg:generic/embedding-model@mini","type":"machine-learning-model","version":"1.0"}
            {"bom-ref":"pkg:npm/%40a/b@1.0","licenses":[{"expression":"MIT"}],"name":"omos","properties":[{"name":"opencode-devbox:layer","value":"sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"},{"name":"opencode-devbox:layer","value":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"}],"purl":"pkg:npm/%40a/b@1.0","type":"application","version":"1.0"}
            {"bomFormat":"CycloneDX","components":null,"compositions":[{"aggregate":"incomplete","assemblies":["pkg:oci/devbox@sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d?arch=arm64&repository_url=docker.io%2Fme%2Fdevbox"]}],"metadata":{"component":{"bom-ref":"pkg:oci/devbox@sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d?arch=arm64&repository_url=docker.io%2Fme%2Fdevbox","hashes":[{"alg":"SHA-256","content":"6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"}],"name":"opencode-devbox omos","purl":"pkg:oci/devbox@sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d?arch=arm64&repository_url=docker.io%2Fme%2Fdevbox","type":"container","version":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"},"timestamp":"2025-12-17T19:33:20Z","tools":{"components":[{"name":"opencode-devbox xtask","type":"application"}]}},"serialNumber":"urn:uuid:6105d6cc-76af-8003-a5e9-4d588ce511be","specVersion":"1.6","version":1}"#]].assert_eq(&lines.collect::<Vec<_>>().join("\n"));
    }
}
