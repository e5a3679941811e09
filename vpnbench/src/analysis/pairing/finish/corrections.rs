//! What the other taps say of a daemon's book: what came through, and what cannot be proven.

use super::{Closing, Ends};
use crate::analysis::Problem;
use crate::analysis::ledger::Account;
use crate::analysis::pairing::amount::Amount;
use crate::analysis::pairing::transit::{Flow, Sums};

impl Closing<'_> {
    /// Whether a flow goes to a program that is no part of the tunnel at a host where only the tunnel's sockets are
    /// watched, say a daemon's questions to a server there: none of it would be seen to arrive.
    pub(super) fn is_beside(&self, flow: &Flow, to: u16) -> bool {
        if flow.to.is_some() {
            return false;
        }
        let netns = self.hosts[to as usize].netns;
        let tunnels = self.context.tunnels();
        let mut sockets = tunnels
            .flat_map(|tunnel| &tunnel.sockets)
            .filter(|socket| socket.netns == netns)
            .peekable();
        sockets.peek().is_some()
            && sockets.all(|socket| (socket.ip_proto, socket.local_port) != flow.destination_port)
    }

    /// Says how much that was.
    pub(super) fn beside(&mut self, amount: Amount) {
        if amount.units > 0 {
            let message = format!(
                "{} outer packets went to programs at the other host that are no part of the tunnel: whether they arrived \
                 was not watched",
                amount.segments
            );
            self.problems.push(Problem::info("pairing", message));
        }
    }

    /// Inner packets that came through twice although no outer packet did: the daemon sent them twice.
    /// They came out without having gone in, or stand where a lost one is missing.
    pub(super) fn repeated(&self, ends: Ends, account: &mut Account) {
        let twice = |sums: Option<&Sums>| sums.map_or(0, |sums| sums.duplicated.segments);
        let inner = twice(self.inner.get(&ends));
        let outer = twice(self.wire.get(&ends))
            + self.hosts[ends.0 as usize]
                .outer_qdisc
                .account
                .duplicated
                .segments;
        let repeated = inner.saturating_sub(outer);
        let free = account.originated.segments.min(repeated);
        account.originated.segments -= free;
        account.duplicated.segments += repeated;
        account.left.segments -= (repeated - free).min(account.left.segments);
        account.lost.segments += repeated - free;
    }

    /// A capture does not tell one datagram from several in a unit that fits a packet, so what did not come
    /// out of a tunnel is not proven to be lost; WireGuard's datagrams are counted one by one.
    pub(super) fn unproven(&self, host: u16, account: &mut Account) {
        let host = &self.hosts[host as usize];
        if host.captured && !host.wireguard {
            account.lost = Amount::default();
        }
    }

    /// Inner packets that arrived although no outer packet was seen that carried them: the daemon also sends by a
    /// device that is not watched. What arrived had left; of the others nothing is proven. Where no outer packet
    /// was seen at all, nothing says that the right device is watched. Before that, as many of what is taken for the
    /// daemon's own are data: packets of one size are easily mixed up.
    pub(super) fn unseen_way(
        &mut self,
        ends: Option<Ends>,
        direction: &str,
        account: &mut Account,
    ) {
        let sums = ends.and_then(|ends| self.inner.get(&ends));
        let arrived = sums.map_or(Amount::default(), |sums| sums.arrived);
        let seen = |account: &Account| account.left.segments + account.duplicated.segments;
        let excess = arrived.segments.saturating_sub(seen(account));
        let data = excess
            .min(account.lost.segments)
            .min(account.originated.segments);
        account.originated.segments -= data;
        account.left.segments += data;
        account.lost.segments -= data;
        let seen = seen(account);
        let message = if account.lost.segments == 0 {
            return;
        } else if arrived.segments > seen {
            account.left = account
                .left
                .plus(arrived.minus(account.left).within(account.lost));
            format!(
                "daemon-send ({direction}): {} inner packets arrived and only {seen} were seen leaving: the daemon also \
                 sends by a device that is not watched, so what did not arrive may have been lost there",
                arrived.segments
            )
        } else if seen + account.originated.segments == 0 {
            format!(
                "daemon-send ({direction}): no outer packet was seen leaving: the daemon lost all, or sends by a device \
                 that is not watched"
            )
        } else {
            return;
        };
        account.lost = Amount::default();
        self.problems.push(Problem::info("pairing", message));
    }
}
