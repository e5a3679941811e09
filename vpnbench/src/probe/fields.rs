//! Kernel struct layouts of the running kernel, from its BTF.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use btf_rs::{Backend, Btf, Type};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vpnbench_common::settings::{FIELDS, FieldSpec, MISSING, Offsets};

/// Where kernels built with CONFIG_DEBUG_INFO_BTF offer their types.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// No BTF at all.
    #[error(
        "cannot read the kernel's types from {path}: {source}; a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed"
    )]
    NoBtf {
        /// File that was read.
        path: String,
        /// What the parser said.
        source: btf_rs::Error,
    },
    /// A member without which no probe works.
    #[error(
        "this kernel's BTF has no {structure}.{path}, which vpnbench needs; please report the kernel version"
    )]
    NoField {
        /// Kernel struct.
        structure: &'static str,
        /// Member path.
        path: &'static str,
    },
    /// A member lies where the programs cannot reach it.
    #[error(
        "{structure}.{path} lies at byte {offset} on this kernel, beyond the {limit} bytes vpnbench reads"
    )]
    TooFar {
        /// Kernel struct.
        structure: &'static str,
        /// Member path.
        path: &'static str,
        /// Where it is.
        offset: u32,
        /// How far the programs read.
        limit: u32,
    },
}

/// The running kernel's types.
pub struct KernelTypes {
    btf: Btf,
}

/// Position of a member inside its struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    bit_offset: u32,
    bit_size: u32,
}

impl KernelTypes {
    /// Reads [`VMLINUX_BTF`].
    ///
    /// # Errors
    /// If the file is missing or is no BTF.
    pub fn load() -> Result<Self, FieldError> {
        Self::from_file(Path::new(VMLINUX_BTF))
    }

    /// Reads the types of another file, for tests of foreign kernels.
    ///
    /// # Errors
    /// If the file is missing or is no BTF.
    pub fn from_file(path: &Path) -> Result<Self, FieldError> {
        let failed = |source| FieldError::NoBtf {
            path: path.display().to_string(),
            source,
        };
        let copy = in_memory(path).map_err(|error| failed(error.into()))?;
        // A tenth of the memory and time of parsing all types; only a few dozen are looked up.
        let copy = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let btf = Btf::from_file_with_backend(copy, Backend::Mmap).map_err(failed)?;
        Ok(Self { btf })
    }

    /// Resolves every row of [`FIELDS`], in order, as [`Offsets`] encodes them.
    ///
    /// # Errors
    /// If a required member is missing or out of reach.
    pub fn offsets(&self) -> Result<Offsets, FieldError> {
        let mut slots = [MISSING; FIELDS.len()];
        let names: BTreeSet<&str> = FIELDS.iter().map(|spec| spec.structure).collect();
        let structures: BTreeMap<&str, btf_rs::Struct> = names
            .into_iter()
            .filter_map(|name| Some((name, self.structure(name)?)))
            .collect();
        for (slot, spec) in slots.iter_mut().zip(FIELDS) {
            *slot = match structures
                .get(spec.structure)
                .and_then(|within| self.member(within, spec.path))
                .and_then(encode)
            {
                Some(encoded) => encoded,
                None if spec.required => {
                    return Err(FieldError::NoField {
                        structure: spec.structure,
                        path: spec.path,
                    });
                }
                None => MISSING,
            };
            let limit = match (spec.structure, spec.path) {
                ("skb_shared_info", "gso_type") => 28,
                ("skb_shared_info", _) => 6,
                _ => 0xffff,
            };
            if *slot != MISSING && *slot & 0xffff > limit {
                return Err(FieldError::TooFar {
                    structure: spec.structure,
                    path: spec.path,
                    offset: *slot & 0xffff,
                    limit,
                });
            }
        }
        Ok(bytemuck::cast(slots))
    }

