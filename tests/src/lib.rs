//! Test harness: things that several suites set up and tear down.

pub mod netns;
pub mod tun;
pub mod wireguard;
