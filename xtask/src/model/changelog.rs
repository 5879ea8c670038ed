//! `CHANGELOG.md`: one Unreleased section, then an entry per release tag, newest first.
//!
//! An entry's heading is `## v1.18.18 - 2026-11-25`; a changed component is a line `- opencode 1.18.15 → 1.18.18
//! ([notes](…)), passing over 1.18.16 and 1.18.17.` Refuses a second entry for a tag, entries out of order, and a
//! release older than the newest entry.

use std::fmt;

use anyhow::{Context as _, Result, bail};

use super::version::{ReleaseTag, Version};

const UNRELEASED: &str = "Unreleased";

/// The file, taken apart at its `## ` headings.
#[derive(Clone, Debug)]
pub struct Changelog {
    head: String,
    sections: Vec<Section>,
}

#[derive(Clone, Debug)]
struct Section {
    title: String,
    /// Without blank lines at its ends.
    body: String,
}

/// A new version of a component, for its line.
#[derive(Clone, Copy, Debug)]
pub struct Bump<'a> {
    pub component: &'a str,
    pub from: Version,
    pub to: Version,
    /// Address of the release notes.
    pub notes: &'a str,
    /// Upstream versions between the two.
    pub skipped: &'a [Version],
}

/// The release that a change goes out with.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub tag: ReleaseTag,
    /// `YYYY-MM-DD`.
    pub date: &'a str,
    /// The newest entry has not been tagged, so it is renamed rather than left behind.
    pub newest_is_open: bool,
}

impl Changelog {
    pub fn parse(text: &str) -> Self {
        let mut parts = format!("\n{text}").split("\n## ").map(str::to_owned).collect::<Vec<_>>().into_iter();
        let head = parts.next().unwrap_or_default().trim().to_owned();
        let section = |part: String| {
            let (title, body) = part.split_once('\n').unwrap_or((&part, ""));
            Section { title: title.trim().to_owned(), body: body.trim().to_owned() }
        };
        Self { head, sections: parts.map(section).collect() }
    }

    /// The tag of the newest entry.
    pub fn newest(&self) -> Option<ReleaseTag> {
        self.sections.iter().find_map(Section::tag)
    }

    /// The entry of a release, without its heading.
    pub fn entry(&self, tag: ReleaseTag) -> Option<&str> {
        self.sections.iter().find(|section| section.tag() == Some(tag)).map(|section| section.body.as_str())
    }

    /// Everything wrong with the file, one line each; with a tag, also whether it is ready for that release.
    pub fn problems(&self, releasing: Option<ReleaseTag>) -> Vec<String> {
        let mut problems = Vec::new();
        let unreleased = self.sections.iter().filter(|section| section.title == UNRELEASED).count();
        if unreleased != 1 || self.sections[0].title != UNRELEASED {
            problems.push(format!("expected one `## {UNRELEASED}` section, at the top; found {unreleased}"));
        }
        let mut last: Option<ReleaseTag> = None;
        for section in self.sections.iter().filter(|section| section.title != UNRELEASED) {
            let Some(tag) = section.tag() else {
                problems.push(format!("`## {}` is not `## <release tag> - <YYYY-MM-DD>`", section.title));
                continue;
            };
            if last.is_some_and(|last| tag >= last) {
                problems.push(format!("{tag} is below an entry that is not newer"));
            }
            last = Some(tag);
            if section.body.is_empty() {
                problems.push(format!("the entry of {tag} is empty"));
            }
        }
        problems.extend(self.sections.iter().flat_map(Section::bad_links));
        if let Some(tag) = releasing {
            if self.entry(tag).is_none() {
                problems.push(format!("no entry for {tag}: run `cargo xtask changelog promote {tag}`"));
            } else if !self.sections[0].body.is_empty() && self.newest() == Some(tag) {
                problems.push(format!(
                    "{UNRELEASED} is not empty while {tag} goes out: run `cargo xtask changelog promote {tag}`"
                ));
            }
        }
        problems
    }

