//! Changes of TCP's congestion state.

super::tcp::tcp_state_event! {
    /// `tcp_cong_state_set`, before `icsk_ca_state` is assigned: `ca_state` is the old state. The
    /// stack tells the RACK reorder timer from an acknowledgement.
    CongState, 376 bytes {
        /// state to be set (0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss)
        new: u32,
        /// valid entries of `stack`
        depth: u32,
        /// kernel return addresses, innermost first
        stack: [u64; 12],
    }
}
