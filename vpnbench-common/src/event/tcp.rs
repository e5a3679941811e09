//! State of a TCP sender and receiver, and the segments that change it.

/// The socket's state, shared by the events that carry it.
macro_rules! tcp_state_event {
    ($(#[$meta:meta])* $name:ident, $size:literal bytes { $($own:tt)* }) => {
        crate::event! {
            $(#[$meta])*
            $name = $name, $size bytes {
                /// kernel address of the socket
                sk: u64,
                /// inode number of the network namespace
                netns: u32,
                /// local port
                lport: u16,
                /// remote port
                rport: u16,
                /// local address; IPv4 in the first four bytes
                laddr: [u8; 16],
                /// remote address; IPv4 in the first four bytes
                raddr: [u8; 16],
                /// 4 or 6
                ip_version: u8,
                /// `sk_state` (1 ESTABLISHED, 2 SYN_SENT ..)
                state: u8,
                /// `icsk_ca_state` (0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss)
                ca_state: u8,
                /// `icsk_pending` (1 RETRANS, 3 PROBE0, 5 LOSS_PROBE, 6 REO_TIMEOUT)
                pending: u8,
                /// `icsk_retransmits`: consecutive timeouts
                retransmits: u8,
                /// `icsk_backoff`
                backoff: u8,
                /// `rack.reo_wnd_steps`
                reo_wnd_steps: u8,
                /// `rack.reo_wnd_persist` | `dsack_seen` << 5 | `advanced` << 6
                rack_bits: u8,
                /// `snd_una`
                snd_una: u32,
                /// `snd_nxt`
                snd_nxt: u32,
                /// `write_seq`
                write_seq: u32,
                /// `rcv_nxt`
                rcv_nxt: u32,
                /// `copied_seq`
                copied_seq: u32,
                /// congestion window in segments
                snd_cwnd: u32,
                /// slow-start threshold in segments
                ssthresh: u32,
                /// send window in bytes
                snd_wnd: u32,
                /// receive window in bytes
                rcv_wnd: u32,
                /// sender's segment size in bytes
                mss: u32,
                /// `srtt_us`: smoothed RTT in us x 8
                srtt_8us: u32,
                /// `mdev_us` in us x 4
                mdev_4us: u32,
                /// `rttvar_us` in us x 4
                rttvar_4us: u32,
                /// `rtt_min.s[0].v`: windowed minimum RTT in us
                min_rtt_us: u32,
                /// `icsk_rto` in jiffies
                rto_jiffies: u32,
                /// `rack.rtt_us`
                rack_rtt_us: u32,
                /// `packets_out` in segments
                packets_out: u32,
                /// `sacked_out` in segments
                sacked_out: u32,
                /// `lost_out` in segments
                lost_out: u32,
                /// `retrans_out` in segments
                retrans_out: u32,
                /// `lost`: segments ever marked lost
                lost: u32,
                /// `delivered`: segments ever delivered
                delivered: u32,
                /// `total_retrans`: segments ever retransmitted
                total_retrans: u32,
                /// `reordering` in segments
                reordering: u32,
                /// `reord_seen`
                reord_seen: u32,
                /// `dsack_dups`
                dsack_dups: u32,
                /// `high_seq`
                high_seq: u32,
                /// `undo_marker`
                undo_marker: u32,
                /// `undo_retrans`
                undo_retrans: i32,
                /// `retrans_stamp`
                retrans_stamp: u32,
                /// `tlp_high_seq`
                tlp_high_seq: u32,
                /// `prior_cwnd` in segments
                prior_cwnd: u32,
                /// `rcv_ooopack`: out-of-order segments received
                rcv_ooopack: u32,
                /// `app_limited`: `delivered` at which the limitation ends, 0 if none
                app_limited: u32,
                /// `max_packets_out`
                max_packets_out: u32,
                /// `chrono_start` in jiffies
                chrono_start: u32,
                /// `chrono_stat`: jiffies busy, receive-window limited, send-buffer limited
                chrono_stat: [u32; 3],
                /// `sk_wmem_queued` in bytes
                wmem_queued: u32,
                /// `sk_sndbuf` in bytes
                sndbuf: u32,
                /// `sk_rcvbuf` in bytes
                rcvbuf: u32,
                /// `sk_backlog.rmem_alloc` in bytes
                rmem: u32,
                /// `chrono_type`: 0 none, 1 busy, 2 rwnd, 3 sndbuf
                chrono_type: u8,
                /// bit 0 `is_cwnd_limited`, bit 1 `frto`, bit 2 `rate_app_limited`, bit 3 `rx_opt.saw_tstamp`
                bits: u8,
                /// `rx_opt.sack_ok`: bit 0 SACK, bit 2 DSACK seen
                sack_ok: u8,
                /// reserved, 0
                reserved: u8,
                /// `rx_opt.rcv_tsecr`
                rcv_tsecr: u32,
                /// `rcv_ssthresh` in bytes
                rcv_ssthresh: u32,
                /// expiry of the retransmission timer in jiffies
                timer_expires: u64,
                /// `sk_pacing_rate` in bytes/s
                pacing_rate: u64,
                $($own)*
            }
        }
    };
}

pub(crate) use tcp_state_event;

tcp_state_event! {
    /// `tcp_probe`: a segment reached an established socket; the state is from before it is
    /// processed. Tap `tcp.rx`.
    TcpProbe, 352 bytes {
        /// kernel address of the skb
        skb: u64,
        /// sequence number of the segment
        seq: u32,
        /// acknowledgement number
        ack: u32,
        /// payload bytes
        payload_len: u32,
        /// `gso_segs`, 0 if one segment
        gso_segs: u16,
        /// window as on the wire
        window: u16,
        /// TCP flags
        tcp_flags: u16,
        /// bit 0: `tsval`/`tsecr` valid
        options: u8,
        /// valid entries of `sack`
        sack_count: u8,
        /// TCP timestamp value
        tsval: u32,
        /// TCP timestamp echo reply
        tsecr: u32,
        /// interface on which it arrived (`skb_iif`)
        iif: u32,
        /// SACK blocks as start, end; a DSACK is the first
        sack: [u32; 8],
        /// IPv4 TOS or IPv6 traffic class bits kept by TCP (`ip_dsfield`)
        dsfield: u32,
        /// reserved, 0
        reserved2: u32,
    }
}

crate::event! {
    /// `tcp_mark_skb_lost` (second tier): a segment was marked lost.
    LostMark = LostMark, 56 bytes {
        /// kernel address of the socket
        sk: u64,
        /// kernel address of the skb
        skb: u64,
        /// inode number of the network namespace
        netns: u32,
        /// first sequence number
        seq: u32,
        /// sequence number after the last byte
        end_seq: u32,
        /// segments
        segments: u16,
        /// `sacked` bits before the mark
        sacked: u8,
        /// reserved, 0
        reserved: u8,
        /// reserved, 0
        reserved2: u64,
    }
}
