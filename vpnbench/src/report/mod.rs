//! The report: a model that all outputs read, and its renderings. Nothing here computes figures
//! that an analysis should.

pub mod build;
pub mod docs;
pub mod doctor;
pub mod json;
pub mod model;
pub mod table;
pub mod terminal;
pub mod units;

pub use build::{Recording, build};
pub use model::Report;
