//! Payload bytes, only with `--keep-payload`.

/// Largest number of payload bytes a packet can be asked to keep.
pub const PAYLOAD_MAX: usize = 128;

crate::event! {
    /// The first transport payload bytes of the packet event with the same time, CPU and skb.
    Payload = Payload, 160 bytes {
        /// kernel address of the skb
        skb: u64,
        /// tap number (`catalog::Tap`)
        tap: u32,
        /// valid bytes of `bytes`
        len: u32,
        /// payload bytes; the rest is 0
        bytes: [u8; 128],
    }
}
