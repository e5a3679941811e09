//! QUIC bulk download with quinn: bandwidth, time to connect, time to first byte.
//!
//! As in the study's qperf runs the server sends, and each connection has a port, a socket and a
//! thread of its own at both ends. The client asks with one stream for a duration; the server sends
//! on it for that long and then says on another one what it sent and what it had to send again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::endpoint::{self, Failure, local_port, monotonic_ns};
use super::spec::Quic;
use super::{Ready, Setup, Transport, listens};
use crate::analysis::benchmark::model::{self, Benchmark, Interval, Packets, Quantiles, Way};
use crate::lab::error::{LabError, Result};
use crate::lab::part;

/// The name in the certificate.
const NAME: &str = "vpnbench.lab";
/// Length of an interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the server's account may take after its last byte.
const ACCOUNT: Duration = Duration::from_secs(5);
/// Bytes written at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Flow control window: larger than bandwidth x delay of anything the lab builds.
const WINDOW_BYTES: u32 = 32 << 20;

/// Settings of both parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    server: SocketAddr,
    connections: u16,
    /// Milliseconds.
    duration_ms: u64,
    certificate: PathBuf,
    /// Only the server has it.
    key: Option<PathBuf>,
}

/// What a server sent on one connection.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Account {
    bytes: u64,
    packets: u64,
    lost_packets: u64,
}

/// What a client saw of one connection.
#[derive(Debug, Clone, Default)]
struct Seen {
    connect_us: Option<f64>,
    first_byte_us: Option<f64>,
    bytes: u64,
    /// Time from the first to the last byte.
    duration_s: f64,
    rtt_us: Vec<f64>,
    /// Bytes by interval since the common start.
    bins: Vec<u64>,
    port: Option<u16>,
    account: Option<Account>,
    error: Option<String>,
}

/// Makes a certificate, starts the server and waits until it has all its ports.
pub(super) fn prepare(spec: &Quic, setup: Setup<'_>) -> Result<Ready> {
    let (certificate, key) = certify(setup.undo.directory())?;
    let connections = u16::try_from(spec.connections).unwrap_or(u16::MAX);
    let client = Settings {
        server: SocketAddr::new(setup.server_address(), spec.port),
        connections,
        duration_ms: u64::try_from(spec.duration.0.as_millis()).unwrap_or(u64::MAX),
        certificate,
        key: None,
    };
    let server = Settings {
        key: Some(key),
        ..client.clone()
    };
    let log = setup.logs.join("quic-server.log");
    let netns = &setup.hosts.b.netns;
    let process = part::start(setup.undo, "quic-server", &server, netns, log)?;
    for number in 0..connections {
        listens(&process, Transport::Udp, spec.port + number)?;
    }
    Ok(Ready::of(
        vec![process],
        endpoint::command("quic-client", &client)?,
    ))
}

/// A certificate for this run, in its directory.
fn certify(directory: &Path) -> Result<(PathBuf, PathBuf)> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
        .map_err(LabError::failed("making a certificate for", NAME))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).map_err(LabError::file("writing", &path))?;
        Ok(path)
    };
    Ok((
        write("quic-certificate.der", made.cert.der())?,
        write("quic-key.der", &made.signing_key.serialize_der())?,
    ))
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .send_window(WINDOW_BYTES.into())
        .keep_alive_interval(Some(Duration::from_secs(2)));
    Arc::new(transport)
}

fn read(path: &Path) -> std::result::Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(Failure::of(format!("reading {}", path.display())))
}

/// Runs one thread with a runtime for each connection and returns what they return.
fn on_threads<T: Send>(
    count: u16,
    work: impl Fn(u16) -> std::result::Result<T, Failure> + Sync,
) -> Vec<std::result::Result<T, Failure>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            let panicked = |_| Err(Failure::of("a connection's thread")("it panicked"));
            thread.join().unwrap_or_else(panicked)
        });
        joined.collect()
    })
}

fn block_on<T>(
    work: impl Future<Output = std::result::Result<T, Failure>>,
) -> std::result::Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::of("starting a runtime"))?
        .block_on(work)
}

/// The part `quic-server`.
pub(in crate::lab) fn serve(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("quic-server", settings)?;
    let served = on_threads(settings.connections, |number| {
        block_on(serve_port(&settings, number))
    });
    let failed = served.into_iter().find_map(std::result::Result::err);
    match failed {
        Some(failure) => Err(LabError::failed("running", "quic-server")(failure)),
        None => Ok(()),
    }
}

