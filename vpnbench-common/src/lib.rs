//! What both sides of the kernel border share: the probe catalog, the event layouts and the
//! settings handed to the kernel. Plain integers and byte arrays only, pinned by tests, so that
//! the eBPF object, the recorder and the trace file agree to the byte.
#![no_std]

pub mod catalog;
pub mod event;
pub mod header;
pub mod layout;
pub mod ring;
pub mod settings;
