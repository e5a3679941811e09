//! Packet filters in the language of tcpdump, compiled by libpcap.

use std::collections::BTreeMap;

use pcap::{BpfProgram, Capture, Linktype};

use super::error::ImportError;

/// A filter, compiled for each link type that occurs.
pub(super) struct Filter {
    text: String,
    path: String,
    programs: BTreeMap<u32, BpfProgram>,
}

impl Filter {
    /// A filter of a file.
    pub(super) fn new(text: &str, path: &str) -> Result<Filter, ImportError> {
        let mut filter = Filter {
            text: text.to_owned(),
            path: path.to_owned(),
            programs: BTreeMap::new(),
        };
        // What is wrong for Ethernet is wrong before any packet is read.
        filter.compile(1)?;
        Ok(filter)
    }

    fn compile(&mut self, link: u32) -> Result<(), ImportError> {
        let failed = |error: pcap::Error| ImportError::Filter {
            filter: self.text.clone(),
            path: self.path.clone(),
            reason: error.to_string(),
        };
        let capture = Capture::dead(Linktype(dlt(link))).map_err(failed)?;
        let program = capture.compile(&self.text, true).map_err(failed)?;
        self.programs.insert(link, program);
        Ok(())
    }

    /// Whether a packet matches.
    pub(super) fn passes(&mut self, link: u32, data: &[u8]) -> Result<bool, ImportError> {
        if !self.programs.contains_key(&link) {
            self.compile(link)?;
        }
        let program = self.programs.get(&link);
        Ok(program.is_some_and(|program| program.filter(data)))
    }
}

/// libpcap's own number of a link type: files have another one for raw IP
/// (<https://www.tcpdump.org/linktypes.html>).
fn dlt(link: u32) -> i32 {
    match link {
        101 => 12,
        link => link as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_speak_tcpdump() {
        let mut filter = Filter::new("udp", "x").expect("compiles");
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17];
        packet.resize(28, 0);
        assert_eq!(filter.passes(101, &packet).ok(), Some(true));
        packet[9] = 6;
        assert_eq!(filter.passes(101, &packet).ok(), Some(false));
        let error = Filter::new("upd", "x").err().expect("an error").to_string();
        assert!(error.contains("upd") && error.contains("syntax"), "{error}");
    }
}
