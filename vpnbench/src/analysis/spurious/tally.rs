//! Counts of verdicts.

/// Segments by what is known about them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Segments that could be judged: their receiver or the acknowledgements were seen.
    pub segments: u64,
    /// Proven spurious.
    pub spurious: u64,
    /// Of those, proven even if a retransmission of the same bytes was not recorded.
    pub certain: u64,
    /// Neither the receiver nor acknowledgements were seen.
    pub unseen: u64,
    /// An earlier copy was seen at the receiver.
    pub original_seen: u64,
    /// Reported by DSACK.
    pub dsack: u64,
    /// Acknowledged with a timestamp older than the retransmission.
    pub timestamps: u64,
    /// Acknowledged sooner than any round trip after it was sent.
    pub early: u64,
    /// Sent in an episode that the sender took back.
    pub undo: u64,
    /// Only the sender was seen.
    pub sender_only: u64,
    /// One copy arrived later, without a timestamp to say which; or none was seen before the receiver began to
    /// close or the recording ended.
    pub undecided: u64,
    /// Only the sender was seen, nothing says that an earlier copy arrived, and nothing that none did.
    pub open: u64,
    /// Receiver seen: the sender's evidence says the same.
    pub agree: u64,
    /// Receiver seen: all that could be compared.
    pub compared: u64,
}

impl Tally {
    /// Adds another tally.
    pub fn add(&mut self, other: &Tally) {
        self.segments += other.segments;
        self.spurious += other.spurious;
        self.certain += other.certain;
        self.unseen += other.unseen;
        self.original_seen += other.original_seen;
        self.dsack += other.dsack;
        self.timestamps += other.timestamps;
        self.early += other.early;
        self.undo += other.undo;
        self.sender_only += other.sender_only;
        self.undecided += other.undecided;
        self.open += other.open;
        self.agree += other.agree;
        self.compared += other.compared;
    }
}
