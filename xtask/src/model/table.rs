//! Tables: the same rows as text, as Markdown and, by `serde`, as JSON.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement};
use serde::Serialize;

/// How the cells of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Aligned to the right.
    Number,
    /// Between backquotes in Markdown.
    Code,
    /// Code that text shortens.
    Digest,
}

/// Characters of a digest that tell it from others.
const SHORT: usize = 19;

/// A row of a result, which `--json` prints by its fields.
pub trait Row: Serialize {
    const COLUMNS: &'static [(&'static str, Kind)];

    fn cells(&self) -> Vec<String>;
}

#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, Kind)>) -> Self {
        let columns = columns.into_iter().map(|(name, kind)| (name.into(), kind)).collect();
        Self { columns, rows: Vec::new() }
    }

    pub fn of<R: Row>(rows: &[R]) -> Self {
        let mut table = Self::new(R::COLUMNS.iter().copied());
        table.rows.extend(rows.iter().map(Row::cells));
        table
    }

    pub fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Columns as wide as their cells, each row a line.
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns.iter().map(|(name, _)| name));
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns).map(|(cell, (_, kind))| match kind {
                Kind::Digest => cell.chars().take(SHORT).collect(),
                _ => cell.clone(),
            });
            table.add_row(cells.collect::<Vec<String>>());
        }
        for (column, (_, kind)) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, 2));
            if *kind == Kind::Number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt() + "\n"
    }

    /// No cell is padded: a change of one cell changes one line of a page, and a page may have a limit of bytes.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| {
            let cells =
                cells.iter().map(|it| if it.is_empty() { " |".to_owned() } else { format!(" {it} |") });
            format!("|{}\n", cells.collect::<String>())
        };
        let cell = |(cell, (_, kind)): (&String, &(String, Kind))| match kind {
            Kind::Code | Kind::Digest if !cell.is_empty() => format!("`{cell}`"),
            _ => cell.replace('|', "\\|"),
        };
        let rule = |kind: &Kind| if *kind == Kind::Number { "--:|" } else { "---|" };
        let rule: String = self.columns.iter().map(|(_, kind)| rule(kind)).collect();
        let head = line(self.columns.iter().map(|(name, _)| name.clone()).collect());
        let rows = self.rows.iter().map(|row| line(row.iter().zip(&self.columns).map(cell).collect()));
        format!("{head}|{rule}\n{}", rows.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Image {
        name: &'static str,
        digest: String,
        mb: f64,
    }

    impl Row for Image {
        const COLUMNS: &'static [(&'static str, Kind)] =
            &[("name", Kind::Code), ("digest", Kind::Digest), ("MB", Kind::Number), ("notes", Kind::Text)];

        fn cells(&self) -> Vec<String> {
            let notes = if self.mb > 1.0 { "a|b" } else { "" };
            vec![self.name.to_owned(), self.digest.clone(), format!("{:.1}", self.mb), notes.to_owned()]
        }
    }

    #[test]
    fn text_and_markdown_show_the_same_rows() {
        let digest = format!("sha256:{}", "0123456789".repeat(6));
        let image = |name, mb| Image { name, digest: digest.clone(), mb };
        let table = Table::of(&[image("é", 1.0), image("a longer name", 1234.0)]);
        assert_eq!(
            table.text(),
            "name           digest                   MB  notes\n\
             é              sha256:012345678901     1.0\n\
             a longer name  sha256:012345678901  1234.0  a|b\n"
        );
        assert_eq!(
            table.markdown(),
            format!(
                "| name | digest | MB | notes |\n|---|---|--:|---|\n| `é` | `{digest}` | 1.0 | |\n\
                 | `a longer name` | `{digest}` | 1234.0 | a\\|b |\n"
            )
        );
    }
}
