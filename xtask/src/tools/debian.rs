//! Debian's archive: which versions a suite holds. Its signatures are not checked, since nothing is installed from here.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use lzma_rust2::XzReader;

use crate::model::deb_version;

use super::web::Web;

/// The newest version of every binary package in `main` of a suite, by package.
pub fn packages(web: &Web, archive: &str, suite: &str, arch: &str) -> Result<BTreeMap<String, String>> {
    let url = format!("{archive}/dists/{suite}/main/binary-{arch}/Packages.xz");
    let bytes = web.bytes(&url).required(&url)?;
    let mut text = String::new();
    XzReader::new(bytes.as_slice(), true).read_to_string(&mut text).with_context(|| url.clone())?;
    Ok(parse(&text))
}

/// Reads `Package:` and `Version:` of each paragraph (deb-control(5)).
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name));
        let (Some(package), Some(version)) = (field("Package: "), field("Version: ")) else { continue };
        let known = newest.entry(package.to_owned()).or_insert_with(|| version.to_owned());
        if deb_version::compare(known, version).is_lt() {
            version.clone_into(known);
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_each_package_is_read() {
        let text = "Package: a\nVersion: 1.0-1\n\nPackage: a\nVersion: 1.0-1+deb13u2\nSize: 1\n\n\
                    Package: a\nVersion: 1.0-1+deb13u1\n\nPackage: b\nSource: a\nVersion: 2:3\n";
        let packages = parse(text);
        assert_eq!(
            (packages["a"].as_str(), packages["b"].as_str(), packages.len()),
            ("1.0-1+deb13u2", "2:3", 2)
        );
    }
}
