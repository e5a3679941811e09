//! vpnbench: packet-level diagnosis of VPN and tunnel benchmarks.
//!
//! Data flows one way: kernel probe -> record -> trace -> analysis -> explain -> report. Stages exchange
//! values only; `cli` and `lab` drive them and no stage imports those two.

pub mod analysis;
pub mod cli;
pub mod explain;
pub mod export;
pub mod import;
pub mod join;
pub mod lab;
pub mod probe;
pub mod record;
pub mod report;
mod rows;
pub mod study;
pub mod trace;
