//! The kernel-side filter: which devices, namespaces, processes and ports are watched. Can be
//! changed while programs run, to follow a daemon that restarts.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use vpnbench_common::settings::{
    DEVICE_LIMIT, DEVICE_SLOTS, Device, InterfaceKey, PortKey, SYSCALL_SLOTS, device_slot, role,
};

use crate::trace::model::WatchedDevice;

/// Why a filter could not be set.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// More devices than the table holds.
    #[error(
        "{count} devices to watch, but at most {DEVICE_LIMIT} fit; name fewer with --tun, --outer or --netns"
    )]
    TooManyDevices {
        /// Devices asked for.
        count: usize,
    },
    /// Two devices share a slot. Only possible for devices that appear later: the seed is chosen
    /// for those known at the start.
    #[error(
        "device {name} cannot be added while recording (its slot is taken); start a new recording"
    )]
    Collision {
        /// Device.
        name: String,
    },
    /// The kernel refused an update.
    #[error("BPF map {name}: {source}")]
    Map {
        /// Map.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
}

fn map_error(name: &'static str) -> impl Fn(MapError) -> FilterError {
    move |source| FilterError::Map { name, source }
}

/// `net_device.name` as the kernel stores it, in two native integers.
fn name_words(name: &str) -> [u64; 2] {
    let mut bytes = [0u8; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytemuck::cast(bytes)
}

/// The first seed under which no two devices share a slot.
#[must_use]
pub fn choose_seed(devices: &[WatchedDevice]) -> u32 {
    (0..u32::MAX)
        .find(|seed| {
            let mut slots = BTreeSet::new();
            devices
                .iter()
                .all(|d| slots.insert(device_slot(name_words(&d.name), d.netns, *seed)))
        })
        .unwrap_or(0)
}

/// Handles on the filter maps.
pub struct Filter {
    devices: Array<MapData, Device>,
    interfaces: HashMap<MapData, InterfaceKey, u32>,
    namespaces: HashMap<MapData, u32, u32>,
    processes: HashMap<MapData, u32, u32>,
    ports: HashMap<MapData, PortKey, u32>,
    syscalls: Array<MapData, u32>,
    seed: u32,
    /// Devices by index.
    known: BTreeMap<u32, WatchedDevice>,
}

fn take<T: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, FilterError> {
    let map = ebpf
        .take_map(name)
        .ok_or(MapError::InvalidName {
            name: name.to_owned(),
        })
        .map_err(map_error(name))?;
    T::try_from(map).map_err(map_error(name))
}

impl Filter {
    pub(super) fn new(ebpf: &mut Ebpf, seed: u32) -> Result<Self, FilterError> {
        Ok(Self {
            devices: take(ebpf, "DEVICES")?,
            interfaces: take(ebpf, "INTERFACES")?,
            namespaces: take(ebpf, "NAMESPACES")?,
            processes: take(ebpf, "PROCESSES")?,
            ports: take(ebpf, "PORTS")?,
            syscalls: take(ebpf, "SYSCALLS")?,
            seed,
            known: BTreeMap::new(),
        })
    }

    /// Watches a device, or updates one that is known by namespace and name.
    ///
    /// # Errors
    /// If the table is full, its slot is taken, or the kernel refuses.
    pub fn watch_device(&mut self, device: &WatchedDevice) -> Result<(), FilterError> {
        let name = name_words(&device.name);
        let slot = device_slot(name, device.netns, self.seed);
        let known = self
            .known
            .iter()
            .find(|(_, known)| known.netns == device.netns && known.name == device.name);
        let index = match known {
            Some((index, _)) => *index,
            None => self.free_index(device, slot)?,
        };
        let entry = Device {
            name,
            netns: device.netns,
            ifindex: device.ifindex,
            role: if device.role == "tunnel" {
                role::TUNNEL
            } else {
                role::OUTER
            },
            index,
            l2_len: device.l2_len,
            port_filter: u32::from(device.port_filter),
        };
        self.devices
            .set(slot, entry, 0)
            .map_err(map_error("DEVICES"))?;
        let key = InterfaceKey {
            netns: device.netns,
            ifindex: device.ifindex,
        };
        self.interfaces
            .insert(key, slot, 0)
            .map_err(map_error("INTERFACES"))?;
        self.watch_namespace(device.netns)?;
        self.known.insert(index, device.clone());
        Ok(())
    }

    fn free_index(&self, device: &WatchedDevice, slot: u32) -> Result<u32, FilterError> {
        let taken = self
            .known
            .values()
            .any(|known| device_slot(name_words(&known.name), known.netns, self.seed) == slot);
        if taken {
            return Err(FilterError::Collision {
                name: device.name.clone(),
            });
        }
        let next = u32::try_from(self.known.len()).unwrap_or(DEVICE_LIMIT);
        if next >= DEVICE_LIMIT {
            return Err(FilterError::TooManyDevices {
                count: self.known.len() + 1,
            });
        }
        Ok(next)
    }

    /// The device of an index in the kernel's counters.
    #[must_use]
    pub fn device(&self, index: u32) -> Option<&WatchedDevice> {
        self.known.get(&index)
    }

    /// Watches the TCP and UDP sockets of a namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch_namespace(&mut self, netns: u32) -> Result<(), FilterError> {
        self.namespaces
            .insert(netns, 1, 0)
            .map_err(map_error("NAMESPACES"))
    }

    /// Watches a process and all its future children, with a role of `settings::process`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch_process(&mut self, pid: u32, role: u32) -> Result<(), FilterError> {
        self.processes
            .insert(pid, role, 0)
            .map_err(map_error("PROCESSES"))
    }

    /// Stops watching a process; its children stay watched.
    pub fn forget_process(&mut self, pid: u32) {
        // Not being there is what is wanted.
        let _ = self.processes.remove(&pid);
    }

    /// Records outer packets of a local port.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch_port(&mut self, port: PortKey) -> Result<(), FilterError> {
        self.ports.insert(port, 1, 0).map_err(map_error("PORTS"))
    }

    /// Stops watching everything; counters and [`Filter::device`] stay.
    pub fn close(&mut self) {
        for device in self.known.values() {
            let slot = device_slot(name_words(&device.name), device.netns, self.seed);
            // The recording is over: an entry that stays only costs events nobody reads.
            let _ = self.devices.set(slot, Device::default(), 0);
        }
        let pids: Vec<u32> = self.processes.keys().filter_map(Result::ok).collect();
        pids.into_iter().for_each(|pid| self.forget_process(pid));
        let inums: Vec<u32> = self.namespaces.keys().filter_map(Result::ok).collect();
        for inum in inums {
            let _ = self.namespaces.remove(&inum);
        }
        let ports: Vec<PortKey> = self.ports.keys().filter_map(Result::ok).collect();
        for port in ports {
            let _ = self.ports.remove(&port);
        }
    }

    /// Records these system calls of watched processes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch_syscalls(&mut self, numbers: &[u32]) -> Result<(), FilterError> {
        for number in numbers.iter().filter(|number| **number < SYSCALL_SLOTS) {
            self.syscalls
                .set(*number, 1u32, 0)
                .map_err(map_error("SYSCALLS"))?;
        }
        Ok(())
    }
}

const _: () = assert!(DEVICE_LIMIT <= DEVICE_SLOTS);

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(count: u32) -> Vec<WatchedDevice> {
        (0..count)
            .map(|n| WatchedDevice {
                name: format!("tun{n}"),
                netns: 4_026_531_840 + n % 3,
                ..Default::default()
            })
            .collect()
    }

    #[test]
    fn the_chosen_seed_separates_all_devices() {
        for count in 0..=DEVICE_LIMIT {
            let devices = devices(count);
            let seed = choose_seed(&devices);
            let slots: BTreeSet<u32> = devices
                .iter()
                .map(|d| device_slot(name_words(&d.name), d.netns, seed))
                .collect();
            assert_eq!(slots.len(), devices.len());
        }
    }

    #[test]
    fn names_are_zero_padded() {
        assert_eq!(
            bytemuck::cast::<_, [u8; 16]>(name_words("tun0")),
            *b"tun0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    }
}
