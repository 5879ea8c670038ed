//! The passages of the launcher, `opencode-devbox`, that come from the table of environment variables and from the
//! definition of the family. Refuses a launcher whose marked passages are missing, doubled or out of order, and a table
//! without the volume whose name the launcher makes for each project.

use anyhow::{Context as _, Result, bail};

use super::config::Config;
use super::environment::{Environment, Kind, splice};

/// Where the launcher lies: in the image's own files, which print it.
pub const LAUNCHER: &str = "rootfs/usr/share/devbox/opencode-devbox";
/// The hosts that the example of a confined network lets through, as regular expressions; the launcher's are the same.
pub const HOSTS: &str = "examples/egress/allowed-hosts";
/// The volume that the launcher gives each project one of.
const DATA: &str = "devbox-data";

/// The launcher with its generated passages brought up to date.
pub fn page(text: &str, table: &Environment, config: &Config, allowed: &str) -> Result<String> {
    let passages = [
        ("launcher image", image(config)?),
        ("launcher tables", tables(table)?),
        ("launcher hosts", hosts(allowed)?),
    ];
    passages.iter().try_fold(text.to_owned(), |text, (name, passage)| {
        splice(&text, name, passage)?
            .with_context(|| format!("{LAUNCHER} has no line with `generated: {name}`"))
    })
}

fn image(config: &Config) -> Result<String> {
    let rows = config
        .variant
        .iter()
        .map(|variant| format!("{}|{}|{}", variant.name, variant.suffix, variant.components.join(" ")));
    let rows: Vec<String> = rows.collect();
    let repository = config.repository()?.to_string();
    Ok(format!(
        "default_image={}\n# Name, suffix of the tag, and components of each variant.\nvariants={}\n",
        quoted(&repository)?,
        quoted(&rows.join("\n"))?
    ))
}

fn tables(table: &Environment) -> Result<String> {
    if !table.volume.iter().any(|volume| volume.name == DATA) {
        bail!("no volume {DATA}, which the launcher gives each project one of");
    }
    let names = |wanted: &dyn Fn(Kind) -> bool| {
        let found = table.variable.iter().filter(|variable| wanted(variable.kind));
        quoted(&found.map(|variable| variable.name.as_str()).collect::<Vec<_>>().join(" "))
    };
    let volumes: Vec<_> =
        table.volume.iter().map(|volume| format!("{} {}", volume.name, volume.path)).collect();
    Ok(format!(
        "# Variables that the container gets from this shell, by name.\ntexts={}\nsecrets={}\n\
         # Volume and its folder, one in a line.\nvolumes={}\n",
        names(&|kind| matches!(kind, Kind::Text | Kind::Switch))?,
        names(&|kind| kind == Kind::Secret)?,
        quoted(&volumes.join("\n"))?
    ))
}

fn hosts(allowed: &str) -> Result<String> {
    let name = |line: &str| {
        let name = line.strip_prefix('^').and_then(|line| line.strip_suffix('$'))?.replace("\\.", ".");
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        (plain && !name.is_empty()).then_some(name)
    };
    let names: Result<Vec<_>> = allowed
        .lines()
        .map(|line| {
            name(line).with_context(|| format!("{HOSTS}: expected ^ a host's name $, found {line:?}"))
        })
        .collect();
    Ok(format!("# What --egress allowlist lets through.\nallowed_hosts={}\n", quoted(&names?.join(" "))?))
}

/// A word in the shell's single quotes.
fn quoted(text: &str) -> Result<String> {
    if text.contains('\'') {
        bail!("{text:?} cannot be quoted in the launcher");
    }
    Ok(format!("'{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a\n# generated: launcher image\nold\n# end: launcher image\n\
                        # generated: launcher tables\n# end: launcher tables\n# generated: launcher hosts\n# end: launcher hosts\nb\n";

    fn table(volume: &str) -> Environment {
        let text = format!(
            "[[variable]]\nname='K'\ngroup='G'\nkind='secret'\nhelp='h'\n[[variable]]\nname='T'\ngroup='G'\nkind='text'\nhelp='h'\n\
             [[variable]]\nname='P'\ngroup='G'\nkind='path'\nhelp='h'\n[[volume]]\nname='{volume}'\npath='/v'\nholds='x'\n"
        );
        toml::from_str(&text).expect("a table")
    }

    fn config() -> Config {
        Config::parse(include_str!("../../../images/devbox.toml")).expect("the definition")
    }

    #[test]
    fn passages_come_from_the_tables() {
        let page = page(TEXT, &table(DATA), &config(), "^a\\.b-c$\n").expect("a page");
        assert!(page.contains("\ntexts='T'\nsecrets='K'\n"), "{page}");
        assert!(page.contains("\nvolumes='devbox-data /v'\n"), "{page}");
        assert!(page.contains("\nwith-pi|-with-pi|opencode pi\n"), "{page}");
        assert!(page.contains("\nallowed_hosts='a.b-c'\n"), "{page}");
        assert!(!page.contains("\nold\n"), "{page}");
        assert!(page.starts_with("a\n") && page.ends_with("b\n"), "{page}");
    }

    #[test]
    fn a_launcher_without_markers_is_refused() {
        let error = page("a\n", &table(DATA), &config(), "").expect_err("no markers");
        assert!(error.to_string().contains("has no line with `generated: launcher image`"), "{error}");
        let error = page(TEXT, &table("other"), &config(), "").expect_err("no data");
        assert!(error.to_string().contains("no volume devbox-data"), "{error}");
        let error = page(TEXT, &table(DATA), &config(), ".*\n").expect_err("no name");
        assert!(error.to_string().contains("expected ^ a host's name $, found \".*\""), "{error}");
        assert!(quoted("it's").is_err());
    }
}
