//! Where results go: stdout or a file, with or without colours.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;

use super::Failure;
use super::args::ColorMode;
use super::values::Destination;
use crate::report::table::Screen;

/// Columns where the width of the screen is unknown.
const DEFAULT_WIDTH: usize = 100;
/// Narrowest width that is used.
const NARROWEST: usize = 40;

/// Stdout of this process and how to write to it.
pub(super) struct Output {
    stdout: BufWriter<io::Stdout>,
    color: ColorMode,
}

impl Output {
    pub(super) fn new(color: ColorMode) -> Output {
        Output {
            stdout: BufWriter::new(io::stdout()),
            color,
        }
    }

    /// Writes to a destination; `write` gets the writer and what its screen is like.
    pub(super) fn to(
        &mut self,
        destination: &Destination,
        write: impl FnOnce(&mut dyn Write, Screen) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match destination {
            Destination::Stdout => {
                let screen = self.screen();
                write(&mut self.stdout, screen)?;
                self.flush()?;
            }
            Destination::File(path) => {
                let screen = Screen {
                    width: DEFAULT_WIDTH,
                    colour: self.color == ColorMode::Always,
                };
                let file = File::create(path)
                    .with_context(|| format!("cannot create {}", path.display()))?;
                let mut file = BufWriter::new(file);
                write(&mut file, screen)
                    .and_then(|()| file.flush())
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Writes what is still buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    fn screen(&self) -> Screen {
        let colour = match self.color {
            ColorMode::Always => true,
            ColorMode::Never => false,
            ColorMode::Auto => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
        };
        Screen {
            width: width(),
            colour,
        }
    }
}

/// COLUMNS, else the terminal's width, else [`DEFAULT_WIDTH`].
fn width() -> usize {
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let terminal = || {
        let size = io::stdout()
            .is_terminal()
            .then(terminal_size::terminal_size)
            .flatten();
        size.map(|(width, _)| usize::from(width.0))
    };
    columns
        .filter(|width| *width > 0)
        .or_else(terminal)
        .unwrap_or(DEFAULT_WIDTH)
        .max(NARROWEST)
}
