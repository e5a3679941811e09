//! A path between two TUN devices that loses, delays and repeats packets as it is told.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    Twice,
    /// Goes behind the next packets.
    Later,
}

/// Packets that overtake one that is late.
const OVERTAKERS: usize = 5;

/// What decides: the direction (0 from the first device) and the packet as read.
pub(crate) type Decide = Box<dyn FnMut(usize, &[u8]) -> Fate + Send>;

/// A running path.
#[derive(Debug)]
pub(crate) struct Forwarder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Forwarder {
    /// Starts to forward.
    pub(crate) fn start(devices: [File; 2], mut decide: Decide) -> Result<Self> {
        for device in &devices {
            fcntl(device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut late: [Vec<(usize, Vec<u8>)>; 2] = Default::default();
            let mut buffer = vec![0; 70_000];
            while !told.load(Ordering::Acquire) {
                let mut ready = [
                    PollFd::new(devices[0].as_fd(), PollFlags::POLLIN),
                    PollFd::new(devices[1].as_fd(), PollFlags::POLLIN),
                ];
                if poll(&mut ready, PollTimeout::from(20u8))? == 0 {
                    // Nothing follows that could overtake.
                    for (direction, waiting) in late.iter_mut().enumerate() {
                        for (_, packet) in waiting.drain(..) {
                            (&devices[1 - direction]).write_all(&packet)?;
                        }
                    }
                    continue;
                }
                for direction in 0..2 {
                    let length = match (&devices[direction]).read(&mut buffer) {
                        Ok(length) => length,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                        Err(error) => bail!("read: {error}"),
                    };
                    let packet = &buffer[..length];
                    let mut out = &devices[1 - direction];
                    match decide(direction, packet) {
                        Fate::Drop => {}
                        Fate::Pass => out.write_all(packet)?,
                        Fate::Twice => {
                            out.write_all(packet)?;
                            out.write_all(packet)?;
                        }
                        Fate::Later => {
                            late[direction].push((OVERTAKERS + 1, packet.to_vec()));
                        }
                    }
                    let waiting = std::mem::take(&mut late[direction]);
                    for (left, packet) in waiting {
                        if left > 1 {
                            late[direction].push((left - 1, packet));
                        } else {
                            out.write_all(&packet)?;
                        }
                    }
                }
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it and says how it went.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(anyhow!("the path broke down")),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