    /// Moves what is unreleased into the entry of a release, which is made where it is not there.
    pub fn promote(mut self, entry: Entry<'_>) -> Result<Self> {
        self.unreleased()?;
        let title = format!("{} - {}", entry.tag, entry.date);
        match self.newest() {
            Some(newest) if newest == entry.tag => {}
            Some(_) if entry.newest_is_open => self.sections[1].title = title,
            Some(newest) if newest > entry.tag => {
                bail!("CHANGELOG.md has an entry for {newest} already, which is newer than {}", entry.tag)
            }
            _ => self.sections.insert(1, Section { title, body: String::new() }),
        }
        let moved = std::mem::take(&mut self.sections[0].body);
        let body = &mut self.sections[1].body;
        *body = [moved.as_str(), body.as_str()]
            .iter()
            .filter(|text| !text.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("\n");
        Ok(self)
    }

    /// Adds the line of a bump, in place of an earlier one that is not out yet: to the newest entry if `entry` says
    /// which release it is for, else to what is unreleased.
    pub fn bump(mut self, bump: Bump<'_>, entry: Option<Entry<'_>>) -> Result<Self> {
        if let Some(entry) = entry {
            self = self.promote(entry)?;
        }
        self.unreleased()?;
        let body = &mut self.sections[usize::from(entry.is_some())].body;
        let earlier = format!("- {} ", bump.component);
        let mut from = bump.from;
        let mut kept = Vec::new();
        for line in body.lines() {
            match line.strip_prefix(&earlier).and_then(|rest| rest.split_once(" → ")) {
                Some((first, _)) => from = first.parse().unwrap_or(from),
                None => kept.push(line.to_owned()),
            }
        }
        if from != bump.to {
            kept.insert(0, Bump { from, ..bump }.to_string());
        }
        *body = kept.join("\n").trim().to_owned();
        Ok(self)
    }

    /// Adds a line to what is unreleased, in place of one that begins with `start`.
    pub fn note(mut self, start: &str, line: &str) -> Result<Self> {
        self.unreleased()?;
        let body = &mut self.sections[0].body;
        let mut kept: Vec<&str> = body.lines().filter(|line| !line.starts_with(start)).collect();
        kept.insert(0, line);
        *body = kept.join("\n").trim().to_owned();
        Ok(self)
    }

    fn unreleased(&self) -> Result<&Section> {
        let first = self.sections.first().filter(|section| section.title == UNRELEASED);
        first.with_context(|| format!("CHANGELOG.md does not begin with `## {UNRELEASED}`"))
    }
}

impl Section {
    /// The tag of a heading that has the right form.
    fn tag(&self) -> Option<ReleaseTag> {
        let (tag, date) = self.title.split_once(" - ")?;
        date.parse::<jiff::civil::Date>().ok()?;
        tag.parse().ok()
    }

