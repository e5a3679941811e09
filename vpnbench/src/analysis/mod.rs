//! Pure passes over events.
