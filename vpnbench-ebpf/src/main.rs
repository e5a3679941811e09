//! The programs that run in the kernel. One file per probe under `probes/`; kernel structs are
//! read in `skb.rs` and `sock.rs`; `emit.rs` is the only file that touches the rings.
#![no_std]
#![no_main]
// The rings need an instruction that the language does not offer for this target.
#![feature(asm_experimental_arch)]

mod emit;
mod filter;
mod kernel;
mod probes;
mod skb;
mod sock;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// BPF helpers such as `bpf_ktime_get_ns` are reserved to programs that declare the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
