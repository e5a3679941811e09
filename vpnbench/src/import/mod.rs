//! Other people's captures: pcap and pcapng files become the events of a trace, so that the same analyses
//! and the same report serve them.
//!
//! A capture of a device is taken where the probes of a live recording are: what leaves is seen when it
//! is handed to the driver (`dev_queue_xmit_nit`, net/core/dev.c: `tun.tx`, `outer.tx`), what comes in
//! when it enters the stack (`__netif_receive_skb_core`: `tun.write`, `outer.rx`). Queues, daemons, drops and
//! sockets are not seen; the start frame says so probe by probe, and findings that need them are
//! unknown. What TCP does is concluded from packets ([`tcp`]) and marked as inferred.
//!
//! One pass in bounded memory over all files at once, in the order of time. docs/captures.md has the
//! rules.

mod beside;
mod decapsulate;
mod direction;
mod duplicates;
mod error;
mod file;
mod filter;
mod headers;
mod input;
mod link;
mod pcap;
mod pcapng;
mod places;
pub mod plan;
mod record;
mod segments;
mod stream;
mod survey;
mod tcp;
mod window;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;

use vpnbench_common::catalog::{Kind, ProbeId, Tap};
use vpnbench_common::event::packet_flags;

use crate::trace::model::{Clock, End, Environment, Start};
use crate::trace::{Code, Event, Problem, Summary};
use beside::Beside;
use direction::Near;
use duplicates::Duplicates;
pub use error::ImportError;
use file::CaptureFile;
use places::{Found, Places, Role};
pub use plan::{Place, Plan, Source};
use stream::{Item, Stream};
use survey::{carriers, survey};
use tcp::Tcp;

/// Packets of each file that are looked at before the first event is given out.
const SURVEY: usize = 4096;
/// `IPPROTO_TCP`
const TCP: u8 = 6;
/// Marks addresses of packets that are no addresses of a kernel.
const NUMBERED: u64 = 1 << 63;

/// One file of an import.
struct Input {
    stream: Stream,
    host: usize,
    place: Place,
}

/// A host of an import.
struct Host {
    near: Near,
    /// Copies among the packets of inner and of outer devices.
    duplicates: [Duplicates; 2],
    /// Packets whose checksums are left to the device.
    partial: u64,
    /// A tunnel device of it was captured.
    tunnel: bool,
}

/// Captures that are being read.
pub struct Import {
    inputs: Vec<Input>,
    hosts: Vec<Host>,
    places: Places,
    start: Start,
    beside: Beside,
    /// State of the hosts at the end.
    environment: Environment,
    tcp: Tcp,
    packets: u64,
    last_ns: u64,
}

impl Import {
    /// Opens all files and looks at their first packets: which devices there are, which way packets
    /// went, when it began.
    ///
    /// # Errors
    ///
    /// What cannot be opened, is no capture or holds no IP packet, and a filter that cannot be used.
    pub fn open(plan: &Plan) -> Result<Import, ImportError> {
        let files = plan.sources.iter().map(|source| {
            let file = CaptureFile::open(&source.path)?;
            Stream::new(file, plan.filter.as_deref())
        });
        Import::begin(plan, files.collect::<Result<_, _>>()?)
    }

    /// The same with bytes from elsewhere, one input for each source of the plan.
    ///
    /// # Errors
    ///
    /// As [`Import::open`].
    pub fn of(plan: &Plan, inputs: Vec<Box<dyn Read + Send>>) -> Result<Import, ImportError> {
        let files = plan.sources.iter().zip(inputs).map(|(source, bytes)| {
            let file = CaptureFile::of(bytes, &source.path.display().to_string())?;
            Stream::new(file, plan.filter.as_deref())
        });
        Import::begin(plan, files.collect::<Result<_, _>>()?)
    }

    /// One capture of which nothing is known, with files of other tools beside it.
    ///
    /// # Errors
    ///
    /// As [`Import::open`].
    pub fn of_unknown(
        capture: impl Read + Send + 'static,
        beside: Vec<plan::File>,
    ) -> Result<Import, ImportError> {
        let plan = Plan {
            sources: vec![Source::at(Place::Unknown, "capture".into())],
            beside,
            ..Plan::default()
        };
        Import::of(&plan, vec![Box::new(capture)])
    }

