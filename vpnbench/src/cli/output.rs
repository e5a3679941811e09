//! Where results go: stdout or a file, with or without colours.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

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

/// An open destination.
pub(super) enum Target {
    /// Stdout.
    Stdout,
    /// A file with its name.
    File(File, PathBuf),
}

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
        let mut target = self.open(destination)?;
        self.write_to(&mut target, write)
    }

    /// Opens a destination. What is in the file stays until something is written.
    pub(super) fn open(&self, destination: &Destination) -> Result<Target, Failure> {
        Ok(match destination {
            Destination::Stdout => Target::Stdout,
            Destination::File(path) => {
                let mut options = File::options();
                let file = options.write(true).create(true).truncate(false).open(path);
                let file = file.with_context(|| format!("cannot create {}", path.display()))?;
                Target::File(file, path.clone())
            }
        })
    }

    /// Writes to an open destination; `write` gets the writer and what its screen is like.
    pub(super) fn write_to(
        &mut self,
        target: &mut Target,
        write: impl FnOnce(&mut dyn Write, Screen) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match target {
            Target::Stdout => {
                let screen = self.screen();
                write(&mut self.stdout, screen)?;
                self.flush()?;
            }
            Target::File(file, path) => {
                let screen = Screen {
                    width: DEFAULT_WIDTH,
                    colour: self.color == ColorMode::Always,
                };
                let failed = || format!("cannot write {}", path.display());
                if file.metadata().is_ok_and(|data| data.is_file()) {
                    file.set_len(0).with_context(failed)?;
                }
                let mut file = BufWriter::new(file);
                write(&mut file, screen)
                    .and_then(|()| file.flush())
                    .with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Writes what is still buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// What standard output is like.
    pub(super) fn screen(&self) -> Screen {
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
