//! What a writer has done.

/// What a writer has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of complete frames.
    pub bytes: u64,
    /// Events accepted and stored (or waiting to be stored).
    pub events: u64,
    /// Events that could not be stored, for whatever reason.
    pub lost: u64,
    /// `events` by probe number.
    pub events_by_probe: Box<[u64; 256]>,
    /// `lost` by probe number.
    pub lost_by_probe: Box<[u64; 256]>,
}

impl Totals {
    pub(super) fn new() -> Self {
        Totals {
            bytes: 0,
            events: 0,
            lost: 0,
            events_by_probe: Box::new([0; 256]),
            lost_by_probe: Box::new([0; 256]),
        }
    }

    pub(super) fn add_loss(&mut self, probe: u8, count: u64) {
        self.lost += count;
        self.lost_by_probe[probe as usize] += count;
    }
}
