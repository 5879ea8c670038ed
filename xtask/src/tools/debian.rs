//! Debian's archive: which versions a suite holds, by lists that Debian has signed, and the changelogs of its packages. Refuses
//! a list that is unsigned, too old, of another suite, or larger than its signed index says, and a package that has other
//! bytes than its list says.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use flate2::read::GzDecoder;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use lzma_rust2::XzReader;

use crate::error::missing;
use crate::model::deb_version;
use crate::model::key::digest;
use crate::tools::command::cmd;

use super::runner::Runner;
use super::web::{Answer, Web};

/// Debian's keys, as its package debian-archive-keyring installs them.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The most that a list may have, compressed or not, in bytes.
const LIMIT: u64 = 400_000_000;

/// The most that a package may have whose changelog is read, in bytes, and the most of the changelog.
const PACKAGE_LIMIT: u64 = 40_000_000;
const CHANGELOG_LIMIT: u64 = 4_000_000;

/// A binary package of a suite, by its newest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub version: String,
    /// The source package that it is built from.
    pub source: String,
    /// In bytes.
    pub size: u64,
    /// Path below the archive.
    file: String,
    sha256: String,
}

/// A suite of an archive, such as `trixie-security`.
pub struct Suite {
    archive: String,
    /// Address of the suite's folder.
    url: String,
    /// SHA-256 and size of each file, from the signed index.
    files: BTreeMap<String, (String, u64)>,
    by_hash: bool,
}

impl Suite {
    /// Reads the signed index of a suite. `keyring` holds Debian's keys, if they are not where Debian installs them.
    pub fn open(
        runner: &Runner,
        web: &Web,
        archive: &str,
        suite: &str,
        keyring: Option<&str>,
    ) -> Result<Self> {
        let url = format!("{archive}/dists/{suite}");
        let index = format!("{url}/InRelease");
        let signed = web.bytes(&index).required(&index)?;
        let signed = String::from_utf8(signed).with_context(|| index.clone())?;
        let text =
            verified(runner, &signed, keyring).with_context(|| format!("{index} is not signed by Debian"))?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        if field("Codename") != Some(suite) {
            bail!("{index} is of the suite {:?}", field("Codename").unwrap_or_default());
        }
        if let Some(end) = field("Valid-Until") {
            let time =
                rfc2822::parse(&end.replace("UTC", "+0000")).with_context(|| format!("{index}: {end}"))?;
            if time.timestamp() < Timestamp::now() {
                bail!(
                    "{index} was valid until {end}: the archive is an old copy, or the clock of this machine is wrong"
                );
            }
        }
        Ok(Self {
            archive: archive.to_owned(),
            url,
            files: files(&text),
            by_hash: field("Acquire-By-Hash") == Some("yes"),
        })
    }

    /// The newest version of every binary package in `main`, by package.
    pub fn packages(&self, web: &Web, arch: &str) -> Result<BTreeMap<String, Package>> {
        let folder = format!("main/binary-{arch}");
        let of = |name: &str| {
            let file = format!("{folder}/{name}");
            self.files.get(&file).with_context(|| format!("{} has no {file}", self.url))
        };
        let ((sum, size), (_, unpacked)) = (of("Packages.xz")?, of("Packages")?);
        let url = format!("{}/{folder}/Packages.xz", self.url);
        if *size > LIMIT || *unpacked > LIMIT {
            bail!("{url} has {size} bytes, {unpacked} unpacked: more than is read");
        }
        // Under its hash a file stays while the archive is being updated.
        let hashed = format!("{}/{folder}/by-hash/SHA256/{sum}", self.url);
        let found = if self.by_hash { web.bounded(&hashed, *size) } else { Answer::Absent };
        let bytes = match found {
            Answer::Absent => web.bounded(&url, *size),
            found => found,
        };
        let bytes = bytes.required(&url)?;
        if digest(&bytes) != format!("sha256:{sum}") {
            bail!("{url} has other bytes than the signed index says: run the same command again");
        }
        let mut text = String::new();
        let mut reader = XzReader::new(bytes.as_slice(), true).take(unpacked + 1);
        reader.read_to_string(&mut text).with_context(|| url.clone())?;
        if text.len() as u64 > *unpacked {
            bail!("{url} unpacks to more than the {unpacked} bytes of the signed index");
        }
        Ok(parse(&text))
    }

