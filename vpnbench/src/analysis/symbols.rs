//! Kernel functions behind code addresses.

use crate::trace::model::Symbols;

/// Suffixes the compiler adds to the name of a function it split or specialised.
const COMPILER_SUFFIXES: [&str; 5] = [".part.", ".isra.", ".constprop.", ".cold", ".llvm."];

/// The function an address lies in, as named in the kernel's source; `None` if the trace has no
/// symbol for it.
#[must_use]
pub fn function(symbols: &Symbols, address: u64) -> Option<&str> {
    symbols
        .kernel
        .get(&address)
        .map(|symbol| source_name(symbol))
}

/// The source name in a symbol such as `tcp_xmit_retransmit_queue.part.0+0x9e [tcp]`.
#[must_use]
pub fn source_name(symbol: &str) -> &str {
    let end = symbol.find(['+', ' ']).unwrap_or(symbol.len());
    let name = &symbol[..end];
    let cut = COMPILER_SUFFIXES
        .iter()
        .filter_map(|suffix| name.find(suffix))
        .min();
    &name[..cut.unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_what_the_compiler_added() {
        for (symbol, name) in [
            ("tun_do_read+0x1f2", "tun_do_read"),
            ("tun_do_read.constprop.0+0x1f2/0x400 [tun]", "tun_do_read"),
            (
                "tcp_xmit_retransmit_queue.part.0+0x9e",
                "tcp_xmit_retransmit_queue",
            ),
            ("tcp_ack.isra.0.cold", "tcp_ack"),
            ("tcp_ack", "tcp_ack"),
        ] {
            assert_eq!(source_name(symbol), name);
        }
    }
}
