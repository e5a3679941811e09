//! The socket's state as the events that carry it have it.

use vpnbench_common::event;

/// What the analyses of a flow use of a socket's state. Units as in `vpnbench_common::event::TcpProbe`.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the kernel's names")]
pub struct State {
    pub netns: u32,
    pub state: u8,
    pub ca_state: u8,
    pub pending: u8,
    pub retransmits: u8,
    pub reo_wnd_steps: u8,
    pub rack_bits: u8,
    pub snd_una: u32,
    pub snd_nxt: u32,
    pub write_seq: u32,
    pub rcv_nxt: u32,
    pub snd_cwnd: u32,
    pub ssthresh: u32,
    pub snd_wnd: u32,
    pub mss: u32,
    pub srtt_8us: u32,
    pub min_rtt_us: u32,
    pub rto_jiffies: u32,
    pub packets_out: u32,
    pub sacked_out: u32,
    pub lost_out: u32,
    pub retrans_out: u32,
    pub lost: u32,
    pub delivered: u32,
    pub reordering: u32,
    pub reord_seen: u32,
    pub high_seq: u32,
    pub undo_marker: u32,
    pub undo_retrans: i32,
    pub total_retrans: u32,
    pub retrans_stamp: u32,
    pub tlp_high_seq: u32,
    pub prior_cwnd: u32,
    pub app_limited: u32,
    pub chrono_start: u32,
    pub chrono_stat: [u32; 3],
    pub chrono_type: u8,
    pub bits: u8,
    pub sack_ok: u8,
    pub rcv_tsecr: u32,
    pub pacing_rate: u64,
}

macro_rules! state_of {
    ($($event:ident),*) => { $(
        impl From<&event::$event> for State {
            fn from(event: &event::$event) -> State {
                State {
                    netns: event.netns,
                    state: event.state,
                    ca_state: event.ca_state,
                    pending: event.pending,
                    retransmits: event.retransmits,
                    reo_wnd_steps: event.reo_wnd_steps,
                    rack_bits: event.rack_bits,
                    snd_una: event.snd_una,
                    snd_nxt: event.snd_nxt,
                    write_seq: event.write_seq,
                    rcv_nxt: event.rcv_nxt,
                    snd_cwnd: event.snd_cwnd,
                    ssthresh: event.ssthresh,
                    snd_wnd: event.snd_wnd,
                    mss: event.mss,
                    srtt_8us: event.srtt_8us,
                    min_rtt_us: event.min_rtt_us,
                    rto_jiffies: event.rto_jiffies,
                    packets_out: event.packets_out,
                    sacked_out: event.sacked_out,
                    lost_out: event.lost_out,
                    retrans_out: event.retrans_out,
                    lost: event.lost,
                    delivered: event.delivered,
                    reordering: event.reordering,
                    reord_seen: event.reord_seen,
                    high_seq: event.high_seq,
                    undo_marker: event.undo_marker,
                    undo_retrans: event.undo_retrans,
                    total_retrans: event.total_retrans,
                    retrans_stamp: event.retrans_stamp,
                    tlp_high_seq: event.tlp_high_seq,
                    prior_cwnd: event.prior_cwnd,
                    app_limited: event.app_limited,
                    chrono_start: event.chrono_start,
                    chrono_stat: event.chrono_stat,
                    chrono_type: event.chrono_type,
                    bits: event.bits,
                    sack_ok: event.sack_ok,
                    rcv_tsecr: event.rcv_tsecr,
                    pacing_rate: event.pacing_rate,
                }
            }
        }
    )* };
}

state_of!(TcpProbe, Retransmit, CongState);

impl State {
    /// `tcp_packets_in_flight` (include/net/tcp.h): sent, neither (S)ACKed nor given up, plus
    /// those sent again.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        (self.packets_out + self.retrans_out).saturating_sub(self.sacked_out + self.lost_out)
    }
}
