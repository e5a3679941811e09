//! Discovery of the tunnel, kernel field offsets, loading and attaching from the catalog.

pub mod attach;
pub mod fields;
pub mod filter;
