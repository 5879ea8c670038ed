//! The lock of a program that comes as release files: the lines of the host's `checksums.txt` for the platforms, below
//! a line that names the version. Refuses a published list without a platform.

use std::collections::BTreeMap;

use super::platform::Platform;

/// The file of a platform, as goreleaser names it.
pub fn file(component: &str, platform: Platform) -> String {
    let machine = match platform {
        Platform::LinuxAmd64 => "x86_64",
        Platform::LinuxArm64 => "arm64",
    };
    format!("{component}_Linux_{machine}.tar.gz")
}

fn head(component: &str, version: &str) -> String {
    format!("# {component} {version}")
}

/// True if a text is the lock of that version.
pub fn locks(text: &str, component: &str, version: &str) -> bool {
    text.lines().next() == Some(head(component, version).as_str())
}

/// The lock from what the host publishes, or the file that is missing there.
pub fn lock(
    published: &str,
    component: &str,
    version: &str,
    platforms: &[Platform],
) -> Result<String, String> {
    let files: Vec<String> = platforms.iter().map(|platform| file(component, *platform)).collect();
    select(published, component, version, &files)
}

/// The lock of these files, or the first one that the published list does not name.
pub fn select(published: &str, component: &str, version: &str, files: &[String]) -> Result<String, String> {
    let mut text = head(component, version) + "\n";
    for file in files {
        let line = published.lines().find(|line| line.split_whitespace().nth(1) == Some(file));
        text += line.ok_or_else(|| file.clone())?;
        text.push('\n');
    }
    Ok(text)
}

/// SHA-256 by file, in hexadecimal.
pub fn checksums(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(sum, file)| (file.trim(), sum))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_a_version_and_a_line_for_each_platform() {
        let both = [Platform::LinuxAmd64, Platform::LinuxArm64];
        let published = "aa  x_Darwin_arm64.tar.gz\nbb  x_Linux_arm64.tar.gz\ncc  x_Linux_x86_64.tar.gz\n";
        let text = lock(published, "x", "1.0.0", &both).expect("a lock");
        assert_eq!(text, "# x 1.0.0\ncc  x_Linux_x86_64.tar.gz\nbb  x_Linux_arm64.tar.gz\n");
        assert!(locks(&text, "x", "1.0.0") && !locks(&text, "x", "1.0.1"));
        assert_eq!(checksums(&text)["x_Linux_arm64.tar.gz"], "bb");
        assert_eq!(lock("", "x", "1.0.0", &both), Err("x_Linux_x86_64.tar.gz".to_owned()));
    }
}
