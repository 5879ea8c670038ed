//! The bill of an image as SPDX 2.3 in JSON. Written with structs of its own: `spdx-rs` 0.5 is made for SPDX 2.2.1, needs a clock
//! and random numbers, and has not been released since.

use serde::Serialize;

use super::checksum::Checksum;
use super::key;
use super::sbom::{Bill, Kind, Licence, Part};

/// The predicate of a statement that carries such a document.
pub const PREDICATE: &str = "https://spdx.dev/Document";

const NOASSERTION: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'a str,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package<'a>>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package<'a> {
    #[serde(rename = "SPDXID")]
    id: String,
    name: &'a str,
    version_info: &'a str,
    download_location: &'static str,
    files_analyzed: bool,
    license_concluded: &'static str,
    license_declared: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_comments: Option<String>,
    copyright_text: &'static str,
    primary_package_purpose: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Sum>,
    external_refs: [Reference; 1],
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The document.
pub fn document(bill: &Bill) -> serde_json::Result<serde_json::Value> {
    let image = &bill.image;
    let locator = image.locator();
    let itself = Package {
        checksums: vec![Sum { algorithm: "SHA256", checksum_value: image.digest.hex().to_owned() }],
        ..package(IMAGE.to_owned(), &image.name, &image.digest, "CONTAINER", locator)
    };
    let packages: Vec<Package> = std::iter::once(itself).chain(bill.parts().map(of_part)).collect();
    let relationship = |from: &str, relationship_type, to: &str| Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type,
        related_spdx_element: to.to_owned(),
    };
    let contains = packages[1..].iter().map(|it| relationship(IMAGE, "CONTAINS", &it.id));
    let relationships = std::iter::once(relationship(DOCUMENT, "DESCRIBES", IMAGE)).chain(contains).collect();
    serde_json::to_value(Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: &image.name,
        document_namespace: format!("{}/spdx/{}", image.source, image.digest.hex()),
        creation_info: CreationInfo { created: image.timestamp(), creators: ["Tool: opencode-devbox xtask"] },
        packages,
        relationships,
    })
}

fn package<'a>(
    id: String,
    name: &'a str,
    version: &'a str,
    purpose: &'static str,
    reference_locator: String,
) -> Package<'a> {
    Package {
        id,
        name,
        version_info: version,
        download_location: NOASSERTION,
        files_analyzed: false,
        license_concluded: NOASSERTION,
        license_declared: NOASSERTION,
        license_comments: None,
        copyright_text: NOASSERTION,
        primary_package_purpose: purpose,
        checksums: Vec::new(),
        external_refs: [Reference {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator,
        }],
        comment: String::new(),
    }
}

