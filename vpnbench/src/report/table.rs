//! Aligned columns that fit a terminal, and colours that can be switched off.

use std::io::{self, Write};

use owo_colors::OwoColorize as _;

/// Where text is written: how wide it is and whether it takes colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Columns.
    pub width: usize,
    /// Whether to write colours.
    pub colour: bool,
}

impl Screen {
    /// A section title.
    #[must_use]
    pub fn title(&self, text: &str) -> String {
        if self.colour {
            text.bold().to_string()
        } else {
            text.to_owned()
        }
    }

    /// Text of less weight.
    #[must_use]
    pub fn faint(&self, text: &str) -> String {
        if self.colour {
            text.dimmed().to_string()
        } else {
            text.to_owned()
        }
    }

    /// Something in order.
    #[must_use]
    pub fn good(&self, text: &str) -> String {
        if self.colour {
            text.green().to_string()
        } else {
            text.to_owned()
        }
    }

    /// Something that needs attention.
    #[must_use]
    pub fn bad(&self, text: &str) -> String {
        if self.colour {
            text.red().to_string()
        } else {
            text.to_owned()
        }
    }

    /// Something to know.
    #[must_use]
    pub fn warn(&self, text: &str) -> String {
        if self.colour {
            text.yellow().to_string()
        } else {
            text.to_owned()
        }
    }
}

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text: to the left; gives way when the table is too wide.
    Text,
    /// A name that tells rows apart: to the left; never cut.
    Name,
    /// Numbers: to the right; never cut.
    Number,
}

/// Rows of cells under a heading.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

/// Narrowest a text column gets.
const NARROWEST: usize = 6;
const INDENT: usize = 1;
const GAP: usize = 2;

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(columns: &[(&str, Align)]) -> Table {
        let named = |(name, align): &(&str, Align)| ((*name).to_owned(), *align);
        Table {
            columns: columns.iter().map(named).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has a cell per column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table, its heading after `title` on the same line.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&self, title: &str, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", screen.title(title))?;
        self.write_rows(screen, out)
    }

    /// Writes heading and rows without a title.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_rows(&self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        let widths = self.widths(screen.width);
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        writeln!(out, "{}", screen.faint(&self.line(&heading, &widths)))?;
        for row in &self.rows {
            writeln!(out, "{}", self.line(row, &widths))?;
        }
        Ok(())
    }

    fn widths(&self, available: usize) -> Vec<usize> {
        let natural = |(at, (name, _)): (usize, &(String, Align))| {
            let cells = self
                .rows
                .iter()
                .map(|row| row.get(at).map_or(0, |cell| length(cell)));
            cells.max().unwrap_or(0).max(length(name))
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(natural).collect();
        let total = |widths: &[usize]| {
            INDENT + widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
        };
        while total(&widths) > available {
            let texts = self
                .columns
                .iter()
                .enumerate()
                .filter(|(_, column)| column.1 == Align::Text);
            let widest = texts.map(|(at, _)| at).max_by_key(|at| widths[*at]);
            match widest {
                Some(at) if widths[at] > NARROWEST => widths[at] -= 1,
                _ => break,
            }
        }
        widths
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = " ".repeat(INDENT);
        for (at, ((cell, width), (_, align))) in
            cells.iter().zip(widths).zip(&self.columns).enumerate()
        {
            if at > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = cut(cell, *width);
            let padding = " ".repeat(width.saturating_sub(length(&cell)));
            match align {
                Align::Text | Align::Name => line.extend([cell.as_str(), padding.as_str()]),
                Align::Number => line.extend([padding.as_str(), cell.as_str()]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The text, its end replaced by `..` if it is too long.
fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(2)).collect();
    short.push_str("..");
    short
}

/// Breaks text into lines of at most `width` characters at spaces; later lines are indented. A
/// no-break space (U+00A0) becomes a space where no line ends.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut result = String::new();
    let mut column = 0;
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let needed = length(word) + usize::from(column > 0);
        if column > 0 && column + needed > width {
            result.push('\n');
            result.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > 0 {
            result.push(' ');
            column += 1;
        }
        result.push_str(word);
        column += length(word);
    }
    result.replace('\u{a0}', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table, width: usize) -> String {
        let mut out = Vec::new();
        let screen = Screen {
            width,
            colour: false,
        };
        table
            .write("TITLE", screen, &mut out)
            .expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_align_and_fit() {
        let mut table = Table::new(&[("name", Align::Text), ("units", Align::Number)]);
        table.row(vec!["a-rather-long-name".to_owned(), "1,000".to_owned()]);
        table.row(vec!["b".to_owned(), "7".to_owned()]);
        assert_eq!(
            text(&table, 80),
            "TITLE\n name                units\n a-rather-long-name  1,000\n b                       7\n"
        );
        assert!(
            text(&table, 20)
                .lines()
                .all(|line| line.chars().count() <= 20)
        );
        assert!(text(&table, 3).contains("1,000"), "numbers are never cut");
    }

    #[test]
    fn wraps_at_spaces() {
        assert_eq!(wrap("aa bb cc", 5, 2), "aa bb\n  cc");
        assert_eq!(wrap("aa bb\u{a0}cc", 6, 2), "aa\n  bb cc");
        assert_eq!(wrap("", 5, 2), "");
    }
}