async fn serve_port(settings: &Settings, number: u16) -> std::result::Result<(), Failure> {
    let certificate = CertificateDer::from(read(&settings.certificate)?);
    let key = settings.key.as_deref().unwrap_or(Path::new("quic-key.der"));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(read(key)?));
    let mut config = ServerConfig::with_single_cert(vec![certificate], key)
        .map_err(Failure::of("using the certificate"))?;
    config.transport_config(transport());
    let address = SocketAddr::new(settings.server.ip(), settings.server.port() + number);
    let endpoint =
        Endpoint::server(config, address).map_err(Failure::of(format!("binding UDP {address}")))?;
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = endpoint::terminated() => return Ok(()),
        };
        let Some(incoming) = incoming else {
            return Ok(());
        };
        if let Ok(connection) = incoming.await {
            tokio::spawn(async move {
                // A connection that breaks is its client's to report.
                let _served = send(connection).await;
            });
        }
    }
}

/// Sends for as long as the client asked, then the account.
async fn send(connection: Connection) -> std::result::Result<(), Failure> {
    let (mut out, mut request) = connection
        .accept_bi()
        .await
        .map_err(Failure::of("waiting for the request"))?;
    let mut asked = [0; 8];
    request
        .read_exact(&mut asked)
        .await
        .map_err(Failure::of("reading the request"))?;
    let deadline = Instant::now() + Duration::from_millis(u64::from_le_bytes(asked));
    let chunk = vec![0x5a; CHUNK_BYTES];
    let mut bytes = 0;
    while Instant::now() < deadline && !endpoint::is_terminated() {
        out.write_all(&chunk)
            .await
            .map_err(Failure::of("sending"))?;
        bytes += chunk.len() as u64;
    }
    out.finish().map_err(Failure::of("ending the stream"))?;
    // Only when all has been acknowledged are losses known.
    let _stopped = out.stopped().await;
    let path = connection.stats().path;
    let account = Account {
        bytes,
        packets: path.sent_packets,
        lost_packets: path.lost_packets,
    };
    let json = serde_json::to_vec(&account).map_err(Failure::of("writing the account"))?;
    let mut last = connection
        .open_uni()
        .await
        .map_err(Failure::of("opening the account's stream"))?;
    last.write_all(&json)
        .await
        .map_err(Failure::of("sending the account"))?;
    last.finish().map_err(Failure::of("ending the account"))?;
    let _read = last.stopped().await;
    Ok(())
}

/// The part `quic-client`.
pub(in crate::lab) fn receive(settings: &str) -> Result<()> {
    let settings: Settings = part::settings("quic-client", settings)?;
    let started_ns = monotonic_ns();
    let begun = Instant::now();
    let seen = on_threads(settings.connections, |number| {
        Ok(block_on(download(&settings, number, begun)))
    });
    let seen = seen.into_iter().map(|one| {
        one.and_then(|inner| inner).unwrap_or_else(|failure| Seen {
            error: Some(failure.to_string()),
            ..Seen::default()
        })
    });
    let result = result(&settings, &seen.collect::<Vec<_>>(), started_ns);
    let failed = result.throughput_bps_received.is_none();
    endpoint::emit(&result).map_err(LabError::failed("running", "quic-client"))?;
    match result.error.filter(|_| failed) {
        Some(error) => Err(LabError::failed("running", "quic-client")(error)),
        None => Ok(()),
    }
}

fn client_config(settings: &Settings) -> std::result::Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(read(&settings.certificate)?))
        .map_err(Failure::of("using the certificate"))?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))
        .map_err(Failure::of("using the certificate"))?;
    config.transport_config(transport());
    Ok(config)
}

async fn download(
    settings: &Settings,
    number: u16,
    begun: Instant,
) -> std::result::Result<Seen, Failure> {
    let any = match settings.server.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut endpoint =
        Endpoint::client(SocketAddr::new(any, 0)).map_err(Failure::of("binding a UDP port"))?;
    endpoint.set_default_client_config(client_config(settings)?);
    let address = SocketAddr::new(settings.server.ip(), settings.server.port() + number);
    let mut seen = Seen {
        port: local_port(endpoint.local_addr()),
        ..Seen::default()
    };
    let dialled = Instant::now();
    let connection = endpoint
        .connect(address, NAME)
        .map_err(Failure::of(format!("connecting to {address}")))?
        .await
        .map_err(Failure::of(format!("connecting to {address}")))?;
    seen.connect_us = Some(dialled.elapsed().as_secs_f64() * 1e6);
    let (mut request, mut stream) = connection
        .open_bi()
        .await
        .map_err(Failure::of("opening a stream"))?;
    request
        .write_all(&settings.duration_ms.to_le_bytes())
        .await
        .map_err(Failure::of("sending the request"))?;
    let asked = Instant::now();
    let mut first = None;
    loop {
        let chunk = tokio::select! {
            chunk = stream.read_chunk(CHUNK_BYTES, true) => chunk,
            () = endpoint::terminated() => break,
        };
        match chunk {
            Ok(Some(chunk)) => {
                let first = *first.get_or_insert_with(Instant::now);
                seen.first_byte_us
                    .get_or_insert((first - asked).as_secs_f64() * 1e6);
                seen.take(chunk.bytes.len() as u64, begun, first, &connection);
            }
            Ok(None) => break,
            Err(error) => {
                seen.error = Some(format!("receiving: {error}"));
                return Ok(seen);
            }
        }
    }
    seen.account = account(&connection).await;
    connection.close(VarInt::from_u32(0), b"done");
    endpoint.wait_idle().await;
    Ok(seen)
}

