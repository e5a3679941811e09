//! The embedded wire's loop: reads, waits, sends on, answers for its account.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeSpec, TimeValLike};

use super::super::super::error::{LabError, Result};
use super::super::super::signals;
use super::super::truth::TruthLog;
use super::frame::Frame;
use super::port::{Pool, Port, Unit, now, open_log};
use super::{Report, Settings};

/// Nearer than this a departure is waited for without sleeping: waking up takes about as long.
const BUSY_NS: i64 = 20_000;
/// A signal that arrives just before the sleep is noticed after this.
const LONGEST_SLEEP_NS: i64 = 200_000_000;
/// Rounds of a wire that never sleeps until it looks whether somebody asks for its account.
const ROUNDS: u32 = 256;
/// How long somebody who asks may take to listen to the answer: meanwhile nothing is carried.
const PATIENCE: Duration = Duration::from_millis(100);
/// Units read from one host before the others get their turn.
const BATCH: usize = 64;

/// All hosts' ends and what is between them.
pub(super) struct Wire {
    ports: Vec<Port>,
    /// Which port a hardware address was last seen at.
    stations: HashMap<[u8; 6], usize>,
    pool: Pool,
    log: Option<TruthLog>,
    listener: UnixListener,
}

impl Wire {
    /// Creates the devices and the socket.
    pub(super) fn open(settings: &Settings) -> Result<Wire> {
        let ports = settings
            .ports
            .iter()
            .map(|port| Port::open(port, settings.unit, settings.model, settings.offload))
            .collect::<Result<Vec<Port>>>()?;
        let log = open_log(settings.truth.as_deref())?;
        let failed = || LabError::file("listening on", &settings.socket);
        // Last: once it answers, the devices are there.
        let listener = UnixListener::bind(&settings.socket).map_err(failed())?;
        listener.set_nonblocking(true).map_err(failed())?;
        Ok(Wire {
            ports,
            stations: HashMap::new(),
            pool: Pool::default(),
            log,
            listener,
        })
    }

    /// Carries packets until a signal arrives.
    pub(super) fn carry(&mut self) -> Result<()> {
        let mut rounds = 0_u32;
        while signals::received() == 0 {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(ROUNDS) {
                self.answer()?;
            }
            let mut moved = 0;
            for at in 0..self.ports.len() {
                moved += self.read(at)?;
            }
            for at in 0..self.ports.len() {
                moved += self.send_on(at)?;
            }
            if moved > 0 {
                continue;
            }
            let next = self.ports.iter().filter_map(Port::next_time).min();
            let left = next.map_or(LONGEST_SLEEP_NS, |next| next - now());
            if left > BUSY_NS {
                self.sleep(left.min(LONGEST_SLEEP_NS))?;
            }
        }
        for port in &self.ports {
            port.log_waiting(&mut self.log)?;
        }
        if let Some(log) = &mut self.log {
            log.flush()
                .map_err(LabError::failed("writing", "the wire's truth log"))?;
        }
        Ok(())
    }

    /// Reads a batch from one host. What is due leaves before the next unit is queued, so that the
    /// limit counts what waits for its time and not what waits for this loop.
    fn read(&mut self, at: usize) -> Result<usize> {
        let mut held = 0;
        while held < BATCH
            && let Some(unit) = self.ports[at].read_held()?
        {
            self.pass(at, unit)?;
            held += 1;
        }
        for count in 0..BATCH {
            let Some(frame) = self.ports[at].read(&mut self.pool)? else {
                return Ok(held + count);
            };
            self.stations.insert(frame.hardware_addresses().1, at);
            if self.ports[at].has_waited(&frame) {
                if !self.deliver(at, &frame) {
                    self.ports[at].refused(&frame);
                }
                self.pool.give_back(frame.into_buffer());
                continue;
            }
            let Some(segments) = self.ports[at].cut(&frame) else {
                self.pass(at, frame.into())?;
                continue;
            };
            self.pool.give_back(frame.into_buffer());
            for segment in segments {
                self.pass(at, segment.into())?;
            }
        }
        Ok(held + BATCH)
    }

    fn pass(&mut self, at: usize, unit: Unit) -> Result<()> {
        self.ports[at].offer(unit, &mut self.pool, &mut self.log)?;
        self.send_on(at).map(drop)
    }

    /// Sends on what is due from one host, and returns how many units that were.
    fn send_on(&mut self, from: usize) -> Result<usize> {
        let mut moved = 0;
        while let Some(waiting) = self.ports[from].take(now()) {
            let time = now();
            let delivered = match waiting.unit.held {
                // It comes out of the device next.
                Some(id) => self.ports[from].release(id, true).map(|()| true)?,
                None => self.deliver(from, &waiting.unit.frame),
            };
            self.ports[from].left(&waiting, time, delivered, &mut self.log)?;
            self.pool.give_back(waiting.unit.frame.into_buffer());
            moved += 1;
        }
        Ok(moved)
    }

    /// Writes a frame to whom it is for; false when nobody takes it.
    fn deliver(&self, from: usize, frame: &Frame) -> bool {
        match self.stations.get(&frame.hardware_addresses().0) {
            Some(&to) => to != from && self.ports[to].write(frame),
            // Broadcast, multicast or a station not heard of yet: to all others.
            None => {
                let others = self.ports.iter().enumerate().filter(|(to, _)| *to != from);
                others.fold(false, |any, (_, port)| port.write(frame) || any)
            }
        }
    }

    fn sleep(&mut self, nanos: i64) -> Result<()> {
        let ports = self.ports.iter().flat_map(Port::fds);
        let sources = ports.chain([self.listener.as_fd()]);
        let mut fds: Vec<PollFd<'_>> = sources
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, Some(TimeSpec::nanoseconds(nanos)), None) {
            Err(Errno::EINTR) => return Ok(()),
            other => other.map_err(LabError::failed("waiting for", "packets"))?,
        };
        let asked = fds.last().and_then(PollFd::any).unwrap_or(false);
        if asked {
            self.answer()?;
        }
        Ok(())
    }

    /// Tells whoever has connected what happened so far.
    fn answer(&mut self) -> Result<()> {
        if let Ok((mut asker, _)) = self.listener.accept() {
            let json = self.report_json()?;
            // Somebody who does not listen to the answer is no reason to stop.
            let answered = asker.set_write_timeout(Some(PATIENCE));
            let _gone = answered.and_then(|()| asker.write_all(&json));
        }
        Ok(())
    }

    fn report_json(&self) -> Result<Vec<u8>> {
        let report = Report {
            egress: self
                .ports
                .iter()
                .map(|port| (port.label.clone(), port.account()))
                .collect(),
            cpu_ns: cpu_ns(),
        };
        serde_json::to_vec(&report).map_err(LabError::failed("writing", "the wire's account"))
    }

    /// Leaves the account in a file, for whoever comes after the process.
    pub(super) fn leave_account(&self, settings: &Settings) -> Result<()> {
        let path = &settings.account;
        fs::write(path, self.report_json()?).map_err(LabError::file("writing", path))
    }
}

/// CPU time of this process, user and kernel.
fn cpu_ns() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let total = usage.map(|usage| usage.user_time() + usage.system_time());
    total.map_or(0, |time| time.num_microseconds().unsigned_abs() * 1000)
}
