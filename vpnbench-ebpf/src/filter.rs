//! What is watched: devices, namespaces, processes and ports. User space fills these maps; a
//! packet or thread that is in none of them costs a lookup and no event.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use vpnbench_common::settings::{
    DEVICE_LIMIT, DEVICE_SLOTS, Device, InterfaceKey, PortKey, device_slot, process, role,
};

use crate::kernel::Pointer;
use crate::{need, setting};

#[map]
static DEVICES: Array<Device> = Array::with_max_entries(DEVICE_SLOTS, 0);

/// Interface index to slot of `DEVICES`.
#[map]
static INTERFACES: HashMap<InterfaceKey, u32> = HashMap::with_max_entries(DEVICE_LIMIT * 4, 0);

#[map]
static NAMESPACES: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

#[map]
static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);

#[map]
static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(4096, 0);

/// Inode number of the namespace behind a `struct net *`.
#[inline(always)]
pub fn inum(net: Pointer) -> u32 {
    need!(net, net_inum as u32)
}

/// The watched device behind a `struct net_device *`, if it is one.
#[inline(always)]
pub fn device(dev: Pointer) -> Option<&'static Device> {
    // In a datagram's skb the socket keeps lengths in place of the pointer (`dev_scratch` of
    // net/ipv4/udp.c). To follow them is a fault for each load, ten times the cost of the program; the
    // kernel's addresses have the highest bit set, lengths and null do not.
    if (dev as i64) >= 0 {
        return None;
    }
    let netns = inum(need!(dev, dev_net as Pointer));
    let low: u64 = need!(dev, dev_name as u64);
    let high: u64 = crate::kernel::load_at(dev, setting!(offsets.dev_name) + 8);
    let slot = device_slot([low, high], netns, setting!(device_seed));
    let found = DEVICES.get_ptr_mut(slot & (DEVICE_SLOTS - 1))?;
    // SAFETY: an element of the array map; the verifier has checked the pointer.
    let device = unsafe { &*found };
    if device.name[0] != low || device.name[1] != high || device.netns != netns {
        return None;
    }
    if device.role == role::NONE {
        return None;
    }
    let ifindex: u32 = need!(dev, dev_ifindex as u32);
    if device.ifindex != ifindex {
        learn(found, netns, ifindex, slot);
    }
    Some(device)
}

/// The device came back with another index: remember it, so that packets that only know the
/// index are still attributed.
#[inline(always)]
fn learn(device: *mut Device, netns: u32, ifindex: u32, slot: u32) {
    // SAFETY: an element of the array map; a racing writer stores the same value.
    unsafe { (*device).ifindex = ifindex };
    let _ = INTERFACES.insert(InterfaceKey { netns, ifindex }, slot, 0);
}

/// The watched device of an interface index.
#[inline(always)]
pub fn interface(netns: u32, ifindex: u32) -> Option<&'static Device> {
    // SAFETY: the value is a plain integer that user space writes once.
    let slot = unsafe { INTERFACES.get(InterfaceKey { netns, ifindex }) }?;
    DEVICES.get(*slot & (DEVICE_SLOTS - 1))
}

/// Whether sockets of this namespace are watched.
#[inline(always)]
pub fn namespace(netns: u32) -> bool {
    NAMESPACES.get_ptr(netns).is_some()
}

/// The role of a process (`settings::process`), [`process::NONE`] if it is not watched. A plain
/// number and no `Option`: the compiler would combine two options by their map pointers, which
/// the verifier refuses.
#[inline(always)]
pub fn role_of(tgid: u32) -> u32 {
    match PROCESSES.get_ptr(tgid) {
        // SAFETY: the value is a plain integer; volatile keeps the load.
        Some(role) => unsafe { core::ptr::read_volatile(role) },
        None => process::NONE,
    }
}

/// Whether a process is watched.
#[inline(always)]
pub fn process(tgid: u32) -> bool {
    PROCESSES.get_ptr(tgid).is_some()
}

/// Watches one more process: the child of a watched one. False if the table is full.
#[inline(always)]
pub fn watch_process(tgid: u32, role: u32) -> bool {
    PROCESSES.insert(tgid, role, 0).is_ok()
}

/// Whether this is a local port of an outer socket.
#[inline(always)]
pub fn port(netns: u32, port: u16, ip_proto: u8) -> bool {
    PORTS
        .get_ptr(PortKey {
            netns,
            port,
            ip_proto: u16::from(ip_proto),
        })
        .is_some()
}
