//! Kernel symbols of the code addresses that occur in records. The file is opened while the
//! recorder still has its privileges (the kernel decides at open who may see addresses) and read
//! when the first address turns up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use crate::trace::model::Symbols;

/// Resolves kernel addresses once each.
pub(super) struct Kallsyms {
    file: Option<File>,
    /// Start of each function and its place in `names`, by address.
    table: Vec<(u64, u32)>,
    names: String,
    /// Addresses that were resolved already.
    known: BTreeMap<u64, ()>,
    fresh: Symbols,
}

impl Kallsyms {
    /// Opens `/proc/kallsyms`.
    #[must_use]
    pub(super) fn open() -> Self {
        Self::from_file(File::open("/proc/kallsyms").ok())
    }

    fn from_file(file: Option<File>) -> Self {
        Self {
            file,
            table: Vec::new(),
            names: String::new(),
            known: BTreeMap::new(),
            fresh: Symbols::default(),
        }
    }

    /// Remembers an address for the next [`Kallsyms::take`].
    pub(super) fn note(&mut self, address: u64) {
        if address == 0 || self.known.contains_key(&address) {
            return;
        }
        self.known.insert(address, ());
        if let Some(file) = self.file.take() {
            // Without the table addresses stay numbers, which reports show as such.
            let _ = self.read(BufReader::new(file));
        }
        if let Some(symbol) = self.resolve(address) {
            self.fresh.kernel.insert(address, symbol);
        }
    }

    /// Symbols that are new since the last call, None if there are none.
    pub(super) fn take(&mut self) -> Option<Symbols> {
        (!self.fresh.kernel.is_empty()).then(|| std::mem::take(&mut self.fresh))
    }

    fn read(&mut self, mut reader: impl BufRead) -> io::Result<()> {
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let mut parts = line.split_ascii_whitespace();
            let address = parts
                .next()
                .and_then(|text| u64::from_str_radix(text, 16).ok());
            if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
                (address, parts.next(), parts.next())
                && address != 0
            {
                let at = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.table.push((address, at));
                self.names.push_str(name);
                self.names.push('\n');
            }
            line.clear();
        }
        // Aliases of one address: the first listed name stays.
        self.table.sort_by_key(|entry| entry.0);
        Ok(())
    }

    fn resolve(&self, address: u64) -> Option<String> {
        let after = self.table.partition_point(|entry| entry.0 <= address);
        let found = self.table[after.checked_sub(1)?].0;
        let first = self.table.partition_point(|entry| entry.0 < found);
        let (start, at) = self.table[first];
        let name = self.names.get(at as usize..)?.lines().next()?;
        Some(format!("{name}+{:#x}", address - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Kallsyms {
        let mut symbols = Kallsyms::from_file(None);
        symbols.read(text.as_bytes()).expect("reads");
        symbols
    }

    #[test]
    fn addresses_resolve_to_the_function_before_them() {
        let mut symbols = table("ffff2000 t beta\nffff1000 T alpha\nffff1800 d data\n");
        for address in [0xffff_1000, 0xffff_1fff, 0xffff_2004, 0x1, 0] {
            symbols.note(address);
        }
        let fresh = symbols.take().expect("resolved");
        assert_eq!(fresh.kernel[&0xffff_1000], "alpha+0x0");
        assert_eq!(fresh.kernel[&0xffff_1fff], "alpha+0xfff");
        assert_eq!(fresh.kernel[&0xffff_2004], "beta+0x4");
        assert_eq!(fresh.kernel.len(), 3);
        symbols.note(0xffff_1000);
        assert_eq!(symbols.take(), None);
    }

    #[test]
    fn hidden_addresses_resolve_to_nothing() {
        let mut symbols = table("0000000000000000 T alpha\n");
        symbols.note(0x10);
        assert_eq!(symbols.take(), None);
    }
}
