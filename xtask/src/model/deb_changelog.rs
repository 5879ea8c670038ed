//! What the changelog of a Debian package says of vulnerabilities (deb-changelog(5)). Refuses nothing: an entry that cannot be
//! read names none.

use std::collections::BTreeSet;

use super::deb_version;

/// The vulnerabilities that the entries after version `has` name, by their CVE ids.
pub fn fixed_since(changelog: &str, has: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_newer = false;
    for line in changelog.lines() {
        if !line.starts_with([' ', '\t']) && !line.is_empty() {
            let version = line.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            is_newer = version.is_some_and(|(version, _)| deb_version::compare(has, version).is_lt());
        } else if is_newer {
            found.extend(ids(line));
        }
    }
    found
}

/// The CVE ids of a line: `CVE-`, a year, and a number of at least four digits.
fn ids(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter_map(|word| {
        let (year, number) = word.strip_prefix("CVE-")?.split_once('-')?;
        let is_number = |text: &str| text.len() >= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(year) && is_number(number)).then(|| word.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENSSL: &str = "openssl (3.5.7-1~deb13u3) trixie-security; urgency=medium\n\n  * CVE-2026-84782 (\"DTLS\n    \
        Retransmits\")\n  * CVE-2026-42772 and CVE-2026-54873 (\"improved QUIC\n    stream\"), no CVE-2026-1\n\n -- S A \
        <s@example.org>  Tue, 29 Sep 2026 22:10:28 +0200\n\nopenssl (3.5.7-1~deb13u2) trixie-security; urgency=medium\n\n  \
        * CVE-2026-18798 (\"Double Free\")\n\n -- S A <s@example.org>  Mon, 28 Sep 2026 22:10:28 +0200\n";

    #[test]
    fn only_entries_after_the_installed_version_count() {
        let since = |has: &str| fixed_since(OPENSSL, has).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(since("3.5.7-1~deb13u2"), "CVE-2026-42772 CVE-2026-54873 CVE-2026-84782");
        assert_eq!(since("3.5.6-1"), "CVE-2026-18798 CVE-2026-42772 CVE-2026-54873 CVE-2026-84782");
        assert_eq!(since("3.5.7-1~deb13u3"), "");
    }
}