async fn account(connection: &Connection) -> Option<Account> {
    let read = async {
        let mut stream = connection.accept_uni().await.ok()?;
        let json = stream.read_to_end(4096).await.ok()?;
        serde_json::from_slice(&json).ok()
    };
    tokio::time::timeout(ACCOUNT, read).await.ok().flatten()
}

impl Seen {
    fn take(&mut self, bytes: u64, begun: Instant, first: Instant, connection: &Connection) {
        self.bytes += bytes;
        self.duration_s = first.elapsed().as_secs_f64();
        let bin = (begun.elapsed().as_secs_f64() / INTERVAL.as_secs_f64()) as usize;
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, 0);
            self.rtt_us.push(connection.rtt().as_secs_f64() * 1e6);
        }
        self.bins[bin] += bytes;
    }
}

fn result(settings: &Settings, seen: &[Seen], started_ns: u64) -> Benchmark {
    let bytes: u64 = seen.iter().map(|one| one.bytes).sum();
    let rate = |one: &Seen| match one.duration_s > 0.0 {
        true => 8.0 * one.bytes as f64 / one.duration_s,
        false => 0.0,
    };
    let accounts: Vec<Account> = seen.iter().filter_map(|one| one.account).collect();
    // Without every server's account the sums would be too small.
    let all = |figure: fn(&Account) -> u64| {
        (accounts.len() == seen.len()).then(|| accounts.iter().map(figure).sum::<u64>())
    };
    let (sent, lost) = (all(|one| one.packets), all(|one| one.lost_packets));
    let longest = seen.iter().map(|one| one.duration_s).fold(0.0, f64::max);
    let ports = seen.iter().enumerate();
    let connections = ports.filter_map(|(number, one)| {
        Some(model::Connection {
            local_port: one.port?,
            remote_port: settings.server.port() + number as u16,
            protocol: "udp".to_owned(),
        })
    });
    Benchmark {
        kind: "quic".to_owned(),
        started_ns: Some(started_ns),
        throughput_bps_received: (bytes > 0).then(|| seen.iter().map(rate).sum()),
        bytes_received: Some(bytes),
        bytes_sent: all(|one| one.bytes),
        duration_s: (longest > 0.0).then_some(longest),
        streams: Some(settings.connections.into()),
        complete: seen
            .iter()
            .all(|one| one.error.is_none() && one.account.is_some()),
        error: seen.iter().find_map(|one| one.error.clone()),
        connections: connections.collect(),
        loss_ratio: lost
            .zip(sent.filter(|sent| *sent > 0))
            .map(|(lost, sent)| lost as f64 / sent as f64),
        packets: sent.map(|sent| Packets {
            sent: Some(sent),
            lost,
            ..Packets::default()
        }),
        rtt_us: Quantiles::of(seen.iter().flat_map(|one| one.rtt_us.clone()).collect()),
        connect_us: Quantiles::of(seen.iter().filter_map(|one| one.connect_us).collect()),
        first_byte_us: Quantiles::of(seen.iter().filter_map(|one| one.first_byte_us).collect()),
        intervals: intervals(seen),
        ..endpoint::own()
    }
}

/// All connections' bytes by interval. The last one is cut short by the end, so it is left out.
fn intervals(seen: &[Seen]) -> Vec<Interval> {
    let count = seen.iter().map(|one| one.bins.len()).max().unwrap_or(0);
    let length = INTERVAL.as_secs_f64();
    let interval = |index: usize| {
        let bytes = seen.iter().filter_map(|one| one.bins.get(index));
        Interval {
            start_s: index as f64 * length,
            end_s: (index + 1) as f64 * length,
            throughput_bps: Some(8.0 * bytes.sum::<u64>() as f64 / length),
            way: Way::Received,
            ..Interval::default()
        }
    };
    (0..count.saturating_sub(1)).map(interval).collect()
}
