//! Harness of the test suites.

pub mod binary;
pub mod timeline;
