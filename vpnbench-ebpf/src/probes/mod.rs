//! One probe per file: read fields, fill the payload, emit. Program names equal the names in
//! `vpnbench_common::catalog::PROBES`.

mod consume_skb;
mod cpu_clock;
mod inet_sock_set_state;
mod io_uring_complete;
mod kfree_skb;
mod net_dev_queue;
mod net_dev_start_xmit;
mod netif_receive_skb;
mod packet;
mod sched_process;
mod sched_switch;
mod sched_waking;
mod skb_consume_udp;
mod sock_recv_length;
mod softirq;
mod stacks;
mod syscalls;
mod tcp_cong_state_set;
mod tcp_mark_skb_lost;
mod tcp_probe;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod udp_fail_queue_rcv_skb;
