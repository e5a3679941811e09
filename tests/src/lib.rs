//! Test harness: things that several suites set up and tear down.

pub mod binary;
pub mod machine;
pub mod netns;
pub mod python;
pub mod tcp;
pub mod timeline;
pub mod trials;
pub mod tun;
pub mod tunnel;
pub mod wireguard;
pub mod witness;