    /// Links that lead nowhere: not to https, or without an end.
    fn bad_links(&self) -> Vec<String> {
        let targets =
            self.body.split("](").skip(1).map(|rest| rest.split_once(')').map_or("", |(target, _)| target));
        let bad =
            targets.filter(|target| !target.starts_with("https://") || target.contains(char::is_whitespace));
        bad.map(|target| format!("{}: the link to {target:?} is not an https address", self.title)).collect()
    }
}

impl fmt::Display for Changelog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head)?;
        for section in &self.sections {
            writeln!(f, "\n## {}", section.title)?;
            if !section.body.is_empty() {
                writeln!(f, "\n{}", section.body)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Bump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "- {} {} → {} ([notes]({}))", self.component, self.from, self.to, self.notes)?;
        let mut skipped: Vec<String> = self.skipped.iter().map(ToString::to_string).collect();
        match skipped.pop() {
            None => {}
            Some(last) if skipped.is_empty() => write!(f, ", passing over {last}")?,
            Some(last) => write!(f, ", passing over {} and {last}", skipped.join(", "))?,
        }
        f.write_str(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# Changelog\n\nWords.\n\n## Unreleased\n\n- A thing.\n\n## v1.18.15 - 2026-08-09\n\n- first\n";

    fn bump(from: u64, to: u64, skipped: &[Version]) -> Bump<'_> {
        Bump {
            component: "opencode",
            from: Version(1, 18, from),
            to: Version(1, 18, to),
            notes: "https://x",
            skipped,
        }
    }

    fn entry(tag: &str, newest_is_open: bool) -> Entry<'_> {
        Entry { tag: tag.parse().expect("a tag"), date: "2026-11-25", newest_is_open }
    }

    #[test]
    fn a_file_in_order_is_written_as_it_was_read() {
        assert_eq!(Changelog::parse(TEXT).to_string(), TEXT);
        assert_eq!(Changelog::parse(TEXT).problems(None), [""; 0]);
    }

    #[track_caller]
    fn problem(from: &str, to: &str, releasing: Option<&str>, expected: &str) {
        let text = TEXT.replace(from, to);
        let problems = Changelog::parse(&text).problems(releasing.map(|tag| tag.parse().expect("a tag")));
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{problems:?}");
    }

    /// Failure 47: a release went out while the changelog still said Unreleased.
    #[test]
    fn disorder_is_named() {
        problem("## Unreleased", "## Soon", None, "expected one `## Unreleased`");
        problem("- first", "- first\n\n## Unreleased", None, "found 2");
        problem("- first", "- first\n\n## v1.18.16 - 2026-08-10\n\n- second", None, "v1.18.16 is below");
        problem("- first", "- first\n\n## v1.18.15 - 2026-08-09\n\n- again", None, "v1.18.15 is below");
        problem("v1.18.15 - 2026-08-09", "v1.18.15", None, "is not `## <release tag> - <YYYY-MM-DD>`");
        problem("v1.18.15", "v1.18.15a", None, "is not `## <release tag>");
        problem("- first", "", None, "v1.18.15 is empty");
        problem("first", "[first](http://x)", None, "not an https address");
        problem("", "", Some("v1.18.18"), "no entry for v1.18.18");
        problem("", "", Some("v1.18.15"), "is not empty while v1.18.15 goes out");
    }

    #[test]
    fn a_bump_makes_an_entry_and_the_next_bump_reuses_it() {
        let skipped = [Version(1, 18, 16), Version(1, 18, 17)];
        let log = Changelog::parse(TEXT)
            .bump(bump(15, 18, &skipped), Some(entry("v1.18.18", false)))
            .expect("a bump");
        let line = "- opencode 1.18.15 → 1.18.18 ([notes](https://x)), passing over 1.18.16 and 1.18.17.";
        let expected =
            TEXT.replace("- A thing.\n\n", &format!("## v1.18.18 - 2026-11-25\n\n{line}\n- A thing.\n\n"));
        assert_eq!(log.to_string(), expected);
        assert_eq!(log.problems(Some("v1.18.18".parse().expect("a tag"))), [""; 0]);
        assert!(bump(15, 17, &skipped[..1]).to_string().ends_with(", passing over 1.18.16."));
        let log = log.bump(bump(18, 19, &[]), Some(entry("v1.18.19", true))).expect("a bump");
        assert!(!log.to_string().contains("1.18.18"), "{log}");
        assert!(
            log.entry("v1.18.19".parse().expect("a tag"))
                .is_some_and(|text| text.contains("1.18.15 → 1.18.19"))
        );
        let log = log.bump(bump(19, 20, &[]), Some(entry("v1.18.20", false))).expect("a bump");
        assert!(
            log.to_string().contains("1.18.19 → 1.18.20 (") && log.to_string().contains("1.18.15 → 1.18.19")
        );
    }

    #[test]
    fn components_wait_in_unreleased_and_a_bump_back_removes_them() {
        let log = Changelog::parse(TEXT).bump(bump(15, 16, &[]), None).expect("a bump");
        assert!(log.to_string().contains("## Unreleased\n\n- opencode 1.18.15 → 1.18.16"), "{log}");
        assert_eq!(log.clone().bump(bump(16, 15, &[]), None).expect("a bump").to_string(), TEXT);
        let log = log.promote(entry("v1.18.15b", false)).expect("an entry");
        assert!(
            log.to_string().contains("## Unreleased\n\n## v1.18.15b - 2026-11-25\n\n- opencode"),
            "{log}"
        );
        assert!(Changelog::parse(TEXT).promote(entry("v1.18.14", false)).is_err());
        // Where the entry is there, what came since goes below its heading.
        let log = Changelog::parse(TEXT).promote(entry("v1.18.15", false)).expect("an entry");
        assert!(log.to_string().contains("## v1.18.15 - 2026-08-09\n\n- A thing.\n- first"), "{log}");
    }

    #[test]
    fn a_note_replaces_the_earlier_note_and_no_other_line() {
        let noted = |text: &str, day: &str| {
            let log = Changelog::parse(text).note("- Packages of ", &format!("- Packages of {day}."));
            log.expect("a note").to_string()
        };
        let first = noted(TEXT, "Monday");
        assert!(first.contains("## Unreleased\n\n- Packages of Monday.\n- A thing.\n"), "{first}");
        assert_eq!(noted(&first, "Tuesday"), first.replace("Monday", "Tuesday"));
    }

    #[test]
    fn an_older_release_may_go_out_while_there_is_something_new() {
        let text = TEXT.replace("## v1.18.15 -", "## v1.18.16 - 2026-08-10\n\n- second\n\n## v1.18.15 -");
        let older = Some("v1.18.15".parse().expect("a tag"));
        assert_eq!(Changelog::parse(&text).problems(older), [""; 0]);
    }
}
