//! TUN devices held by the test process itself.

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
}

/// Opens `queues` queues of a TUN device in a namespace. The device goes with the last of them.
pub fn open(netns: &Netns, name: &str, flags: i32, queues: usize) -> io::Result<Vec<File>> {
    let name = name.to_owned();
    netns.run(move || (0..queues).map(|_| queue(&name, flags)).collect())
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
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as i16;
    // SAFETY: TUNSETIFF reads one ifreq, which lives through the call.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}
