//! A run while it is recorded: what happened since the last look, as a table or a line of JSON for each
//! interval ([`plain`]), and as a screen with keys ([`View`]).
//!
//! All figures come from the report of the run so far, by the same analyses as the report at the end; an
//! interval is the difference of two such reports.

mod draw;
mod listing;
mod moment;
pub mod plain;
#[cfg(test)]
mod tests;
mod view;

pub use moment::{DaemonMoment, LossMoment, Moment, TapMoment, ThreadMoment};
pub use view::{Key, View, Wish};
