//! Discovery of the tunnel, kernel field offsets, loading and attaching from the catalog.

pub mod discover;
pub mod netns;
