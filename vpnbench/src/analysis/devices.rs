//! Names and roles of the devices in records.

use std::collections::BTreeMap;

use super::Context;

/// A device as people know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Name.
    pub name: String,
    /// "tunnel", "outer", or empty for a device that is not watched.
    pub role: String,
}

/// All devices the trace knows, by namespace and interface index. A device that was deleted and
/// created again has several indices and one name.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    by_index: BTreeMap<(u32, u32), Device>,
}

impl Devices {
    /// Collects the watch list, its changes and the interfaces of both snapshots.
    #[must_use]
    pub fn new(context: &Context<'_>) -> Devices {
        let mut by_index = BTreeMap::new();
        let snapshots = [
            Some(&context.start.environment),
            context.end.map(|end| &end.environment),
        ];
        for namespace in snapshots
            .into_iter()
            .flatten()
            .flat_map(|one| &one.namespaces)
        {
            for link in &namespace.links {
                let device = Device {
                    name: link.name.clone(),
                    role: String::new(),
                };
                by_index.insert((namespace.netns, link.ifindex), device);
            }
        }
        let changed = context.changes.iter().flat_map(|change| &change.devices);
        for watched in context.start.devices.iter().chain(changed) {
            let device = Device {
                name: watched.name.clone(),
                role: watched.role.clone(),
            };
            by_index.insert((watched.netns, watched.ifindex), device);
        }
        Devices { by_index }
    }

    /// The device of an index, if the trace knows it.
    #[must_use]
    pub fn get(&self, netns: u32, ifindex: u32) -> Option<&Device> {
        self.by_index.get(&(netns, ifindex))
    }

    /// Its name; `if7` for an index the trace does not know, `None` for index 0.
    #[must_use]
    pub fn name(&self, netns: u32, ifindex: u32) -> Option<String> {
        if ifindex == 0 {
            return None;
        }
        let known = self.get(netns, ifindex).map(|device| device.name.clone());
        Some(known.unwrap_or_else(|| format!("if{ifindex}")))
    }
}
