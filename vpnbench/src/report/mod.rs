//! The report: a model that all outputs read, and its renderings. Nothing here computes figures
//! that an analysis should.

pub mod build;
pub mod compare;
mod cost;
mod cpu;
pub mod docs;
pub mod doctor;
pub mod html;
pub mod json;
pub mod jsonl;
pub mod live;
pub mod markdown;
pub mod model;
mod sight;
pub mod table;
mod tcp;
pub mod terminal;
mod terminal_tcp;

pub use crate::explain::units;
pub use build::{Recording, build};
pub use model::Report;
