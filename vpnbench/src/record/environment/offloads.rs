//! Offload features of an interface, by the ethtool ioctl: it works on every kernel without
//! rights, and for the devices of the namespace in which its socket was made.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
/// The set of feature names.
const FEATURES: u32 = 4;
/// Bytes of one name.
const NAME_LEN: usize = 32;
/// More features than any kernel has; a larger answer is refused.
const FEATURES_MAX: usize = 1024;

mod ioctl {
    nix::ioctl_readwrite_bad!(ethtool, 0x8946, libc::ifreq); // SIOCETHTOOL
}

/// A socket for questions and the feature names, which are the same for all interfaces.
pub(super) struct Ethtool {
    socket: UdpSocket,
    names: Vec<String>,
}

impl Ethtool {
    /// Opens a socket in the calling thread's namespace and learns the names.
    pub(super) fn open() -> io::Result<Self> {
        // Any socket will do; this one is never bound to a port that others see.
        let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
        let mut ethtool = Self {
            socket,
            names: Vec::new(),
        };
        ethtool.names = ethtool.feature_names()?;
        Ok(ethtool)
    }

    /// Features of an interface and whether they are active.
    pub(super) fn features(&self, device: &str) -> io::Result<BTreeMap<String, bool>> {
        let blocks = self.names.len().div_ceil(32);
        // struct ethtool_gfeatures: cmd, size, then per 32 features: available, requested,
        // active, never_changed.
        let mut buffer = vec![0; 2 + blocks * 4];
        buffer[0] = GFEATURES;
        buffer[1] = blocks as u32;
        self.ask(device, &mut buffer)?;
        let active = |at: usize| buffer[2 + at / 32 * 4 + 2] & 1 << (at % 32) != 0;
        let named = self
            .names
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty());
        Ok(named.map(|(at, name)| (name.clone(), active(at))).collect())
    }

    fn feature_names(&self) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: cmd, reserved, 64-bit mask, then one count.
        let mut info = vec![GSSET_INFO, 0, 0, 0, 0];
        let mask = (1u64 << FEATURES).to_ne_bytes();
        for (word, bytes) in info[2..4].iter_mut().zip(mask.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        self.ask("lo", &mut info)?;
        let count = info[4] as usize;
        if count > FEATURES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // struct ethtool_gstrings: cmd, set, length, then the names.
        let mut strings = vec![0; 3 + count * NAME_LEN / 4];
        (strings[0], strings[1], strings[2]) = (GSTRINGS, FEATURES, count as u32);
        self.ask("lo", &mut strings)?;
        let bytes: Vec<u8> = strings[3..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        Ok(bytes.chunks_exact(NAME_LEN).map(text).collect())
    }

    /// Sends one ethtool command. `buffer` starts with the command and has room for its whole
    /// answer, whose size the command's own length fields state.
    fn ask(&self, device: &str, buffer: &mut [u32]) -> io::Result<()> {
        // SAFETY: an all-zero ifreq is valid: it holds integers, bytes and pointers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request
            .ifr_name
            .iter_mut()
            .zip(device.bytes().take(libc::IFNAMSIZ - 1))
        {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most what the lengths at the start of `buffer` state, and
        // the callers size it from the same numbers; it outlives the call.
        unsafe { ioctl::ethtool(self.socket.as_raw_fd(), &raw mut request) }?;
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        let features = Ethtool::open().unwrap().features("lo").unwrap();
        for name in [
            "rx-gro",
            "tx-generic-segmentation",
            "tx-tcp-segmentation",
            "rx-gro-list",
        ] {
            assert!(features.contains_key(name), "{name}: {features:?}");
        }
        assert!(Ethtool::open().unwrap().features("vpnbench-none").is_err());
    }
}