    fn begin(plan: &Plan, streams: Vec<Stream>) -> Result<Import, ImportError> {
        let mut names: Vec<String> = Vec::new();
        let mut inputs = Vec::new();
        for (source, stream) in plan.sources.iter().zip(streams) {
            let known = names.iter().position(|name| *name == source.host);
            let host = known.unwrap_or_else(|| {
                names.push(source.host.clone());
                names.len() - 1
            });
            inputs.push(Input {
                stream,
                host,
                place: source.place,
            });
        }
        let number = |host: &str| names.iter().position(|name| name == host);
        let mut beside = Beside::read(&plan.beside, |host| number(host).map(places::netns))?;
        let mut places = Places::new(names);
        let mut first_ns = u64::MAX;
        for (number, input) in inputs.iter_mut().enumerate() {
            let waiting = input.stream.ahead(SURVEY)?;
            let Some(first) = waiting.front() else {
                return Err(ImportError::Empty {
                    path: input.stream.file().name().to_owned(),
                    reason: input.stream.nothing(),
                });
            };
            first_ns = first_ns.min(first.time_ns);
            for device in input.stream.devices() {
                places.find(number, input.host, input.place, device, input.stream.file());
            }
        }
        let mut nears = survey(&mut inputs, &mut places, plan)?;
        let carriers = carriers(&inputs, &mut places, &mut nears);
        let mut start = places.start(first_ns, &nears, &carriers);
        let environment = beside.begin(&mut start);
        Ok(Import {
            inputs,
            hosts: nears
                .into_iter()
                .enumerate()
                .map(|(number, near)| Host {
                    near,
                    duplicates: Default::default(),
                    partial: 0,
                    tunnel: places.has_tunnel_device(number),
                })
                .collect(),
            places,
            start,
            beside,
            environment,
            tcp: Tcp::default(),
            packets: 0,
            last_ns: first_ns,
        })
    }

    /// Addresses that are on the hosts as far as anything shows it: for reading one host's files alone.
    #[must_use]
    pub fn local(&self) -> Vec<(String, IpAddr)> {
        let hosts = self.hosts.iter().zip(self.places.names());
        let addresses = hosts.flat_map(|(host, name)| {
            let sure = host.near.addresses();
            let assumed = host.near.assumed().map(|(_, end)| end);
            let all = sure.map(|(address, _)| address).chain(assumed);
            all.map(|address| (name.clone(), places::ip(address)))
        });
        addresses.collect()
    }

    /// What was captured where, as the first frame of a trace.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Hands out all events in the order of time.
    ///
    /// # Errors
    ///
    /// A filter that cannot be used on a link type that appears later in a file.
    pub fn for_each(mut self, mut receive: impl FnMut(Event<'_>)) -> Result<Summary, ImportError> {
        let mut events = 0;
        let mut deliver = |event: Event<'_>| {
            events += 1;
            receive(event);
        };
        self.beside
            .samples(self.start.clock.monotonic_ns, &mut deliver);
        while let Some((number, time_ns)) = self.earliest()? {
            self.last_ns = self.last_ns.max(time_ns);
            self.first(number, &mut deliver);
        }
        Ok(self.finish(events))
    }

    /// The input with the earliest packet, and when that was.
    fn earliest(&mut self) -> Result<Option<(usize, u64)>, ImportError> {
        let mut first: Option<(u64, usize)> = None;
        for (number, input) in self.inputs.iter_mut().enumerate() {
            if let Some(time) = input.stream.next_ns()?
                && first.is_none_or(|(least, _)| time < least)
            {
                first = Some((time, number));
            }
        }
        Ok(first.map(|(time, number)| (number, time)))
    }

