//! A TCP transfer with the kernel's own account of it.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

/// What the kernel counted for one end of a connection (`struct tcp_info`, include/uapi/linux/tcp.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// `tcpi_bytes_sent`: bytes of data sent, with those sent again.
    pub bytes_sent: u64,
    /// `tcpi_bytes_retrans`: of these, bytes sent again.
    pub bytes_retrans: u64,
    /// `tcpi_data_segs_out`: segments with data sent.
    pub data_segs_out: u64,
}

/// Asks the kernel.
pub fn counted(stream: &TcpStream) -> io::Result<Counted> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, and zeros are a value of each field.
    let (result, info) = unsafe {
        let result = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        );
        (result, info.assume_init())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Counted {
        bytes_sent: info.tcpi_bytes_sent,
        bytes_retrans: info.tcpi_bytes_retrans,
        data_segs_out: u64::from(info.tcpi_data_segs_out),
    })
}

/// Sends `bytes` and waits until the other end has closed, which it does when it has read all.
pub fn send(mut stream: TcpStream, bytes: u64) -> io::Result<(SocketAddr, Counted)> {
    let block = vec![0x55; 128 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64) as usize;
        stream.write_all(&block[..now])?;
        left -= now as u64;
    }
    // The other end answers when it has read the last byte: all is acknowledged then.
    stream.read_exact(&mut [0])?;
    Ok((stream.local_addr()?, counted(&stream)?))
}

/// Reads `bytes`, says so, and waits until the sender closes.
pub fn receive(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let mut block = vec![0; 128 << 10];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left = left.saturating_sub(read as u64),
        }
    }
    stream.write_all(&[1])?;
    while stream.read(&mut block)? > 0 {}
    Ok(())
}
