//! TUN and TAP devices held by the test process itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use vpnbench::probe::netns::Netns;

mod ioctl {
    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        tun_set_offload,
        nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>())
    );
}

/// Opens `queues` queues of a TUN device in a namespace. The device goes with the last of them.
pub fn open(netns: &Netns, name: &str, flags: i32, queues: usize) -> io::Result<Vec<File>> {
    let (name, flags) = (name.to_owned(), libc::IFF_TUN | flags);
    netns.run(move || (0..queues).map(|_| queue(&name, flags)).collect())
}

/// Opens a TAP device in a namespace.
pub fn open_tap(netns: &Netns, name: &str) -> io::Result<File> {
    let name = name.to_owned();
    netns.run(move || queue(&name, libc::IFF_TAP))
}

/// Says which super-packets the reader of a device with `IFF_VNET_HDR` takes (`TUN_F_*`).
pub fn offload(device: &File, features: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer and follows no pointer.
    unsafe { ioctl::tun_set_offload(device.as_raw_fd(), features as libc::c_int) }?;
    Ok(())
}

fn queue(name: &str, flags: i32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is valid: it holds integers, bytes and pointers nobody follows.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes().take(libc::IFNAMSIZ - 1))
    {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_NO_PI | flags) as i16;
    // SAFETY: TUNSETIFF reads one ifreq, which lives through the call.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}