    /// Hands out the first packet of an input.
    fn first(&mut self, number: usize, deliver: &mut impl FnMut(Event<'_>)) {
        if let Some((mut item, inner)) = self.inputs[number].stream.next() {
            self.item(number, &mut item, inner, deliver);
            self.inputs[number].stream.put_back(item);
        }
    }

    #[inline]
    fn item(
        &mut self,
        number: usize,
        item: &mut Item,
        inner: Option<Box<Item>>,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        let input = &self.inputs[number];
        let places = &mut self.places;
        let mut find = |item: &Item| {
            let file = input.stream.file();
            places.find(number, input.host, input.place, item.device, file)
        };
        let place = find(item);
        // Where the tunnel device itself was captured, that is where its packets are.
        let inner = inner.filter(|_| place.role == Role::Outer && !self.hosts[input.host].tunnel);
        let tunnel = inner.map(|inner| {
            let found = find(&inner);
            (inner, found)
        });
        let host = &mut self.hosts[input.host];
        let leaves = match input.place {
            Place::Tap(tap) => matches!(tap, Tap::TunTx | Tap::OuterTx),
            _ => host.near.leaves(item),
        };
        host.partial += u64::from(item.partial && leaves);
        let duplicates = &mut host.duplicates[usize::from(place.role == Role::Outer)];
        if item.look != 0 && duplicates.is_copy(&item.packet, item.look) {
            return;
        }
        let mut hand = Hand {
            tcp: &mut self.tcp,
            packets: &mut self.packets,
            leaves,
        };
        match tunnel {
            Some((mut inner, found)) if leaves => {
                hand.over(&mut inner, found, deliver);
                hand.over(item, place, deliver);
            }
            Some((mut inner, found)) => {
                hand.over(item, place, deliver);
                hand.over(&mut inner, found, deliver);
            }
            None => hand.over(item, place, deliver),
        }
    }

    fn finish(mut self, events: u64) -> Summary {
        let mut problems = Vec::new();
        let mut lost = BTreeMap::new();
        let mut bytes = 0;
        for input in &mut self.inputs {
            problems.extend(input.stream.problems());
            bytes += input.stream.bytes();
            let dropped = input.stream.dropped();
            if dropped > 0 {
                // At which tap is not known.
                for probe in [ProbeId::NetDevStartXmit, ProbeId::NetifReceiveSkb] {
                    *lost.entry(probe as u8).or_default() += dropped;
                }
            }
        }
        for (host, name) in self.hosts.iter().zip(self.places.names()) {
            problems.extend(host.problems(name));
        }
        problems.extend(self.tcp_problems());
        problems.extend(self.beside.problems());
        self.environment.time_ns = self.last_ns;
        let clock = Clock {
            monotonic_ns: self.last_ns,
            realtime_ns: self.last_ns,
            boottime_ns: self.last_ns,
        };
        Summary {
            end: Some(End {
                clock,
                reason: crate::trace::model::CAPTURED.to_owned(),
                command_output: self.beside.output(self.last_ns),
                environment: self.environment,
                ..End::default()
            }),
            sockets: self.beside.sockets(),
            changes: self.places.changes(self.last_ns),
            start: self.start,
            symbols: self.beside.symbols(),
            lost,
            events,
            bytes,
            problems,
            ..Summary::default()
        }
    }

    fn tcp_problems(&self) -> Vec<Problem> {
        let mut list = Vec::new();
        let sure = self.tcp.sureness;
        if sure.all > 0 {
            let message = format!(
                "causes of {} retransmissions are concluded from the packets: which acknowledgements came before, what they reported, how long the sender had waited; for {} of them ({:.0} %) timing alone decides between two causes",
                sure.all,
                sure.close,
                100.0 * sure.close as f64 / sure.all as f64
            );
            list.push(Problem::info(Code::Inferred, message));
        }
        if self.tcp.unfollowed > 0 {
            let message = format!(
                "too many TCP connections at a time: {} segments of others are counted and not followed",
                self.tcp.unfollowed
            );
            list.push(Problem::data_loss(Code::LeftOut, message));
        }
        list
    }
}

/// Hands packets of one direction over.
struct Hand<'a> {
    tcp: &'a mut Tcp,
    packets: &'a mut u64,
    leaves: bool,
}

impl Hand<'_> {
    fn over(&mut self, item: &mut Item, place: Found, deliver: &mut impl FnMut(Event<'_>)) {
        let leaves = self.leaves;
        let packet = &mut item.packet;
        *self.packets += 1;
        packet.skb = NUMBERED | *self.packets;
        (packet.netns, packet.ifindex) = (place.netns, place.ifindex);
        let (tap, probe) = match (place.role, leaves) {
            (Role::Tunnel, true) => (Tap::TunTx, ProbeId::NetDevStartXmit),
            (Role::Tunnel, false) => (Tap::TunWrite, ProbeId::NetifReceiveSkb),
            (Role::Outer, true) => (Tap::OuterTx, ProbeId::NetDevStartXmit),
            (Role::Outer, false) => (Tap::OuterRx, ProbeId::NetifReceiveSkb),
        };
        packet.tap = tap as u8;
        (packet.header.kind, packet.header.probe) = (Kind::Packet as u8, probe as u8);
        let tcp = packet.ip_proto == TCP
            && packet.flags & packet_flags::TRUNCATED == 0
            && !packet.is_later_fragment();
        if tcp && leaves {
            self.tcp.leaves(packet, &item.options, deliver);
        }
        deliver(Event::Packet(packet));
        if tcp && (!leaves || item.device.loopback) {
            self.tcp.arrives(packet, &item.options, deliver);
        }
    }
}

impl Host {
    fn problems(&self, name: &str) -> Vec<Problem> {
        let mut list = Vec::new();
        let copies: u64 = self.duplicates.iter().map(|one| one.count).sum();
        if copies > 0 {
            let message = format!(
                "{name}: {copies} packets are copies that passed another device of the host a moment before (a capture of all devices): each is counted once"
            );
            list.push(Problem::info(Code::Duplicates, message));
        }
        if self.near.unsure > 0 {
            let message = format!(
                "{name}: of {} packets nothing shows whether they left or came: the end that sent first is taken to be the near one; `--local {name}=ADDR` settles it",
                self.near.unsure
            );
            list.push(Problem::data_loss(Code::Direction, message));
        }
        if self.partial > 0 {
            let message = format!(
                "{name}: {} packets that leave have checksums that the device fills in behind the capture: they are not broken",
                self.partial
            );
            list.push(Problem::info(Code::Checksums, message));
        }
        list
    }
}
