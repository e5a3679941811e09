//! Discovery of the tunnel, kernel field offsets, loading and attaching from the catalog.

pub mod attach;
pub mod discover;
pub mod doctor;
pub mod fields;
pub mod filter;
pub mod netns;
pub mod ring;
