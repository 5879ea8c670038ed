//! Reading and editing `ARG` defaults, which are where versions are pinned. Refuses a name that has no default, or more
//! than one.

use anyhow::{Result, bail};

/// The default of the first `ARG name=value`; `None` where the Dockerfile has no such default.
pub fn arg_default<'a>(dockerfile: &'a str, name: &str) -> Option<&'a str> {
    dockerfile.lines().find_map(|line| default_on(line, name))
}

fn default_on<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix("ARG ")?.trim_start().strip_prefix(name)?.strip_prefix('=')?;
    Some(value.trim().trim_matches('"'))
}

/// The Dockerfile with another default for `name`. The default has to occur exactly once, so that no second copy
/// is left behind with the old value.
pub fn with_arg_default(dockerfile: &str, name: &str, value: &str) -> Result<String> {
    let found = dockerfile.lines().filter(|line| default_on(line, name).is_some()).count();
    if found != 1 {
        bail!("expected one `ARG {name}=…` line, found {found}");
    }
    Ok(dockerfile
        .split_inclusive('\n')
        .map(|line| match default_on(line, name) {
            Some(_) => format!("ARG {name}={value}\n"),
            None => line.to_owned(),
        })
        .collect())
}

/// Every `*_VERSION` default: lower-case component name and version, in order of appearance.
pub fn versions(dockerfile: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in dockerfile.lines() {
        let Some((name, value)) = line.strip_prefix("ARG ").and_then(|rest| rest.split_once('=')) else {
            continue;
        };
        if let Some(component) = name.trim().strip_suffix("_VERSION") {
            let entry =
                (component.to_lowercase().replace('_', "-"), value.trim().trim_matches('"').to_owned());
            if !found.contains(&entry) {
                found.push(entry);
            }
        }
    }
    found
}

/// Every `INSTALL_*` switch that has a default: lower-case component name and the argument, in order of appearance.
pub fn switches(dockerfile: &str) -> Vec<(String, String)> {
    let name = |line: &str| {
        let (name, _) = line.strip_prefix("ARG ")?.split_once('=')?;
        let component = name.strip_prefix("INSTALL_")?.to_lowercase().replace('_', "-");
        Some((component, name.to_owned()))
    };
    dockerfile.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "FROM x\nARG OPENCODE_VERSION=1.18.18\nARG BUN_VERSION=\"1.4.5\"\nARG OPENCODE_VERSION\n";

    #[test]
    fn defaults_are_read_and_replaced_once() {
        assert_eq!(arg_default(TEXT, "BUN_VERSION"), Some("1.4.5"));
        assert_eq!(arg_default(TEXT, "PI_VERSION"), None);
        let edited = with_arg_default(TEXT, "OPENCODE_VERSION", "1.18.15").expect("one match");
        assert_eq!(edited, TEXT.replace("1.18.18", "1.18.15"));
        assert!(with_arg_default(TEXT, "PI_VERSION", "1").is_err());
        assert!(with_arg_default(&TEXT.repeat(2), "BUN_VERSION", "1").is_err());
        assert_eq!(versions(TEXT)[1], ("bun".to_owned(), "1.4.5".to_owned()));
    }

    #[test]
    fn switches_are_named_after_their_components() {
        let text = "ARG INSTALL_PI=false\nARG INSTALL_GITEA_MCP=true\nARG INSTALL_PI\nARG PI_VERSION=1\n";
        let pair = |component: &str, arg: &str| (component.to_owned(), arg.to_owned());
        assert_eq!(switches(text), [pair("pi", "INSTALL_PI"), pair("gitea-mcp", "INSTALL_GITEA_MCP")]);
    }
}
