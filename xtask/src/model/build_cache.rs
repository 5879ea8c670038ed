//! Whose build cache a record of an engine is. BuildKit keeps the cache of all projects together and labels none of it: only the
//! step that made a record, which its description repeats, tells this project's.

use serde::Deserialize;

/// Shorter lines, such as `fi`, are in anybody's recipe.
const TELLING: usize = 16;

/// A record as `docker buildx du --format json` prints it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub reclaimable: bool,
    #[serde(default)]
    pub size: String,
}

/// Records of one listing, a line each. A line that cannot be read is nobody's.
pub fn records(listing: &str) -> Vec<Record> {
    listing.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// True if every line of the step that made a record is in one of these recipes, and one of them is telling.
pub fn is_of(description: &str, recipes: &[String]) -> bool {
    let text = step(description);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_whole = |recipe: &String| lines.iter().all(|line| recipe.contains(line));
    lines.iter().any(|line| line.len() >= TELLING) && recipes.iter().any(is_whole)
}

/// The step in a description: `[linux/amd64 base 8/15] LINK COPY …`, or `mount /apt from exec /bin/sh -c …`.
fn step(description: &str) -> &str {
    let text = match description.split_once("] ") {
        Some((head, rest)) if head.starts_with('[') => rest,
        _ => description,
    };
    let text = text.split_once("from exec /bin/sh -c ").map_or(text, |(_, step)| step);
    let text = text.trim_start_matches("LINK ");
    // The shell of a heredoc and the mounts of a step are not repeated as they are written.
    text.strip_prefix("RUN ")
        .map_or(text, |step| step.split_once("/bin/sh -c ").map_or(step, |(_, step)| step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_by_the_step_that_made_it() {
        let recipe = "FROM debian AS base\nRUN --mount=type=cache,target=/apt <<'SH'\nset -eu\napt install -y awscli\nfi\nSH\n\
                      COPY --link --from=layers /out/system/ /\n";
        let recipes = ["FROM scratch\n".to_owned(), recipe.to_owned()];
        for ours in [
            "[linux/amd64 base  8/15] LINK COPY --link --from=layers /out/system/ /",
            "mount / from exec /bin/sh -c set -eu\napt install -y awscli\nfi\n",
            "cached mount /apt from exec /bin/sh -c apt install -y awscli",
        ] {
            assert!(is_of(ours, &recipes), "{ours}");
        }
        for other in [
            "[base 2/3] RUN make install-the-world",
            "[base 2/3] RUN set -eu",
            "mount / from exec /bin/sh -c set -eu\napt install -y awscli\nrm -rf /somebody\n",
            "local source for context",
            "",
        ] {
            assert!(!is_of(other, &recipes), "{other}");
        }
    }

    #[test]
    fn a_listing_has_a_record_on_each_line() {
        let listing = r#"{"ID":"a","Description":"x","Reclaimable":true,"Size":"1kB","Mutable":false}
nothing
{"ID":"b","Reclaimable":false}"#;
        let found: Vec<_> = records(listing).into_iter().map(|it| (it.id, it.reclaimable)).collect();
        assert_eq!(found, [("a".to_owned(), true), ("b".to_owned(), false)]);
    }
}