    /// Fields that this kernel does not have.
    #[must_use]
    pub fn missing(offsets: &Offsets) -> Vec<&'static FieldSpec> {
        let slots: &[u32] = bytemuck::cast_slice(std::slice::from_ref(offsets));
        FIELDS
            .iter()
            .zip(slots)
            .filter(|(_, slot)| **slot == MISSING)
            .map(|(spec, _)| spec)
            .collect()
    }

    fn member(&self, within: &btf_rs::Struct, path: &str) -> Option<Place> {
        let mut current = within.clone();
        let mut place = Place {
            bit_offset: 0,
            bit_size: 0,
        };
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let (at, next) = self.find(&current, part)?;
            place = Place {
                bit_offset: place.bit_offset + at.bit_offset,
                bit_size: at.bit_size,
            };
            if parts.peek().is_some() {
                current = next?;
            }
        }
        Some(place)
    }

    fn structure(&self, name: &str) -> Option<btf_rs::Struct> {
        self.btf
            .resolve_types_by_name(name)
            .ok()?
            .into_iter()
            .find_map(|found| match found {
                Type::Struct(found) if !found.members.is_empty() => Some(found),
                _ => None,
            })
    }

    /// A member by name, searching anonymous structs and unions; with the struct it opens.
    fn find(&self, within: &btf_rs::Struct, name: &str) -> Option<(Place, Option<btf_rs::Struct>)> {
        for member in &within.members {
            let member_name = self.btf.resolve_name(member).unwrap_or_default();
            let place = Place {
                bit_offset: member.bit_offset(),
                bit_size: member.bitfield_size().unwrap_or(0),
            };
            let inner = self.aggregate(member);
            if member_name == name {
                return Some((place, inner));
            }
            if member_name.is_empty()
                && let Some(inner) = inner
                && let Some((at, next)) = self.find(&inner, name)
            {
                let bit_offset = place.bit_offset + at.bit_offset;
                return Some((Place { bit_offset, ..at }, next));
            }
        }
        None
    }

    /// The struct or union behind a member, through typedefs, qualifiers and arrays.
    fn aggregate(&self, member: &btf_rs::Member) -> Option<btf_rs::Struct> {
        let mut current = self.btf.resolve_chained_type(member).ok()?;
        loop {
            current = match current {
                Type::Struct(found) | Type::Union(found) => return Some(found),
                Type::Array(array) => self.btf.resolve_chained_type(&array).ok()?,
                Type::Typedef(inner) => self.btf.resolve_chained_type(&inner).ok()?,
                Type::Const(inner) => self.btf.resolve_chained_type(&inner).ok()?,
                Type::Volatile(inner) => self.btf.resolve_chained_type(&inner).ok()?,
                Type::TypeTag(inner) => self.btf.resolve_chained_type(&inner).ok()?,
                _ => return None,
            };
        }
    }

    /// Parameters of a tracepoint without its context, None if the kernel does not have it.
    #[must_use]
    pub fn tracepoint_params(&self, name: &str) -> Option<u32> {
        let types = self
            .btf
            .resolve_types_by_name(&format!("btf_trace_{name}"))
            .ok()?;
        let Type::Typedef(typedef) = types.into_iter().next()? else {
            return None;
        };
        let Type::Ptr(pointer) = self.btf.resolve_chained_type(&typedef).ok()? else {
            return None;
        };
        match self.btf.resolve_chained_type(&pointer).ok()? {
            Type::FuncProto(proto) => u32::try_from(proto.parameters.len()).ok()?.checked_sub(1),
            _ => None,
        }
    }

    /// `enum skb_drop_reason`: number to name without the `SKB_DROP_REASON_` prefix.
    #[must_use]
    pub fn drop_reasons(&self) -> BTreeMap<u32, String> {
        let types = self
            .btf
            .resolve_types_by_name("skb_drop_reason")
            .unwrap_or_default();
        let Some(Type::Enum(reasons)) = types.into_iter().find(|t| matches!(t, Type::Enum(_)))
        else {
            return BTreeMap::new();
        };
        let name = |member| {
            let full = self.btf.resolve_name(member).unwrap_or_default();
            full.strip_prefix("SKB_DROP_REASON_")
                .or(full.strip_prefix("SKB_"))
                .unwrap_or(&full)
                .to_owned()
        };
        reasons
            .members
            .iter()
            .map(|member| (member.val(), name(member)))
            .collect()
    }
}

/// A copy of a file that can be mapped: the kernel's own cannot before 6.16.
fn in_memory(path: &Path) -> io::Result<File> {
    let bytes = std::fs::read(path)?;
    let mut copy = File::from(memfd_create("vpnbench-btf", MFdFlags::MFD_CLOEXEC)?);
    copy.write_all(&bytes)?;
    Ok(copy)
}

/// Packs a place as [`Offsets`] wants it; None for what the programs cannot read (a bit field
/// that crosses a byte).
fn encode(place: Place) -> Option<u32> {
    let byte = place.bit_offset / 8;
    let shift = place.bit_offset % 8;
    if byte > 0xffff {
        return None;
    }
    match place.bit_size {
        0 if shift == 0 => Some(byte),
        size if size != 0 && shift + size <= 8 => Some(byte | shift << 16 | size << 24),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_fields_are_packed_with_shift_and_width() {
        assert_eq!(
            encode(Place {
                bit_offset: 64,
                bit_size: 0
            }),
            Some(8)
        );
        assert_eq!(
            encode(Place {
                bit_offset: 69,
                bit_size: 1
            }),
            Some(8 | 5 << 16 | 1 << 24)
        );
        assert_eq!(
            encode(Place {
                bit_offset: 70,
                bit_size: 5
            }),
            None
        );
    }

    #[test]
    fn the_running_kernel_has_every_required_field() {
        let types = KernelTypes::load().expect("parses");
        let offsets = types.offsets().expect("all required fields");
        // Optional rows may be missing on some kernel, but never all of a struct's.
        assert!(KernelTypes::missing(&offsets).len() < FIELDS.len() / 4);
        assert!(offsets.skb_head > offsets.skb_len);
        assert_eq!(types.tracepoint_params("net_dev_start_xmit"), Some(2));
        assert_eq!(types.tracepoint_params("no_such_tracepoint"), None);
        assert!(
            types
                .drop_reasons()
                .values()
                .any(|name| name == "FULL_RING")
        );
    }
}
