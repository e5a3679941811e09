//! Folded stacks, for flame graphs: one line per stack with the functions from the outermost to the innermost, `;`
//! between, and its samples.

use std::io::{self, Write};

use crate::analysis::Context;
use crate::analysis::stacks::{Stacks, rules::Rules};

/// Writes all stacks by name; returns how many samples they have.
///
/// # Errors
///
/// What the writer refuses.
pub fn write(stacks: Stacks, context: &Context<'_>, out: &mut dyn Write) -> io::Result<u64> {
    let (output, _) = stacks.finish(context, &Rules::default());
    for (stack, samples) in &output.folded {
        writeln!(out, "{stack} {samples}")?;
    }
    Ok(output.folded.values().sum())
}
