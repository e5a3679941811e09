//! Functions behind the user addresses of stack samples, resolved at the end of the recording, while
//! the daemons still run: nothing can be looked up later.
//!
//! The maps of a process are opened while the recorder still has its privileges (the kernel decides at
//! open who may read them) and read at the end. ELF symbols and DWARF are blazesym's work; programs in Go
//! that were stripped keep their function table ([`super::go_functions`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use blazesym::helper::read_elf_build_id;
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use vpnbench_common::event::Sample;

use super::go_functions::GoFunctions;
use crate::trace::model::Symbols;

/// Distinct addresses kept.
const ADDRESSES_MAX: usize = 200_000;

/// Addresses of user code, and the maps that say where it comes from.
pub(super) struct UserCode {
    maps: BTreeMap<u32, File>,
    addresses: BTreeMap<u32, BTreeSet<u64>>,
    count: usize,
}

/// A mapped part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    from: u64,
    to: u64,
    offset: u64,
    path: PathBuf,
}

impl UserCode {
    /// Opens the maps of these processes. One that is gone or may not be read stays without symbols.
    #[must_use]
    pub(super) fn open(pids: &[u32]) -> UserCode {
        let maps = pids.iter().filter_map(|pid| {
            let file = File::open(format!("/proc/{pid}/maps")).ok()?;
            Some((*pid, file))
        });
        UserCode {
            maps: maps.collect(),
            addresses: BTreeMap::new(),
            count: 0,
        }
    }

    /// Remembers the user addresses of a sample.
    pub(super) fn note(&mut self, sample: &Sample) {
        if !self.maps.contains_key(&sample.tgid) || self.count >= ADDRESSES_MAX {
            return;
        }
        let known = self.addresses.entry(sample.tgid).or_default();
        let depth = usize::from(sample.user_depth).min(sample.user.len());
        for address in &sample.user[..depth] {
            self.count += usize::from(known.insert(*address));
        }
    }

    /// The functions, `name+0xoffset [file]`, and build ids of the files.
    pub(super) fn resolve(self) -> Symbols {
        let mut symbols = Symbols::default();
        let symbolizer = Symbolizer::new();
        let mut go = BTreeMap::new();
        for (pid, mut file) in self.maps {
            let Some(addresses) = self.addresses.get(&pid) else {
                continue;
            };
            let mut text = String::new();
            if file.read_to_string(&mut text).is_err() {
                continue;
            }
            let mappings: Vec<Mapping> = text.lines().filter_map(mapping).collect();
            let mut by_file: BTreeMap<&Path, Vec<(u64, u64)>> = BTreeMap::new();
            for address in addresses {
                let holder = mappings
                    .iter()
                    .find(|one| (one.from..one.to).contains(address));
                if let Some(holder) = holder {
                    let offset = address - holder.from + holder.offset;
                    let all = by_file.entry(&holder.path).or_default();
                    all.push((*address, offset));
                }
            }
            let found = symbols.user.entry(pid).or_default();
            for (path, addresses) in by_file {
                let module = module(path);
                if let Ok(Some(id)) = read_elf_build_id(path) {
                    let hex = id.iter().map(|byte| format!("{byte:02x}")).collect();
                    symbols.build_ids.insert(module.clone(), hex);
                }
                let go = go
                    .entry(path.to_owned())
                    .or_insert_with(|| GoFunctions::read(path));
                let names = match go {
                    Some(go) => by_go(go, &addresses),
                    None => by_elf(&symbolizer, path, &addresses),
                };
                for ((address, _), name) in addresses.iter().zip(names) {
                    let text = match name {
                        Some(name) => format!("{name} [{module}]"),
                        None => format!("[{module}]"),
                    };
                    found.insert(*address, text);
                }
            }
        }
        symbols
    }
}

fn by_go(go: &GoFunctions, addresses: &[(u64, u64)]) -> Vec<Option<String>> {
    let name = |(_, offset): &(u64, u64)| {
        let (name, within) = go.at(*offset)?;
        Some(format!("{name}+{within:#x}"))
    };
    addresses.iter().map(name).collect()
}

fn by_elf(symbolizer: &Symbolizer, path: &Path, addresses: &[(u64, u64)]) -> Vec<Option<String>> {
    let offsets: Vec<u64> = addresses.iter().map(|(_, offset)| *offset).collect();
    let source = Source::Elf(Elf::new(path));
    let found = symbolizer.symbolize(&source, Input::FileOffset(&offsets));
    let Ok(found) = found else {
        // Not an ELF file (the vDSO, memory of a just-in-time compiler): only the module is known.
        return vec![None; addresses.len()];
    };
    let name = |one: Symbolized<'_>| match one {
        Symbolized::Sym(symbol) => Some(format!("{}+{:#x}", symbol.name, symbol.offset)),
        Symbolized::Unknown(_) => None,
    };
    found.into_iter().map(name).collect()
}

fn module(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// A line of `/proc/PID/maps` (proc(5)) that maps a file.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let mut words = words.skip(1);
    let offset = words.next()?;
    let path = words.skip(2).collect::<Vec<_>>().join(" ");
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    (!path.is_empty()).then_some(Mapping {
        from: hex(from)?,
        to: hex(to)?,
        offset: hex(offset)?,
        path: path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let line = "7f1c-7f2d r-xp 00001000 08:01 42      /usr/lib/a b.so (deleted)";
        let expected = Mapping {
            from: 0x7f1c,
            to: 0x7f2d,
            offset: 0x1000,
            path: "/usr/lib/a b.so".into(),
        };
        assert_eq!(mapping(line), Some(expected));
        assert_eq!(mapping("7f1c-7f2d rw-p 00000000 00:00 0 "), None);
        assert_eq!(mapping("nonsense"), None);
    }

    #[inline(never)]
    fn a_function_of_this_test() -> u64 {
        std::hint::black_box(a_function_of_this_test as *const () as u64)
    }

    #[test]
    fn finds_its_own_function() {
        let own = std::process::id();
        let mut code = UserCode::open(&[own]);
        let mut sample: Sample = bytemuck::Zeroable::zeroed();
        (sample.tgid, sample.user_depth) = (own, 1);
        sample.user[0] = a_function_of_this_test() + 1;
        code.note(&sample);
        let symbols = code.resolve();
        let name = symbols.user.get(&own).and_then(|all| all.values().next());
        let name = name.map_or("", String::as_str);
        assert!(name.contains("a_function_of_this_test"), "{name}");
        assert!(name.contains("+0x1 ["), "{name}");
    }
}
