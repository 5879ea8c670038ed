//! Why an image has to be built again: the inputs that differ from those that an older image carries.

use similar::{ChangeTag, TextDiff};

use crate::context::Context;
use crate::image::base::inputs_of;
use crate::image::definition::REVISION;
use crate::model::key::{Change, Inputs, digest};
use crate::model::oci::Manifest;
use crate::tools::git;

/// The changes from an older image to these inputs; `None` if that image carries none. The number of changed lines is
/// known where this clone has the commit of the older image, and the very text that went into it.
pub fn since(ctx: &Context, old: &Manifest, new: &Inputs) -> Option<Vec<Change>> {
    let mut changes = new.changes(&inputs_of(old)?);
    let revision = old.annotation(REVISION).map(|revision| revision.trim_end_matches("-dirty"));
    for change in &mut changes {
        let Change::Edited { path, was, lines } = change else { continue };
        let before = revision.and_then(|revision| git::file_at(&ctx.runner, revision, path));
        let before = before.filter(|text| digest(text.as_bytes()).ends_with(was.as_str()));
        if let (Some(before), Ok(after)) = (before, ctx.read(path)) {
            let diff = TextDiff::from_lines(&before, &after);
            *lines = Some(diff.iter_all_changes().filter(|line| line.tag() != ChangeTag::Equal).count());
        }
    }
    Some(changes)
}