    /// The changelog that a package installs; `None` if it leaves that to another package.
    pub fn changelog(&self, web: &Web, name: &str, package: &Package) -> Result<Option<String>> {
        let url = format!("{}/{}", self.archive, package.file);
        if package.size > PACKAGE_LIMIT {
            bail!("{url} has {} bytes: more than is read", package.size);
        }
        let bytes = web.bounded(&url, package.size).required(&url)?;
        if digest(&bytes) != format!("sha256:{}", package.sha256) {
            bail!("{url} has other bytes than the signed list says");
        }
        changelog(&bytes, name).with_context(|| url)
    }
}

/// The changelog in a package (deb(5)): `data.tar` in an ar archive.
fn changelog(package: &[u8], name: &str) -> Result<Option<String>> {
    let mut archive = ar::Archive::new(package);
    while let Some(entry) = archive.next_entry() {
        let entry = entry?;
        match entry.header().identifier() {
            b"data.tar.xz" => return changelog_of_files(XzReader::new(entry, true), name),
            b"data.tar.zst" => return changelog_of_files(zstd::Decoder::new(entry)?, name),
            b"data.tar.gz" => return changelog_of_files(GzDecoder::new(entry), name),
            _ => {}
        }
    }
    bail!("holds no files");
}

fn changelog_of_files(files: impl Read, name: &str) -> Result<Option<String>> {
    let folder = format!("./usr/share/doc/{name}");
    // A package that is Debian's own has one changelog, and it may be the second one that is found.
    let (debian, own) = (format!("{folder}/changelog.Debian.gz"), format!("{folder}/changelog.gz"));
    let mut found = None;
    for entry in tar::Archive::new(files).entries()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() || (path != debian && path != own) {
            continue;
        }
        let mut bytes = Vec::new();
        GzDecoder::new(entry).take(CHANGELOG_LIMIT).read_to_end(&mut bytes)?;
        found = Some(String::from_utf8_lossy(&bytes).into_owned());
        if path == debian {
            break;
        }
    }
    Ok(found)
}

/// The text that Debian's keys have signed.
fn verified(runner: &Runner, signed: &str, keyring: Option<&str>) -> Result<String> {
    let keyring = keyring.or_else(|| KEYRINGS.into_iter().find(|path| Utf8Path::new(path).is_file()));
    let keyring = keyring.ok_or_else(|| {
        missing("no keys of Debian on this machine: run `apt-get install debian-archive-keyring gpgv`")
    })?;
    let text = runner.read(&cmd!("gpgv --keyring {keyring} --output - -").stdin(signed))?;
    if text.trim().is_empty() {
        bail!("nothing in it is signed");
    }
    Ok(text)
}

/// The SHA-256 section of an index: sum and size by path.
fn files(text: &str) -> BTreeMap<String, (String, u64)> {
    let section = text.lines().skip_while(|line| *line != "SHA256:").skip(1);
    let lines = section.take_while(|line| line.starts_with(' '));
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (sum, size, path) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        Some((path.to_owned(), (sum.to_owned(), size)))
    };
    lines.filter_map(entry).collect()
}

/// Reads the newest paragraph of each package (deb-control(5), and the fields of an archive's list).
fn parse(text: &str) -> BTreeMap<String, Package> {
    let mut newest: BTreeMap<String, Package> = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else { continue };
        let is_newer = |known: &Package| deb_version::compare(&known.version, &version).is_lt();
        if !newest.get(&name).is_none_or(is_newer) {
            continue;
        }
        // `Source: openssl (3.5.7-1)` where the versions differ, and nothing where the names are the same.
        let source = field("Source").and_then(|it| it.split(' ').next().map(str::to_owned));
        let package = Package {
            source: source.unwrap_or_else(|| name.clone()),
            size: field("Size").and_then(|it| it.parse().ok()).unwrap_or_default(),
            file: field("Filename").unwrap_or_default(),
            sha256: field("SHA256").unwrap_or_default(),
            version,
        };
        newest.insert(name, package);
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
            (packages["a"].version.as_str(), packages["b"].source.as_str(), packages.len()),
            ("1.0-1+deb13u2", "a", 2)
        );
    }

    #[test]
    fn only_the_section_of_sha256_is_read() {
        let text = "Codename: x\nMD5Sum:\n aa 1 main/a\nSHA256:\n bb  20 main/a\n cc 3 main/b\nSHA512:\n dd 4 main/a\n";
        let files = files(text);
        assert_eq!((&files["main/a"], files.len()), (&("bb".to_owned(), 20), 2));
    }
}