fn of_part(part: &Part) -> Package<'_> {
    let locator = part.locator();
    let id = format!("SPDXRef-{}", &key::digest(locator.as_bytes())["sha256:".len()..][..16]);
    let purpose = match part.kind {
        Kind::Library => "LIBRARY",
        Kind::Program => "APPLICATION",
        Kind::Model => "OTHER",
    };
    let (algorithm, value) = match &part.checksum {
        Some(Checksum::Sha256(bytes)) => ("SHA256", hex::encode(bytes)),
        Some(Checksum::Sha512(bytes)) => ("SHA512", hex::encode(bytes)),
        None => ("", String::new()),
    };
    let layers: Vec<&str> = part.layers.iter().map(|layer| &**layer).collect();
    let comment = if layers.is_empty() { String::new() } else { format!("layer {}", layers.join(", ")) };
    let checksums = part.checksum.iter().map(|_| Sum { algorithm, checksum_value: value.clone() }).collect();
    let package = Package { checksums, comment, ..package(id, &part.name, &part.version, purpose, locator) };
    match &part.licence {
        None => package,
        Some(Licence::Expression(license_declared)) => Package { license_declared, ..package },
        Some(Licence::Words(names)) => {
            let words = format!("The package's own words: {}", names.join(", "));
            Package { license_comments: Some(words), ..package }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sbom::tests::bill;
    use super::*;

    #[test]
    fn a_document_has_all_that_is_known() {
        let mut document = document(&bill()).expect("a document");
        let parts = document["packages"].take();
        let lines = parts.as_array().into_iter().flatten().chain([&document]).map(ToString::to_string);
        expect_test::expect![[r#"
            {"SPDXID":"SPDXRef-Image","checksums":[{"algorithm":"SHA256","checksumValue":"6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"}],"copyrightText":"NOASSERTION","downloadLocation":"NOASSERTION","externalRefs":[{"referenceCategory":"PACKAGE-MANAGER","referenceLocator":"pkg:oci/devbox@sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d?arch=arm64&repository_url=docker.io%2Fme%2Fdevbox","referenceType":"purl"}],"filesAnalyzed":false,"licenseConcluded":"NOASSERTION","licenseDeclared":"NOASSERTION","name":"opencode-devbox omos","primaryPackagePurpose":"CONTAINER","versionInfo":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"}
            {"SPDXID":"SPDXRef-92c75c2aef924cd5","checksums":[{"algorithm":"SHA256","checksumValue":"9cfa1468c93fc18652e34a000f0c6614b0fa18f6f4887477ad9b0d36ca6a7eaa"}],"comment":"layer sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","copyrightText":"NOASSERTION","downloadLocation":"NOASSERTION","externalRefs":[{"referenceCategory":"PACKAGE-MANAGER","referenceLocator":"pkg:deb/debian/git@1:2.47%2Bb1?arch=arm64","referenceType":"purl"}],"filesAnalyzed":false,"licenseComments":"The package's own words: GPL-2+, Expat","licenseConcluded":"NOASSERTION","licenseDeclared":"NOASSERTION","name":"git","primaryPackagePurpose":"LIBRARY","versionInfo":"1.0"}
            {"SPDXID":"SPDXRef-9873a0732677dbef","comment":"layer sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","copyrightText":"NOASSERTION","downloadLocation":"NOASSERTION","externalRefs":[{"referenceCategory":"PACKAGE-MANAGER","referenceLocator":"pkg:generic/embedding-model@mini","referenceType":"purl"}],"filesAnalyzed":false,"licenseConcluded":"NOASSERTION","licenseDeclared":"NOASSERTION","name":"embedding-model","primaryPackagePurpose":"OTHER","versionInfo":"1.0"}
            {"SPDXID":"SPDXRef-50ea0f7eb07fbb9a","comment":"layer sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","copyrightText":"NOASSERTION","downloadLocation":"NOASSERTION","externalRefs":[{"referenceCategory":"PACKAGE-MANAGER","referenceLocator":"pkg:npm/%40a/b@1.0","referenceType":"purl"}],"filesAnalyzed":false,"licenseConcluded":"NOASSERTION","licenseDeclared":"MIT","name":"omos","primaryPackagePurpose":"APPLICATION","versionInfo":"1.0"}
            {"SPDXID":"SPDXRef-DOCUMENT","creationInfo":{"created":"2025-12-17T19:33:20Z","creators":["Tool: opencode-devbox xtask"]},"dataLicense":"CC0-1.0","documentNamespace":"https://example.org/devbox/spdx/6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","name":"opencode-devbox omos","packages":null,"relationships":[{"relatedSpdxElement":"SPDXRef-Image","relationshipType":"DESCRIBES","spdxElementId":"SPDXRef-DOCUMENT"},{"relatedSpdxElement":"SPDXRef-92c75c2aef924cd5","relationshipType":"CONTAINS","spdxElementId":"SPDXRef-Image"},{"relatedSpdxElement":"SPDXRef-9873a0732677dbef","relationshipType":"CONTAINS","spdxElementId":"SPDXRef-Image"},{"relatedSpdxElement":"SPDXRef-50ea0f7eb07fbb9a","relationshipType":"CONTAINS","spdxElementId":"SPDXRef-Image"}],"spdxVersion":"SPDX-2.3"}"#]].assert_eq(&lines.collect::<Vec<_>>().join("\n"));
    }
}
